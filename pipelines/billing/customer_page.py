"""The page of an account's month that is sent to the customer, and what stands on it.

Amounts have the digits of their currency; a tax line is left to whoever sends it. It needs nothing but itself.
Does not belong here: any number that is not in the month's own files (current.py), the same page as PDF
(customer_pdf.py).
"""

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.billing.books import NO_MINOR_UNIT
from pipelines.billing.statements import Row
from pipelines.contract.pseudonyms import renaming

if TYPE_CHECKING:
    from pipelines.billing.current import Month

BASES = {
    "reported": "named by its source", "alias": "a floating name, as the book reads it that day",
    "session": "the model that its session used",
    "default": "the account's default where no model is known", "unknown": "no model is known",
}  # fmt: skip
LATE = "once it has a price it is billed in a later month."
IN_TIME = "it is billed in this month if its price comes before the month is closed, else in a later one."
TEMPLATE = Path(__file__).parent / "templates" / "customer_page.html"


def content(month: "Month") -> dict[str, Any]:
    """What stands on the page, as texts: invoices, shares, corrections, and usage without a price."""
    manifest = month.version.manifest
    usage = [row for row in month.costs if row["charge"] != "Rounding"]
    closed = manifest["period_state"] == "closed"
    return {
        "account": f"{month.name} ({month.account})" if month.name else month.account,
        "period": f"{month.period:%Y-%m}", "manifest": month.version.manifest_sha256,
        "state": "Final." if closed else f"Provisional: the month is {manifest['period_state']}.",
        "rates": [
            f"Prices are in {pricing}; one {pricing} is {rate:f} {billing}." for pricing, billing, rate in month.rates
        ],
        "invoices": _invoices(month.invoice),
        "shares": [
            {"title": "By model", "name": "Model", "rows": _shares(usage, lambda row: row["model"])},
            {"title": "By how the model is known", "name": "Basis",
             "rows": _shares(usage, lambda row: BASES.get(row["model_basis"]))},
            {"title": "By user", "name": "User", "rows": _shares(usage, lambda row: row["user"])},
            {"title": "Plan, commitment and credit", "name": "Charge",
             "rows": _shares([r for r in usage if r["charge"] != "Usage"], lambda row: row["description"])},
        ],
        "corrections": _corrections(month.costs),
        "unpriced": _tokens(month.unpriced),
        "unpriced_note": "It is in no amount above; " + (LATE if closed else IN_TIME),
    }  # fmt: skip


def page(month: "Month") -> bytes:
    """The page as HTML, the same bytes for the same statement."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    said = content(month)
    environment.filters["shown"] = renaming(texts(said))
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(said).encode()


def texts(value: Any) -> Iterator[str]:
    """All texts of the page."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from texts(value.values())
    elif isinstance(value, Iterable):
        yield from (text for item in value for text in texts(item))


def amount_text(amount: Decimal, currency: str) -> str:
    """An amount for people: its currency's digits, thousands apart."""
    places = 0 if currency in NO_MINOR_UNIT else 2
    return f"{amount:z,.{places}f}"  # z: nobody is owed -0.00


def _invoices(lines: Iterable[Row]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        invoice = found.setdefault(
            line["invoice"], {"id": line["invoice"], "currency": line["currency"], "lines": [], "sum": Decimal(0)}
        )
        invoice["lines"].append(
            {"charge": line["charge"], "model": line["model"], "amount": amount_text(line["payable"], line["currency"])}
        )
        invoice["sum"] += line["payable"]
    return [
        invoice | {"payable": amount_text(invoice["sum"], invoice["currency"])} for _, invoice in sorted(found.items())
    ]


def _shares(rows: Iterable[Row], name: Callable[[Row], Any]) -> list[dict[str, str]]:
    """Tokens and billed cost of each name and currency, and its part of what was billed."""
    sums: dict[tuple[str, str], list[Decimal]] = {}
    with localcontext(prec=60):
        for row in rows:
            if name(row) is None:
                continue
            total = sums.setdefault((row["currency"], str(name(row))), [Decimal(0), Decimal(0)])
            total[0] += row["tokens"] or Decimal(0)
            total[1] += row["billed_cost"]
        whole = {
            currency: sum((v[1] for (c, _), v in sums.items() if c == currency), Decimal(0)) for currency, _ in sums
        }
    return [
        {
            "name": label,
            "tokens": f"{tokens:,.0f}" if tokens else "",
            "amount": f"{amount_text(amount, currency)} {currency}",
            "share": f"{amount / whole[currency]:.1%}" if whole[currency] > 0 else "",
        }
        for (currency, label), (tokens, amount) in sorted(sums.items(), key=lambda item: (item[0][0], -item[1][1]))
    ]


def _corrections(rows: Iterable[Row]) -> list[dict[str, str]]:
    sums: dict[tuple[str, str, str], Decimal] = {}
    for row in rows:
        if row["correction"]:
            key = (f"{row['usage_date']:%Y-%m}", str(row["correction"]), row["currency"])
            sums[key] = sums.get(key, Decimal(0)) + row["billed_cost"]
    return [
        {"month": month, "cause": cause.replace(":", ", "), "amount": f"{amount_text(amount, currency)} {currency}"}
        for (month, cause, currency), amount in sorted(sums.items())
    ]


def _tokens(rows: Iterable[Row]) -> list[dict[str, str]]:
    found: dict[str, int] = {}
    for row in rows:
        found[row["model"]] = found.get(row["model"], 0) + row["quantity"]
    return [{"name": name, "tokens": f"{tokens:,}"} for name, tokens in sorted(found.items())]
