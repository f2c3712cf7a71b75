"""What the demo's tenants have agreed to: an account each, one in euros with a commitment, one with a
discount and credit, one with a plan; a budget each. And what usage without a public price costs.

Rows for the books of finance (pipelines/billing/books.py says what they mean); nothing is written here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from pipelines.simulate.fleet import DeviceSpec

Row = dict[str, Any]
ACCOUNTS = (
    ("northwind-orchards", "acc-northwind", "Northwind Orchards", "tokens", "EUR"),
    ("lantern-freight", "acc-lantern", "Lantern Freight", "tokens", "USD"),
    ("quarry-and-sons", "acc-quarry", "Quarry and Sons", "plan", "USD"),
)
DISCOUNT, CREDIT, COMMITMENT, USD_IN_EUR = Decimal("0.9"), Decimal(25), Decimal(50), Decimal("0.87")
PLATFORM = {"seat_month": Decimal(20), "colony_day": Decimal("0.75")}
LOCAL_MODEL, LOCAL_PRICES = "llama3.1:8b", {
    "input_uncached": Decimal("0.03"), "cache_read": Decimal("0.003"), "cache_write_5m": Decimal("0.03"),
    "output": Decimal("0.06"),
}  # fmt: skip
"""What a model on the tenants' own machines costs: USD for a million tokens."""
OTHER_NAMES = (
    ("sonnet", "anthropic", "claude-sonnet-4-6", "the short name of the command line"),
    ("ollama_chat/llama3.1:8b", "apiary", LOCAL_MODEL, "runs on the tenant's own machine"),
)
WITHOUT_A_MODEL = "anthropic/claude-haiku-4-5-20251001"


def first_month(fleet: tuple[DeviceSpec, ...]) -> datetime:
    """Midnight UTC at the beginning of the month of the fleet's first day, from when on its contracts are valid."""
    first = min(device.home.first_day for device in fleet)
    return datetime(first.year, first.month, 1, tzinfo=UTC)


def demo_contracts(fleet: tuple[DeviceSpec, ...], *, signed_at: datetime) -> dict[str, list[Row]]:
    """Rows by book, valid from the month in which the fleet's first day lies."""
    month = first_month(fleet).date()
    signed = {"recorded_at": signed_at}
    return {
        "billing_accounts": [
            {
                "billing_account_id": account, "tenant_id": tenant, "name": name, "currency": currency,
                "reporting_timezone": "UTC", "charged_by": charged_by, "valid_from": month, **signed,
            }
            for tenant, account, name, charged_by, currency in ACCOUNTS
        ],
        "contract_rates": [
            {
                "contract_rate_id": "lantern-discount", "billing_account_id": "acc-lantern", "provider_name": None,
                "model": None, "component": None, "note": "a discount on all list prices", "factor": DISCOUNT,
                "unit_price": None, "valid_from": month, "valid_to": None, **signed,
            }
        ],
        "plan_items": [
            _item("quarry-seats", "seat", month, signed, unit_price=PLATFORM["seat_month"]),
            _item("quarry-colonies", "colony_day", month, signed, unit_price=PLATFORM["colony_day"], included=2),
            _item("northwind-commitment", "rated_cost", month, signed, account="acc-northwind", commit=COMMITMENT),
        ],
        "model_aliases": [
            {
                "alias_id": f"demo-{number}", "model": name, "provider_name": provider, "price_model": means,
                "note": note, "valid_from": None, "recorded_by": "demo", "approved_by": "demo", **signed,
            }
            for number, (name, provider, means, note) in enumerate(OTHER_NAMES)
        ],
        "model_policies": [
            {
                "tenant_id": None, "rule": "session", "default_model": WITHOUT_A_MODEL, "valid_from": month,
                "valid_to": None, "recorded_by": "demo", "approved_by": "demo", **signed,
            }
        ],
        "fx_rates": [
            {
                "fx_rate_id": "usd-eur", "currency_from": "USD", "currency_to": "EUR", "source": "demo",
                "rate": USD_IN_EUR, "valid_from": month, **signed,
            }
        ],
        "seats": [
            {
                "seat_id": f"seat-{device.user}", "billing_account_id": "acc-quarry", "user_id": device.user,
                "valid_from": month, "valid_to": None, **signed,
            }
            for device in fleet
            if device.tenant == "quarry-and-sons"
        ],
        "budgets": [
            _budget("northwind-month", signed, tenant_id="northwind-orchards", valid_from=month),
            _budget(
                "lantern-ravi", signed, tenant_id="lantern-freight", valid_from=month, scope="user",
                scope_id="ravi-osei", period="day", measure="tokens", limit_amount=Decimal(500_000),
            ),
            _budget(
                "quarry-month", signed, tenant_id="quarry-and-sons", valid_from=month, measure="turns",
                limit_amount=Decimal(5000),
            ),
        ],
        "credit_grants": [
            {
                "credit_grant_id": "lantern-welcome", "billing_account_id": "acc-lantern", "reason": "welcome",
                "granted_by": "demo", "amount": CREDIT, "granted_on": month, **signed,
            }
        ],
    }  # fmt: skip


def _budget(name: str, signed: Row, **columns: object) -> Row:
    return {
        "budget_id": name, "scope": "tenant", "scope_id": None, "period": "month", "measure": "rated_cost_usd",
        "limit_amount": Decimal(10), "warn_at": Decimal("0.8"), "unpriced_limit_tokens": None, "valid_to": None,
        "recorded_by": "demo", "approved_by": "demo", **signed, **columns,
    }  # fmt: skip


def _item(
    name: str, item: str, month: date, signed: Row, *, account: str = "acc-quarry", unit_price: Decimal | None = None,
    included: int = 0, commit: Decimal | None = None,
) -> Row:  # fmt: skip
    return {
        "plan_item_id": name, "billing_account_id": account, "item": item, "note": None,
        "pricing": "none" if unit_price is None else "per_unit", "included_units": included, "package_size": None,
        "unit_price": unit_price, "commit_amount": commit,
        "valid_from": month, "valid_to": None, **signed,
    }  # fmt: skip
