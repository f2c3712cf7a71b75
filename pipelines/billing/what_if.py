"""What a period would have cost: the published usage rated again under a scenario, beside what it did cost.

The same models rate it, in a warehouse of their own that holds the period and nothing else: a scenario that changes
nothing differs by exactly nothing. Neither the warehouse nor the published data are touched.
Does not belong here: how turns are rated (models/), what prices are (prices.py).
"""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import duckdb

from pipelines.billing import books, catalogs, ledger, prices
from pipelines.errors import ExpectedError
from pipelines.home import ROOT, private_folder

RATED_BY = (
    "stg_billing__*", "int_billing__models_resolved", "int_billing__models_assumed", "int_billing__rates_in_force",
    "dim_billing_accounts", "int_billing__rating_days", "fct_rated_lines",
)  # fmt: skip
# What the rating models read that is not made of books; published columns only, so the lineage is made up again. The
# days of the period are rated; turns of other days tell which model a session used and how its source counts.
USAGE = """
    CREATE SCHEMA marts;
    CREATE SCHEMA core;
    CREATE SCHEMA rating;
    CREATE TABLE core.int_sessions__tree_resolved AS
        SELECT tenant_id, session_id, user_id, root_session_id, colony_id FROM published.dim_sessions;
    CREATE TABLE marts.fct_llm_turns AS
        SELECT turns.* REPLACE (coalesce(replaced.other, turns.model) AS model), CAST(1 AS BIGINT) AS _ingest_seq
        FROM published.fct_llm_turns AS turns
        LEFT JOIN replaced ON turns.model = replaced.model;
    CREATE TABLE rating.int_usage__day_models AS
        SELECT DISTINCT tenant_id, usage_date, model FROM marts.fct_llm_turns
        WHERE usage_date >= (SELECT first_day FROM period) AND usage_date < (SELECT end_day FROM period);
    CREATE TABLE core.int_usage__session_days AS
        SELECT DISTINCT tenant_id, session_id, usage_date, CAST(1 AS BIGINT) AS _ingest_seq FROM marts.fct_llm_turns
        WHERE usage_date >= (SELECT first_day FROM period) AND usage_date < (SELECT end_day FROM period);
"""
COMPARED = """
    WITH actual AS (
        SELECT rated_line_id, billing_account_id, tenant_id, model, component, currency, quantity, billed_cost
        FROM published.fct_rated_lines
        WHERE usage_date >= (SELECT first_day FROM period) AND usage_date < (SELECT end_day FROM period)
    ),
    scenario AS (
        SELECT rated_line_id, billing_account_id, tenant_id, component, currency, quantity, billed_cost
        FROM marts.fct_rated_lines
    )
    SELECT
        coalesce(actual.billing_account_id, scenario.billing_account_id) AS billing_account_id,
        coalesce(actual.tenant_id, scenario.tenant_id) AS tenant_id,
        actual.model AS model,
        coalesce(actual.component, scenario.component) AS component,
        coalesce(actual.currency, scenario.currency) AS currency,
        CAST(sum(coalesce(scenario.quantity, actual.quantity)) AS BIGINT) AS tokens,
        CAST(coalesce(sum(scenario.quantity) FILTER (WHERE scenario.billed_cost IS NULL), 0) AS BIGINT)
            AS unpriced_tokens,
        CAST(coalesce(sum(scenario.quantity) FILTER (
            WHERE scenario.billed_cost IS NOT NULL AND actual.billed_cost IS NULL
        ), 0) AS BIGINT) AS newly_priced_tokens,
        CAST(sum(actual.billed_cost) AS DECIMAL(38, 15)) AS actual_cost,
        CAST(sum(scenario.billed_cost) AS DECIMAL(38, 15)) AS scenario_cost,
        CAST(sum(scenario.billed_cost - actual.billed_cost) AS DECIMAL(38, 15)) AS difference
    FROM actual
    FULL JOIN scenario ON actual.rated_line_id = scenario.rated_line_id
    GROUP BY ALL
    ORDER BY ALL
"""


class WhatIfError(ExpectedError):
    """The scenario could not be rated; the text says why."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is different: prices that replace the book's, models that stand for others, batch, the cache's lifetime.

    `sheets`: ids of proposed sheets that are taken as approved. `models`: names as the
    log writes them, and the names to rate them as.
    """

    book: Path | None = None
    sheets: Sequence[str] = ()
    models: Mapping[str, str] = field(default_factory=dict)
    is_batch: bool = False
    cache_ttl: str = "5m"


