"""People read whole versions: the one before until the next is ready, whenever the pipeline dies."""

import hashlib
import json
import shutil
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.warehouse import publish, reading, usage
from pipelines.warehouse.needles import Needles

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect(str(tmp_path / "apiary.duckdb")) as opened:
        opened.execute("CREATE SCHEMA marts; CREATE SCHEMA staging")
        opened.execute("CREATE TABLE marts.fct_a AS SELECT 'x' AS name, 1 AS version, 7 AS _ingest_seq")
        opened.execute("CREATE VIEW marts.agg_b AS SELECT version, 1.50::DECIMAL(38, 20) AS cost_usd FROM marts.fct_a")
        opened.execute("CREATE TABLE staging.secret AS SELECT 1 AS x")
        yield opened


def published(connection: duckdb.DuckDBPyConnection, destination: Path, version: int) -> publish.Published:
    """Publish the marts as they are after so many changes."""
    connection.execute("UPDATE marts.fct_a SET version = ?", [version])
    return publish.publish(connection, destination, now=DAY + timedelta(days=version))


def version_read(destination: Path) -> int:
    """The version that people see, the same in every file and with nothing missing."""
    current = destination / "current"
    with reading.connect(destination) as reader:
        tables = reader.execute("SHOW TABLES").fetchall()
        found = {
            reader.execute("SELECT version FROM fct_a").fetchone(),
            reader.execute("SELECT version FROM agg_b").fetchone(),
        }
    manifest = json.loads((current / "manifest.json").read_text())
    assert tables == [("agg_b",), ("fct_a",)]
    assert set(manifest["marts"]) == {"agg_b", "fct_a"}
    for mart, told in manifest["marts"].items():
        file = current / f"{mart}.parquet"
        assert hashlib.sha256(file.read_bytes()).hexdigest() == told["sha256"]
        rows = pq.read_table(file).to_pylist()
        assert len(rows) == told["rows"] == 1
        found.add((rows[0]["version"],))
    assert len(found) == 1, "files of two versions were mixed"
    return int(found.pop()[0])


def versions(destination: Path) -> set[str]:
    return {path.name for path in (destination / "versions").iterdir()}


