"""`apiary prove`: the chain behind one row of a statement, link by link, each looked at and computed again.

row → booked lines → turns → the bytes of the batch in the store → the price and who approved it. Nothing is asked of
anybody but the warehouse's file, the statements and the store.
Does not belong here: checking files against their manifests (verify.py).
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipelines.billing.exports import COSTS
from pipelines.billing.statements import Shelf
from pipelines.contract.numbers import plain
from pipelines.errors import UsageError
from pipelines.store import Store

MILLIONTH = Decimal("0.000001")
NINE_PLACES = Decimal("1E-9")
Row = dict[str, Any]


@dataclass
class Proof:
    """The links that were looked at: what each says, and whether it holds."""

    links: list[tuple[str, bool]] = field(default_factory=list)

    def add(self, text: str, *, holds: bool = True) -> None:
        """One more link."""
        self.links.append((text, holds))

    @property
    def is_whole(self) -> bool:
        """Whether every link holds."""
        return all(holds for _, holds in self.links)

    @property
    def lines(self) -> list[str]:
        """The proof as text."""
        verdict = "proved: every link holds" if self.is_whole else "NOT proved: see BROKEN above"
        return [f"{'  ok    ' if holds else '  BROKEN'} {text}" for text, holds in self.links] + [verdict]

    @property
    def told(self) -> dict[str, Any]:
        """The proof for machines."""
        return {"is_whole": self.is_whole, "links": [{"link": text, "holds": holds} for text, holds in self.links]}


def prove(connection: duckdb.DuckDBPyConnection, row_key: str, exports: Path, store: Store) -> Proof:
    """Prove one row of the cost export. Raises UsageError if there is no such row, StoreUnavailableError."""
    found = _query(connection, 'SELECT * FROM marts.export_focus_daily WHERE "x_RowKey" = ?', [row_key])
    if not found:
        raise UsageError(
            f"no row has the key {row_key!r}: take x_RowKey of a statement (rounding rows prove themselves)"
        )
    (row,) = found
    proof = Proof()
    proof.add(
        f"row {row_key}: {row['ChargeDescription']}, {row['ChargePeriodStart']:%Y-%m-%d}, "
        f"{plain(row['BilledCost'])} {row['BillingCurrency']}"
    )
    _prove_statement(proof, row, exports)
    lines = _query(
        connection, "SELECT * FROM intermediate.int_billing__booked_lines WHERE row_key = ? ORDER BY line_id", [row_key]
    )
    _prove_sum(proof, row, lines)
    for line in lines:
        _prove_line(proof, connection, line)
        _prove_turn(proof, connection, line, store)
    for price_id, contract_rate_id in sorted(
        {(item["price_id"] or "", item["contract_rate_id"] or "") for item in lines}
    ):
        _prove_price(proof, connection, price_id, contract_rate_id, lines)
    return proof


def _prove_statement(proof: Proof, row: Row, exports: Path) -> None:
    """The newest statement of the row's day holds it as it stands."""
    folder = exports / "daily" / f"billing_period={row['BillingPeriodStart']:%Y-%m}"
    version = Shelf.open(exports).last(folder / f"usage_date={row['ChargePeriodStart']:%Y-%m-%d}")
    if version is None:
        proof.add("statement: none was written for its day yet")
        return
    path = version.folder / f"{COSTS}.parquet"
    data = path.read_bytes()
    stored = [r for r in pq.read_table(io.BytesIO(data)).to_pylist() if r["x_RowKey"] == row["x_RowKey"]]
    holds = hashlib.sha256(data).hexdigest() == version.sha256_of(path.name) and len(stored) == 1
    holds = holds and stored[0]["BilledCost"] == row["BilledCost"]
    proof.add(f"statement: {path}, manifest {version.manifest_sha256[:12]}", holds=holds)


def _prove_sum(proof: Proof, row: Row, lines: list[Row]) -> None:
    with localcontext(prec=60):
        for column, measure in (
            ("BilledCost", "billed_cost"),
            ("ListCost", "list_cost"),
            ("PricingQuantity", "pricing_quantity"),
        ):
            if row[column] is None:
                continue  # a charge that counts nothing
            total = sum((line[measure] for line in lines), Decimal(0))
            proof.add(f"{column} is the sum of {len(lines)} lines: {plain(total)}", holds=total == row[column])


