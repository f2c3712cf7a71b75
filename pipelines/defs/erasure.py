"""Erasure, at the end of a run: a warehouse without the erased, published and exported, then the landing, then proof.

It comes last because what stays of a bill is told from the bills as they stand. Does not belong here: what is erased
and how (warehouse/erase.py).
"""

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote, urlparse

import dagster as dg
import duckdb as engine
from dagster_duckdb import DuckDBResource

from pipelines.billing import exports, ledger, redaction
from pipelines.defs.billing import billing_statements, scene_of
from pipelines.defs.dbt_project import PROJECT, descriptions
from pipelines.defs.erasure_requests import erasure_requests
from pipelines.defs.resources import HOME, WRITER, FoldersResource, StoreResource
from pipelines.quality import gates
from pipelines.warehouse import erase, publish
from pipelines.warehouse.erase import EraseError


@dg.asset(
    key=["erasure", "receipts"], deps=[erasure_requests, billing_statements], group_name="erasure", pool=WRITER,
    kinds={"duckdb"},
)  # fmt: skip
def erasure_receipts(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, store: StoreResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """What is on the suppression list goes from every place, is looked for in every byte, and is receipted."""
    now = datetime.now(UTC)
    warehouse, opened = Path(duckdb.database), store.open()
    work = erase.Pass(warehouse, opened)
    done = []

    def build(file: Path, selected: tuple[str, ...]) -> None:
        if selected:  # the second time: now it is known who is gone
            billing = Path(folders.books)
            redaction.redact(
                Path(folders.exports), billing, {*work.journal.identifiers, *work.journal.names}, at=now
            )  # fmt: skip
            with engine.connect(str(file)) as connection:
                ledger.reload(connection, billing)
        _build(file, selected)

    if work.rewrite(build, now=now):
        _publish(warehouse, folders, now)
        publish.drop_superseded(Path(folders.published))
    deleted = work.clear_landing()
    if work.lines:
        # dbt's manifests are the project's own text: a name in them is one that its tests and examples use too.
        spared = [HOME.device, *_folder_of(store.url), *(HOME.root / "dbt").rglob("manifest.json")]
        done = work.prove([HOME.root], passing_over=spared, now=now)
    for erased in done:
        context.log.info(
            f"erased {erased.request_id}: {erased.rows} rows, {erased.objects} objects; {erased.searched} files and "
            "objects searched, nothing found"
        )
    return dg.MaterializeResult(metadata={"receipts": len(done), "objects": deleted})


def _build(file: Path, selected: tuple[str, ...]) -> None:
    """dbt in a process of its own, on the warehouse that is to take the old one's place."""
    folder = HOME.root / "dbt" / "erasing"
    command = [
        str(Path(sys.executable).with_name("dbt")), "--quiet", "--no-version-check", "build", "--exclude-resource-type",
        "unit_test", *selected, "--project-dir", str(PROJECT.project_dir), "--profiles-dir", str(PROJECT.project_dir),
        "--target-path", str(folder), "--log-path", str(folder),
    ]  # fmt: skip
    environment = os.environ | {"APIARY_WAREHOUSE": str(file)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        last = " ".join(result.stdout.split())[-300:]
        raise EraseError(f"nothing was erased: the models do not build without it: {last}")


def _publish(warehouse: Path, folders: FoldersResource, now: datetime) -> None:
    """Publish and export what is left, if it passes the gate that everything published has passed."""
    with engine.connect(str(warehouse)) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for suite in gates.suites("departure"):
            failed = [r for r in gates.run(suite, connection) if r.is_critical and not r.passed]
            if failed:
                raise EraseError(f"nothing was published: gate {suite.name}: {failed[0].column} is {failed[0].found}")
        publish.publish(connection, Path(folders.published), descriptions=descriptions(), now=now)
        exports.export_days(scene_of(connection, folders, as_of=now))


def _folder_of(store_url: str) -> list[Path]:
    """The folder of a store that is one: its objects are searched as objects."""
    parts = urlparse(store_url)
    return [Path(unquote(parts.path))] if parts.scheme == "file" else []
