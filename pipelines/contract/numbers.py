"""How a number is written down: exact in exports and JSON, with the digits that people read on a screen.

Does not belong here: rounding of what is billed. Nothing here changes an amount that goes on.
"""

from decimal import ROUND_HALF_EVEN, Decimal


def words(name: str) -> str:
    """The name of a column as people read it."""
    without_price = " without a price" if "unpriced_" in name else ""
    return name.replace("unpriced_", "").replace("_", " ") + without_price


def plain(amount: Decimal) -> str:
    """A decimal in digits: no exponent, no needless zeros, no minus zero."""
    text = f"{amount:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


def pluralize(number: int, one: str, many: str | None = None) -> str:
    """A number and what it is of, as people say it: `1 batch`, `2,000 batches`. `many`: the plural, if not `one` + s.

    A verb that follows is part of both: pluralize(number, "batch waits", "batches wait").
    """
    return f"{number:,} {one if number == 1 else many or _plural(one)}"


def _plural(one: str) -> str:
    if one.endswith(("ch", "sh", "x", "s")):
        return f"{one}es"
    if one.endswith("y") and one[-2:-1] not in "aeiou":
        return f"{one[:-1]}ies"
    return f"{one}s"


def money(amount: Decimal | str | None) -> str:
    """An amount for people: cents from 1 on, four significant digits below; `-` where there is none.

    The exact amount is what `--json` and `--exact` print.
    """
    if amount is None:
        return "-"
    exact = Decimal(amount)
    if abs(exact) >= 1 or not exact:
        return f"{exact.quantize(Decimal('0.01'), ROUND_HALF_EVEN):,}"
    if abs(exact) < Decimal("0.000001"):
        return "<0.000001"
    digits = min(-exact.adjusted() + 3, 6)
    return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN):f}"
