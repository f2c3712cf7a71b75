"""How an exact number is written down: in exports, on screen, in JSON.

Does not belong here: rounding. Nothing here changes an amount.
"""

from decimal import Decimal


def plain(amount: Decimal) -> str:
    """A decimal in digits: no exponent, no needless zeros, no minus zero."""
    text = f"{amount:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
