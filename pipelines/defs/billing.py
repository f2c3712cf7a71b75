"""Billing statements, once the marts were published: every day those of the days, every month that of the month before.

Does not belong here: rows and files of a statement (billing/exports.py), what is checked (expectations/).
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.billing import exports, gate, ledger, periods
from pipelines.billing.statements import Shelf
from pipelines.defs.publish import published_marts
from pipelines.defs.resources import WRITER, FoldersResource
from pipelines.quality import gates

SUITES = gates.suites("finance")
STATEMENTS = dg.AssetKey(["billing", "statements"])


@dg.asset(
    key=STATEMENTS, deps=[published_marts, *(dg.AssetKey(["marts", suite.table]) for suite in SUITES)],
    group_name="billing", kinds={"csv", "parquet"}, pool=WRITER,
    check_specs=[
        dg.AssetCheckSpec(name=f"gate_{suite.table}", asset=STATEMENTS, description=suite.description)
        for suite in SUITES
    ],
)  # fmt: skip
def billing_statements(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, folders: FoldersResource
) -> Iterator[dg.MaterializeResult[None] | dg.AssetCheckResult]:
    """Statements of days whose rows have changed, and of months that are closing. None while the finance gate fails."""
    as_of = datetime.now(UTC)
    with duckdb.get_connection() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        judged = {suite.table: gate.judged(suite.name, gates.run(suite, connection)) for suite in SUITES}
        for name, checks in judged.items():
            failed = gate.failed(checks)
            yield dg.AssetCheckResult(
                passed=all(check.passed for check in checks), check_name=f"gate_{name}", asset_key=STATEMENTS,
                severity=dg.AssetCheckSeverity.ERROR if failed else dg.AssetCheckSeverity.WARN,
                metadata={check.name: f"{'pass' if check.passed else 'FAIL'}: {check.found}" for check in checks},
            )  # fmt: skip
        scene = exports.Scene(
            connection=connection, shelf=Shelf.open(Path(folders.exports)),
            book=periods.read(ledger.book_path(Path(folders.books))), as_of=as_of,
            checks=[check for checks in judged.values() for check in checks], issuer=exports.issuer(),
        )  # fmt: skip
        done = exports.export_days(scene)
        last_month = (as_of.date().replace(day=1) - timedelta(days=1)).replace(day=1)
        if scene.book.status(last_month) == "open":
            done.append(exports.export_month(scene, last_month))
    written = [item for item in done if item.is_new]
    context.log.info(f"{len(done)} statements looked at, {len(written)} of them written now")
    rows = sum(item.rows for item in done)
    yield dg.MaterializeResult(metadata={"statements": len(done), "written": len(written), "rows": rows})
