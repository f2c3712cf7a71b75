"""How a source counts cache tokens, as people said: within its input tokens, beside them, or unknown.

Does not belong here: what a convention makes of a turn (dbt_project/macros/cache_convention.sql).
"""

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import duckdb

from pipelines.billing import books
from pipelines.billing.books import written
from pipelines.errors import UsageError

Convention = Literal["inclusive", "exclusive", "read_inclusive", "unknown"]
CONVENTIONS: tuple[Convention, ...] = ("inclusive", "exclusive", "read_inclusive", "unknown")
NAMED = ("tenant_id", "model", "gateway")
OPEN = """
    SELECT tenant_id, model, cast(min(usage_date) AS VARCHAR) AS first_day, sum(turns)::BIGINT AS turns,
        sum(contracted_cost) AS charged, sum(high_cost) AS at_most, currency
    FROM read_parquet(?) WHERE exception_kind = 'cache_convention_unknown' GROUP BY ALL ORDER BY ALL
"""


class CacheConventionError(UsageError):
    """A statement about cache tokens that cannot stand; the text says why."""


def state(
    folders: Sequence[Path], convention: Convention, *, named: dict[str, str | None], by: str, reason: str,
    valid_from: datetime, valid_to: datetime | None, now: datetime,
) -> books.Row:  # fmt: skip
    """Record what somebody says of the turns of a tenant, a model, a gateway, in the last folder. Raises BookError.

    `named`: those of NAMED that it is about. Raises CacheConventionError.
    """
    if not by.strip() or not reason.strip():
        raise CacheConventionError("a statement needs a name and a reason")
    if not any(named.get(name) for name in NAMED):
        raise CacheConventionError("name a tenant, a model or a gateway that it is about")
    if valid_to is not None and valid_to <= valid_from:
        raise CacheConventionError(f"{written(valid_to)} is not after {written(valid_from)}")
    row: books.Row = {
        **{name: named.get(name) or None for name in NAMED}, "convention": convention, "decided_by": by,
        "reason": reason, "valid_from": valid_from, "valid_to": valid_to, "recorded_at": now,
    }  # fmt: skip
    row["cache_convention_id"] = hashlib.sha256("|".join(map(written, row.values())).encode()).hexdigest()[:16]
    known = books.read(books.CACHE_CONVENTIONS, folders)
    if all(row["cache_convention_id"] != old["cache_convention_id"] for old in known):
        books.append(books.CACHE_CONVENTIONS, folders[-1], [row])
    return row


def unknown(published: Path) -> list[dict[str, Any]]:
    """The sources of whom nobody said it and of whom the numbers do not tell, with what is charged and at most due."""
    path = published / "current" / "exc_billing_exceptions.parquet"
    if not path.exists():
        return []
    with duckdb.connect() as connection:
        found = connection.execute(OPEN, [str(path)])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]
