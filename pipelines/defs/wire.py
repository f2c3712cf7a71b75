"""The wire: one asset per table, all loaded in one transaction per group of batches.

Does not belong here: loading itself (warehouse/load.py), gates on what was loaded (gates.py).
"""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import BY_NAME, TABLES
from pipelines.defs.erasure import erasure_receipts
from pipelines.defs.partitions import ARRIVAL_DAYS, covered
from pipelines.defs.resources import HOME, WRITER, StoreResource
from pipelines.home import private_folder
from pipelines.warehouse import kept, landing, load, opening, operator_actions, quarantine, registry, verify

QUARANTINE = "Batches of the ledger that were refused, with their reasons; `apiary quarantine` lists and replays them."


def _specs() -> list[dg.AssetSpec]:
    described = {table.name: table.grain for table in TABLES} | dict.fromkeys(BOOKS, "The loader's own book.")
    return [
        dg.AssetSpec(["wire", name], description=text, group_name="wire", kinds={"duckdb"}, deps=[erasure_receipts])
        for name, text in (described | {"quarantine": QUARANTINE}).items()
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
    folder = private_folder(Path(duckdb.database).parent)
    for aside in opening.make_openable(Path(duckdb.database)):
        context.log.warning(f"{aside} would not open and was set aside; what it held is loaded again from the landing")
    judge = registry.judge(folder, opened)
    with duckdb.get_connection() as connection:
        load.prepare(connection)
        kept.restore(connection, opened)
        again = quarantine.replay_what_may_pass(connection, opened, judge=judge)
        found = landing.pending(opened, load.known_manifests(connection))
        today = datetime.now(UTC).date()
        arrivals = [a for a in found if covered(a.received_at.date(), first=first, last=last, today=today)]
        context.log.info(f"{len(arrivals)} batches arrived from {first} to {last} and are not loaded yet")
        loaded = load.load(connection, opened, arrivals, judge=judge)
        refused = quarantine.reasons(connection)
        verified = verify.verify(connection, opened, sample=verify.SAMPLE)
        acted = operator_actions.load(connection, HOME.operator_actions)
    context.log.info(
        f"{loaded.received} batches: {loaded.loaded} loaded, {loaded.quarantined} quarantined {loaded.reasons or ''}; "
        f"{loaded.rows_new} rows new, {loaded.rows_duplicate} duplicate, {loaded.rows_conflict} in conflict"
    )
    for key, kind in opened.passed_over.items():
        context.log.warning(f"passed over in the store, it is no object: {key} ({kind}); remove it")
    if again.received:
        context.log.info(f"{again.received} refused batches were judged again: {again.loaded} loaded")
    if loaded.incomplete:
        context.log.warning(f"{loaded.incomplete} batches lack an object: they are looked at again in the next run")
    new = {name: loaded.new_by_table.get(name, 0) + again.new_by_table.get(name, 0) for name in BY_NAME}
    for table in TABLES:
        yield dg.MaterializeResult(asset_key=["wire", table.name], metadata={"rows_new": new[table.name]})
    told = ("received", "loaded", "tombstones", "quarantined", "suppressed", "incomplete")
    batches = {name: getattr(loaded, name) for name in told}
    yield dg.MaterializeResult(asset_key=["wire", "batches"], metadata={**batches, "reasons": loaded.reasons})
    yield dg.MaterializeResult(
        asset_key=["wire", "quarantine"],
        metadata={"batches": sum(refused.values()), "reasons": refused, "replayed": again.loaded},
    )
    yield dg.MaterializeResult(
        asset_key=["wire", "object_findings"],
        metadata={"objects": verified.objects, "read": verified.read, "findings": len(verified.findings)},
    )
    yield dg.MaterializeResult(asset_key=["wire", "operator_actions"], metadata={"rows": acted})
    for book in BOOKS.keys() - {"batches", "object_findings", "operator_actions"}:
        yield dg.MaterializeResult(asset_key=["wire", book])