def _prove_line(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row) -> None:
    """Quantity times price, worked out here again."""
    if line["charge_category"] != "Usage":
        _prove_charge(proof, connection, line)
        return
    with localcontext(prec=60):
        millions = line["consumed_quantity"] * MILLIONTH
        holds = line["list_cost"] == millions * line["list_unit_price"]
        holds = holds and line["contracted_cost"] == millions * line["contracted_unit_price"]
        holds = holds and line["billed_cost"] in (line["contracted_cost"], Decimal(0))
    kind = f"{line['line_kind']}, {'pending' if line['seal_seq'] is None else 'sealed'}"
    proof.add(
        f"line {line['line_id']} ({kind}): {plain(line['consumed_quantity'])} {line['component']}"
        f" tokens at {plain(line['contracted_unit_price'])} per million = {plain(line['contracted_cost'])}",
        holds=holds,
    )


def _prove_charge(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row) -> None:
    """A charge comes to what all its bookings come to, in whatever periods; who signed what it is counted by."""
    key = [line["tenant_id"], line["line_id"]]
    lines = "SELECT billed_cost FROM intermediate.int_billing__booked_lines WHERE tenant_id = ? AND line_id = ?"
    charges = "SELECT amount FROM marts.fct_charges WHERE tenant_id = ? AND charge_id = ?"
    with localcontext(prec=60):
        booked = sum((found["billed_cost"] for found in _query(connection, lines, key)), Decimal(0))
        amount = sum((found["amount"] for found in _query(connection, charges, key)), Decimal(0))
    said = f"charge {line['line_id']} of {line['charge_start_date']:%Y-%m}, {line['description']}"
    proof.add(f"{said}: {plain(amount)}, and so are its bookings together", holds=booked == amount)
    if line["charge_category"] == "Credit":
        signed = "SELECT * FROM billing.credit_grants WHERE billing_account_id = ? ORDER BY granted_on"
        grants = _query(connection, signed, [line["billing_account_id"]])
        for grant in grants:
            by = f"by {grant['granted_by']} on {grant['granted_on']}: {grant['reason']}"
            proof.add(f"credit of {plain(grant['amount'])} granted {by}")
        proof.add(f"{len(grants)} grants of credit", holds=bool(grants))
        return
    signed = "SELECT * FROM billing.plan_items WHERE plan_item_id = ?"
    items = _query(connection, signed, [line["contract_rate_id"]])
    proof.add(f"plan item {line['contract_rate_id']} is in the book", holds=len(items) == 1)
    for item in items:
        proof.add(f"it is {item['item']}, {item['pricing']}, from {item['valid_from']}: {item['note'] or 'no note'}")


def _prove_turn(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row, store: Store) -> None:
    """The turn has these tokens, and the object that brought it lies in the store as it was sealed."""
    if line["record_id"] is None:
        return
    key = [line["tenant_id"], line["record_id"]]
    turns = _query(connection, "SELECT * FROM marts.fct_llm_turns WHERE tenant_id = ? AND turn_id = ?", key)
    if not turns:
        is_gone = line["line_kind"] == "reversal" or line["cause"] is not None
        proof.add(f"turn {line['record_id']}: not counted any more", holds=is_gone)
        return
    (turn,) = turns
    tokens = _tokens(turn)[line["component"]]
    counted = abs(line["consumed_quantity"]) == tokens or line["line_kind"] == "reversal"
    proof.add(f"turn {turn['turn_id']} at {turn['occurred_at']:%Y-%m-%d %H:%M:%S}: {tokens} tokens", holds=counted)
    for table, query in (
        ("llm_turns", "SELECT * FROM wire.llm_turns WHERE tenant_id = ? AND record_id = ?"),
        ("node_steps", "SELECT * FROM wire.node_steps WHERE tenant_id = ? AND record_id = ?"),
    ):
        for source in _query(connection, query, key):
            _prove_object(proof, connection, source, table, store)


