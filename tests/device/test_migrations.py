"""States of every earlier shape are migrated without losing anything; newer ones are refused; a kill half-way heals."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.device import migrations
from pipelines.device.blocks import rows_in
from pipelines.device.errors import DeviceError
from pipelines.device.migrations import MIGRATIONS
from pipelines.home import Home
from tests.device.driving import Device, append, dump, granted, queen_folder, row_by_row, turn

Shape = Callable[[sqlite3.Connection], None]
RELEASED = (
    "9d25eab1527392cb", "afe633f52a9ae91a", "4433de1e1b132843", "4433de1e1b132843", "116a61c1d2ff03e7",
    "f0c78cf4c829cd40",
)  # fmt: skip
"""The sha256 of the schema after each released migration: who changes one changes states that nobody can see."""


def without_unchanged(db: sqlite3.Connection) -> None:
    """Until the fifth version every file was looked up in every pass."""
    db.execute("DROP TABLE unchanged")
    db.execute("PRAGMA user_version = 5")


def released(db: sqlite3.Connection) -> None:
    """0.1.0 had the tables of the first migration and no version."""
    row_by_row(db)
    db.execute("DROP TABLE variant")
    db.execute("DROP TABLE observed")
    db.execute("ALTER TABLE seen DROP COLUMN variant")
    db.execute("DELETE FROM device WHERE name = 'variant_salt'")
    db.execute("PRAGMA user_version = 0")


def without_given_up(db: sqlite3.Connection) -> None:
    """Before 0.1.0 a source had one column less."""
    released(db)
    db.execute("ALTER TABLE source DROP COLUMN given_up")


def without_a_middle_column(db: sqlite3.Connection) -> None:
    """Rows are written by the order of columns: what is added must not stand at the end."""
    released(db)
    db.execute("ALTER TABLE consent DROP COLUMN history")
    db.execute("ALTER TABLE consent ADD COLUMN history TEXT")
    db.execute("UPDATE consent SET history = 'include'")
    db.execute("ALTER TABLE batch DROP COLUMN detail")


def without_later_tables(db: sqlite3.Connection) -> None:
    """The first state of all had neither an account of usage nor of trouble, nor a scope of the consent."""
    without_given_up(db)
    for table in ("usage", "event_session", "unread", "trouble", "confirmation", "consent_scope"):
        db.execute(f"DROP TABLE {table}")


def staged(state: dict[str, list[dict[str, Any]]]) -> list[tuple[int, str, dict[str, Any]]]:
    """The staged rows of a state of any version, by batch and table: what they hold, as JSON."""
    found: list[tuple[int, str, dict[str, Any]]] = []
    for line in state["staged"]:
        rows = [json.loads(line["row"])] if "row" in line else rows_in(line["data"])
        made = (json.loads(json.dumps(row, default=str)) for row in rows)
        held = ({name: value for name, value in row.items() if value is not None} for row in made)
        found += [(line["seq"], line["table_name"], row) for row in held]
    return sorted(found, key=lambda item: (*item[:2], item[2]["record_id"]))


SHAPES: tuple[Shape, ...] = (
    without_unchanged, row_by_row, released, without_given_up, without_a_middle_column, without_later_tables,
)  # fmt: skip


def content(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, by column."""
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        tables = list(migrations.columns(db))
        return {table: [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY 1")] for table in tables}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A device with a delivered batch, a batch that waits, counters, receipts; and its home."""
    folder = tmp_path_factory.mktemp("original")
    hive = folder / "hive"
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(5))))
    made = granted(folder / "apiary", hive)
    made.ship(hive)
    append(queen_folder(hive) / "events.jsonl", dump(*map(turn, range(5, 9))))
    store = made.home.root / "store"
    store.rename(folder / "away")
    store.write_text("")
    with pytest.raises(DeviceError):
        made.ship(hive)
    store.unlink()
    (folder / "away").rename(store)
    return made.home.root, hive


def copied(original: Path, root: Path) -> Device:
    shutil.copytree(original, root)
    return Device(Home(root), (root / "store").as_uri())


