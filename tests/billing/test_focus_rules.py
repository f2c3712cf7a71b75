"""The conditional rules of FOCUS over rows of every charge category and two currencies; each rule finds its fault."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.billing import focus_rules
from pipelines.billing.exports import COSTS, export_month
from tests.billing.ledgers import Ledger, charge, line

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
AT = datetime(2025, 3, 2, tzinfo=UTC)
PLAN = {"billing_account_id": "acct-plan", "tenant_id": "plan", "billed_cost": Decimal(0), "rating_status": "excluded"}
EUR = {"currency": "EUR", "tenant_id": "bolt", "billing_account_id": "acct-bolt", "pricing_currency": "USD"}
NO_PRICE = dict.fromkeys(("price_id", "list_unit_price", "contracted_unit_price", "list_cost", "contracted_cost"))
THREE = Decimal(3)


@pytest.fixture
def rows(ledger: Ledger) -> list[dict[str, Any]]:
    """Usage by list price, by agreement, in another currency, covered by a plan and written off; a purchase, a
    commitment, credit, rounding and corrections."""
    ledger.connection.execute(
        "insert into billing.contract_rates by name select 'agreed' as contract_rate_id, 0.8 as factor,"
        " 'acct-acme' as billing_account_id, date '2025-01-01' as valid_from, timestamptz '2020-01-01' as recorded_at"
    )
    ledger.connection.execute("update billing.knowledge set known_at = timestamptz '2030-01-01'")
    agreed = {"contract_rate_id": "agreed", "contracted_unit_price": Decimal("2.4")}
    ledger.tell([
        line("a", date(2025, 1, 3), 333_333, "3"),
        line("c", date(2025, 1, 3), contracted_cost=Decimal("2.4"), billed_cost=Decimal("2.4"), **agreed),
        line("e", date(2025, 1, 4), 777, "2.7", pricing_unit_price=THREE, **EUR),
        line("n", date(2025, 1, 5), 0, "3", **PLAN | NO_PRICE),
        line("p", date(2025, 1, 5), 100, "3", **PLAN), line("q", date(2025, 1, 9), 200, "3", **PLAN),
        line("w", date(2025, 1, 7), 900, "3", **PLAN | NO_PRICE | {"model": "exotic", "billed_cost": None}),
        line("f", date(2025, 2, 3), 5, "3"),
    ])  # fmt: skip
    ledger.charge([
        charge("seat", JANUARY, "20.01", billing_account_id="acct-plan", tenant_id="plan", user_id="bob"),
        charge("short", JANUARY, "1.5", "true_up"), charge("credit", JANUARY, "-0.5", "credit"),
    ])  # fmt: skip
    ledger.settle(JANUARY, "write_off", "exotic", account="acct-plan")
    ledger.close(JANUARY)
    ledger.tell([line("a", date(2025, 1, 3), 333_334, "3"), line("q", date(2025, 1, 9), 500, "3", **PLAN)])
    ledger.build()
    found: list[dict[str, Any]] = []
    for account in ("acct-acme", "acct-bolt", "acct-plan"):
        for month in (JANUARY, FEBRUARY):
            folder = export_month(ledger.export(AT), month, account).folder
            found += pq.read_table(folder / f"{COSTS}.parquet", partitioning=None).to_pylist()
    return found


FAULTS: list[tuple[str, str, dict[str, Any]]] = [
    ("ChargeCategory is 'Use'", "Usage", {"ChargeCategory": "Use"}),
    ("InvoiceId is empty", "Usage", {"InvoiceId": None}),
    ("SkuPriceId and ListUnitPrice", "Purchase", {"ListUnitPrice": None}),
    ("Purchase without SkuPriceId", "Purchase", {"SkuPriceId": None, "ListUnitPrice": None}),
    ("ListCost is not ListUnitPrice", "Purchase", {"ListUnitPrice": THREE}),
    ("ContractedUnitPrice is negative", "Usage", {"ContractedUnitPrice": -THREE}),
    ("ListUnitPrice and ContractedUnitPrice", "Usage", {"ContractedUnitPrice": None}),
    ("PricingQuantity and PricingUnit", "Usage", {"PricingUnit": None}),
    ("ConsumedQuantity and ConsumedUnit", "Usage", {"ConsumedUnit": None}),
    ("usage without a ConsumedQuantity", "Usage", {"ConsumedQuantity": None, "ConsumedUnit": None}),
    ("ConsumedQuantity of Credit", "Credit", {"ConsumedQuantity": THREE, "ConsumedUnit": "Tokens"}),
    ("PricingCategory of Adjustment", "Adjustment", {"PricingCategory": "Other"}),
    ("Purchase without PricingCategory", "Purchase", {"PricingCategory": None}),
    ("usage that is not charged by use", "Usage", {"ChargeFrequency": "One-Time"}),
    ("a purchase that is charged by use", "Purchase", {"ChargeFrequency": "Usage-Based"}),
    ("not Committed", "Usage", {"PricingCategory": "Committed", "x_ContractRateId": "agreed"}),
    ("are BilledCost", "Credit", {"ListCost": THREE}),
    ("PricingCurrency is empty", "Usage", {"PricingCurrency": None}),
    ("although the currency is the same", "Usage", {"PricingCurrencyListUnitPrice": Decimal(9)}),
    ("PricingCurrencyEffectiveCost and EffectiveCost", "Usage", {"PricingCurrencyEffectiveCost": None}),
    ("a rounding has no pricing currency", "Adjustment", {"x_ReasonCode": "rounding", "PricingCurrency": "USD"}),
    ("EffectiveCost is", "Usage", {"EffectiveCost": THREE * 7}),
    ("a purchase that covers usage", "Purchase", {"EffectiveCost": THREE}),
]


def test_rows_of_every_category_keep_the_rules_and_each_rule_finds_its_fault(rows: list[dict[str, Any]]) -> None:
    assert {row["ChargeCategory"] for row in rows} == {"Usage", "Purchase", "Credit", "Adjustment"}
    assert {row["BillingCurrency"] for row in rows} == {"USD", "EUR"}
    assert any(row["ChargeClass"] == "Correction" for row in rows)
    assert focus_rules.faults(rows) == []
    carried = [
        row["EffectiveCost"]
        for row in rows
        if row["BillingAccountId"] == "acct-plan"
        and not row["ChargeClass"]
        and row["ChargeCategory"] == "Usage"
        and row["ConsumedQuantity"]
    ]
    assert carried == [Decimal("6.67"), 0, Decimal("13.34")], "the plan of 20.01, by tokens; what is written off none"
    (exchanged,) = [row for row in rows if row["BillingCurrency"] == "EUR" and row["ChargeCategory"] == "Usage"]
    assert (exchanged["PricingCurrency"], exchanged["PricingCurrencyListUnitPrice"]) == ("USD", THREE)
    assert exchanged["PricingCurrencyEffectiveCost"] == THREE * Decimal("0.000777")
    for what, category, change in FAULTS:
        place = next(
            n
            for n, row in enumerate(rows)
            if row["ChargeCategory"] == category and row["x_ReasonCode"] is None and row["BillingCurrency"] == "USD"
        )
        wrong = [*rows[:place], rows[place] | change, *rows[place + 1 :]]
        assert any(what in fault for fault in focus_rules.faults(wrong)), what
