"""Rows of one tenant from the published marts.

The tenant is bound where a mart is opened, not in each question: a question sees the rows as `mart` and cannot reach
those of others. Does not belong here: questions (api.py).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from pipelines.contract.numbers import plain
from pipelines.warehouse.reading import connect, open_published

Row = dict[str, Any]


class TenantData:
    """An open publication, seen by one tenant."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, tenant: str, publication: str) -> None:
        self._connection = connection
        self.tenant = tenant
        self.publication = publication

    def known_as_of(self) -> datetime | None:
        """When the last of what is known of the tenant had arrived; None if nothing is."""
        found = self._connection.execute(
            "SELECT known_as_of FROM dim_tenants WHERE tenant_id = $tenant", {"tenant": self.tenant}
        ).fetchone()
        return found[0] if found else None

    def rows(self, mart: str, select: str = "*", rest: str = "", **values: object) -> list[Row]:
        """`SELECT {select} FROM mart {rest}`, where `mart` holds this tenant's rows of that published mart.

        Texts are this program's own; what came with a request is bound. Exact decimals become text.
        """
        cursor = self._connection.execute(
            f"WITH mart AS (SELECT * FROM {mart} WHERE tenant_id = $tenant) SELECT {select} FROM mart {rest}",
            {"tenant": self.tenant, **values},
        )
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, map(_plain, row), strict=True)) for row in cursor.fetchall()]

    def row(self, mart: str, select: str = "*", rest: str = "", **values: object) -> Row | None:
        """The first row, or None."""
        return next(iter(self.rows(mart, select, rest, **values)), None)


@contextmanager
def open_tenant(published: Path, tenant: str) -> Iterator[TenantData]:
    """The present publication. Raises NothingPublishedError."""
    current = (published / "current").resolve()
    with open_published(current / "marts.duckdb") as connection:
        yield TenantData(connection, tenant, current.name)


def tenants(published: Path) -> list[str]:
    """The tenants that anything is published of. Raises NothingPublishedError."""
    with connect(published) as connection:
        return [name for (name,) in connection.execute("SELECT tenant_id FROM dim_tenants ORDER BY 1").fetchall()]


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return value


def sums(names: Sequence[str], formulas: dict[str, str]) -> str:
    """The formulas of the metric dictionary, each under its name."""
    return ", ".join(f"{formulas[name]} AS {name}" for name in names)
