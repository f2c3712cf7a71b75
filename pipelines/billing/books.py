"""The books: files of rows that people sign and the warehouse reads before rating: prices, accounts, contracts, FX.

A book is a CSV file that only grows. The project ships the first price book (list_prices/first_books; the long ones
compressed); a site's own rows stand in the folder `billing/` under APIARY_HOME in files of the same names, and both are
read one after the other.
Does not belong here: what a row of prices means and who may approve it (prices.py), rating (models/).
"""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Any, Literal

import duckdb
import pyarrow as pa

from pipelines import list_prices
from pipelines.contract.numbers import plain, pluralize
from pipelines.contract.table import is_zone
from pipelines.errors import UsageError
from pipelines.home import private_folder, replace_file

Type = Literal["string", "int64", "bool", "date", "timestamp", "price", "rate", "amount"]
Row = dict[str, Any]

SHIPPED = list_prices.FIRST_BOOKS
ARROW: dict[Type, pa.DataType] = {
    "string": pa.string(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "price": pa.decimal128(18, 9),
    "rate": pa.decimal128(18, 10),
    "amount": pa.decimal128(38, 15),
}
# Digits before and after the point. A number with more digits is refused: rounding it would change what was signed.
DIGITS: dict[Type, tuple[int, int]] = {"price": (9, 9), "rate": (8, 10), "amount": (23, 15)}
_SHIPPED_ROWS: dict[str, tuple[tuple[int, Row], ...]] = {}
_NUMBER = re.compile(r"-?\d+(\.\d+)?", re.ASCII)


class BookError(UsageError):
    """A book cannot be read, or a row does not fit: the text names the file, the line and the column."""


@dataclass(frozen=True)
class Book:
    """One book: its columns with their types, which of them may be empty, and which name a row."""

    name: str
    grain: str
    columns: Mapping[str, Type]
    optional: frozenset[str] = frozenset()
    key: tuple[str, ...] = ()
    added: tuple[str, ...] = ()  # columns that files of earlier versions do not have: empty there

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of its table in the warehouse."""
        return pa.schema([pa.field(n, ARROW[t], nullable=n in self.optional) for n, t in self.columns.items()])


PRICES = Book(
    "price_book",
    "One proposed price of one component of a sheet.",
    {
        "price_id": "string", "sheet_id": "string", "provider_name": "string", "model": "string",
        "component": "string", "service_tier": "string", "currency": "string", "unit": "string", "source": "string",
        "source_version": "string", "source_sha256": "string", "note": "string", "context_tier_min": "int64",
        "dow_mask": "int64", "tod_from": "int64", "tod_to": "int64", "unit_quantity": "int64", "unit_price": "price",
        "is_batch": "bool", "is_free": "bool", "valid_from": "timestamp", "valid_to": "timestamp",
        "recorded_at": "timestamp",
    },
    frozenset({"valid_to", "note"}), ("price_id",),
)  # fmt: skip
DECISIONS = Book(
    "price_decisions",
    "One decision about one sheet of prices.",
    {
        "sheet_id": "string", "decision": "string", "decided_by": "string", "reason": "string",
        "decided_at": "timestamp",
    },
    key=("sheet_id", "decided_at"),
)  # fmt: skip
PREFIXES = Book(
    "model_prefixes",
    "One first segment of model names in the logs and whose prices count for what follows it; empty for none.",
    {"prefix": "string", "provider_name": "string", "recorded_at": "timestamp"},
    frozenset({"prefix"}),
    ("prefix", "provider_name"),
)
CACHE_CONVENTIONS = Book(
    "cache_conventions",
    "How a source counts cache tokens, within its input tokens or beside them, for turns of a span of time.",
    {
        "cache_convention_id": "string", "tenant_id": "string", "model": "string", "gateway": "string",
        "convention": "string", "decided_by": "string", "reason": "string", "valid_from": "timestamp",
        "valid_to": "timestamp", "recorded_at": "timestamp",
    },
    frozenset({"tenant_id", "model", "gateway", "valid_to"}), ("cache_convention_id",),
)  # fmt: skip
SIGNED: dict[str, Type] = {"recorded_by": "string", "approved_by": "string"}
ALIASES = Book(
    "model_aliases",
    "One model name of the logs and the model of the price book that it means, from a day on until another does.",
    {
        "alias_id": "string", "model": "string", "provider_name": "string", "price_model": "string", "note": "string",
        "recorded_at": "timestamp", "valid_from": "date", **SIGNED,
    },
    frozenset({"note", "valid_from", *SIGNED}), ("model", "valid_from", "recorded_at"), ("valid_from", *SIGNED),
)  # fmt: skip
ACCOUNTS = Book(
    "billing_accounts",
    "One observation of the account that pays for a tenant's usage over a span of days; of a day, the newest speaks.",
    {
        "billing_account_id": "string", "tenant_id": "string", "name": "string", "currency": "string",
        "reporting_timezone": "string", "charged_by": "string", "recorded_at": "timestamp", "valid_from": "date",
        "valid_to": "date", **SIGNED,
    },
    frozenset({"valid_from", "valid_to", *SIGNED}), ("tenant_id", "valid_from", "recorded_at"),
    ("valid_from", "valid_to", *SIGNED),
)  # fmt: skip
CONTRACT_RATES = Book(
    "contract_rates",
    "One agreed rate of an account: a factor on list prices, or a unit price of its own.",
    {
        "contract_rate_id": "string", "billing_account_id": "string", "provider_name": "string", "model": "string",
        "component": "string", "note": "string", "factor": "price", "unit_price": "price", "valid_from": "date",
        "valid_to": "date", "recorded_at": "timestamp", **SIGNED,
    },
    frozenset({"provider_name", "model", "component", "note", "factor", "unit_price", "valid_to", *SIGNED}),
    ("contract_rate_id", "recorded_at"), (*SIGNED,),
)  # fmt: skip
FX_RATES = Book(
    "fx_rates",
    "One rate of exchange from its day on, until the next.",
    {
        "fx_rate_id": "string", "currency_from": "string", "currency_to": "string", "source": "string", "rate": "rate",
        "valid_from": "date", "recorded_at": "timestamp", **SIGNED,
    },
    frozenset(SIGNED), ("fx_rate_id",), (*SIGNED,),
)  # fmt: skip
PLAN_ITEMS = Book(
    "plan_items",
    "One item of an account's plan, charged by the month: what is counted, how it is priced, what is included.",
    {
        "plan_item_id": "string", "billing_account_id": "string", "item": "string", "pricing": "string",
        "note": "string", "included_units": "int64", "package_size": "int64", "unit_price": "price",
        "commit_amount": "amount", "valid_from": "date", "valid_to": "date", "recorded_at": "timestamp", **SIGNED,
    },
    frozenset({"note", "package_size", "unit_price", "commit_amount", "valid_to", *SIGNED}),
    ("plan_item_id", "recorded_at"), (*SIGNED,),
)  # fmt: skip
PLAN_TIERS = Book(
    "plan_tiers",
    "One tier of a graduated or volume-priced item: its price from the unit after `tier_from` on.",
    {"plan_item_id": "string", "tier_from": "int64", "unit_price": "price", "recorded_at": "timestamp", **SIGNED},
    frozenset(SIGNED),
    ("plan_item_id", "tier_from", "recorded_at"),
    (*SIGNED,),
)
SEATS = Book(
    "seats",
    "One seat held by one user for a span of days.",
    {
        "seat_id": "string", "billing_account_id": "string", "user_id": "string", "valid_from": "date",
        "valid_to": "date", "recorded_at": "timestamp", **SIGNED,
    },
    frozenset({"valid_to", *SIGNED}), ("seat_id", "valid_from", "recorded_at"), (*SIGNED,),
)  # fmt: skip
CREDIT_GRANTS = Book(
    "credit_grants",
    "One grant of prepaid credit to an account, in its currency of that day; what expires first is used first.",
    {
        "credit_grant_id": "string", "billing_account_id": "string", "reason": "string", "granted_by": "string",
        "amount": "amount", "granted_on": "date", "recorded_at": "timestamp", "expires_on": "date",
        "approved_by": "string",
    },
    frozenset({"expires_on", "approved_by"}), ("credit_grant_id", "recorded_at"), ("expires_on", "approved_by"),
)  # fmt: skip
SETTLEMENTS = Book(
    "settlements",
    "One decision about usage without a price in a month of an account: written off, or left to a later month.",
    {
        "settlement_id": "string", "billing_account_id": "string", "billing_period": "date", "kind": "string",
        "model": "string", "reason": "string", "recorded_by": "string", "recorded_at": "timestamp",
    },
    key=("settlement_id",),
)  # fmt: skip
SESSION_USERS = Book(
    "session_users",
    "One decision whose a session is that several users of a tenant have; of a session, the newest speaks.",
    {"tenant_id": "string", "session_id": "string", "user_id": "string", "recorded_at": "timestamp", **SIGNED},
    key=("tenant_id", "session_id", "recorded_at"),
)
MODEL_POLICIES = Book(
    "model_policies",
    "How usage is rated whose source names no model, of a tenant or of all, over a span of days; the newest speaks.",
    {
        "tenant_id": "string", "rule": "string", "default_model": "string", "valid_from": "date", "valid_to": "date",
        "recorded_at": "timestamp", **SIGNED,
    },
    frozenset({"tenant_id", "default_model", "valid_to"}), ("tenant_id", "valid_from", "recorded_at"),
)  # fmt: skip
BUDGETS = Book(
    "budgets",
    "One limit on use, by day or month, of a tenant, one of its users or colonies; of a budget, the newest speaks.",
    {
        "budget_id": "string", "tenant_id": "string", "scope": "string", "scope_id": "string", "period": "string",
        "measure": "string", "limit_amount": "amount", "warn_at": "rate", "unpriced_limit_tokens": "int64",
        "valid_from": "date", "valid_to": "date", "recorded_at": "timestamp", **SIGNED,
    },
    frozenset({"scope_id", "unpriced_limit_tokens", "valid_to"}), ("budget_id", "recorded_at"),
)  # fmt: skip
BOOKS = (
    PRICES, DECISIONS, PREFIXES, ALIASES, CACHE_CONVENTIONS, ACCOUNTS, CONTRACT_RATES, FX_RATES, PLAN_ITEMS, PLAN_TIERS,
    SEATS, CREDIT_GRANTS, SETTLEMENTS, SESSION_USERS, MODEL_POLICIES, BUDGETS,
)  # fmt: skip
# What the marts know how to charge: any other word would be charged as nothing.
WORDS: dict[str, frozenset[str]] = {
    "item": frozenset({"seat", "colony_day", "tokens", "rated_cost"}),
    "pricing": frozenset({"per_unit", "package", "graduated", "volume", "none"}),
    "charged_by": frozenset({"tokens", "plan"}),
    "decision": frozenset({"approve", "corroborate", "reject"}),
    "convention": frozenset({"inclusive", "exclusive", "read_inclusive", "unknown"}),
    "kind": frozenset({"write_off", "late"}),
    "rule": frozenset({"session", "default", "unknown"}),
    "scope": frozenset({"tenant", "user", "colony"}),
    "period": frozenset({"day", "month"}),
    "measure": frozenset({"tokens", "reported_cost_usd", "rated_cost_usd", "turns"}),
}
# ISO 4217 codes without digits behind the point, as macros/statement.sql has them.
NO_MINOR_UNIT = frozenset({
    "BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF",
    "XPF",
})  # fmt: skip
# ISO 4217 codes with three or four digits behind the point: payable amounts have two.
FINER_CURRENCIES = frozenset({"BHD", "CLF", "IQD", "JOD", "KWD", "LYD", "OMR", "TND", "UYW"})
UNATTRIBUTED = "UNATTRIBUTED"
"""Stands for an account where nobody opened one: its usage is a worklist, on no invoice."""
NOT_NEGATIVE = frozenset({
    "unit_price", "factor", "rate", "amount", "commit_amount", "included_units", "tier_from", "limit_amount",
    "unpriced_limit_tokens",
})  # fmt: skip


def read(book: Book, folders: Sequence[Path]) -> list[Row]:
    """All rows of a book, file after file in the order of the folders. Raises BookError."""
    rows: list[Row] = []
    seen: dict[tuple[Any, ...], str] = {}
    for path in (folder / f"{book.name}.csv" for folder in folders):
        for line, row in _rows(book, path):
            key = tuple(row[name] for name in book.key)
            if key in seen:
                raise BookError(f"{path}, line {line}: {', '.join(book.key)} stands in {seen[key]} already")
            seen[key] = f"{path}, line {line}"
            rows.append(row)
    return rows


def append(book: Book, folder: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Add rows to the end of a book; what stands in it is never touched. Returns how many. Raises OSError."""
    rows = list(rows)
    if not rows:
        return 0
    path = private_folder(folder) / f"{book.name}.csv"
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    if not path.exists():
        writer.writerow(book.columns)
    else:
        _widen(book, path)
    for row in rows:
        writer.writerow([written(row.get(name) if name in book.added else row[name]) for name in book.columns])
    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(text.getvalue())
    return len(rows)


def load(connection: duckdb.DuckDBPyConnection, folders: Sequence[Path]) -> dict[str, int]:
    """Put every book into the warehouse's schema `billing`, all of them or none; rows by book.

    `knowledge` says up to when the books know: rating takes it as its clock, never the machine's. Raises BookError.
    """
    found = [(book, read(book, folders)) for book in BOOKS]
    moments = [
        row[name]
        for book, rows in found
        for row in rows
        for name in ("recorded_at", "decided_at")
        if name in book.columns
    ]
    knowledge = pa.table(
        {"known_at": pa.array([max(moments, default=datetime(1970, 1, 1, tzinfo=UTC))], ARROW["timestamp"])}
    )
    tables = {book.name: pa.Table.from_pylist(rows, schema=book.schema) for book, rows in found}
    connection.execute("BEGIN")
    try:
        connection.execute("CREATE SCHEMA IF NOT EXISTS billing")
        for name, table in (*tables.items(), ("knowledge", knowledge)):
            connection.register("book_rows", table)
            connection.execute(f"CREATE OR REPLACE TABLE billing.{name} AS SELECT * FROM book_rows")
            connection.unregister("book_rows")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    return {name: table.num_rows for name, table in tables.items()}


def parsed(kind: Type, text: str) -> Any:
    """A value from its text. Raises ValueError."""
    if kind == "string":
        return text
    if kind == "bool":
        return {"true": True, "false": False}[text]
    if kind == "int64":
        return int(text)
    if kind == "date":
        return date.fromisoformat(text)
    if kind == "timestamp":
        if not text.endswith("Z"):
            raise ValueError("a time is written in UTC and ends in Z")
        return datetime.fromisoformat(text)
    before, after = DIGITS[kind]
    if not _NUMBER.fullmatch(text):
        raise ValueError("a number is written in digits")
    whole, _, part = text.lstrip("-").partition(".")
    if len(whole.lstrip("0")) > before or len(part.rstrip("0")) > after:
        raise ValueError(f"at most {before} digits before the point and {after} behind it")
    return Decimal(text)


def written(value: Any) -> str:
    """A value as a book writes it; the text reads back as the same value."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def _widen(book: Book, path: Path) -> None:
    """Give a file of an earlier version the columns that it lacks; its rows are the same, with nothing in them."""
    with path.open(encoding="utf-8", newline="") as file:
        if next(csv.reader(file), None) == list(book.columns):
            return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(book.columns)
    writer.writerows([written(row[name]) for name in book.columns] for _, row in _rows(book, path))
    replace_file(path, text.getvalue().encode())


def _rows(book: Book, path: Path) -> Iterable[tuple[int, Row]]:
    if path.parent != SHIPPED:
        return _parse(book, path)
    # The shipped price book is long and does not change: it is read once a process.
    if path.name not in _SHIPPED_ROWS:
        _SHIPPED_ROWS[path.name] = tuple(_parse(book, path))
    return _SHIPPED_ROWS[path.name]


def _packed(path: Path) -> Path:
    return path.with_name(f"{path.name}.gz")


def _opened(path: Path) -> IO[str]:
    if path.exists():
        return path.open(encoding="utf-8", newline="")
    return gzip.open(_packed(path), "rt", encoding="utf-8", newline="")


def _parse(book: Book, path: Path) -> Iterator[tuple[int, Row]]:
    if not path.exists() and not _packed(path).exists():
        return
    with _opened(path) as file:
        lines = csv.reader(file)
        header = next(lines, None) or []
        older = [name for name in book.columns if name not in book.added or name in header]
        if header != list(book.columns) and header != older:
            raise BookError(f"{path}: the first line must be {','.join(book.columns)}, not {','.join(header)}")
        for cells in lines:
            if len(cells) != len(header):
                raise BookError(f"{path}, line {lines.line_num}: {pluralize(len(cells), 'cell')}, not {len(header)}")
            row: Row = dict.fromkeys(book.columns)
            for name, text in zip(header, cells, strict=True):
                kind = book.columns[name]
                if not text and name not in book.optional:
                    raise BookError(f"{path}, line {lines.line_num}: {name} is empty")
                try:
                    row[name] = parsed(kind, text) if text else None
                    if text and (wrong := refused(name, text, row[name])):
                        raise ValueError(wrong)
                    if name == "reporting_timezone" and not is_zone(text):
                        raise ValueError("no IANA time zone has that name; write one such as Europe/Berlin")
                except (ValueError, KeyError, InvalidOperation) as error:
                    raise BookError(f"{path}, line {lines.line_num}: {name} is {text!r}: {error}") from None
            if wrong := contradiction(row):
                raise BookError(f"{path}, line {lines.line_num}: {wrong}")
            yield lines.line_num, row


def refused(name: str, text: str, value: Any) -> str | None:
    """Why a value that can be read cannot be charged; None if it can."""
    words = WORDS.get(name)
    if words is not None and text not in words:
        return f"write one of {', '.join(sorted(words))}"
    return "write a number that is not below 0" if name in NOT_NEGATIVE and value < 0 else None


def contradiction(row: Row) -> str | None:
    """What no row may say, although each of its cells is sound."""
    if row.get("expires_on") is not None and row["expires_on"] <= row["granted_on"]:
        return "expires_on is not after granted_on"
    if row.get("rule") == "default" and row["default_model"] is None:
        return "the rule default needs a default_model"
    return _wrong_budget(row) if "budget_id" in row else None


def _wrong_budget(row: Row) -> str | None:
    """What a device would refuse a whole snapshot of budgets for."""
    if (row["scope"] == "tenant") != (row["scope_id"] is None):
        return "scope_id names the user or the colony, and is empty for the tenant"
    if not 0 < row["warn_at"] <= 1:
        return "warn_at is a share of the limit: above 0 and at most 1"
    if not row["measure"].endswith("_usd"):
        if row["unpriced_limit_tokens"] is not None:
            return "unpriced_limit_tokens is for a budget of cost"
        if row["limit_amount"] != row["limit_amount"].to_integral_value():
            return f"a limit of {row['measure']} is a whole number"
    if row["valid_to"] is not None and row["valid_to"] <= row["valid_from"]:
        return "valid_to is not after valid_from"
    return None
