"""Erasure: a warehouse without the erased, published data and statements without them, then the store, then proof.

It stands before the load and needs neither models nor statements; the models are built anew by the run that follows.
Request by request: one that cannot be finished waits with its reason. Does not belong here: what is erased and how
(warehouse/erase.py).
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import dagster as dg
import duckdb as engine
from dagster_duckdb import DuckDBResource

from pipelines.billing import attestation, books, current, ledger, redaction
from pipelines.billing.statements import StatementStore
from pipelines.contract.numbers import pluralize
from pipelines.defs.dbt_project import PROJECT, descriptions
from pipelines.defs.erasure_requests import erasure_requests
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.resources import HOME, WRITER, FoldersResource, StoreResource
from pipelines.defs.retries import retried
from pipelines.home import private_folder
from pipelines.store import Store, StoreUnavailableError
from pipelines.warehouse import database, erase, operator_actions, publish, suppression
from pipelines.warehouse.erase import BuildError, Erased
from pipelines.warehouse.needles import Needles

FINISHED = "every_request_is_finished"
NOT_ON_DUCKLAKE = (
    "a DuckLake keeps what is deleted: move it into a DuckDB file (docs/growing.md), then `apiary erase --pending`"
)


@dg.asset(
    key=["erasure", "receipts"], deps=[erasure_requests], **labels("erasure"), pool=WRITER, kinds={"duckdb"},
    **BY_ARRIVAL,
    check_specs=[dg.AssetCheckSpec(FINISHED, asset=["erasure", "receipts"], description="No request waits.")],
)  # fmt: skip
def erasure_receipts(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, store: StoreResource, folders: FoldersResource
) -> Iterator[dg.MaterializeResult[None]]:
    """What is on the suppression list goes from every place, is looked for in every byte, and is receipted."""
    done: list[Erased] = []
    failed: dict[str, str] = {}
    with retried(context):
        opened, warehouse = store.open(), Path(duckdb.database)
        spared = [HOME.device, HOME.devices, *_folder_of(store.url)]
        lines = suppression.pending(opened, suppression.load(opened))
        # All at once first: it costs one rewriting. Where that fails, each for itself: then it is one's own fault.
        groups = [{line.request_id for line in lines}, *({line.request_id} for line in lines if len(lines) > 1)]
        if lines and database.is_ducklake():
            groups, failed = [], {line.request_id: NOT_ON_DUCKLAKE for line in lines}
            erase.write_failed(warehouse, failed, lines=lines, at=datetime.now(UTC))
        for group in groups:
            left = group - failed.keys() - {item.request_id for item in done}
            if len(left) < len(group):
                continue
            try:
                found, waiting = _erase(context, warehouse, opened, folders, only=group, spared=spared)
            except StoreUnavailableError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, it must stop neither another request nor the load
                text = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
                context.log.warning(f"an erasure of {pluralize(len(group), 'request')} was cut off: {text}")
                if len(group) == 1:
                    failed |= dict.fromkeys(group, text)
                    here = [line for line in lines if line.request_id in group]
                    erase.write_failed(warehouse, dict.fromkeys(group, text), lines=here, at=datetime.now(UTC))
                continue
            done += found
            failed |= waiting
    for erased in done:
        context.log.info(
            f"erased {erased.request_id}: {pluralize(erased.rows, 'row')}, {pluralize(erased.objects, 'object')}; "
            f"{pluralize(erased.searched, 'file or object', 'files and objects')} searched, nothing found"
            f"{f'; {dict(erased.findings)}' if erased.findings else ''}"
        )
    for request_id, reason in failed.items():
        context.log.warning(f"request {request_id} waits: {reason}")
    yield dg.MaterializeResult(
        metadata={"receipts": len(done), "waiting": len(failed), "objects": sum(item.objects for item in done)},
        check_results=[
            dg.AssetCheckResult(
                check_name=FINISHED, passed=not failed, severity=dg.AssetCheckSeverity.WARN, metadata=dict(failed)
            )
        ],
    )


def _erase(
    context: dg.AssetExecutionContext, warehouse: Path, store: Store, folders: FoldersResource, *,
    only: Collection[str], spared: list[Path],
) -> tuple[list[Erased], dict[str, str]]:  # fmt: skip
    """One pass over some requests; those that are done, and the reasons of those that wait."""
    now = datetime.now(UTC)
    if warehouse.exists():
        _read_books(context, warehouse, Path(folders.books))
    work = erase.Pass(warehouse, store, only=only)
    exports, ledgers = Path(folders.exports), Path(folders.books)
    if work.rewrite(_build, now=now):
        common = work.common_names([*_signed(ledgers), *redaction.signed_texts(books.SHIPPED)])
        words = work.journal.identifiers | (work.journal.names - common)
        redaction.redact(exports, ledgers, words, common, at=now, key=work.colony_key)
        whole = {line.tenant for line in work.lines if line.scope == "tenant"}
        operator_actions.redact(HOME.operator_actions, tenants=whole, erased=work.journal.identifiers)
        current.refresh(StatementStore.open(exports))  # made from statements that name nobody erased now
        attestation.attest(exports, ledgers, as_of=now, after_erasure=True)
        if warehouse.exists():
            with engine.connect(str(warehouse)) as connection:
                connection.execute("SET TimeZone = 'UTC'")
                ledger.reload(connection, ledgers)
                ledger.load_restatements(connection, exports)
        needles = Needles(work.journal.identifiers, work.journal.names - common)
        publish.purge(Path(folders.published), needles, common=common, descriptions=descriptions(), now=now)
        shutil.rmtree(HOME.root / "dbt", ignore_errors=True)  # nothing but copies of the project and logs
    work.clear_landing()
    for copy in work.clear_copies():
        context.log.info(f"removed {copy}: a copy of the warehouse that was set aside")
    roots = [HOME.root]
    logs = Path(os.environ.get("DAGSTER_HOME") or HOME.dagster)
    if not logs.is_relative_to(HOME.root):  # a person's DAGSTER_HOME: Dagster's logs may name who was erased
        roots.append(logs)
    models = redaction.models_in_books(ledgers)
    return work.prove(roots, passing_over=spared, signed=_signed(ledgers), models=models, now=now), work.failed


def _signed(ledgers: Path) -> list[str]:
    """What those wrote who keep the site's books."""
    return [*redaction.signed_texts(ledgers), *operator_actions.actors(HOME.operator_actions)]


