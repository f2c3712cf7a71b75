"""The wire: one asset per table, all loaded in one transaction per group of batches.

Does not belong here: loading itself (warehouse/load.py), gates on what was loaded (gates.py).
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection

from pipelines.contract.ddl import BOOKS
from pipelines.contract.numbers import pluralize
from pipelines.contract.wire import BY_NAME, TABLES
from pipelines.defs.erasure import erasure_receipts
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import AND_BEFORE, BY_ARRIVAL, FIRST_DAY, covered, nearest
from pipelines.defs.resources import HOME, WRITER, StoreResource
from pipelines.defs.retries import retried
from pipelines.home import private_folder
from pipelines.store import StoreRefusedError, StoreUnavailableError
from pipelines.warehouse import arrivals as arrival_days
from pipelines.warehouse import (
    database,
    erase,
    kept,
    landing,
    load,
    opening,
    operator_actions,
    quarantine,
    registry,
    verify,
)

QUARANTINE = "Batches of the ledger that were refused, with their reasons; `apiary quarantine` lists and replays them."


def _specs() -> list[dg.AssetSpec]:
    described = {table.name: table.grain for table in TABLES} | dict.fromkeys(BOOKS, "The loader's own book.")
    return [
        dg.AssetSpec(["wire", name], description=text, **labels("wire"), kinds={"duckdb"}, deps=[erasure_receipts])
        for name, text in (described | {"quarantine": QUARANTINE}).items()
    ]


NO_QUARANTINE = "no_batch_is_quarantined"
SHOWN = 50  # refused batches in the metadata of the check: the latest


def _describe_days(context: dg.AssetExecutionContext, connection: DuckDBPyConnection, first: date, last: date) -> None:
    """Say of each partition what arrived on its days, as the warehouse holds it now: the same after each run."""
    today = datetime.now(UTC).date()
    reach = (date.min if first == FIRST_DAY else first, date.max if last >= today else last)
    found = arrival_days.rows_by_day(connection, *reach)
    found["batches"] = arrival_days.batches_by_day(connection, *reach)
    found["quarantine"] = arrival_days.quarantined_by_day(connection, *reach)
    for name, days in found.items():
        of_partition: dict[str, Counter[str]] = {key: Counter() for key in context.partition_keys}
        for day, counts in days.items():
            of_partition[nearest(day, today=today).isoformat()].update(counts)
        for key, sums in of_partition.items():
            context.add_asset_metadata(sums if sums else {"rows": 0}, ["wire", name], partition_key=key)


def _judge_quarantine(refused: list[dict[str, Any]]) -> dg.AssetCheckResult:
    """Pass if no batch is refused; otherwise say why, which and whose, the latest first."""
    latest = list(reversed(refused[-SHOWN:]))
    metadata: dict[str, Any] = {"batches": len(refused)}
    if refused:
        metadata |= {
            "reasons": dict(Counter(str(batch["reason"]) for batch in refused)),
            "latest": dg.MetadataValue.table(
                [
                    dg.TableRecord(
                        {
                            name: str(batch[name])
                            for name in ("reason", "tenant_id", "device_id", "manifest_key", "refused_at")
                        }
                    )
                    for batch in latest
                ]
            ),
            "what to do": f"apiary quarantine show {latest[0]['manifest_key']}",
        }
    return dg.AssetCheckResult(
        check_name=NO_QUARANTINE, asset_key=["wire", "quarantine"], passed=not refused,
        severity=dg.AssetCheckSeverity.WARN, metadata=metadata,
    )  # fmt: skip


@dg.multi_asset(
    name="wire",
    specs=_specs(),
    check_specs=[
        dg.AssetCheckSpec(
            NO_QUARANTINE,
            asset=["wire", "quarantine"],
            description="No batch is refused. Reasons, keys and tenants: see docs/runbook.md, A batch was quarantined.",
        )
    ],
    pool=WRITER,
    **BY_ARRIVAL,
)
def wire(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, store: StoreResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Load what arrived on the days of this run and is not in the ledger yet. Running a day twice changes nothing."""
    days = context.partition_key_range
    first, last = date.fromisoformat(days.start), date.fromisoformat(days.end)
    with retried(context):
        opened = store.open()
        folder = private_folder(Path(duckdb.database).parent)
        for aside in opening.make_openable(Path(duckdb.database)):
            context.log.warning(
                f"{aside} would not open and was set aside; what it held is loaded again from the landing"
            )
        admission = registry.admission_policy(folder, opened)
        with duckdb.get_connection() as connection:
            load.prepare(connection)
            kept.restore(connection, opened)
            again = quarantine.replay_what_may_pass(connection, opened, admission=admission)
            found = landing.pending(opened, load.known_manifests(connection))
            today = datetime.now(UTC).date()
            and_before = AND_BEFORE in context.run.tags
            arrivals = [
                arrival
                for arrival in found
                if covered(arrival.received_at.date(), first=first, last=last, today=today, and_before=and_before)
            ]
            context.log.info(f"{pluralize(len(arrivals), 'batch')} arrived from {first} to {last}, not loaded yet")
            loaded = load.load(connection, opened, arrivals, admission=admission)
            suppressed = load.suppressed_manifests(connection)
            refused = quarantine.batches(connection, quarantine.Choice())
            verified = verify.verify(connection, opened, sample=verify.SAMPLE)
            acted = operator_actions.load(connection, HOME.operator_actions)
            arrival_days.note_first_day(HOME.first_arrival_day, opened)
            _describe_days(context, connection, first, last)
        # A run begins only when something is new: what comes of the erased would lie there until then.
        if not database.is_ducklake() and any(load.pseudonymised(arrival.key) in suppressed for arrival in found):
            try:
                erase.Pass(Path(duckdb.database), opened, only=()).clear_landing()
            except (StoreRefusedError, StoreUnavailableError) as error:  # the rows of all others are loaded
                context.log.warning(f"batches of somebody who was erased stay in the store: {error}")
    context.log.info(
        f"{pluralize(loaded.received, 'batch')}: {loaded.loaded} loaded, {loaded.refused};"
        f" {pluralize(loaded.rows_new, 'new row')}, {loaded.rows_duplicate} duplicate,"
        f" {loaded.rows_conflict} in conflict"
    )
    for key, kind in opened.passed_over.items():
        context.log.warning(f"passed over in the store, it is no object: {key} ({kind}); remove it")
    if again.received:
        context.log.info(f"{pluralize(again.received, 'refused batch')} judged again: {again.loaded} loaded")
    if loaded.incomplete:
        context.log.warning(
            f"{pluralize(loaded.incomplete, 'batch')} without all objects: looked at again in the next run"
        )
    for name in (*BY_NAME, "batches"):
        yield dg.MaterializeResult(asset_key=["wire", name])
    yield dg.MaterializeResult(asset_key=["wire", "quarantine"], check_results=[_judge_quarantine(refused)])
    yield dg.MaterializeResult(
        asset_key=["wire", "object_findings"],
        metadata={"objects": verified.objects, "read": verified.read, "findings": len(verified.findings)},
    )
    yield dg.MaterializeResult(asset_key=["wire", "operator_actions"], metadata={"rows": acted})
    for book in BOOKS.keys() - {"batches", "object_findings", "operator_actions"}:
        yield dg.MaterializeResult(asset_key=["wire", book])
