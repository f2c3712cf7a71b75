"""Billing statements, once the marts were published: of every day, and of the month that has just ended.

Does not belong here: rows and files of a statement (billing/exports.py), what is checked (expectations/).
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection

from pipelines.billing import exports, gate, ledger, periods
from pipelines.billing.statements import Shelf
from pipelines.defs.publish import published_marts
from pipelines.defs.resources import WRITER, FoldersResource
from pipelines.quality import gates


def scene_of(connection: DuckDBPyConnection, folders: FoldersResource, *, as_of: datetime) -> exports.Scene:
    """What statements are made from, with the departure gate's verdicts."""
    connection.execute("SET TimeZone = 'UTC'")
    suites = gates.suites("departure")
    checks = [check for suite in suites for check in gate.judged(suite.name, gates.run(suite, connection))]
    return exports.Scene(
        connection=connection, shelf=Shelf.open(Path(folders.exports)),
        book=periods.read(ledger.book_path(Path(folders.books))), as_of=as_of, checks=checks, issuer=exports.issuer(),
    )  # fmt: skip


@dg.asset(
    key=["billing", "statements"], deps=[published_marts, dg.AssetKey(["marts", "export_focus_daily"])],
    group_name="billing", kinds={"csv", "parquet"}, pool=WRITER,
)  # fmt: skip
def billing_statements(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """Statements whose rows have changed. The departure gate is judged once more: each manifest says how."""
    with duckdb.get_connection() as connection:
        scene = scene_of(connection, folders, as_of=datetime.now(UTC))
        done = exports.export_days(scene)
        last_month = (scene.as_of.date().replace(day=1) - timedelta(days=1)).replace(day=1)
        if scene.book.status(last_month) == "open":
            done.append(exports.export_month(scene, last_month))
    written = [item for item in done if item.is_new]
    context.log.info(f"{len(done)} statements looked at, {len(written)} of them written now")
    rows = sum(item.rows for item in done)
    return dg.MaterializeResult(metadata={"statements": len(done), "written": len(written), "rows": rows})
