"""Publication: the marts, once all of them have passed their gates, for people to read.

Does not belong here: writing files (warehouse/publish.py).
"""

from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_duckdb import DuckDBResource

from pipelines.contract.numbers import pluralize
from pipelines.defs.dbt_project import descriptions
from pipelines.defs.gates import billing_gate, departure_gate, is_in_run
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.resources import WRITER, FoldersResource
from pipelines.defs.transform import STEPS, require_tested
from pipelines.warehouse import publish

MARTS = [key for models in STEPS.values() for key in models.keys if key.path[0] == "marts"]
JUDGED = (*STEPS.values(), billing_gate, departure_gate)


@dg.asset(
    key=["published", "marts"], deps=MARTS, **labels("published"), kinds={"parquet", "duckdb"}, pool=WRITER,
    **BY_ARRIVAL,
)  # fmt: skip
def published_marts(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """Every mart as Parquet and in one read-only DuckDB file, replaced together; never past a gate or a test."""
    if not all(is_in_run(context, step) for step in JUDGED):
        require_tested(dbt, Path(duckdb.database), *STEPS)
    with duckdb.get_connection() as connection:
        published = publish.publish(connection, Path(folders.published), descriptions=descriptions())
    context.log.info(f"published {pluralize(len(published.rows), 'mart')} in {published.folder}")
    size = sum(file.stat().st_size for file in Path(published.folder).rglob("*") if file.is_file())
    total = {"marts": len(published.rows), "rows": sum(published.rows.values()), "bytes": size}
    return dg.MaterializeResult(metadata={**published.rows, **total, "folder": dg.MetadataValue.path(published.folder)})
