"""Redaction by construction: a record becomes a row of its contract table, and nothing else can come out.

Does not belong here: knowing where a value was found (readers), which columns there are (contract/wire.py).
"""

import hmac
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache, partial
from typing import Any

from pipelines.contract.keys import identity_text, is_fixed_form, record_id
from pipelines.contract.table import SMALLEST_DOUBLE, Column, Keep, Table
from pipelines.contract.vocabulary import is_public, public_form

Row = dict[str, Any]
Check = Callable[[Any], Any]
MAX_TEXTS = 4096  # of a column whose checked values are remembered
MAX_REMEMBERED_LENGTH = 128  # characters
_MONEY_STEP = Decimal(1).scaleb(-20)
_MONEY = Context(prec=60, rounding=ROUND_HALF_EVEN)

_ERRORS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (name, re.compile(pattern, re.IGNORECASE))
    for name, pattern in (
        ("stale_claim", r"stale claim"),
        ("rate_limit", r"rate.?limit|\b429\b|too many requests"),
        ("overloaded", r"overload|\b529\b|capacity"),
        ("context_length", r"context.{0,20}(length|window)|prompt.{0,12}too.long|maximum.{0,12}tokens"),
        ("auth", r"\b401\b|unauthori[sz]ed|api.?key|authentication|credential"),
        ("permission", r"\b403\b|forbidden|permission|not allowed|denied"),
        ("timeout", r"time[d]?.?out|deadline"),
        ("cancelled", r"cancel|interrupt|abort"),
        ("network", r"connection|network|dns|socket|unreachable|ssl|tls"),
        ("invalid_request", r"\b4(00|22)\b|bad request|invalid.request"),
        ("server", r"\b5\d\d\b|internal server|bad gateway|unavailable"),
        ("tool", r"\btool\b"),
        ("type_or_value", r"(type|value|key|attribute|index|json\w*|assertion)error|traceback"),
    )
)


def error_class(text: object) -> str | None:
    """The class of an error's text; the text itself goes no further. None if there is no error."""
    if not isinstance(text, str) or not text.strip():
        return None
    head = text[:4000]
    return next((name for name, pattern in _ERRORS if pattern.search(head)), "other")


class _Plan:
    """What makes a row of one table, worked out once: a check per column that makes a source's value, which is not
    None, the value that may leave, or None."""

    def __init__(self, redactor: "Redactor", table: Table) -> None:
        self.table = table
        self.checks: dict[str, Check] = {column.name: redactor.check(column) for column in table.columns}
        self.empty: Row = dict.fromkeys(table.names)
        self.required = tuple(column.name for column in table.columns if column.required)


