"""How an exact number is written down: in exports, on screen, in JSON.

Does not belong here: rounding. Nothing here changes an amount.
"""

from decimal import Decimal


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
