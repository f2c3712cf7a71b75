"""`apiary prove`: the chain behind one row of a statement, link by link, each looked at and computed again.

row → booked lines → turns → the bytes of the batch in the store → the price and who approved it. Nothing is asked of
anybody but the warehouse's file, the statements and the store.
Does not belong here: checking files against their manifests (verify.py).
"""

import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipelines.billing import periods
from pipelines.billing.books import NO_MINOR_UNIT
from pipelines.billing.exports import COSTS
from pipelines.billing.periods import Book
from pipelines.billing.statements import StatementStore, Version
from pipelines.contract.numbers import plain, pluralize
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


def prove(
    connection: duckdb.DuckDBPyConnection, row_key: str, exports: Path, store: Store, book: Book | None = None
) -> Proof:
    """Prove one row of a statement. `book`: the book of periods, which says when a sealed line was billed.

    Raises UsageError if there is no such row, StoreUnavailableError.
    """
    found = _query(connection, 'SELECT * FROM marts.export_focus_daily WHERE "x_RowKey" = ?', [row_key])
    if not found:
        return _prove_rounding(row_key, exports)
    (row,) = found
    proof = Proof()
    proof.add(
        f"row {row_key}: {row['ChargeDescription']}, {row['ChargePeriodStart']:%Y-%m-%d}, "
        f"{plain(row['BilledCost'])} {row['BillingCurrency']}"
    )
    _prove_statement(proof, row, exports)
    lines = _query(
        connection, "SELECT * FROM statements.int_billing__booked_lines WHERE row_key = ? ORDER BY line_id", [row_key]
    )
    _prove_sum(proof, row, lines)
    sealed = [item for item in book.transitions if item.seal] if book else []
    billed_at = {number: item.as_of for number, item in enumerate(sealed, 1)}
    for line in lines:
        at = billed_at.get(line["seal_seq"])
        if line["line_kind"] == "reversal":
            _prove_reversal(proof, connection, line)
        elif line["charge_category"] != "Usage":
            _prove_charge(proof, connection, line, at)
        elif line["settlement_id"] is not None:
            _prove_write_off(proof, connection, line)
        else:
            _prove_usage(proof, connection, line, at)
        _prove_turn(proof, connection, line, store)
    return proof


def _prove_statement(proof: Proof, row: Row, exports: Path) -> None:
    """The newest statement of the row's day holds it as it stands."""
    folder = exports / "daily" / f"billing_period={row['BillingPeriodStart']:%Y-%m}"
    version = StatementStore.open(exports).last(folder / f"usage_date={row['ChargePeriodStart']:%Y-%m-%d}")
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
            if row[column] is None or (column == "PricingQuantity" and row["ChargeCategory"] == "Purchase"):
                continue  # a charge that counts nothing, or one unit at what it costs
            total = sum((line[measure] for line in lines), Decimal(0))
            proof.add(
                f"{column} is the sum of {pluralize(len(lines), 'line')}: {plain(total)}", holds=total == row[column]
            )


def _prove_rounding(row_key: str, exports: Path) -> Proof:
    """A rounding row stands in a monthly statement only: the invoice is rounded once, worked out here again."""
    for folder, version in StatementStore.open(exports).newest.items():
        path = version.folder / "focus_invoice_detail.parquet"
        if "monthly" not in folder.parts or not path.exists():
            continue
        rows = pq.read_table(version.folder / f"{COSTS}.parquet", partitioning=None).to_pylist()
        for row in rows:
            if row["x_RowKey"] == row_key and row["x_ReasonCode"] == "rounding":
                return _prove_share(row, rows, path, version)
    raise UsageError(f"no row has the key {row_key!r}: take x_RowKey of a statement")


