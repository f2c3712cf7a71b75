"""A row of any kind is proved by what was known when it was billed, and by nothing that was said later."""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.billing import ledger as files
from pipelines.billing import periods
from pipelines.billing.exports import COSTS, export_days, export_month
from pipelines.billing.prove import prove
from pipelines.billing.statements import StatementStore
from pipelines.store import Store, open_store
from tests.billing.ledgers import Ledger, charge, line

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
AT = datetime(2025, 2, 20, tzinfo=UTC)
APPROVED = datetime(2024, 12, 1, tzinfo=UTC)
EUR = {"currency": "EUR", "tenant_id": "bolt", "billing_account_id": "acct-bolt", "pricing_currency": "USD"}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store((tmp_path / "store").as_uri())


def sign(ledger: Ledger, *prices: str) -> None:
    """Prices that somebody approved, a rate of exchange, an agreed factor, a plan, a seat and a grant of credit."""
    for price in prices:
        ledger.connection.execute(
            "insert into billing.price_book by name select $id as price_id, $sheet as sheet_id, 'USD' as currency,"
            " $price::decimal(18, 9) as unit_price, 'operator' as source, '1' as source_version,"
            " repeat('0', 64) as source_sha256, timestamptz '2024-01-01 00:00:00+00' as valid_from",
            {"id": f"price-{price}", "sheet": f"sheet-{price}", "price": price},
        )
        decide(ledger, price, "approve", APPROVED)
    ledger.connection.execute(
        """
        insert into billing.fx_rates values
            ('fx-1', 'USD', 'EUR', 'ecb', 0.9, date '2025-01-01', timestamptz '2025-01-01 00:00:00+00', null, null),
            ('fx-0', 'USD', 'EUR', 'ecb', 0.5, date '2024-01-01', timestamptz '2024-01-01 00:00:00+00', null, null);
        insert into billing.contract_rates by name
            select 'agreed' as contract_rate_id, 'acct-acme' as billing_account_id, 0.8 as factor,
            date '2025-01-01' as valid_from, timestamptz '2024-12-01 00:00:00+00' as recorded_at,
            'ada' as recorded_by, 'grace' as approved_by;
        insert into billing.model_policies by name
            select 'default' as rule, 'claude-sonnet-4-5' as default_model, date '2025-01-01' as valid_from,
            timestamptz '2024-12-01 00:00:00+00' as recorded_at, 'ada' as recorded_by, 'grace' as approved_by;
        insert into billing.plan_items by name
            select 'item-1' as plan_item_id, 'acct-acme' as billing_account_id, 'seat' as item, 'per_unit' as pricing,
            0 as included_units, 31 as unit_price, 100 as commit_amount, date '2024-01-01' as valid_from,
            timestamptz '2024-12-01 00:00:00+00' as recorded_at, 'grace' as approved_by;
        insert into billing.seats by name
            select 's' as seat_id, 'acct-acme' as billing_account_id, 'ada' as user_id, date '2025-01-11' as valid_from,
            timestamptz '2024-12-01 00:00:00+00' as recorded_at;
        insert into billing.credit_grants by name
            select 'g' as credit_grant_id, 'acct-acme' as billing_account_id, 'pilot' as reason, 'ada' as granted_by,
            5 as amount, date '2025-01-01' as granted_on, timestamptz '2024-12-01 00:00:00+00' as recorded_at;
        create or replace table marts.fct_credit_ledger as select 'd' as credit_entry_id, 'g' as credit_grant_id,
            'acct-acme' as billing_account_id, 'drawdown' as entry_kind, -5::decimal(38, 15) as amount,
            date '2025-01-01' as billing_month
        """
    )


def decide(ledger: Ledger, price: str, decision: str, at: datetime) -> None:
    ledger.connection.execute(
        "insert into billing.price_decisions values (?, ?, 'grace', 'looked at it', ?)",
        [f"sheet-{price}", decision, at],
    )


