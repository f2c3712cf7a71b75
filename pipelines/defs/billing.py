"""The daily billing export, once the marts were published.

Does not belong here: rows and files of an export (billing/daily_export.py).
"""

from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.billing import daily_export
from pipelines.defs.publish import published_marts
from pipelines.defs.resources import WRITER, FoldersResource


@dg.asset(
    key=["billing", "daily_export"], deps=[published_marts, dg.AssetKey(["marts", "mart_daily_billing"])],
    group_name="billing", kinds={"csv", "parquet"}, pool=WRITER,
)  # fmt: skip
def billing_daily_export(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """One export per UTC day with usage; only days whose rows changed get a new version."""
    with duckdb.get_connection() as connection:
        exported = daily_export.export_days(connection, Path(folders.exports))
    written = [day for day in exported if day.is_new]
    context.log.info(f"{len(exported)} days exported, {len(written)} of them written now")
    rows = sum(day.rows for day in exported)
    return dg.MaterializeResult(metadata={"days": len(exported), "days_written": len(written), "rows": rows})