def test_what_is_published(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    found = published(connection, tmp_path / "it's public", 1)
    assert found.rows == {"agg_b": 1, "fct_a": 1}
    assert version_read(tmp_path / "it's public") == 1
    with reading.connect(tmp_path / "it's public") as reader:
        assert reader.execute("DESCRIBE fct_a").fetchall()[0][0:2] == ("name", "VARCHAR")
        columns = [name for (name, *_) in reader.execute("DESCRIBE fct_a").fetchall()]
        assert columns == ["name", "version"], "columns with _ are the pipeline's own"
        with pytest.raises(duckdb.Error, match="read-only"):
            reader.execute("CREATE TABLE x (y INT)")
    assert pq.read_schema(found.folder / "fct_a.parquet").names == ["name", "version"]
    assert str(pq.read_schema(found.folder / "agg_b.parquet").field("cost_usd").type) == "decimal128(38, 20)"
    assert {path.name for path in found.folder.iterdir()} == {
        "agg_b.parquet", "fct_a.parquet", "manifest.json", "marts.duckdb", "roles"
    }  # fmt: skip
    for path in found.folder.rglob("*"):
        mode = 0o700 if path.is_dir() else 0o400 if path.suffix == ".duckdb" else 0o600
        assert stat.S_IMODE(path.stat().st_mode) == mode, path.name
    assert (
        connection.execute("SELECT database_name FROM duckdb_databases() WHERE database_name = 'published'").fetchall()
        == []
    )


def test_two_versions_are_kept(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    folders = [published(connection, tmp_path / "p", version).folder.name for version in (1, 2, 3)]
    assert versions(tmp_path / "p") == set(folders[1:])
    assert version_read(tmp_path / "p") == 3


def test_a_clock_set_back_takes_nothing_away(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Names of versions are times: the newest version is not always the last by name."""
    for version in (5, 6, 1):
        published(connection, tmp_path / "p", version)
        assert version_read(tmp_path / "p") == version
    assert len(versions(tmp_path / "p")) == 2
    published(connection, tmp_path / "p", 2)
    assert version_read(tmp_path / "p") == 2


def test_a_reader_goes_on_reading_what_it_opened(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    published(connection, tmp_path / "p", 1)
    with reading.connect(tmp_path / "p") as reader:
        parquet = (tmp_path / "p" / "current").resolve() / "fct_a.parquet"
        published(connection, tmp_path / "p", 2)
        assert pq.read_table(parquet)["version"].to_pylist() == [1], "the version before is still there"
        published(connection, tmp_path / "p", 3)
        assert reader.execute("SELECT version FROM fct_a").fetchone() == (1,)
    assert version_read(tmp_path / "p") == 3


class Killed(BaseException):
    pass


def test_killed_between_any_two_steps(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call that writes something may be the last one, before or after it took effect."""
    destination = tmp_path / "p"
    names = (
        ("chmod", Path), ("write_text", Path), ("rename", Path), ("symlink_to", Path), ("replace", Path),
        ("rmtree", publish.shutil), ("read_bytes", Path),
    )  # fmt: skip
    real: dict[str, Any] = {name: getattr(owner, name) for name, owner in names}
    count = fatal = 0

    def dying(name: str) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == fatal and fatal % 2:
                raise Killed
            result = real[name](*arguments, **options)
            count += 1
            if count == fatal:
                raise Killed
            return result

        return call

    seen = {0}
    published(connection, destination, 0)
    for attempt in range(1, 100):
        count, fatal = 0, attempt
        before = version_read(destination)
        kept = (destination / "current").resolve()
        with monkeypatch.context() as patches:
            for name, owner in names:
                patches.setattr(owner, name, dying(name))
            try:
                published(connection, destination, attempt)
                break
            except Killed:
                pass
        seen.add(version_read(destination))
        assert version_read(destination) in (before, attempt)
        assert kept.is_dir(), "somebody may still read it"
        if attempt % 3 == 0:  # the next one tidies up, and never takes what people read until now
            kept = (destination / "current").resolve()
            connection.execute("UPDATE marts.fct_a SET name = ?", [f"after attempt {attempt}"])
            publish.publish(connection, destination, now=DAY + timedelta(days=attempt, hours=1))
            assert kept.is_dir()
            assert versions(destination) == {kept.name, (destination / "current").resolve().name}
    else:
        raise AssertionError("it was killed every time")
    assert attempt > 10
    assert len(seen) > 2
    assert version_read(destination) == attempt


def test_a_full_disk_leaves_what_was_published(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    published(connection, tmp_path / "p", 1)
    with monkeypatch.context() as patches:
        patches.setattr(publish, "_columns", lambda *_: ["no_such_column"])
        with pytest.raises(duckdb.Error):
            published(connection, tmp_path / "p", 2)
    assert version_read(tmp_path / "p") == 1
    published(connection, tmp_path / "p", 3)
    assert version_read(tmp_path / "p") == 3
    assert len(versions(tmp_path / "p")) == 2


def test_nothing_published_says_so(tmp_path: Path) -> None:
    with pytest.raises(reading.NothingPublishedError, match="apiary run"):
        reading.connect(tmp_path)
    (tmp_path / "current").symlink_to("nowhere")
    with pytest.raises(reading.NothingPublishedError):
        usage.usage(tmp_path, "day")


def test_a_reader_finds_what_a_mart_and_its_columns_mean(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    told = {"fct_a": publish.Description("One row per 'a'.", {"name": "What it is called."}, ["analyst"])}
    folder = publish.publish(connection, tmp_path / "p", descriptions=told, now=DAY).folder
    for file in (folder / "marts.duckdb", folder / "roles" / "analyst" / "marts.duckdb"):
        with duckdb.connect(str(file), read_only=True) as reader:
            tables = reader.execute("SELECT table_name, comment FROM duckdb_tables() WHERE comment <> ''").fetchall()
            columns = reader.execute("SELECT column_name, comment FROM duckdb_columns() WHERE comment <> ''").fetchall()
        assert tables == [("fct_a", "One row per 'a'.")], file
        assert ("name", "What it is called.") in columns, file
    metadata = pq.read_metadata(folder / "fct_a.parquet").metadata
    assert metadata[b"description"] == b"One row per 'a'."
    assert metadata[b"name"] == b"What it is called."


def test_a_folder_in_the_place_of_the_link_is_the_version_before(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    """Whoever copies the tree and follows links makes one; it must neither stop a publication nor be read for ever."""
    published(connection, tmp_path, 1)
    target = (tmp_path / "current").resolve()
    (tmp_path / "current").unlink()
    shutil.copytree(target, tmp_path / "current")
    published(connection, tmp_path, 2)
    assert (tmp_path / "current").is_symlink()
    assert version_read(tmp_path) == 2
    publish.drop_superseded(tmp_path)
    assert len(versions(tmp_path)) == 1


def test_what_is_published_is_purged_without_the_warehouse(tmp_path: Path) -> None:
    gone, stays = f"session_20260301_120000_{'ab' * 4}", f"session_20260301_120000_{'cd' * 4}"
    destination = tmp_path / "published"
    with duckdb.connect() as warehouse:
        warehouse.execute("CREATE SCHEMA marts")
        warehouse.execute(
            "CREATE TABLE marts.dim_a AS FROM (VALUES (?, 'ada', ['x']), (?, 'bob', ['y']), (?, 'bob', [?]))"
            " AS rows (session_id, user_id, paths)",
            [gone, stays, stays, f"worker:{gone}"],
        )
        warehouse.execute(
            "CREATE TABLE marts.fct_b AS FROM (VALUES ('ada', 7), ('adapter', 5)) AS rows (user_id, quantity)"
        )
        publish.publish(warehouse, destination, now=DAY)
    purged = publish.purge(destination, Needles([gone], ["ada"]), now=DAY + timedelta(days=1))
    assert purged == 3
    with reading.connect(destination) as reader:
        assert reader.execute("SELECT session_id, paths FROM dim_a").fetchall() == [(stays, ["y"])]
        assert reader.execute("FROM fct_b").fetchall() == [("adapter", 5)]
    assert pq.read_table(destination / "current" / "dim_a.parquet").num_rows == 1
    assert len(versions(destination)) == 1, "the version before is nowhere"
    assert sorted(path.name for path in destination.iterdir()) == ["current", "versions"]
    assert publish.purge(destination, Needles([gone], ["ada"])) == 0
    assert publish.purge(tmp_path / "nothing", Needles([gone])) == 0


def test_a_name_that_is_a_word_for_something_else_takes_no_other_row(tmp_path: Path) -> None:
    destination = tmp_path / "published"
    with duckdb.connect() as warehouse:
        warehouse.execute("CREATE SCHEMA marts")
        warehouse.execute(
            "CREATE TABLE marts.dim_a AS FROM (VALUES ('anthropic', 'ada', 'zone'), ('openai', 'anthropic', 'zone'))"
            " AS rows (provider_name, user_id, user_basis)"
        )
        publish.publish(warehouse, destination, now=DAY)
    assert publish.purge(destination, Needles(()), common=["anthropic", "zone"], now=DAY + timedelta(days=1)) == 1
    with reading.connect(destination) as reader:
        assert reader.execute("FROM dim_a").fetchall() == [("anthropic", "ada", "zone")]


def test_unchanged_marts_are_not_written_again(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    connection.execute("CREATE TABLE marts.dim_c AS SELECT 'y' AS name")
    first = published(connection, tmp_path / "p", 1)
    assert published(connection, tmp_path / "p", 1) == first
    assert publish.publish(connection, tmp_path / "p", now=DAY + timedelta(days=9)) == first, "later, and the same"
    second = published(connection, tmp_path / "p", 2)
    assert second.folder != first.folder
    names = ("fct_a.parquet", "agg_b.parquet", "dim_c.parquet")
    assert [second.folder.joinpath(name).samefile(first.folder / name) for name in names] == [False, False, True]


CHANGES = {
    "a row twice": "INSERT INTO marts.fct_a FROM marts.fct_a",
    "two cells that change places": "UPDATE marts.fct_a SET name = '1', version = 0",
    "nothing for an empty text": "UPDATE marts.fct_a SET name = NULL",
    "another type": "ALTER TABLE marts.fct_a ALTER name TYPE BLOB",
    "a column less": "ALTER TABLE marts.fct_a DROP COLUMN name",
    "a mart more": "CREATE TABLE marts.dim_c AS SELECT 1 AS x",
    "a mart less": "DROP VIEW marts.agg_b",
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_change_of_a_mart_is_published(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path, change: str
) -> None:
    connection.execute("UPDATE marts.fct_a SET name = '', version = 1")
    first = publish.publish(connection, tmp_path / "p", now=DAY)
    connection.execute(change)
    second = publish.publish(connection, tmp_path / "p", now=DAY + timedelta(days=1))
    assert second.folder != first.folder
    for mart in second.rows:
        rows = connection.execute(f"SELECT count(*) FROM read_parquet('{second.folder / mart}.parquet')").fetchone()
        assert rows == (second.rows[mart],)


def test_a_file_that_is_gone_and_other_descriptions_are_published_again(
    connection: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    first = publish.publish(connection, tmp_path / "p", now=DAY)
    (first.folder / "marts.duckdb").unlink()
    second = publish.publish(connection, tmp_path / "p", now=DAY + timedelta(days=1))
    assert second.folder != first.folder
    told = {"fct_a": publish.Description("what it is")}
    third = publish.publish(connection, tmp_path / "p", now=DAY + timedelta(days=2), descriptions=told)
    assert third.folder != second.folder


def test_another_audience_is_published_again(connection: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    def readers(audience: list[str], version: int) -> set[str]:
        told = {"fct_a": publish.Description("what it is", audience=audience)}
        now = DAY + timedelta(days=version)
        folder = publish.publish(connection, tmp_path / "p", descriptions=told, now=now).folder
        return {path.parent.name for path in folder.glob("roles/*/fct_a.parquet")}

    assert readers([], 1) == set()
    assert readers(["analyst", "finance"], 2) == {"analyst", "finance"}
    assert readers(["finance"], 3) == {"finance"}
    assert readers([], 4) == set()
