"""What people read: the marts as Parquet files and as one DuckDB file, replaced together or not at all.

The warehouse itself can be open in one process only, so nobody but the pipeline reads it.
Does not belong here: deciding whether the marts are fit to be published (quality/).
"""

import hashlib
import json
import os
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from pipelines.contract.keys import is_slug
from pipelines.failpoints import fp
from pipelines.home import private_folder, sync_folder
from pipelines.warehouse import analyst_views
from pipelines.warehouse.access import Access, Role
from pipelines.warehouse.access import load as load_access
from pipelines.warehouse.needles import Needles
from pipelines.warehouse.residue import USERS


@dataclass(frozen=True)
class Published:
    """What a publication holds: rows by mart, and where."""

    folder: Path
    rows: dict[str, int]


@dataclass(frozen=True)
class Description:
    """What a mart's row is, and what each of its columns means: shown to whoever opens a published file. And the roles
    whose folders it is in; it is in none if it says nothing."""

    text: str
    columns: Mapping[str, str] = field(default_factory=dict)
    audience: Collection[str] = ()


def marts(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Names of the marts in the warehouse."""
    found = connection.execute(
        "SELECT table_name FROM information_schema.tables"
        " WHERE table_catalog = current_database() AND table_schema = 'marts' ORDER BY table_name"
    ).fetchall()
    return [name for (name,) in found]


def publish(
    connection: duckdb.DuckDBPyConnection,
    destination: Path,
    *,
    access: Access | None = None,
    descriptions: Mapping[str, Description] | None = None,
    now: datetime | None = None,
) -> Published:
    """Write a new version aside and let `current` point at it; the version before stays until the next but one.

    Nothing is written if the marts are those of the current version. Parquet files of marts that did not change are
    linked to it.

    All marts, then for each role those whose description names it; `access` is the policy of this installation if none
    is given. Columns whose name begins with `_` are the pipeline's own and are left out. `descriptions` become comments
    of the tables and columns in each `marts.duckdb` (`duckdb_columns().comment`) and key-value metadata of each Parquet
    file. Raises OSError, duckdb.Error, UsageError.
    """
    described = descriptions or {}
    now = now or datetime.now(UTC)
    access = access or load_access()
    listed = {mart: _columns(connection, mart) for mart in marts(connection)}
    readers = {mart: access.readers(mart, described[mart].audience) for mart in listed if mart in described}
    prints = {mart: _fingerprint(connection, mart, columns, described.get(mart)) for mart, columns in listed.items()}
    policy = hashlib.sha256(f"{access!r} {duckdb.__version__}".encode()).hexdigest()
    before = _Before.read(destination / "current", policy)
    if before.is_whole and before.prints == prints:
        return Published(before.folder, before.rows)
    version = destination / "versions" / now.strftime("%Y%m%dT%H%M%S%f")
    aside = version.with_name(version.name + ".aside")
    shutil.rmtree(aside, ignore_errors=True)
    private_folder(aside)
    rows: dict[str, int] = {}
    files: dict[str, dict[str, object]] = {}
    unchanged = {mart for mart, found in prints.items() if before.prints.get(mart) == found}
    with _attached(connection, aside / "marts.duckdb"):
        for mart, columns in listed.items():
            file = aside / f"{mart}.parquet"
            same = before.folder / file.name if mart in unchanged else None
            rows[mart] = _write(connection, mart, columns, file, described.get(mart), same=same)
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            files[mart] = {"rows": rows[mart], "sha256": digest, "fingerprint": prints[mart]}
        analyst_views.create(connection, "published")

    def read_by(role: Role) -> dict[str, list[str]]:
        return {mart: columns for mart, columns in listed.items() if role in readers.get(mart, ())}

    roles = {
        role.name: _write_role(
            connection, role, read_by(role), aside, described, before=before.folder, unchanged=unchanged
        )
        for role in access.roles
    }
    if role := access.tenant_role:
        _write_tenants(connection, role, read_by(role), aside / "tenants", described)
    written = {path.relative_to(aside).as_posix(): path.stat().st_size for path in aside.rglob("*") if path.is_file()}
    manifest = {"published_at": now.isoformat(), "policy": policy, "marts": files, "roles": roles, "files": written}
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n", "utf-8")
    _settle(aside)
    fp("publish.written")
    aside.rename(version)
    fp("publish.renamed")
    current = destination / "current"
    if current.is_dir() and not current.is_symlink():
        # A copy of the tree that followed links: what stands there is the version before.
        current.rename(version.with_name(f"{version.name}.copied"))
        current.symlink_to(Path("versions") / f"{version.name}.copied", target_is_directory=True)
    # Readers of the version before keep their files. The order of names does not tell which that is: a clock may be
    # set back, and a version that was cut off was never read.
    kept = {version.name, current.resolve().name}
    sync_folder(version.parent)
    _point(current, version)
    fp("publish.pointed")
    sync_folder(destination)
    for old in (destination / "versions").iterdir():
        if old.name not in kept:
            shutil.rmtree(old)
    return Published(version, rows)


@dataclass(frozen=True)
class _Before:
    """What the current version holds, by the same policy and engine: a fingerprint and the rows of each mart.

    `is_whole`: every file of it is there. Of a version of another release, or of none, nothing is known.
    """

    folder: Path
    prints: Mapping[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    is_whole: bool = False

    @classmethod
    def read(cls, current: Path, policy: str) -> "_Before":
        folder = current.resolve()
        try:
            said = json.loads((folder / "manifest.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return cls(folder)
        if not current.is_symlink() or said.get("policy") != policy:
            return cls(folder)
        marts = said["marts"].items()
        return cls(
            folder, {mart: told["fingerprint"] for mart, told in marts}, {mart: told["rows"] for mart, told in marts},
            all(_size(folder / name) == size for name, size in said["files"].items()),
        )  # fmt: skip


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _fingerprint(
    connection: duckdb.DuckDBPyConnection, mart: str, columns: list[str], description: Description | None
) -> str:
    """A hash of what is published of a mart: its columns, what they mean, and its rows in any order."""
    listed = _list(columns)
    found = connection.execute(
        f"SELECT count(*), sum(CAST(hash({listed}) AS HUGEINT)), sum(CAST(hash('again', {listed}) AS HUGEINT))"
        f" FROM marts.{mart}"
    ).fetchone()
    types = connection.execute(f"SELECT {listed} FROM marts.{mart} LIMIT 0").description
    return hashlib.sha256(f"{found} {types} {description!r}".encode()).hexdigest()


def purge(
    destination: Path, needles: Needles, *, common: Collection[str] = (),
    descriptions: Mapping[str, Description] | None = None, now: datetime | None = None,
) -> int:  # fmt: skip
    """Publish what is published without rows that hold one of these words, and drop every version before; how many.

    `common`: names of users that are words for something else too; rows go where a column of users holds one. It needs
    neither the warehouse nor the models. Raises like `publish`.
    """
    of_users = Needles(needles.identifiers, {*needles.names, *common})
    source, scratch = destination / "current" / "marts.duckdb", destination / "purge.duckdb"
    if not source.exists():
        return 0
    changed = 0
    scratch.unlink(missing_ok=True)
    try:
        with duckdb.connect(str(scratch)) as connection:
            connection.execute(f"ATTACH '{_quoted(source.resolve())}' AS published_before (READ_ONLY)")
            connection.execute("CREATE SCHEMA marts")
            tables = connection.execute(
                "SELECT table_name FROM duckdb_tables() WHERE database_name = 'published_before' ORDER BY ALL"
            ).fetchall()
            for (mart,) in tables:
                connection.execute(f"CREATE TABLE marts.{mart} AS FROM published_before.{mart}")
                changed += _purge(connection, mart, needles, of_users)
            connection.execute("DETACH published_before")
            if changed:
                publish(connection, destination, descriptions=descriptions, now=now)
    finally:
        for path in (scratch, scratch.with_name(f"{scratch.name}.wal")):
            path.unlink(missing_ok=True)
    drop_superseded(destination)
    return changed


def _purge(connection: duckdb.DuckDBPyConnection, mart: str, needles: Needles, of_users: Needles) -> int:
    columns = connection.execute(
        "SELECT column_name FROM duckdb_columns() WHERE database_name = current_database() AND schema_name = 'marts'"
        " AND table_name = ? AND (contains(data_type, 'VARCHAR') OR data_type = 'JSON')",
        [mart],
    ).fetchall()
    changed = 0
    for (column,) in columns:
        text = f'CAST("{column}" AS VARCHAR)'
        values = [
            value
            for (value,) in connection.execute(f"SELECT DISTINCT {text} FROM marts.{mart}").fetchall()
            if value is not None
        ]
        if not (holding := (of_users if USERS.search(column) else needles).texts_holding(values)):
            continue
        where = f"WHERE {text} IN (SELECT unnest($holding))"  # list_contains would compare each row with each text
        found = connection.execute(f"DELETE FROM marts.{mart} {where}", {"holding": holding}).fetchone()
        changed += int(found[0]) if found else 0
    return changed


def drop_superseded(destination: Path) -> None:
    """Remove every version but the current one: what it does not hold any more is to be nowhere."""
    current = (destination / "current").resolve()
    for old in (destination / "versions").iterdir() if current.exists() else ():
        if old.name != current.name:
            shutil.rmtree(old)


@contextmanager
def _attached(connection: duckdb.DuckDBPyConnection, file: Path) -> Iterator[None]:
    """A new DuckDB file under the name `published`, written in one transaction: thousands of comments each in one of
    their own take half of a publication."""
    private_folder(file.parent)
    connection.execute(f"ATTACH '{_quoted(file)}' AS published")
    try:
        connection.execute("BEGIN")
        try:
            yield
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
    finally:
        connection.execute("DETACH published")


def _write(
    connection: duckdb.DuckDBPyConnection, mart: str, columns: list[str], file: Path,
    description: Description | None, *, same: Path | None = None,
) -> int:  # fmt: skip
    """A mart in the attached file, and as Parquet; its rows. `same`: a file that holds the same already."""
    connection.execute(f"CREATE TABLE published.{mart} AS SELECT {_list(columns)} FROM marts.{mart}")
    _comment(connection, mart, columns, description)
    if same is not None and same.is_file():
        file.hardlink_to(same)
    else:
        metadata = ""
        if description:
            told = {"description": description.text} | {name: description.columns.get(name, "") for name in columns}
            metadata = ", KV_METADATA {" + ", ".join(f"{_literal(k)}: {_literal(v)}" for k, v in told.items()) + "}"
        connection.execute(f"COPY published.{mart} TO '{_quoted(file)}' (FORMAT parquet, COMPRESSION zstd{metadata})")
    count = connection.execute(f"SELECT count(*) FROM published.{mart}").fetchone()
    return int(count[0]) if count else 0


def _comment(
    connection: duckdb.DuckDBPyConnection, mart: str, columns: list[str], description: Description | None
) -> None:
    """The description of a table of the attached file and of its columns, where people look for it."""
    if description is None:
        return
    connection.execute(f"COMMENT ON TABLE published.{mart} IS {_literal(description.text)}")
    for name in columns:
        if text := description.columns.get(name):
            connection.execute(f'COMMENT ON COLUMN published.{mart}."{name}" IS {_literal(text)}')


def _write_role(
    connection: duckdb.DuckDBPyConnection, role: Role, listed: dict[str, list[str]], aside: Path,
    described: Mapping[str, Description], *, before: Path, unchanged: Collection[str],
) -> list[str]:  # fmt: skip
    """The marts that a role reads in its folder; their names. `before`: the current version, of which some marts are
    unchanged."""
    folder = aside / "roles" / role.name
    read = [mart for mart, columns in listed.items() if role.columns(columns)]
    with _attached(connection, folder / "marts.duckdb"):
        for mart in read:
            columns = role.columns(listed[mart])
            file = folder / f"{mart}.parquet"
            if columns == listed[mart]:
                file.hardlink_to(aside / file.name)  # the same bytes need no second place
                connection.execute(f"CREATE TABLE published.{mart} AS SELECT {_list(columns)} FROM marts.{mart}")
                _comment(connection, mart, columns, described.get(mart))
            else:
                same = before / "roles" / role.name / file.name if mart in unchanged else None
                _write(connection, mart, columns, file, described.get(mart), same=same)
        analyst_views.create(connection, "published")
    return read


def _write_tenants(
    connection: duckdb.DuckDBPyConnection, role: Role, listed: dict[str, list[str]], folder: Path,
    described: Mapping[str, Description],
) -> None:  # fmt: skip
    """For each tenant a file that was never given a row of another one: a filter in a view would isolate nobody."""
    own = {mart: columns for mart, columns in listed.items() if "tenant_id" in columns}
    tenants = {
        tenant
        for mart in own
        for (tenant,) in connection.execute(f"SELECT DISTINCT tenant_id FROM marts.{mart}").fetchall()
    }
    for tenant in sorted(tenants):
        if not is_slug(tenant):
            raise ValueError("a mart names a tenant that is none")  # it would become a path
        with _attached(connection, folder / tenant / "marts.duckdb"):
            for mart, columns in own.items():
                connection.execute(
                    f"CREATE TABLE published.{mart} AS SELECT {_list(role.columns(columns))} FROM marts.{mart}"
                    " WHERE tenant_id = ?",
                    [tenant],
                )
                _comment(connection, mart, role.columns(columns), described.get(mart))
            analyst_views.create(connection, "published")


def _settle(folder: Path) -> None:
    """Make everything in a folder private and safe from a loss of power before a link leads to it."""
    for path in [*folder.rglob("*"), folder]:
        if path.is_dir():
            sync_folder(path)
        else:
            path.chmod(0o400 if path.suffix == ".duckdb" else 0o600)
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _columns(connection: duckdb.DuckDBPyConnection, mart: str) -> list[str]:
    found = connection.execute(
        "SELECT column_name FROM information_schema.columns"
        " WHERE table_catalog = current_database() AND table_schema = 'marts' AND table_name = ?"
        " AND column_name NOT LIKE '\\_%' ESCAPE '\\' ORDER BY ordinal_position",
        [mart],
    ).fetchall()
    return [name for (name,) in found]


def _list(columns: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quoted(path: Path) -> str:
    return str(path).replace("'", "''")


def _point(link: Path, target: Path) -> None:
    """Let a link point elsewhere in one step: a reader sees the old version or the new one."""
    aside = link.with_name(link.name + ".aside")
    aside.unlink(missing_ok=True)
    aside.symlink_to(target.relative_to(link.parent), target_is_directory=True)
    fp("publish.link")
    aside.replace(link)
