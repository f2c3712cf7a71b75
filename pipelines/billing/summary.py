"""One page for people: what a monthly statement comes to, by account, user and model. It needs nothing but itself.

Does not belong here: any number that is not in the statement's files beside it.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, localcontext
from html import escape
from typing import Any

from pipelines.contract.numbers import money, plain, words
from pipelines.contract.pseudonyms import renaming

Row = Mapping[str, Any]
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .8em;border-bottom:1px solid #ddd;text-align:left}"
    "td:first-child,td:nth-child(2):not(.n){overflow-wrap:anywhere;min-width:6em}.wide{overflow-x:auto}"
    ".n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}.w{background:#fff3cd;padding:.5em 1em}"
    ".n:last-child{position:sticky;right:0;background:#fff}"
    "@media(max-width:40em){body{margin:1em auto;font-size:14px}td,th{padding:.2em .4em}}"
    "@media(prefers-color-scheme:dark){body,.n:last-child{background:#16181c;color:#e6e6e6}td,th{border-color:#333}"
    ".w{background:#4a3b00}}"
)


def page(about: Mapping[str, Any], rows: Sequence[Row], invoices: Sequence[Row], unpriced: Sequence[Row]) -> bytes:
    """The page as HTML, the same bytes for the same statement."""
    title = f"Statement {about['billing_period']}, account {about['billing_account_id']}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_state(about))}</p>"]
    if about["override"]:
        signed = about["override"]
        parts.append(
            f'<p class="w">Checks failed and were passed over by {escape(signed["actor"])}: '
            f"{escape(', '.join(signed['checks']))}. Reason: {escape(signed['reason'])}</p>"
        )
    payable = _sums(invoices, ("BillingAccountId", "InvoiceId", "BillingCurrency"), "BilledCost")
    parts.append(_table("Invoices", ("Account", "Invoice", "Currency", "Payable"), payable))
    by_basis = [
        [basis, currency, int(Decimal(said["tokens"])), Decimal(said["BilledCost"])]
        for currency, bases in about["model_basis"].items()
        for basis, said in bases.items()
    ]
    parts.append(_table("By how the model is known", ("Basis", "Currency", "Tokens", "Billed"), by_basis))
    for name, column in (("By model", "x_Model"), ("By user", "SubAccountId")):
        sums = _sums(rows, (column, "ChargeCategory", "BillingCurrency"), "BilledCost")
        parts.append(_table(name, (name[3:].title(), "Category", "Currency", "Billed"), sums))
    corrections = _sums(
        [r for r in rows if r["ChargeClass"]], ("x_ReasonCode", "x_IncurredPeriod", "BillingCurrency"), "BilledCost"
    )
    if corrections:
        parts.append(_table("Corrections of closed months", ("Cause", "Month", "Currency", "Billed"), corrections))
    if unpriced:
        parts.append(
            '<p class="w">Usage without a price is in no amount above. It may cost between the two figures.</p>'
        )
        lines = [
            [r["model"], words(r["component"]), int(r["quantity"])]
            + [amount if amount is not None else "unknown" for amount in (r["low_exposure"], r["high_exposure"])]
            for r in unpriced
        ]
        parts.append(_table("Without a price", ("Model", "Component", "Tokens", "From", "To"), lines))
    checks = [[c["name"], "met" if c["passed"] else "FAILED", _found(c["found"])] for c in about["checks"]]
    parts.append(_table("Checks", ("Check", "Result", "Found"), checks))
    made = [
        [f"{name} {part}".strip(), said]
        for name, value in sorted(about["generated_from"].items())
        for part, said in (value.items() if isinstance(value, Mapping) else [("", value)])
    ]
    parts.append(_table("Made from", ("What", "Which"), made))
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy"'
        f" content=\"default-src 'none'; style-src 'unsafe-inline'\"><style>{STYLE}</style>"
    )
    return (head + "\n" + "\n".join(parts) + "\n</html>\n").encode()


def _state(about: Mapping[str, Any]) -> str:
    if about["complete"]:
        return "Closed: these figures do not change any more; corrections stand in later statements."
    return f"Provisional: the period is {about['period_state']}."


def _sums(rows: Sequence[Row], keys: tuple[str, ...], measure: str) -> list[list[object]]:
    sums: dict[tuple[str, ...], Decimal] = {}
    with localcontext(prec=60):
        for row in rows:
            key = tuple(str(row[name] or "-") for name in keys)
            sums[key] = sums.get(key, Decimal(0)) + row[measure]
    return [[*key, amount] for key, amount in sorted(sums.items())]


def _found(text: str) -> str:
    """What a check found, once where it found the same several times: `0.0, 0.0` is 0."""
    return ", ".join(
        dict.fromkeys(plain(Decimal(part)) if _NUMBER.fullmatch(part) else part for part in text.split(", "))
    )


def _table(title: str, names: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    rename = renaming(value for row in rows for value in row if isinstance(value, str))
    numbers = [isinstance(value, Decimal | int) for value in rows[0]] if rows else [False] * len(names)
    head = "".join(
        f"<th{_class(is_number)}>{escape(name)}</th>" for name, is_number in zip(names, numbers, strict=True)
    )
    body = "".join("<tr>" + "".join(_cell(value, rename) for value in row) + "</tr>\n" for row in rows)
    return f'<h2>{escape(title)}</h2>\n<div class="wide" tabindex="0"><table><tr>{head}</tr>\n{body}</table></div>'


def _cell(value: object, rename: Callable[[str], str]) -> str:
    """A value as people read it; its exact form is the cell's title, where an erasure looks for it (redaction.py)."""
    is_number = isinstance(value, Decimal | int)
    exact = plain(value) if isinstance(value, Decimal) else str(value)
    text = money(value) if isinstance(value, Decimal) else f"{value:,}" if is_number else rename(exact)
    title = f' title="{escape(exact)}"' if text.replace(",", "") != exact.replace(",", "") else ""
    return f"<td{_class(is_number)}{title}>{escape(text)}</td>"


def _class(is_number: bool) -> str:
    return ' class="n"' if is_number else ""