def what_if(
    published: Path, folders: Sequence[Path], destination: Path, scenario: Scenario, *, first_day: date, end_day: date
) -> list[dict[str, Any]]:
    """Rate the days from `first_day` up to `end_day` again; rows by tenant, model and component.

    Leaves `rated_lines.parquet` and `comparison.parquet` in the destination. Raises WhatIfError, PriceError, OSError.
    """
    source = published / "current" / "marts.duckdb"
    if not source.exists():
        raise WhatIfError(f"nothing is published in {published}: `apiary run` first")
    # A name of its own each time: dbt keeps a file open in this process, a deleted one would live on behind its path.
    aside = private_folder(destination.with_name(f"{destination.name}.{secrets.token_hex(4)}.aside"))
    path = aside / "scenario.duckdb"
    try:
        signed = [*folders, _approved(scenario, folders, aside)]
        with duckdb.connect(str(path)) as connection:
            _take_along(connection, source, scenario, first_day=first_day, end_day=end_day)
            books.load(connection, signed)
            ledger.load(connection, aside)  # a scenario has no closed months and no provider's report
        _rate(path, scenario)
        with duckdb.connect(str(path)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute(f"ATTACH '{_quoted(source)}' AS published (READ_ONLY)")
            connection.execute(f"CREATE TABLE comparison AS {COMPARED}")
            for table, name in (("marts.fct_rated_lines", "rated_lines"), ("comparison", "comparison")):
                connection.execute(f"COPY {table} TO '{_quoted(aside / name)}.parquet' (FORMAT parquet)")
            found = connection.execute("SELECT * FROM comparison")
            names = [column[0] for column in found.description or ()]
            rows = [dict(zip(names, row, strict=True)) for row in found.fetchall()]
            connection.execute("DETACH published")
        shutil.rmtree(destination, ignore_errors=True)
        private_folder(destination)
        for file in aside.glob("*.parquet"):
            file.replace(destination / file.name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return rows


def by_account(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What a comparison comes to for each account and currency; what has a price only then adds its whole cost."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with localcontext(prec=60):
        for row in rows:
            key = (row["billing_account_id"], row["currency"])
            zero = {"tokens": 0, "newly_priced_tokens": 0, "unpriced_tokens": 0, "charged": Decimal(0),
                    "would_be_charged": Decimal(0)}  # fmt: skip
            one = found.setdefault(key, {"account": key[0], "currency": key[1], **zero})
            for name in ("tokens", "newly_priced_tokens", "unpriced_tokens"):
                one[name] += row[name]
            one["charged"] += row["actual_cost"] or 0
            one["would_be_charged"] += row["scenario_cost"] or 0
        for one in found.values():
            one["change"] = one["would_be_charged"] - one["charged"]
    return [found[key] for key in sorted(found)]


def _approved(scenario: Scenario, folders: Sequence[Path], aside: Path) -> Path:
    """A folder with the scenario's prices, approved after everything else."""
    folder = private_folder(aside / "book")
    now = datetime.now(UTC)
    proposed = prices.propose([*folders, folder], catalogs.operator(scenario.book), now=now) if scenario.book else []
    sheets = [*scenario.sheets, *(sheet.sheet_id for sheet in proposed)]
    prices.decide([*folders, folder], sheets, "approve", by="what-if", reason="a scenario", now=now)
    return folder


def _take_along(
    connection: duckdb.DuckDBPyConnection, source: Path, scenario: Scenario, *, first_day: date, end_day: date
) -> None:
    connection.execute("SET TimeZone = 'UTC'")
    connection.execute(f"ATTACH '{_quoted(source)}' AS published (READ_ONLY)")
    connection.execute("CREATE TABLE period (first_day DATE, end_day DATE)")
    connection.execute("INSERT INTO period VALUES (?, ?)", [first_day, end_day])
    connection.execute("CREATE TABLE replaced (model VARCHAR, other VARCHAR)")
    for model, other in scenario.models.items():
        connection.execute("INSERT INTO replaced VALUES (?, ?)", [model, other])
    connection.execute(USAGE)
    connection.execute("DETACH published")


def _rate(path: Path, scenario: Scenario) -> None:
    from dbt.cli.main import dbtRunner

    project = ROOT / "dbt_project"
    values = {"is_batch": scenario.is_batch, "cache_write_ttl": scenario.cache_ttl}
    with _environment("APIARY_WAREHOUSE", str(path)):
        result = dbtRunner().invoke(
            [
                "--quiet", "--log-level-file=none", "run", "--full-refresh", "--target", "duckdb",
                "--select", *RATED_BY,
                "--vars", json.dumps(values), f"--project-dir={project}", f"--profiles-dir={project}",
                f"--target-path={path.parent / 'target'}",
            ]
        )  # fmt: skip
    if not result.success:
        failed = [f"{r.node.name}: {r.message}" for r in getattr(result.result, "results", ()) if r.status == "error"]
        raise WhatIfError(f"the scenario could not be rated: {'; '.join(failed) or result.exception}")


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")
