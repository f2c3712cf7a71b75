"""What people read: the marts as Parquet files and as one DuckDB file, replaced together or not at all.

The warehouse itself can be open in one process only, so nobody but the pipeline reads it.
Does not belong here: deciding whether the marts are fit to be published (quality/).
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from pipelines.failpoints import fp
from pipelines.home import private_folder


@dataclass(frozen=True)
class Published:
    """What a publication holds: rows by mart, and where."""

    folder: Path
    rows: dict[str, int]


def marts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the marts in the warehouse."""
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'marts' ORDER BY table_name"
    ).fetchall()
    return [name for (name,) in found]


def publish(connection: duckdb.DuckDBPyConnection, destination: Path, *, now: datetime | None = None) -> Published:
    """Write a new version aside and let `current` point at it; the version before stays until the next but one.

    Columns whose name begins with `_` are the pipeline's own and are left out. Raises OSError, duckdb.Error.
    """
    now = now or datetime.now(UTC)
    version = destination / "versions" / now.strftime("%Y%m%dT%H%M%S%f")
    aside = version.with_name(version.name + ".aside")
    shutil.rmtree(aside, ignore_errors=True)
    private_folder(aside)
    rows: dict[str, int] = {}
    files: dict[str, dict[str, object]] = {}
    connection.execute(f"ATTACH '{_quoted(aside / 'marts.duckdb')}' AS published")
    try:
        for mart in marts(connection):
            connection.execute(
                f"CREATE TABLE published.{mart} AS SELECT {_columns(connection, mart)} FROM marts.{mart}"
            )
            file = aside / f"{mart}.parquet"
            connection.execute(f"COPY published.{mart} TO '{_quoted(file)}' (FORMAT parquet, COMPRESSION zstd)")
            count = connection.execute(f"SELECT count(*) FROM published.{mart}").fetchone()
            rows[mart] = int(count[0]) if count else 0
            files[mart] = {"rows": rows[mart], "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    finally:
        connection.execute("DETACH published")
    (aside / "marts.duckdb").chmod(0o400)
    manifest = {"published_at": now.isoformat(), "marts": files}
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    fp("publish.written")
    aside.rename(version)
    fp("publish.renamed")
    current = destination / "current"
    # Readers of the version before keep their files. The order of names does not tell which that is: a clock may be
    # set back, and a version that was cut off was never read.
    kept = {version.name, current.resolve().name}
    _point(current, version)
    fp("publish.pointed")
    for old in (destination / "versions").iterdir():
        if old.name not in kept:
            shutil.rmtree(old)
    return Published(version, rows)


def _columns(connection: duckdb.DuckDBPyConnection, mart: str) -> str:
    found = connection.execute(
        "SELECT column_name FROM information_schema.columns WHERE table_schema = 'marts' AND table_name = ?"
        " AND column_name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY ordinal_position",
        [mart],
    ).fetchall()
    return ", ".join(f'"{name}"' for (name,) in found)


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _point(link: Path, target: Path) -> None:
    """Let a link point elsewhere in one step: a reader sees the old version or the new one."""
    aside = link.with_name(link.name + ".aside")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.relative_to(link.parent), target_is_directory=True)
    fp("publish.link")
    aside.replace(link)
