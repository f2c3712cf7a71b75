"""The preview: what is shown is what leaves, and showing it changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.device import grant
from pipelines.device.consent import History
from pipelines.simulate.homes import Layout
from tests.device.driving import (
    LAYOUTS,
    OWN_TABLES,
    Device,
    append,
    device,
    dump,
    granted,
    queen_folder,
    simulated,
    turn,
)


def snapshot(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every file; SQLite's own two beside the state come and go as it is opened."""
    return {
        path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else (0, b"")
        for path in root.rglob("*")
        if not path.name.endswith(("-wal", "-shm"))
    }


def rows(made: Device, home: Path) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (name, row["record_id"]): row
        for name, shown in made.preview(home).tables.items()
        for row in shown
        if name not in OWN_TABLES
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_shown_is_what_leaves(tmp_path: Path, layout: Layout) -> None:
    home = tmp_path / "hive"
    simulated(home, layout)
    made = granted(tmp_path / "apiary", home)
    shown = rows(made, home)
    made.ship(home)
    left = {(row["_table"], row["record_id"]): row for row in made.delivered() if row["_table"] not in OWN_TABLES}
    assert shown.keys() == left.keys()
    for key, row in shown.items():
        moment = {"observed_at"}
        assert {k: v for k, v in row.items() if k not in moment} == {
            k: v for k, v in left[key].items() if k not in {"_table", *moment}
        }
    assert rows(made, home) == {}, "what has left does not leave again"


def test_showing_changes_nothing(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    before = snapshot(tmp_path)
    assert made.preview(home).consent == "granted"
    assert snapshot(tmp_path) == before
    made.ship(home)
    assert len(made.delivered("llm_turns")) == 1


def test_without_consent_it_shows_what_a_grant_with_history_would_send(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = device(tmp_path / "apiary")
    before = snapshot(tmp_path)
    shown = made.preview(home)
    assert (shown.consent, shown.history, len(shown.tables["llm_turns"])) == ("none", "include", 1)
    assert shown.counts.staged == 1
    assert snapshot(tmp_path) == before, "and it makes no state"


@pytest.mark.parametrize("history", ["include", "exclude"])
def test_while_consent_is_paused_it_shows_what_leaves_after_a_resume(tmp_path: Path, history: History) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1, at="2026-04-30T10:15:00.5")))
    made = device(tmp_path / "apiary")
    made.grant([home], history=history, now=datetime(2026, 5, 1, tzinfo=UTC))
    grant.pause(made.home)
    append(queen_folder(home) / "events.jsonl", dump(turn(2)))
    shown = made.preview(home)
    assert (shown.consent, shown.history) == ("paused", history)
    grant.resume(made.home)
    made.ship(home)
    sent = {row["record_id"] for row in made.delivered("llm_turns")}
    assert {row["record_id"] for row in shown.tables["llm_turns"]} == sent
    assert len(sent) == (2 if history == "include" else 1)


def test_without_history_it_shows_what_is_new(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home, history="exclude")
    shown = made.preview(home)
    assert (shown.history, shown.tables.get("llm_turns"), shown.counts.before_consent) == ("exclude", None, 1)
