"""File sets in which a pass found nothing to do are passed over until one of their files changes.

Does not belong here: what is read of a file that changed (test_lines.py, test_live_files.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from pipelines.device import lines, unchanged
from pipelines.device.ship import ship
from pipelines.device.state import State
from tests.device.driving import (
    LATER,
    OWN_TABLES,
    SESSION,
    ZONE,
    Device,
    append,
    dump,
    flat_folder,
    granted,
    queen_folder,
    step,
    turn,
)

PASSES = 4  # read; what was within a clock's tick; nothing to do; passed over


@pytest.fixture(autouse=True)
def _clock_of_no_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of a test are new: without this none of them would be passed over."""
    monkeypatch.setattr(unchanged, "CLOCK_TICK_NS", -(10**18))


class Looks:
    """What was opened and looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened: list[str] = []
        self.checkpoints = 0
        open_plain, checkpoint = lines.open_plain, State.checkpoint

        def opening(path: Path) -> Any:
            self.opened.append(path.name)
            return open_plain(path)

        def looking_up(state: State, source: str) -> lines.Checkpoint:
            self.checkpoints += 1
            return checkpoint(state, source)

        monkeypatch.setattr(lines, "open_plain", opening)
        monkeypatch.setattr("pipelines.device.documents.open_plain", opening)
        monkeypatch.setattr(State, "checkpoint", looking_up)


def written(home: Path, session: str = SESSION) -> Path:
    folder = queen_folder(home, session)
    append(folder / "events.jsonl", dump(*(turn(number, session=session) for number in range(3))))
    append(folder / "meta.json", b'{"status": "completed", "phase": "independent"}')
    append(folder / "logs" / "tool_logs.jsonl", dump(step(int(session[-1], 16))))
    return folder


def settled(home: Path, **other: Any) -> Device:
    """A device with a root beside the home that has nothing to do any more."""
    made = granted(home.parent / "apiary", home, **other)
    for _ in range(PASSES):
        made.ship(home)
    return made


def test_nothing_is_opened_or_looked_up_in_a_quiet_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    for session in (SESSION, LATER):
        written(home, session)
    made = settled(home)
    looks = Looks(monkeypatch)
    shipped = made.ship(home)
    assert (looks.opened, looks.checkpoints) == ([], 0)
    assert shipped.rows == shipped.report_rows
    reports = sorted(made.delivered("device_reports"), key=lambda row: row["run"])
    assert [row["sources"] for row in reports[-3:]] == [4, 4, 4], "every log is a source, looked at or not"


def _append(folder: Path) -> None:
    append(folder / "events.jsonl", dump(turn(9)))


def _append_and_set_the_time_back(folder: Path) -> None:
    path = folder / "events.jsonl"
    before = path.stat()
    append(path, dump(turn(9)))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(folder: Path) -> None:
    path = folder / "new"
    path.write_bytes(dump(*map(turn, range(3)), turn(9)))
    path.rename(folder / "events.jsonl")


def _in_the_logs(folder: Path) -> None:
    append(folder / "logs" / "tool_logs.jsonl", dump(step(9)))


def _a_new_file(folder: Path) -> None:
    append(folder / "logs" / "details.jsonl", dump({"node_id": "a", "node_name": "b", "success": True}))


def _described(folder: Path) -> None:
    (folder / "meta.json").write_text('{"status": "completed", "phase": "building"}', "utf-8")


def _a_worker(folder: Path) -> None:
    append(folder / "workers" / LATER / "events.jsonl", dump(turn(9, session=LATER)))


def _another_name(folder: Path) -> None:
    folder.rename(folder.with_name(LATER))


@pytest.mark.parametrize(
    ("change", "table"),
    [
        (_append, "llm_turns"), (_append_and_set_the_time_back, "llm_turns"), (_replace, "llm_turns"),
        (_in_the_logs, "node_steps"), (_a_new_file, "node_details"), (_described, "sessions"),
        (_a_worker, "llm_turns"), (_another_name, "sessions"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)  # fmt: skip
def test_every_change_is_seen(tmp_path: Path, change: Callable[[Path], None], table: str) -> None:
    home = tmp_path / "hive"
    folder = written(home)
    made = settled(home)
    before = len(made.delivered(table, newest=False))
    change(folder)
    made.ship(home)
    assert len(made.delivered(table, newest=False)) > before


def test_only_the_folder_that_changed_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    for session in (SESSION, LATER):
        written(home, session)
    made = settled(home)
    append(queen_folder(home) / "events.jsonl", dump(turn(9)))
    looks = Looks(monkeypatch)
    made.ship(home)
    assert looks.checkpoints == 3, "its three logs, one of them once more after reading"


def test_a_file_within_a_tick_of_the_clock_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    written(home)
    monkeypatch.setattr(unchanged, "CLOCK_TICK_NS", 10**18)
    made = settled(home)
    looks = Looks(monkeypatch)
    made.ship(home)
    assert looks.checkpoints


def test_a_torn_end_is_given_up_on_in_a_file_that_nobody_touches(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    append(written(home) / "events.jsonl", b'{"type": "llm_turn_complete", "data": {"inp')
    made = settled(home)
    assert not any(row["lines_rejected_tail_abandoned"] for row in made.sources())
    later = datetime.now(UTC) + timedelta(days=2)
    ship(made.home, [home], store_url=made.store_url, is_forced=True, clock=lambda: later)
    assert sum(row["lines_rejected_tail_abandoned"] for row in made.sources()) == 1


def test_what_waits_in_a_file_that_is_deleted_is_counted_as_lost(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    torn = b'{"type": "llm_turn_complete", "data": {"inp'
    path = append(written(home) / "events.jsonl", torn)
    made = settled(home)
    path.unlink()
    made.ship(home)
    assert sum(row["source_lost_bytes"] for row in made.sources()) == len(torn)


def test_a_session_that_comes_to_life_elsewhere_is_described(tmp_path: Path) -> None:
    """Without history an old session is not described until a record of it is new: here one in a copy of its folder."""
    home = tmp_path / "hive"
    folder = written(home)
    made = settled(home, history="exclude")
    assert not made.delivered("sessions")
    lives = turn(9, at=f"{datetime.now(ZoneInfo(ZONE)):%Y-%m-%dT%H:%M:%S.%f}")
    append(folder.with_name(f"{SESSION}.bak") / "events.jsonl", dump(lives))
    for _ in range(2):
        made.ship(home)
    assert [row["session_id"] for row in made.delivered("sessions")] == [SESSION]


def test_a_copy_speaks_once_its_original_is_gone(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    folder = written(home)
    copy = shutil.copytree(folder, folder.with_name(f"{SESSION}.bak"))
    (copy / "meta.json").write_text('{"status": "completed", "phase": "building"}', "utf-8")
    made = settled(home)
    assert {row["phase"] for row in made.delivered("sessions")} == {"independent"}
    shutil.rmtree(folder)
    made.ship(home)
    assert {row["phase"] for row in made.delivered("sessions")} == {"independent", "building"}


def test_another_consent_looks_at_everything_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    written(home)
    made = settled(home)
    made.withdraw()
    made.grant([home])
    looks = Looks(monkeypatch)
    made.ship(home)
    assert "events.jsonl" in looks.opened


OPERATIONS: tuple[Callable[[random.Random, Path], None], ...] = (
    lambda chance, folder: append(folder / "events.jsonl", dump(turn(chance.randrange(50)))) and None,
    lambda chance, folder: append(folder / "events.jsonl", dump(turn(chance.randrange(50)))[:-9]) and None,
    lambda _, folder: append(folder / "events.jsonl", b"\n") and None,
    lambda chance, folder: append(folder / "logs" / "tool_logs.jsonl", dump(step(chance.randrange(50)))) and None,
    lambda chance, folder: (folder / "meta.json").write_text(json.dumps({"phase": chance.choice("ab")})) and None,
    lambda _, folder: (folder / "events.jsonl").unlink(missing_ok=True),
    lambda chance, folder: append(
        folder / "workers" / f"session_20260504_101600_0000000{chance.randrange(3)}" / "events.jsonl", dump(turn(77))
    ) and None,
    lambda _, folder: shutil.copytree(folder, folder.with_name(f"{folder.name}.bak"), dirs_exist_ok=True) and None,
    lambda _, folder: shutil.rmtree(folder.with_name(f"{folder.name}.bak"), ignore_errors=True),
)  # fmt: skip


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 20))])
def test_a_device_that_passes_over_sends_what_one_sends_that_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = random.Random(seed)
    home = tmp_path / "hive"
    folders = [queen_folder(home, SESSION), flat_folder(home, LATER)]
    history = "exclude" if seed % 2 else "include"
    key = bytes(32)
    quick = granted(tmp_path / "quick", home, key=key, history=history)
    thorough = granted(tmp_path / "thorough", home, key=key, history=history)
    for _ in range(16):
        if chance.random() < 0.5:
            chance.choice(OPERATIONS)(chance, chance.choice(folders))
        quick.ship(home)
        with monkeypatch.context() as patch:
            patch.setattr(unchanged.Unchanged, "sources", lambda *_: None)
            thorough.ship(home)

    def told(made: Device) -> list[dict[str, Any]]:
        volatile = ("observed_at", "device_id", "run", "epoch")
        rows = [row for row in made.delivered(newest=False) if row["_table"] not in OWN_TABLES]
        return sorted(({k: v for k, v in row.items() if k not in volatile} for row in rows), key=str)

    assert told(quick) == told(thorough)
    lost = [sum(row["source_lost_bytes"] for row in made.sources()) for made in (quick, thorough)]
    assert lost[0] == lost[1]
    assert [row["sources"] for row in quick.delivered("device_reports")] == [
        row["sources"] for row in thorough.delivered("device_reports")
    ]
