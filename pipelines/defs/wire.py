"""The wire: one asset per table, all loaded in one transaction per group of batches.

Does not belong here: loading itself (warehouse/load.py), gates on what was loaded (gates.py).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import TABLES
from pipelines.defs.partitions import ARRIVAL_DAYS, covered
from pipelines.defs.resources import HOME, WRITER, StoreResource
from pipelines.home import private_folder
from pipelines.warehouse import landing, load, operator_actions


def _specs() -> list[dg.AssetSpec]:
    described = {table.name: table.grain for table in TABLES} | dict.fromkeys(BOOKS, "The loader's own book.")
    return [
        dg.AssetSpec(["wire", name], description=text, group_name="wire", kinds={"duckdb"})
        for name, text in described.items()
    ]


@dg.multi_asset(
    name="wire",
    specs=_specs(),
    partitions_def=ARRIVAL_DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    pool=WRITER,
)
def wire(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, store: StoreResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Load what arrived on the days of this run and is not in the ledger yet. Running a day twice changes nothing."""
    days = context.partition_key_range
    first, last = date.fromisoformat(days.start), date.fromisoformat(days.end)
    opened = store.open()
    private_folder(Path(duckdb.database).parent)
    with duckdb.get_connection() as connection:
        load.prepare(connection)
        found = landing.pending(opened, load.known_manifests(connection))
        today = datetime.now(UTC).date()
        arrivals = [a for a in found if covered(a.received_at.date(), first=first, last=last, today=today)]
        context.log.info(f"{len(arrivals)} batches arrived from {first} to {last} and are not loaded yet")
        loaded = load.load(connection, opened, arrivals)
        acted = operator_actions.load(connection, HOME.operator_actions)
    context.log.info(
        f"{loaded.received} batches: {loaded.loaded} loaded, {loaded.quarantined} quarantined {loaded.reasons or ''}; "
        f"{loaded.rows_new} rows new, {loaded.rows_duplicate} duplicate, {loaded.rows_conflict} in conflict"
    )
    if loaded.incomplete:
        context.log.warning(f"{loaded.incomplete} batches lack an object: they are looked at again in the next run")
    for table in TABLES:
        yield dg.MaterializeResult(
            asset_key=["wire", table.name], metadata={"rows_new": loaded.new_by_table.get(table.name, 0)}
        )
    batches = {name: getattr(loaded, name) for name in ("received", "loaded", "quarantined", "incomplete")}
    yield dg.MaterializeResult(asset_key=["wire", "batches"], metadata={**batches, "reasons": loaded.reasons})
    yield dg.MaterializeResult(asset_key=["wire", "operator_actions"], metadata={"rows": acted})
    for book in BOOKS.keys() - {"batches", "operator_actions"}:
        yield dg.MaterializeResult(asset_key=["wire", book])