class Redactor:
    """Makes rows of contract tables under one tenant key."""

    def __init__(self, tenant_key: bytes) -> None:
        self._key = tenant_key
        self._plans: dict[str, _Plan] = {}
        self.left_out = 0
        """Values that a rule between columns took out of rows so far."""

    def keyed(self, text: str) -> str:
        """The keyed hash of a name a person chose: equal names of a tenant get equal hashes."""
        digest = hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), "sha256").hex()
        return f"k1_{digest[:32]}"

    def identifier(self, column: Column, text: str) -> str:
        """An identifier as it leaves in a column: as it is if a source generates that form for it, else keyed."""
        is_clear = column.regex.fullmatch(text) or (column.vocabulary and is_public(column.vocabulary, text))
        return text if is_clear else self.keyed(text)

    def record_id(self, tenant: str, kind: str, *natural_key: object) -> str:
        """The identity of a record: a plain hash if every part of its key has a fixed form, else a keyed one."""
        if all(map(is_fixed_form, natural_key)):
            return record_id(tenant, kind, *natural_key)
        text = identity_text("rec/2", tenant, kind, natural_key)
        return hmac.digest(self._key, text, "sha256").hex()[:32]

    def row(self, table: Table, values: Mapping[str, object]) -> Row | None:
        """The row of `table` that may leave for these source values; None if a required value is missing or unfit.

        Keys of `values` that the contract does not name raise KeyError: a reader must ask for what it collects.
        """
        plan = self._plan(table)
        _refuse_unknown(plan, values)
        checks, row = plan.checks, plan.empty.copy()
        for name, value in values.items():
            if value is not None:
                row[name] = checks[name](value)
        for name in plan.required:
            if row[name] is None:
                return None
        for rule in table.rules:
            self.left_out += rule.mend(row)
        return row

    def values(self, table: Table, values: Mapping[str, object]) -> dict[str, Any]:
        """Some of a row's values, as they may leave. Raises KeyError as `row` does."""
        plan = self._plan(table)
        _refuse_unknown(plan, values)
        return {name: None if value is None else plan.checks[name](value) for name, value in values.items()}

    def _plan(self, table: Table) -> _Plan:
        plan = self._plans.get(table.name)
        if plan is None or plan.table is not table:
            plan = self._plans[table.name] = _Plan(self, table)
        return plan

    def check(self, column: Column) -> "Check":
        """What makes a source's value of a column, which is not None, the value that may leave, or None."""
        check = self._check_of_type(column)
        if column.keep is not Keep.COUNT:
            return check

        def counted(value: Any) -> Any:
            value = len(value) if isinstance(value, (list, tuple, str, dict)) else value
            return check(value)

        return counted

    def _check_of_type(self, column: Column) -> "Check":
        match column.type:
            case "string":
                return error_class if column.keep is Keep.CLASS else self._text(column)
            case "int64":
                return partial(_integer, column.minimum, column.maximum)
            case "bool":
                return lambda value: value if isinstance(value, bool) else None
            case "double":
                return partial(_double, column)
            case "decimal":
                return lambda value: money(value) if _within(column, value) else None
            case "timestamp":
                return lambda value: value if isinstance(value, datetime) and value.tzinfo is not None else None

    def _text(self, column: Column) -> "Check":
        match column.keep:
            case Keep.KEYED_HASH:
                make = partial(self._name, column)
            case Keep.ID:
                make = partial(self.identifier, column)
            case _ if column.values:
                allowed = {value: value for value in column.values}
                other = "other" if "other" in allowed else None
                return lambda value: allowed.get(value, other) if isinstance(value, str) and value else None
            case _:
                regex = column.regex
                return lambda value: value if isinstance(value, str) and value and regex.fullmatch(value) else None
        remembered = lru_cache(MAX_TEXTS)(make)  # a session's id stands in each of its rows

        def check(value: Any) -> str | None:
            if not isinstance(value, str) or not value:
                return None
            return remembered(value) if len(value) <= MAX_REMEMBERED_LENGTH else make(value)

        return check

    def _name(self, column: Column, value: str) -> str:
        clear = public_form(column.vocabulary, value) if column.vocabulary and len(value) <= 128 else None
        return clear or self.keyed(value)


class NamingRedactor(Redactor):
    """Redacts as always and remembers, in memory only, what each keyed hash was made of."""

    def __init__(self, tenant_key: bytes) -> None:
        super().__init__(tenant_key)
        self.names: dict[str, str] = {}

    def keyed(self, text: str) -> str:
        """The keyed hash of a name."""
        found = super().keyed(text)
        self.names[found] = text
        return found


def _refuse_unknown(plan: _Plan, values: Mapping[str, object]) -> None:
    if not values.keys() <= plan.checks.keys():
        raise KeyError(f"{plan.table.name} has no column {sorted(values.keys() - plan.checks.keys())}")


def money(value: object) -> Decimal | None:
    """An amount as DECIMAL(38, 20). None for 0: on disk that means unreported, not free."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0:
        return None
    return amount.quantize(_MONEY_STEP, context=_MONEY) or None


def _integer(minimum: int | None, maximum: int | None, value: Any) -> int | None:
    if value.__class__ is not int:
        if isinstance(value, bool):
            return None
        if isinstance(value, Decimal) and value.is_finite() and abs(value) < 10**18 and value == int(value):
            value = int(value)  # `100.0` counts 100
        if not isinstance(value, int):
            return None
    return value if (minimum is None or minimum <= value) and (maximum is None or value <= maximum) else None


def _within(column: Column, value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return False
    if isinstance(value, Decimal) and not value.is_finite():
        return False
    return (column.minimum is None or value >= column.minimum) and (column.maximum is None or value <= column.maximum)


def _double(column: Column, value: object) -> float | None:
    if not (_within(column, value) and isinstance(value, (int, float, Decimal))):
        return None
    found = float(value)
    return found if found == 0 or abs(found) >= SMALLEST_DOUBLE else None
