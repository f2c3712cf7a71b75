"""Redaction by construction: a record becomes a row of its contract table, and nothing else can come out.

Does not belong here: knowing where a value was found (readers), which columns there are (contract/wire.py).
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Any

from pipelines.contract.keys import identity_text, is_fixed_form, record_id
from pipelines.contract.table import SMALLEST_DOUBLE, Column, Keep, Table
from pipelines.contract.vocabulary import is_public, public_form

Row = dict[str, Any]
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


class Redactor:
    """Makes rows of contract tables under one tenant key."""

    def __init__(self, tenant_key: bytes) -> None:
        self._key = tenant_key
        self.left_out = 0
        """Values that a rule between columns took out of rows so far."""

    def keyed(self, text: str) -> str:
        """The keyed hash of a name a person chose: equal names of a tenant get equal hashes."""
        digest = hmac.new(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
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
        return hmac.new(self._key, text, hashlib.sha256).hexdigest()[:32]

    def row(self, table: Table, values: Mapping[str, object]) -> Row | None:
        """The row of `table` that may leave for these source values; None if a required value is missing or unfit.

        Keys of `values` that the contract does not name raise KeyError: a reader must ask for what it collects.
        """
        unknown = values.keys() - table.by_name.keys()
        if unknown:
            raise KeyError(f"{table.name} has no column {sorted(unknown)}")
        row = {column.name: self._value(column, values.get(column.name)) for column in table.columns}
        if any(column.required and row[column.name] is None for column in table.columns):
            return None
        self.left_out += sum(rule.mend(row) for rule in table.rules)
        return row

    def values(self, table: Table, values: Mapping[str, object]) -> dict[str, Any]:
        """Some of a row's values, as they may leave. Raises KeyError as `row` does."""
        return {name: self._value(table.by_name[name], value) for name, value in values.items()}

    def _value(self, column: Column, value: object) -> Any:
        if column.keep is Keep.COUNT:
            value = len(value) if isinstance(value, (list, tuple, str, dict)) else value
        if value is None:
            return None
        match column.type:
            case "string":
                return self._string(column, value)
            case "int64":
                if isinstance(value, Decimal) and value.is_finite() and abs(value) < 10**18 and value == int(value):
                    value = int(value)  # `100.0` counts 100
                ok = isinstance(value, int) and not isinstance(value, bool) and _within(column, value)
                return value if ok else None
            case "bool":
                return value if isinstance(value, bool) else None
            case "double":
                return _double(column, value)
            case "decimal":
                return money(value) if _within(column, value) else None
            case "timestamp":
                return value if isinstance(value, datetime) and value.tzinfo is not None else None

    def _string(self, column: Column, value: object) -> str | None:
        if column.keep is Keep.CLASS:
            return error_class(value)
        if not isinstance(value, str) or not value:
            return None
        match column.keep:
            case Keep.KEYED_HASH:
                clear = public_form(column.vocabulary, value) if column.vocabulary and len(value) <= 128 else None
                return clear or self.keyed(value)
            case Keep.ID:
                return self.identifier(column, value)
            case _ if column.values:
                return value if value in column.values else "other" if "other" in column.values else None
            case _:
                return value if column.regex.fullmatch(value) else None


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


def money(value: object) -> Decimal | None:
    """An amount as DECIMAL(38, 20). None for 0: on disk that means unreported, not free."""
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        return None
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0:
        return None
    return amount.quantize(_MONEY_STEP, context=_MONEY) or None


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
