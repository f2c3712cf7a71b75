"""Conditional rules of FOCUS 1.4 that its validator does not look at, as a check of our own over cost rows.

Written from the text of the specification, not from our models: it is run beside the validator (`make focus-check`).
Does not belong here: identities and totals (verify.py), the columns (focus.py).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Context, Decimal, localcontext
from typing import Any

from pipelines.billing.focus import COST_AND_USAGE

Row = Mapping[str, Any]
EXACT = Context(prec=80)
ALLOWED: dict[str, frozenset[str | None]] = {
    "ChargeCategory": frozenset({"Usage", "Purchase", "Tax", "Credit", "Adjustment"}),
    "ChargeClass": frozenset({None, "Correction"}),
    "ChargeFrequency": frozenset({"One-Time", "Recurring", "Usage-Based"}),
    "PricingCategory": frozenset({None, "Standard", "Dynamic", "Committed", "Other"}),
}
# A price is named where there is a unit price, and nowhere else; a quantity has a unit.
TOGETHER = (
    ("SkuPriceId", "ListUnitPrice"), ("SkuPriceId", "PricingCategory"), ("ListUnitPrice", "ContractedUnitPrice"),
    ("PricingQuantity", "PricingUnit"), ("ConsumedQuantity", "ConsumedUnit"), ("SubAccountId", "SubAccountType"),
)  # fmt: skip
PRICING_CURRENCY = tuple(name for name in COST_AND_USAGE.names if name.startswith("PricingCurrency"))


def row_faults(row: Row) -> Iterator[str]:
    """What a row breaks of the rules that hang on its own cells."""
    for name, words in ALLOWED.items():
        if row[name] not in words:
            yield f"{name} is {row[name]!r}"
    for name in COST_AND_USAGE.names:
        if not COST_AND_USAGE.field(name).nullable and row[name] is None:
            yield f"{name} is empty"
    for one, other in TOGETHER:
        if (row[one] is None) != (row[other] is None):
            yield f"{one} and {other} are not there together"
    yield from (what for is_broken, what in _category_rules(row) if is_broken)
    yield from _pricing_currency_faults(row)


def _category_rules(row: Row) -> Iterator[tuple[bool, str]]:
    """Rules by the category of a charge, each with whether the row breaks it."""
    category = row["ChargeCategory"]
    is_other = category in ("Credit", "Adjustment", "Tax")
    yield category == "Usage" and row["ConsumedQuantity"] is None, "usage without a ConsumedQuantity"
    yield category != "Usage" and row["ConsumedQuantity"] is not None, f"ConsumedQuantity of {category}"
    yield is_other and row["PricingCategory"] is not None, f"PricingCategory of {category}"
    yield not is_other and row["PricingCategory"] is None, f"{category} without PricingCategory"
    yield category == "Usage" and row["ChargeFrequency"] != "Usage-Based", "usage that is not charged by use"
    yield category == "Purchase" and row["ChargeFrequency"] == "Usage-Based", "a purchase that is charged by use"
    is_sold = category in ("Usage", "Purchase") and row["ChargeClass"] != "Correction"
    yield is_sold and row["SkuPriceId"] is None, f"{category} without SkuPriceId"
    for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
        if row[price] is not None and row["PricingQuantity"] is not None:
            yield row[price] < 0, f"{price} is negative"
            product = EXACT.multiply(row[price], row["PricingQuantity"])
            yield row[cost] != product, f"{cost} is not {price} times PricingQuantity"
    is_negotiated = row["PricingCategory"] == "Committed" and row["x_ContractRateId"] is not None
    yield is_negotiated, "a negotiated discount is PricingCategory Standard, not Committed"
    is_sum = row["ListCost"] == row["BilledCost"] == row["ContractedCost"]
    yield is_other and not is_sum, "without a unit price ListCost and ContractedCost are BilledCost"


def _pricing_currency_faults(row: Row) -> Iterator[str]:
    """Where a price is listed in another currency than the bill's, the row says what it is there."""
    if row["x_ReasonCode"] == "rounding":
        if any(row[name] is not None for name in PRICING_CURRENCY):
            yield "a rounding has no pricing currency"
        return
    if row["PricingCurrency"] is None:
        yield "PricingCurrency is empty"
        return
    same = row["PricingCurrency"] == row["BillingCurrency"]
    for priced, billed in (
        ("PricingCurrencyListUnitPrice", "ListUnitPrice"),
        ("PricingCurrencyContractedUnitPrice", "ContractedUnitPrice"),
        ("PricingCurrencyEffectiveCost", "EffectiveCost"),
    ):
        if (row[priced] is None) != (row[billed] is None):
            yield f"{priced} and {billed} are not there together"
        elif same and row[priced] != row[billed]:
            yield f"{priced} is not {billed} although the currency is the same"


def file_faults(rows: Sequence[Row]) -> Iterator[str]:
    """What rows break together: what a purchase covers carries its cost, once."""
    with localcontext(prec=60):
        sums: dict[tuple[Any, ...], list[Decimal]] = defaultdict(lambda: [Decimal(0)] * 2)
        covered: dict[tuple[Any, ...], bool] = defaultdict(bool)
        for row in rows:
            key = (row["BillingAccountId"], row["BillingCurrency"], row["BillingPeriodStart"])
            sums[key][0] += row["BilledCost"]
            sums[key][1] += row["EffectiveCost"]
            if row["ChargeClass"] is None and row["ChargeCategory"] == "Usage" and row["BilledCost"] == 0:
                covered[key] = covered[key] or row["EffectiveCost"] != 0
        for row in rows:
            key = (row["BillingAccountId"], row["BillingCurrency"], row["BillingPeriodStart"])
            if (
                row["ChargeCategory"] == "Purchase"
                and row["ChargeClass"] is None
                and covered[key]
                and row["EffectiveCost"] != 0
            ):
                yield f"{row['x_RowKey']}: a purchase that covers usage has EffectiveCost {row['EffectiveCost']}"
        for key, (billed, effective) in sums.items():
            if billed != effective:
                yield f"{key[0]}, {key[2]:%Y-%m}: EffectiveCost is {effective} where BilledCost is {billed}"


def faults(rows: Iterable[Row]) -> list[str]:
    """Everything that is wrong with cost rows of whole months, by row."""
    rows = list(rows)
    return [f"{row['x_RowKey']}: {what}" for row in rows for what in row_faults(row)] + list(file_faults(rows))