def _prove_share(row: Row, rows: list[Row], path: Path, version: Version) -> Proof:
    proof = Proof()
    proof.add(f"row {row['x_RowKey']}: share of the rounding of {row['InvoiceId']}, {plain(row['BilledCost'])}")
    data = path.read_bytes()
    holds = hashlib.sha256(data).hexdigest() == version.sha256_of(path.name)
    proof.add(f"statement: {path}, manifest {version.manifest_sha256[:12]}", holds=holds)
    unit = Decimal(1) if row["BillingCurrency"] in NO_MINOR_UNIT else Decimal("0.01")
    with localcontext(prec=60):
        exact: dict[str, Decimal] = {}
        for item in rows:
            if item["InvoiceId"] == row["InvoiceId"] and item["x_ReasonCode"] != "rounding":
                detail = item["InvoiceDetailId"]
                exact[detail] = exact.get(detail, Decimal(0)) + item["BilledCost"]
        total = sum(exact.values(), Decimal(0))
        payable = (total / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit
        proof.add(
            f"the sum of {pluralize(len(exact), 'line')} of the invoice is {plain(total)};"
            f" payable, rounded once: {plain(payable)}"
        )
        if version.manifest.get("rounding") == "per_invoice":
            shares = spread(exact, unit)
        else:
            shares = {k: (v / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit for k, v in exact.items()}
        detail = row["InvoiceDetailId"]
        delta = shares[detail] - exact[detail]
        proof.add(
            f"line {detail}: exact {plain(exact[detail])}, billed {plain(shares[detail])}, difference {plain(delta)}",
            holds=delta == row["BilledCost"],
        )
    return proof


def spread(exact: Mapping[str, Decimal], unit: Decimal) -> dict[str, Decimal]:
    """Payable amounts of an invoice's lines: its sum rounded once, spread by largest remainder."""
    with localcontext(prec=60):
        whole = {name: (amount / unit).to_integral_value(ROUND_FLOOR) for name, amount in exact.items()}
        spare = (sum(exact.values(), Decimal(0)) / unit).quantize(Decimal(1), ROUND_HALF_UP) - sum(whole.values())
        order = sorted(exact, key=lambda name: (whole[name] - exact[name] / unit, name))
        lucky = set(order[: int(spare)])
        return {name: (whole[name] + (name in lucky)) * unit for name in exact}


def _prove_usage(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row, at: datetime | None) -> None:
    """Quantity times price, the exchange and the agreement, each worked out here again."""
    kind = f"{line['line_kind']}, {'pending' if line['seal_seq'] is None else 'sealed'}"
    if line["contracted_unit_price"] is None:
        said = f"line {line['line_id']} ({kind}): {plain(line['consumed_quantity'])} {line['component']} tokens"
        proof.add(f"{said} that a plan pays for; nobody lists a price", holds=line["billed_cost"] == 0)
        return
    with localcontext(prec=60):
        millions = line["consumed_quantity"] * MILLIONTH
        holds = line["list_cost"] == millions * line["list_unit_price"]
        holds = holds and line["contracted_cost"] == millions * line["contracted_unit_price"]
        holds = holds and line["billed_cost"] in (line["contracted_cost"], Decimal(0))
    proof.add(
        f"line {line['line_id']} ({kind}): {plain(line['consumed_quantity'])} {line['component']}"
        f" tokens at {plain(line['contracted_unit_price'])} per million = {plain(line['contracted_cost'])}",
        holds=holds,
    )
    if line["model_basis"] in ("session", "default"):
        _prove_model(proof, connection, line, at)
    _prove_price(proof, connection, line, at)


def _prove_model(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row, at: datetime | None) -> None:
    """Who declared as what usage is rated whose source names no model, and that the session used it."""
    stated = _query(
        connection,
        "SELECT * FROM billing.model_policies WHERE (tenant_id IS NULL OR tenant_id = ?) AND valid_from <= ?"
        " AND (valid_to IS NULL OR valid_to > ?) AND (CAST(? AS TIMESTAMPTZ) IS NULL OR recorded_at <= ?)"
        " ORDER BY tenant_id IS NULL, recorded_at DESC LIMIT 1",
        [line["tenant_id"], line["charge_start_date"], line["charge_start_date"], at, at],
    )
    if not stated:
        proof.add(f"nobody had declared that usage without a model is rated as {line['model']}", holds=False)
        return
    (policy,) = stated
    said = f"model: {line['model']} by rule {policy['rule']} of {policy['recorded_by']}"
    if line["model_basis"] == "default":
        holds = policy["rule"] != "unknown" and policy["default_model"] == line["model"]
        proof.add(f"{said}, approved by {policy['approved_by']}", holds=holds)
        return
    used = _query(
        connection,
        "SELECT 1 FROM marts.fct_llm_turns WHERE tenant_id = ? AND session_id = ? AND model = ? LIMIT 1",
        [line["tenant_id"], line["session_id"], line["model"]],
    )
    holds = policy["rule"] == "session" and bool(used)
    proof.add(f"{said}, approved by {policy['approved_by']}: its session used it", holds=holds)


def _prove_reversal(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row) -> None:
    """A reversal is a line that was billed before, with other signs."""
    before = _query(
        connection,
        "SELECT * FROM statements.int_billing__booked_lines WHERE tenant_id = ? AND line_id = ?"
        " AND billing_account_id = ? AND line_kind <> 'reversal' AND seal_seq IS NOT NULL"
        " AND (CAST(? AS BIGINT) IS NULL OR seal_seq < ?) ORDER BY seal_seq DESC LIMIT 1",
        [line["tenant_id"], line["line_id"], line["billing_account_id"], line["seal_seq"], line["seal_seq"]],
    )
    measures = ("billed_cost", "list_cost", "contracted_cost", "pricing_quantity", "consumed_quantity")
    holds = len(before) == 1 and all(
        line[name] == (None if before[0][name] is None else -before[0][name]) for name in measures
    )
    original = f"{line['original_period']:%Y-%m}" if line["original_period"] else "-"
    proof.add(
        f"line {line['line_id']} takes back what {original} billed ({line['cause']}): {plain(line['billed_cost'])}",
        holds=holds,
    )


def _prove_write_off(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row) -> None:
    """Who let usage without a price go."""
    found = _query(connection, "SELECT * FROM billing.settlements WHERE settlement_id = ?", [line["settlement_id"]])
    holds = len(found) == 1 and found[0]["kind"] == "write_off" and line["billed_cost"] == 0
    said = f"by {found[0]['recorded_by']}: {found[0]['reason']}" if found else "by nobody in the book"
    quantity = plain(line["consumed_quantity"])
    proof.add(f"line {line['line_id']}: {quantity} tokens of {line['model']} written off {said}", holds=holds)


def _prove_charge(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row, at: datetime | None) -> None:
    """A charge comes to what all its bookings come to, and to what its plan says, worked out here again."""
    key = [line["tenant_id"], line["line_id"], line["billing_account_id"]]
    lines = (
        "SELECT billed_cost FROM statements.int_billing__booked_lines"
        " WHERE tenant_id = ? AND line_id = ? AND billing_account_id = ?"
    )
    charges = _query(
        connection,
        "SELECT * FROM marts.fct_charges WHERE tenant_id = ? AND charge_id = ? AND billing_account_id = ?",
        key,
    )
    with localcontext(prec=60):
        booked = sum((found["billed_cost"] for found in _query(connection, lines, key)), Decimal(0))
        amount = sum((found["amount"] for found in charges), Decimal(0))
    said = f"charge {line['line_id']} of {line['charge_start_date']:%Y-%m}, {line['description']}"
    proof.add(f"{said}: {plain(amount)}, and so are its bookings together", holds=booked == amount)
    for charge in charges:  # bookings follow the charge: only the books can tell that it was changed
        _prove_amount(proof, connection, charge)
    if line["charge_category"] == "Credit":
        _prove_credit(proof, connection, line)
    else:
        _prove_plan(proof, connection, line, at)


def _prove_amount(proof: Proof, connection: duckdb.DuckDBPyConnection, charge: Row) -> None:
    """A charge as it stands now is what the plan as it is known now, or the ledger of credit, comes to."""
    key = [charge["billing_account_id"], charge["billing_month"]]
    with localcontext(prec=60):
        if charge["charge_kind"] == "credit":
            sql = "SELECT amount FROM marts.fct_credit_ledger WHERE entry_kind = 'drawdown'"
            drawn = _query(connection, f"{sql} AND billing_account_id = ? AND billing_month = ?", key)
            expected = {sum((entry["amount"] for entry in drawn), Decimal(0))}
        else:
            items = _query(
                connection,
                "SELECT * FROM billing.plan_items WHERE plan_item_id = ? ORDER BY recorded_at DESC LIMIT 1",
                [charge["plan_item_id"]],
            )
            find = _charged if charge["charge_kind"] == "plan" else _missing
            expected = {amount for item in items for amount in find(connection, item, charge)}
    proof.add(f"by the books of today it is {plain(charge['amount'])}", holds=charge["amount"] in expected)


def _charged(connection: duckdb.DuckDBPyConnection, item: Row, charge: Row) -> set[Decimal]:
    """What the units of a charge may come to."""
    month = charge["billing_month"]
    units = charge["quantity"] * (MILLIONTH if item["item"] == "tokens" else 1)
    line = {"pricing_quantity": units, "charge_start_date": month, "charge_end_date": periods.after(month),
            "user_id": charge["user_id"]}  # fmt: skip
    return _plan_amounts(connection, item, line, None)


def _missing(connection: duckdb.DuckDBPyConnection, item: Row, charge: Row) -> set[Decimal]:
    """What is missing to a commitment: of all the usage of the month, or of what the item's units cost."""
    if item["item"] == "rated_cost":
        sql = (
            "SELECT coalesce(billed_cost, 0) AS used FROM statements.int_billing__account_months"
            " WHERE billing_account_id = ? AND billing_month = ?"
        )
        found = _query(connection, sql, [charge["billing_account_id"], charge["billing_month"]])
    else:
        sql = (
            "SELECT amount AS used FROM marts.fct_charges"
            " WHERE plan_item_id = ? AND billing_month = ? AND charge_kind = 'plan'"
        )
        found = _query(connection, sql, [charge["plan_item_id"], charge["billing_month"]])
    promised: Decimal = item["commit_amount"] or Decimal(0)
    return {promised - sum((row["used"] for row in found), Decimal(0))}


def _prove_credit(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row) -> None:
    """What a month drew is the sum of what it drew from each grant, and no grant gave more than it had."""
    entries = _query(
        connection,
        "SELECT grants.*, ledger.amount AS drawn, totals.used FROM marts.fct_credit_ledger AS ledger"
        " INNER JOIN ("
        "   SELECT * FROM billing.credit_grants QUALIFY row_number() OVER ("
        "   PARTITION BY credit_grant_id ORDER BY recorded_at DESC) = 1"
        " ) AS grants USING (credit_grant_id)"
        " INNER JOIN (SELECT credit_grant_id, -sum(amount) AS used FROM marts.fct_credit_ledger"
        "   WHERE entry_kind <> 'grant' GROUP BY ALL) AS totals USING (credit_grant_id)"
        " WHERE ledger.billing_account_id = ? AND ledger.billing_month = ? AND ledger.entry_kind = 'drawdown'"
        " ORDER BY grants.granted_on, credit_grant_id",
        [line["billing_account_id"], line["charge_start_date"]],
    )
    for entry in entries:
        until = f", until {entry['expires_on']}" if entry["expires_on"] else ""
        proof.add(
            f"{plain(-entry['drawn'])} of credit {entry['credit_grant_id']}: {plain(entry['amount'])} granted by"
            f" {entry['granted_by']} on {entry['granted_on']}{until}: {entry['reason']}",
            holds=entry["used"] <= entry["amount"],
        )
    with localcontext(prec=60):
        drawn = sum((entry["drawn"] for entry in entries), Decimal(0))
    # A month that was closed keeps what it drew then; a later change of the ledger is a correction of its own.
    is_known = bool(entries) or line["seal_seq"] is not None
    proof.add(f"the month drew {plain(drawn)} from {pluralize(len(entries), 'grant')}", holds=is_known)


def _prove_plan(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row, at: datetime | None) -> None:
    """The item of the plan as it was known when it was billed, and its amount from its units."""
    observed = _query(
        connection,
        "SELECT * FROM billing.plan_items WHERE plan_item_id = ? ORDER BY recorded_at",
        [line["contract_rate_id"]],
    )
    proof.add(f"plan item {line['contract_rate_id']} is in the book", holds=bool(observed))
    known = [item for item in observed if at is None or item["recorded_at"] <= at] or observed[:1]
    for item in known[-1:]:
        signed = f", approved by {item['approved_by']}" if item["approved_by"] else ""
        proof.add(f"it is {item['item']}, {item['pricing']}, from {item['valid_from']}{signed}: {item['note'] or '-'}")
        if line["charge_category"] == "Purchase":
            expected = _plan_amounts(connection, item, line, at)
            proof.add(f"its units come to {plain(line['billed_cost'])}", holds=line["billed_cost"] in expected)
        else:
            promised = plain(item["commit_amount"] or Decimal(0))
            proof.add(
                f"its commitment is {promised}; {plain(line['billed_cost'])} was missing",
                holds=item["commit_amount"] is not None and 0 < line["billed_cost"] <= item["commit_amount"],
            )


def _plan_amounts(connection: duckdb.DuckDBPyConnection, item: Row, line: Row, at: datetime | None) -> set[Decimal]:
    """What a plan item may come to for a line: of a seat, by the days that one of its user's seats was held."""
    units = line["pricing_quantity"] / MILLIONTH if item["item"] == "tokens" else line["pricing_quantity"]
    with localcontext(prec=60):
        if item["item"] == "seat" and item["pricing"] == "per_unit":
            return _seat_amounts(connection, item, line, int(units))
        billable = max(units - item["included_units"], Decimal(0))
        scale = MILLIONTH if item["item"] == "tokens" else Decimal(1)
        if item["pricing"] == "per_unit":
            return {billable * scale * item["unit_price"]}
        if item["pricing"] == "package":
            return {-(-billable // item["package_size"]) * item["unit_price"]}
        tiers = _query(
            connection,
            "SELECT tier_from, max_by(unit_price, recorded_at) AS unit_price FROM billing.plan_tiers"
            " WHERE plan_item_id = ? AND (CAST(? AS TIMESTAMPTZ) IS NULL OR recorded_at <= ?)"
            " GROUP BY tier_from ORDER BY tier_from",
            [item["plan_item_id"], at, at],
        )
        if item["pricing"] == "volume":
            reached = [tier["unit_price"] for tier in tiers if tier["tier_from"] < billable]
            return {billable * scale * reached[-1] if reached else Decimal(0)}
        total = Decimal(0)
        for tier, following in zip(tiers, [*tiers[1:], None], strict=True):
            end = billable if following is None else min(billable, Decimal(following["tier_from"]))
            total += max(end - tier["tier_from"], Decimal(0)) * scale * tier["unit_price"]
        return {total}


def _seat_amounts(connection: duckdb.DuckDBPyConnection, item: Row, line: Row, days: int) -> set[Decimal]:
    month, end = line["charge_start_date"], line["charge_end_date"]
    length = (end - month).days
    atoms = int(item["unit_price"].scaleb(15))
    seats = _query(
        connection,
        "SELECT * FROM billing.seats WHERE billing_account_id = ? AND user_id = ?",
        [item["billing_account_id"], line["user_id"]],
    )
    found = set()
    for seat in seats:
        first = (max(seat["valid_from"], item["valid_from"], month) - month).days
        last = (min(seat["valid_to"] or end, item["valid_to"] or end, end) - month).days
        if last - first == days:
            found.add(Decimal(atoms * last // length - atoms * first // length).scaleb(-15))
    return found


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
    text = f"turn {turn['turn_id']} at {turn['occurred_at']:%Y-%m-%d %H:%M:%S}: {pluralize(tokens, 'token')}"
    proof.add(text, holds=counted)
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
    proof.add(f"batch {source['_manifest_key']}: {pluralize(len(objects), 'object')} of {table}", holds=bool(objects))
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


def _prove_price(proof: Proof, connection: duckdb.DuckDBPyConnection, line: Row, at: datetime | None) -> None:
    """The list price and who had approved it when the line was rated, the exchange into the bill's currency, and what
    was agreed."""
    prices = _query(connection, "SELECT * FROM billing.price_book WHERE price_id = ?", [line["price_id"] or ""])
    if line["price_id"] and not prices:
        proof.add(f"price {line['price_id']} is not in the book", holds=False)
    listed = line["list_unit_price"]
    for price in prices:
        said = f"price {price['price_id']}: {plain(price['unit_price'])} {price['currency']}"
        source = f"{price['source']} {price['source_version']} (sha256 {price['source_sha256'][:16]})"
        proof.add(f"{said} from {price['valid_from']:%Y-%m-%d}, {source}")
        _prove_decision(proof, connection, price, line)
        if price["currency"] == line["currency"]:
            proof.add(f"line {line['line_id']} has that list price", holds=listed == price["unit_price"])
        else:
            _prove_exchange(proof, connection, price, line)
    rates = _query(
        connection,
        "SELECT * FROM billing.contract_rates WHERE contract_rate_id = ?"
        " AND (CAST(? AS TIMESTAMPTZ) IS NULL OR recorded_at <= ?) ORDER BY recorded_at DESC LIMIT 1",
        [line["contract_rate_id"] or "", at, at],
    )
    if line["contract_rate_id"] and not rates:
        proof.add(f"agreed rate {line['contract_rate_id']} was not in the book", holds=False)
    for rate in rates:
        signed = f", approved by {rate['approved_by']}" if rate["approved_by"] else ""
        said = f"agreed rate {rate['contract_rate_id']} from {rate['valid_from']}{signed}"
        proof.add(f"{said}: {rate['note'] or 'no note'}")
        expected = rate["unit_price"]
        if expected is None:
            expected = (listed * rate["factor"]).quantize(NINE_PLACES, ROUND_HALF_UP)
        proof.add(f"line {line['line_id']} has that rate", holds=line["contracted_unit_price"] == expected)
    if not line["contract_rate_id"]:
        proof.add(f"line {line['line_id']} is billed at its list price", holds=line["contracted_unit_price"] == listed)


def _prove_decision(proof: Proof, connection: duckdb.DuckDBPyConnection, price: Row, line: Row) -> None:
    """The last decision that was known when the line was rated. A later one changes later bills, not this one."""
    decisions = _query(
        connection, "SELECT * FROM billing.price_decisions WHERE sheet_id = ? ORDER BY decided_at", [price["sheet_id"]]
    )
    known = [d for d in decisions if line["rated_as_of"] is None or d["decided_at"] <= line["rated_as_of"]]
    if not known:
        proof.add(f"decision: nobody had approved sheet {price['sheet_id']}", holds=False)
        return
    last = known[-1]
    signed = f"{last['decision']} by {last['decided_by']} at {last['decided_at']:%Y-%m-%d %H:%M}"
    proof.add(f"decision when it was rated: {signed}: {last['reason']}", holds=last["decision"] == "approve")
    for later in decisions[len(known) :]:
        proof.add(f"later, and not of this line: {later['decision']} by {later['decided_by']}: {later['reason']}")


def _prove_exchange(proof: Proof, connection: duckdb.DuckDBPyConnection, price: Row, line: Row) -> None:
    """The rate of the day of use. A line that was sealed by an earlier version does not name it: the books do."""
    rates = _query(
        connection,
        "SELECT * FROM billing.fx_rates WHERE currency_from = ? AND currency_to = ? AND valid_from <= ?"
        " AND (CAST(? AS VARCHAR) IS NULL OR fx_rate_id = ?) ORDER BY valid_from DESC, recorded_at DESC",
        [price["currency"], line["currency"], line["charge_start_date"], line["fx_rate_id"], line["fx_rate_id"]],
    )
    listed = [(rate, (price["unit_price"] * rate["rate"]).quantize(NINE_PLACES, ROUND_HALF_UP)) for rate in rates]
    fitting = [rate for rate, amount in listed if amount == line["list_unit_price"]]
    for rate in fitting[:1]:
        proof.add(
            f"exchange {rate['fx_rate_id']}: {plain(rate['rate'])} {rate['currency_to']} for one"
            f" {rate['currency_from']} from {rate['valid_from']}, {rate['source']}: {plain(line['list_unit_price'])}"
        )
    if not fitting:
        proof.add(f"exchange: no rate gives {plain(line['list_unit_price'])} {line['currency']}", holds=False)


def _tokens(turn: Mapping[str, Any]) -> dict[str, int]:
    """The turn's tokens by component: they partition the input."""
    read, written = turn["cache_read_input_tokens"], turn["cache_write_input_tokens"]
    # NULL: the source does not say how long what it wrote is kept.
    five, hour = turn["cache_write_5m_input_tokens"] or 0, turn["cache_write_1h_input_tokens"] or 0
    return {
        "input_uncached": turn["input_tokens"] - read - written, "cache_read": read, "output": turn["output_tokens"],
        "cache_write_unknown": written - five - hour, "cache_write_5m": five, "cache_write_1h": hour,
    }  # fmt: skip


def _query(connection: duckdb.DuckDBPyConnection, sql: str, values: list[object]) -> list[Row]:
    cursor = connection.execute(sql, values)
    names = [column[0] for column in cursor.description or []]
    return list(_named(names, cursor.fetchall()))


def _named(names: list[str], rows: list[tuple[Any, ...]]) -> Iterator[Row]:
    for row in rows:
        yield dict(zip(names, row, strict=True))