def _prove_object(
    proof: Proof, connection: duckdb.DuckDBPyConnection, source: Mapping[str, Any], table: str, store: Store
) -> None:
    objects = _query(
        connection,
        "SELECT object_key, sha256 FROM wire.batch_objects WHERE manifest_key = ? AND table_name = ?",
        [source["_manifest_key"], table],
    )
    proof.add(f"batch {source['_manifest_key']}: {len(objects)} objects of {table}", holds=bool(objects))
    for item in objects:
        try:
            data = store.get(item["object_key"])
        except KeyError:
            proof.add(f"object {item['object_key']} is not in the store", holds=False)
            continue
        digest = hashlib.sha256(data).hexdigest()
        proof.add(f"object {item['object_key']}: sha256 {digest[:16]}, read again", holds=digest == item["sha256"])
        if digest == item["sha256"]:
            rows = [r for r in pq.read_table(io.BytesIO(data)).to_pylist() if r["record_id"] == source["record_id"]]
            names = ("input_tokens", "output_tokens")
            same = len(rows) == 1 and all(rows[0][name] == source[name] for name in names)
            proof.add(f"record {source['record_id']} is in it, with the same tokens", holds=same)


def _prove_price(
    proof: Proof, connection: duckdb.DuckDBPyConnection, price_id: str, contract_rate_id: str, lines: list[Row]
) -> None:
    prices = _query(connection, "SELECT * FROM billing.price_book WHERE price_id = ?", [price_id])
    for price in prices:
        decisions = _query(
            connection,
            "SELECT * FROM billing.price_decisions WHERE sheet_id = ? ORDER BY decided_at DESC LIMIT 1",
            [price["sheet_id"]],
        )
        said = f"price {price_id}: {plain(price['unit_price'])} {price['currency']} from {price['valid_from']:%Y-%m-%d}"
        proof.add(f"{said}, {price['source']} {price['source_version']} (sha256 {price['source_sha256'][:16]})")
        for decision in decisions:
            signed = f"{decision['decision']} by {decision['decided_by']} at {decision['decided_at']:%Y-%m-%d %H:%M}"
            proof.add(f"decision: {signed}: {decision['reason']}", holds=decision["decision"] == "approve")
        if not decisions:
            proof.add(f"decision: nobody approved sheet {price['sheet_id']}", holds=False)
        for line in lines:
            if line["currency"] == price["currency"]:
                proof.add(
                    f"line {line['line_id']} has that list price", holds=line["list_unit_price"] == price["unit_price"]
                )
    if price_id and not prices:
        proof.add(f"price {price_id} is not in the book", holds=False)
    for rate in _query(
        connection, "SELECT * FROM billing.contract_rates WHERE contract_rate_id = ?", [contract_rate_id]
    ):
        proof.add(f"agreed rate {contract_rate_id} from {rate['valid_from']}: {rate['note'] or 'no note'}")
        for line in lines:
            expected = rate["unit_price"]
            if expected is None:
                expected = (line["list_unit_price"] * rate["factor"]).quantize(NINE_PLACES, ROUND_HALF_UP)
            proof.add(f"line {line['line_id']} has that rate", holds=line["contracted_unit_price"] == expected)


def _tokens(turn: Mapping[str, Any]) -> dict[str, int]:
    """The turn's tokens by component: they partition the input."""
    read, written = turn["cache_read_input_tokens"], turn["cache_write_input_tokens"]
    return {
        "input_uncached": turn["input_tokens"] - read - written, "cache_read": read, "output": turn["output_tokens"],
        "cache_write_unknown": written, "cache_write_5m": written, "cache_write_1h": written,
    }  # fmt: skip


def _query(connection: duckdb.DuckDBPyConnection, sql: str, values: list[object]) -> list[Row]:
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description or []]
    return list(_named(names, cursor.fetchall()))


def _named(names: list[str], rows: list[tuple[Any, ...]]) -> Iterator[Row]:
    for row in rows:
        yield dict(zip(names, row, strict=True))