@pytest.fixture
def billed(ledger: Ledger) -> Ledger:
    """Usage at a list price, at an agreed one and in another currency, a seat, a commitment, credit, a write-off; then
    a price that is rejected after the close, so that January is corrected in February."""
    known = {"price_known_at": APPROVED}
    nothing: dict[str, Any] = dict.fromkeys(
        ("price_id", "list_unit_price", "contracted_unit_price", "list_cost", "contracted_cost", "billed_cost")
    ) | {"rating_status": "unpriced"}
    agreed = Decimal("2.4")
    ledger.tell([
        line("a", date(2025, 1, 3), 333_333, "3", **known),
        line("c", date(2025, 1, 3), 1_000_000, "3", contract_rate_id="agreed", contracted_unit_price=agreed,
             contracted_cost=agreed, billed_cost=agreed, **known),
        line("e", date(2025, 1, 4), 1_000_000, "2.7", price_id="price-3", fx_rate_id="fx-1",
             pricing_unit_price=Decimal(3), **EUR, **known),
        line("w", date(2025, 1, 5), 77, **nothing, model="unknown"),
        line("d", date(2025, 1, 6), 9, "3", model_basis="default", **known),
        line("f", date(2025, 2, 3), 5, "3", **known),
    ])  # fmt: skip
    ledger.charge([
        charge("seat", JANUARY, "21", user_id="ada", quantity=21), charge("short", JANUARY, "79", "true_up"),
        charge("credit", JANUARY, "-5", "credit"),
    ])  # fmt: skip
    ledger.settle(JANUARY, "write_off", "unknown")
    sign(ledger, "3", "4")
    ledger.close(JANUARY, accounts=["acct-acme", "acct-bolt"])
    ledger.tell([line("a", date(2025, 1, 3), 333_333, "4", price_known_at=datetime(2025, 2, 10, tzinfo=UTC))])
    ledger.build()
    decide(ledger, "3", "reject", datetime(2025, 2, 9, tzinfo=UTC))
    for account in ("acct-acme", "acct-bolt"):
        for month in (JANUARY, FEBRUARY):
            export_month(ledger.export(AT), month, account)
    export_days(ledger.export(AT))
    return ledger


def rows(ledger: Ledger) -> Iterable[dict[str, Any]]:
    for version in StatementStore.open(ledger.exports).newest.values():
        if version.manifest["export"] == "focus_monthly":
            yield from pq.read_table(version.folder / f"{COSTS}.parquet", partitioning=None).to_pylist()


def proof_of(ledger: Ledger, key: str, store: Store) -> Any:
    return prove(ledger.connection, key, ledger.exports, store, periods.read(files.book_path(ledger.books)))


BROKEN = {
    "update billing.fx_rates set rate = 0.8 where fx_rate_id = 'fx-1'": "exchange",
    "update billing.contract_rates set factor = 0.7": "line c has that rate",
    "delete from billing.contract_rates": "agreed rate",
    "update billing.price_decisions set decision = 'reject' where decided_at < timestamptz '2025-01-01 00:00:00+00'":
        "decision when it was rated: reject",
    "delete from billing.settlements": "line w",
    "update billing.model_policies set default_model = 'another'": "model: claude-sonnet-4-5 by rule default of ada",
    "delete from billing.model_policies": "nobody had declared",
    "update billing.seats set valid_from = date '2025-01-12'": "its units",
    "update billing.plan_items set unit_price = 32": "its units",
    "update billing.plan_items set commit_amount = 78": "its commitment",
    "update marts.fct_credit_ledger set amount = -6": "5",
    "update marts.fct_charges set amount = amount + 1 where charge_id = 'seat'": "by the books of today it is 22",
    "update marts.fct_charges set amount = amount + 1 where charge_id = 'short'": "by the books of today it is 80",
    "update marts.fct_charges set amount = amount + 1 where charge_id = 'credit'": "by the books of today it is -4",
}  # fmt: skip


def test_a_row_of_every_kind_is_proved(billed: Ledger, store: Store) -> None:
    kinds = set()
    said = []
    for row in rows(billed):
        proof = proof_of(billed, row["x_RowKey"], store)
        assert [text for text, holds in proof.links if not holds] == [], row
        kinds.add((row["ChargeCategory"], (row["x_ReasonCode"] or "").partition(":")[0]))
        said += [text for text, _ in proof.links]
    assert kinds == {
        ("Usage", ""), ("Usage", "reversal"), ("Usage", "replacement"), ("Purchase", ""), ("Credit", ""),
        ("Adjustment", ""), ("Adjustment", "rounding"),
    }  # fmt: skip
    for link in ("exchange fx-1: 0.9 EUR for one USD", "agreed rate agreed from 2025-01-01, approved by grace",
                 "later, and not of this line: reject", "written off by ada", "granted by ada",
                 "takes back what 2025-01",
                 "its units come to 21", "its commitment is 100; 79 was missing", "payable, rounded once"):  # fmt: skip
        assert any(link in text for text in said), link
    # And it breaks where anything it stands on is another one.
    keys = [row["x_RowKey"] for row in rows(billed)]
    for change, link in BROKEN.items():
        billed.connection.execute(f"begin; {change}")
        broken = (text for key in keys for text, holds in proof_of(billed, key, store).links if not holds)
        assert any(link in text for text in broken), change
        billed.connection.execute("rollback")
    (row, *_) = (row for row in rows(billed) if row["x_ReasonCode"] == "rounding")
    path = next(
        path
        for path in billed.exports.rglob("monthly/**/focus_invoice_detail.parquet")
        if f"account={row['BillingAccountId']}" in str(path) and f"{row['BillingPeriodStart']:%Y-%m}" in str(path)
    )
    path.write_bytes(path.read_bytes() + b" ")
    assert not proof_of(billed, row["x_RowKey"], store).is_whole