@pytest.mark.parametrize("shape", SHAPES)
def test_an_earlier_state_keeps_everything(original: tuple[Path, Path], tmp_path: Path, shape: Shape) -> None:
    root, hive = original
    made = copied(root, tmp_path / "apiary")
    spool = sorted(made.home.device.glob("spool/ready/*"))
    with closing(sqlite3.connect(made.state_file)) as db:
        shape(db)
        db.commit()
    before = content(made.state_file)
    assert before["consent"], "else nothing is shown"
    assert spool
    assert made.preview(hive).consent == "granted", "a preview migrates its own copy"
    assert content(made.state_file) == before, "and changes nothing"
    with made.state():
        after = content(made.state_file)
    are_read_again = shape not in (row_by_row, without_unchanged)
    assert (after["source"] == []) == are_read_again, "the logs are read once more"
    assert staged(after) == staged(before) != []
    waiting = {row["record_id"] for seq, _, row in staged(after) if not seq}
    if shape is not without_unchanged:
        assert {row["record_id"].hex() for row in after["waiting"]} == waiting, "which may be corrected still"
    for table, rows in before.items():
        if table in ("source", "staged"):
            continue
        kept = [{name: row[name] for name in rows[0]} for row in after[table]] if rows else after[table]
        assert kept == rows, table
    waiting = [row for row in content(root / "device" / "state.db")["usage"] if row["seq"] == 2]
    assert [row for row in after["usage"] if row["seq"] == 2] == waiting, "what waits is counted in any case"
    made.ship(hive)
    assert not made.state_file.with_name("state.db.damaged").exists()
    assert sorted(row["iteration"] for row in made.delivered("llm_turns", newest=False)) == [*range(9)]
    assert len({manifest["epoch"] for manifest in made.manifests()}) == 1


@pytest.mark.parametrize("shape", SHAPES)
def test_a_migration_that_was_killed_goes_on(original: tuple[Path, Path], tmp_path: Path, shape: Shape) -> None:
    root, _ = original
    made = copied(root, tmp_path / "apiary")
    copies: list[Path] = []

    def copy(_: str) -> None:
        """What a kill before this statement would leave."""
        copies.append(tmp_path / f"copy-{len(copies)}")
        copies[-1].mkdir()
        for file in made.home.device.glob("state.db*"):
            shutil.copy(file, copies[-1])

    with closing(sqlite3.connect(made.state_file, isolation_level=None)) as db:
        shape(db)
        db.set_trace_callback(copy)
        migrations.migrate(db)
        db.set_trace_callback(None)
    whole = content(made.state_file)
    assert len(copies) > (5 if shape is without_unchanged else 15)
    for left in copies:
        with closing(sqlite3.connect(left / "state.db", isolation_level=None)) as db:
            migrations.migrate(db)
        assert content(left / "state.db") == whole


def test_a_state_of_a_newer_program_is_refused_with_one_line(
    original: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, hive = original
    made = copied(root, tmp_path / "apiary")
    with closing(sqlite3.connect(made.state_file)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    before = made.state_file.read_bytes()
    monkeypatch.setenv("APIARY_HOME", str(made.home.root))
    for command in ("status", "consent status", "consent withdraw", "ship", "preview"):
        options = ["--home", str(hive)] if command in ("ship", "preview") else []
        assert main(["device", *command.split(), *options]) == 1, command
        said = capsys.readouterr().err.strip()
        assert "newer Apiary" in said, command
        assert "install the newer version" in said, command
        assert "\n" not in said, command
    assert made.state_file.read_bytes() == before
    assert not made.state_file.with_name("state.db.damaged").exists()


def test_a_state_of_no_version_is_neither_changed_nor_set_aside(original: tuple[Path, Path], tmp_path: Path) -> None:
    root, hive = original
    made = copied(root, tmp_path / "apiary")
    with closing(sqlite3.connect(made.state_file)) as db:
        released(db)
        db.execute("ALTER TABLE session DROP COLUMN user_id")
        db.commit()
    before = content(made.state_file)
    with pytest.raises(DeviceError, match=r"of no version of Apiary .*move state.db away and grant consent again"):
        made.ship(hive)
    assert content(made.state_file) == before


def test_a_state_that_lacks_a_column_of_its_version_is_damaged(original: tuple[Path, Path], tmp_path: Path) -> None:
    root, hive = original
    made = copied(root, tmp_path / "apiary")
    with closing(sqlite3.connect(made.state_file)) as db:
        db.execute("ALTER TABLE source DROP COLUMN given_up")
        db.commit()
    with pytest.raises(DeviceError, match="set aside"):
        made.ship(hive)


def test_a_released_migration_is_what_it_was() -> None:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for number, (migration, wanted) in enumerate(zip(MIGRATIONS, RELEASED, strict=False)):
            migration(db)
            schema = "\n".join(sql for (sql,) in db.execute("SELECT sql FROM sqlite_schema WHERE sql > '' ORDER BY 1"))
            assert hashlib.sha256(schema.encode()).hexdigest().startswith(wanted), f"migration {number}"