def _read_books(context: dg.AssetExecutionContext, warehouse: Path, folder: Path) -> None:
    """Take over what finance took out of a book, so that the warehouse is written anew without it."""
    try:
        with engine.connect(str(warehouse)) as connection:
            books.load(connection, [books.SHIPPED, folder])
    except books.BookError as error:
        context.log.warning(f"the books stay as they were read last: {error}")


def _build(file: Path) -> None:
    """The rated lines, by dbt in a process of its own, on the warehouse that is to take the old one's place."""
    folder = private_folder(HOME.root / "dbt") / "erasing"
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-version-check", "build", "--select",
        "+fct_rated_lines", "--exclude-resource-type", "unit_test", "--exclude-resource-type", "test",
        "--project-dir", str(PROJECT.project_dir), "--profiles-dir", str(PROJECT.project_dir),
        "--target-path", str(folder), "--log-path", str(folder),
    ]  # fmt: skip
    environment = os.environ | {"APIARY_WAREHOUSE": str(file)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise BuildError(" ".join(result.stdout.split())[-300:])


def _folder_of(store_url: str) -> list[Path]:
    """The folder of a store that is one: its objects are searched as objects."""
    parts = urlparse(store_url)
    return [Path(unquote(parts.path))] if parts.scheme == "file" else []
