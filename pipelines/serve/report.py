"""The report: published data as a folder of linked pages, for people. They load nothing, need no network and no script.

A page is of one scope (a tenant, or all) and, where it is about the past, of one period; links lead to the same page of
another. `apiary serve` renders the same pages for the tenant of a key. Charts are drawn from the rows of the table
below them. Does not belong here: what the pages ask (report_pages.py), questions that need a person (notebooks/).
"""

import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import jinja2

from pipelines.contract.pseudonyms import renaming
from pipelines.errors import UsageError
from pipelines.home import private_folder
from pipelines.serve.cells import Cell, cell, heading
from pipelines.serve.report_pages import HEADLINES, PAGES, ROWS, Chart, Page, Section
from pipelines.warehouse.metrics import describe, metrics
from pipelines.warehouse.reading import connect

ALL = "all"
PERIODS = {"7d": 7, "30d": 30, "90d": 90, ALL: None}
DEFAULT_PERIOD = "30d"
TEMPLATES = Path(__file__).with_name("templates")
MARKER = "report.json"
"""A file that only a report has: nothing else is ever replaced or deleted."""
Meanings = Mapping[tuple[str, str], str]


def write(published: Path, out: Path, *, tenant: str | None = None) -> Path:
    """Write the pages into a folder, in place of an earlier report; the page to open.

    Raises NothingPublishedError, OSError, UsageError for a tenant without data or a folder that holds something else.
    """
    if out.suffix == ".html" or out.is_file():
        raise UsageError(f"{out}: the report is a folder of pages; name a folder with --out")
    if out.exists() and any(out.iterdir()) and not (out / MARKER).exists():
        raise UsageError(f"{out} holds something else than a report: name another folder with --out")
    with connect(published) as connection:
        scopes, meanings = scopes_of(connection, tenant), meanings_of(connection)
        aside = out.absolute().with_name(f".{out.name}.aside")
        shutil.rmtree(aside, ignore_errors=True)
        for scope in scopes:
            folder = private_folder(aside / scope.folder)
            with scope.opened(connection):
                for page in PAGES:
                    for period in PERIODS if page.has_period else (DEFAULT_PERIOD,):
                        text = render(connection, page, scope, period, scopes, meanings=meanings)
                        _write(folder / file_name(page, period), text)
    _write(aside / "index.html", page_of("index.html", first=scopes[0].folder))
    _write(aside / MARKER, json.dumps({"written_at": datetime.now(UTC).isoformat(), "tenant": tenant}) + "\n")
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)
    return out / "index.html"


def _write(path: Path, text: str) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)


def file_name(page: Page, period: str) -> str:
    """The file of a page: those of another period than the usual one are named after it."""
    return f"{page.name}.html" if period == DEFAULT_PERIOD or not page.has_period else f"{page.name}-{period}.html"


