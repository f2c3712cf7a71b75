"""What the demo's tenants have agreed to: an account each, one by tokens, one with a discount, one with a plan.

Rows for the books of finance (pipelines/billing/books.py says what they mean); nothing is written here.
"""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from pipelines.simulate.fleet import DeviceSpec

Row = dict[str, Any]
ACCOUNTS = (
    ("northwind-orchards", "acc-northwind", "Northwind Orchards", "tokens"),
    ("lantern-freight", "acc-lantern", "Lantern Freight", "tokens"),
    ("quarry-and-sons", "acc-quarry", "Quarry and Sons", "plan"),
)
DISCOUNT, CREDIT = Decimal("0.9"), Decimal(25)
PLATFORM = {"seat_month": Decimal(20), "colony_day": Decimal("0.75")}


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
                "billing_account_id": account, "tenant_id": tenant, "name": name, "currency": "USD",
                "reporting_timezone": "UTC", "charged_by": charged_by, **signed,
            }
            for tenant, account, name, charged_by in ACCOUNTS
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
        ],
        "seats": [
            {
                "seat_id": f"seat-{device.user}", "billing_account_id": "acc-quarry", "user_id": device.user,
                "valid_from": month, "valid_to": None, **signed,
            }
            for device in fleet
            if device.tenant == "quarry-and-sons"
        ],
        "credit_grants": [
            {
                "credit_grant_id": "lantern-welcome", "billing_account_id": "acc-lantern", "reason": "welcome",
                "granted_by": "demo", "amount": CREDIT, "granted_on": month, **signed,
            }
        ],
    }  # fmt: skip


def _item(
    name: str, item: str, month: date, signed: Row, *, unit_price: Decimal, included: int = 0
) -> Row:  # fmt: skip
    return {
        "plan_item_id": name, "billing_account_id": "acc-quarry", "item": item, "pricing": "per_unit", "note": None,
        "included_units": included, "package_size": None, "unit_price": unit_price, "commit_amount": None,
        "valid_from": month, "valid_to": None, **signed,
    }  # fmt: skip