@dataclass(frozen=True)
class Scope:
    """Whose data a page is of: a tenant's, or everybody's."""

    tenant: str | None

    @property
    def folder(self) -> str:
        """Its folder; no tenant's is called `all`."""
        return f"tenant-{self.tenant}" if self.tenant else ALL

    @property
    def title(self) -> str:
        """Its name for people."""
        return self.tenant or "all tenants"

    @contextmanager
    def opened(self, connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Let every mart's name mean its rows of this scope, so that no query can reach those of others."""
        if self.tenant is None:
            yield
            return
        named = self.tenant.replace("'", "''")
        marts = connection.execute(
            "SELECT DISTINCT database_name, table_name FROM duckdb_columns()"
            " WHERE column_name = 'tenant_id' AND NOT internal AND database_name NOT IN ('temp', 'system')"
        ).fetchall()
        for database, mart in marts:
            connection.execute(
                f"CREATE TEMP VIEW {mart} AS FROM \"{database}\".main.{mart} WHERE tenant_id = '{named}'"
            )
        try:
            yield
        finally:
            for _, mart in marts:
                connection.execute(f"DROP VIEW temp.{mart}")


def scopes_of(connection: duckdb.DuckDBPyConnection, tenant: str | None) -> list[Scope]:
    """All tenants together and each; or the one. Raises UsageError for a tenant without data."""
    known = [name for (name,) in connection.execute("SELECT tenant_id FROM dim_tenants ORDER BY 1").fetchall()]
    if tenant is None:
        return [Scope(None), *map(Scope, known)]
    if tenant not in known:
        raise UsageError(f"nothing is published of tenant {tenant!r}; there are: {', '.join(known) or 'none'}")
    return [Scope(tenant)]


def meanings_of(connection: duckdb.DuckDBPyConnection) -> Meanings:
    """The descriptions of columns, by mart and column."""
    found = connection.execute(
        "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL"
    ).fetchall()
    return {(mart, column): text for mart, column, text in found}


class _Days:
    """`{days[COLUMN]}` in a query: the condition that a day is in the period."""

    def __init__(self, first: date | None, last: date | None) -> None:
        self.first = first
        self.last = last

    def __getitem__(self, column: str) -> str:
        return "TRUE" if self.first is None else f"{column} BETWEEN DATE '{self.first}' AND DATE '{self.last}'"


class _Bar(NamedTuple):
    name: str
    text: str
    share: float


class _Column(NamedTuple):
    name: str
    text: str
    share: float


def render(
    connection: duckdb.DuckDBPyConnection, page: Page, scope: Scope, period: str, scopes: Sequence[Scope],
    *, meanings: Meanings,
) -> str:  # fmt: skip
    """One page, of marts that are opened for its scope. Every link is relative."""
    known, zones, last = connection.execute(
        "SELECT (SELECT max(known_as_of) FROM dim_tenants),"
        " (SELECT string_agg(DISTINCT time_zone, ', ' ORDER BY time_zone) FROM agg_usage_quarter_hourly),"
        " (SELECT max(zone_date) FROM agg_usage_quarter_hourly)"
    ).fetchone() or (None, None, None)
    length = PERIODS[period] if page.has_period else None
    first = last - timedelta(days=length - 1) if last and length else None
    days = _Days(first, last)
    answers = [_answer(connection, section, days) for section in page.sections]
    rename = renaming(
        value for _, rows in answers for row in rows for value in row if isinstance(value, str) and "k1_" in value
    )
    sections = [
        _section(section, days, names, rows, scope=scope, rename=rename, meanings=meanings)
        for section, (names, rows) in zip(page.sections, answers, strict=True)
    ]
    return page_of(
        "report.html",
        page=page, scope=scope, sections=sections,
        cards=_headlines(connection, days) if page.name == "overview" else [],
        known=f"{known.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if known else "never",
        zones=zones or "UTC",
        period_text=_period_text(first, last) if page.has_period else None,
        pages=[(other.title, file_name(other, period if page.has_period else DEFAULT_PERIOD), other is page)
               for other in PAGES],
        scopes=[(other.title, f"../{other.folder}/{file_name(page, period)}", other == scope) for other in scopes],
        periods=[(_PERIOD_NAMES[other], file_name(page, other), other == period) for other in PERIODS]
        if page.has_period else [],
    )  # fmt: skip


_PERIOD_NAMES = {"7d": "7 days", "30d": "30 days", "90d": "90 days", ALL: "all time"}


def _period_text(first: date | None, last: date | None) -> str:
    if first is None:
        return "all time"
    return f"{first} to {last}, the last day with usage"


def _answer(
    connection: duckdb.DuckDBPyConnection, section: Section, days: _Days
) -> tuple[list[str], list[tuple[Any, ...]]]:
    cursor = connection.execute(_query(section, days))
    names = [column[0] for column in cursor.description]
    return names, cursor.fetchmany(ROWS + 1) if _is_cut(section) else cursor.fetchall()


def _query(section: Section, days: _Days) -> str:
    return section.sql.format(days=days)


def _is_cut(section: Section) -> bool:
    """Whether a table has a limit; days and hours have none: a chart draws all of them."""
    return section.chart is None or section.chart.kind != "columns"


def _headlines(connection: duckdb.DuckDBPyConnection, days: _Days) -> list[tuple[str, str, Cell, str]]:
    formulas = ", ".join(metrics()[name].formula for name in HEADLINES)
    row = connection.execute(f"SELECT {formulas} FROM agg_usage_quarter_hourly WHERE {days['zone_date']}").fetchone()
    return [
        (name, heading(name), cell(name, value), describe(name))
        for name, value in zip(HEADLINES, row or (), strict=True)
    ]


def _section(
    section: Section, days: _Days, names: list[str], rows: list[tuple[Any, ...]], *, scope: Scope, rename: Any,
    meanings: Meanings,
) -> dict[str, Any]:  # fmt: skip
    is_more = _is_cut(section) and len(rows) > ROWS
    records = [dict(zip(names, row, strict=True)) for row in (rows[:ROWS] if is_more else rows)]
    shown = [name for name in names if name != "tenant" or scope.tenant is None]
    cells = [{name: cell(name, record[name], rename) for name in names} for record in records]
    return {
        "title": section.title,
        "id": re.sub(r"[^a-z]+", "-", section.title.lower()).strip("-"),
        "text": section.text,
        "heads": [(heading(name), any(row[name].is_number for row in cells)) for name in shown],
        "rows": [[row[name] for name in shown] for row in cells],
        "more": f"The first {ROWS}: the query below has all." if is_more else "",
        "definitions": _definitions(section, shown, meanings),
        "query": _query(section, days),
        "chart": _chart(section.chart, records, cells, is_of_all=scope.tenant is None) if section.chart else None,
    }


def _definitions(section: Section, names: Sequence[str], meanings: Meanings) -> list[tuple[str, str]]:
    """What the columns mean: metrics by the dictionary, others by the description of their mart's column."""
    found = ((name, describe(name) if name in metrics() else meanings.get((section.of, name))) for name in names)
    return [(heading(name), text) for name, text in found if text]


def _chart(
    chart: Chart, records: list[dict[str, Any]], cells: list[dict[str, Cell]], *, is_of_all: bool
) -> dict[str, Any] | None:
    values = [float(record[chart.value] or 0) for record in records]
    most = max(values, default=0)
    if not most:
        return None
    if chart.kind == "bars":
        # A share is drawn of the whole, with a mark there where some are more: else the longest would look like all.
        most = max(most, 1) if chart.value.endswith("_share") else most
        whole = round(100 / most, 2) if chart.value.endswith("_share") and most > 1 else None
        marks = []
        longest = sorted(zip(cells, values, strict=True), key=lambda found: -found[1])
        for row, value in longest[:15]:
            name = row[chart.name].text
            if is_of_all and "tenant" in row:
                name = f"{name} ({row['tenant'].text})"
            marks.append(_Bar(name, row[chart.value].text, round(100 * value / most, 2)))
        shown = f"the first {len(marks)}: the table has more" if len(marks) < len(records) else ""
        return {
            "kind": "bars", "value": heading(chart.value), "name": heading(chart.name), "shown": shown, "marks": marks,
            "whole": whole,
        }  # fmt: skip
    first = next(iter(records[0]))
    by_place = {
        record[first]: (row[chart.value].text, value) for record, row, value in zip(records, cells, values, strict=True)
    }
    columns = [
        _Column(str(place), *(text, round(100 * value / most, 2)))
        for place in _places(list(by_place))
        for text, value in [by_place.get(place, ("0", 0.0))]
    ]
    return {
        "kind": "columns", "value": heading(chart.value), "marks": columns, "most": max(
            cells, key=lambda row: _value_of(row[chart.value]))[chart.value].text,
        "first": columns[0].name, "last": columns[-1].name,
    }  # fmt: skip


def _value_of(cell: Cell) -> Decimal:
    return Decimal(cell.exact) if cell.is_number and cell.exact else Decimal(0)


def _places(found: list[Any]) -> list[Any]:
    """Every day from the first to the last: one without usage has its place. Hours are all there."""
    if not isinstance(found[0], date):
        return sorted(found)
    first, last = min(found), max(found)
    return [date.fromordinal(number) for number in range(first.toordinal(), last.toordinal() + 1)]


def page_of(template: str, **values: object) -> str:
    """A page made of a template; every value is escaped."""
    return _templates().get_template(template).render(**values)


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
