"""Copies of session folders: their turns are the original's, and nothing that looks like a session goes unsaid."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.device import lines
from pipelines.device.readers.hive import layout as hive_layout
from pipelines.device.readers.hive.copies import marked, session_of
from tests.device.driving import (
    LATER,
    SESSION,
    Device,
    append,
    device,
    dump,
    flat_folder,
    granted,
    queen_folder,
    step,
    turn,
)

KINDS = ("events", "logs")
NAMES = (
    "{}.bak", "{}.bak.2", "{} (copy)", "{} (copy 2)", "{} (1)", "{}.jtrash-1763622000", "{}~", "{}.1", "{}_old",
    "{}-backup", "{}.orig", "{} - Copy", "Copy of {}", "{} copy", "{} - Kopie", ".{}.swp",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_generated_id_is_found_in_a_copy_s_name(name: str) -> None:
    for session in (SESSION, "20260504T101500_0a1b2c3d"):
        assert session_of(name.format(session)) == (session, True)
        assert session_of(session) == (session, False)


@pytest.mark.parametrize("name", [name for name in NAMES if "swp" not in name])
def test_a_chosen_name_is_found_in_a_copy_s_name(name: str) -> None:
    assert marked(name.format("nightly-sweep")) == "nightly-sweep"


@given(st.text(alphabet="abcdefghij0123456789_-. ", max_size=30))
def test_a_name_without_an_id_means_itself(name: str) -> None:
    assert session_of(name) == (name, False)
    assert marked(name) != name


@pytest.mark.parametrize("name", [f"{SESSION}0", f"x{SESSION}", f"{SESSION}_and_{LATER}", "nightly", "sweep2", "v1.2"])
def test_other_names_are_no_copies(name: str) -> None:
    assert session_of(name) == (name, False)
    assert marked("sweep2") is None


GLUED = ("{}copy", "{}2", "{}xX", "{}bak.1", "{}0a", "x{}", "Copyof{}", "{}copy (2)")


@pytest.mark.parametrize("name", ["{}copy", "{}xX", "{}backup", "{}old.1", "{}2nd try"])
def test_what_cannot_be_more_of_an_id_marks_a_copy(name: str) -> None:
    for session in (SESSION, "20260504T101500_0a1b2c3d"):
        assert session_of(name.format(session)) == (session, True)


@pytest.mark.parametrize("name", GLUED)
def test_a_name_that_is_glued_to_the_id_makes_no_session(tmp_path: Path, name: str) -> None:
    """Digits and letters from a to f might belong to a longer id: beside the session itself they do not."""
    home = tmp_path / "hive"
    original = queen_folder(home)
    append(original / "events.jsonl", dump(turn(1)))
    (original / "meta.json").write_text(json.dumps({"phase": "working"}))
    append(original / "workers" / LATER / "logs" / "tool_logs.jsonl", dump(step(1)))
    copy = shutil.copytree(original, original.with_name(name.format(SESSION)))
    (copy / "meta.json").write_text(json.dumps({"phase": "building"}))
    append(copy / "events.jsonl", dump(turn(2)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    found = sorted((row["iteration"], row["session_id"], row["is_copy"]) for row in rows(made, "llm_turns"))
    assert found == [(1, SESSION, False), (2, SESSION, True)]
    assert [(row["session_id"], row["is_copy"]) for row in rows(made, "node_steps")] == [(LATER, False)]
    assert {row["session_id"] for row in rows(made, "sessions")} == {SESSION, LATER}
    assert {row["parent_session_id"] for row in rows(made, "sessions")} <= {None, SESSION}


def test_a_longer_id_is_a_session_of_its_own(tmp_path: Path) -> None:
    queen_folder(tmp_path, f"{SESSION}0a")
    assert [(f.session_id, f.is_copy) for f in hive_layout.session_folders(tmp_path, KINDS)] == [
        (f"{SESSION}0a", False)
    ]


def rows(made: Device, table: str) -> list[dict[str, object]]:
    return made.delivered(table)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_beside_the_original_adds_nothing(tmp_path: Path, name: str) -> None:
    home = tmp_path / "hive"
    original = flat_folder(home)
    append(original / "events.jsonl", dump(turn(1)))
    append(original / "logs" / "tool_logs.jsonl", dump(step(1), step(2, span=False)))
    (original / "meta.json").write_text(json.dumps({"queen_id": "queen_technology", "phase": "working"}))
    copy = shutil.copytree(original, original.with_name(name.format(SESSION)))
    (copy / "meta.json").write_text(json.dumps({"queen_id": "queen_technology", "phase": "building"}))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert len(rows(made, "llm_turns")) == 1
    assert len(rows(made, "node_steps")) == 2
    found = rows(made, "llm_turns") + rows(made, "node_steps") + rows(made, "sessions")
    assert {row["session_id"] for row in found} == {SESSION}
    assert {row["is_copy"] for row in found} == {False}
    assert {row["phase"] for row in rows(made, "sessions")} == {"working"}, "a copy does not describe the session"


def test_a_copy_without_its_original_counts_under_the_session_s_id(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    copy = flat_folder(home, f"{SESSION}.bak")
    append(copy / "logs" / "tool_logs.jsonl", dump(step(1)))
    (copy / "meta.json").write_text(json.dumps({"queen_id": "queen_technology"}))
    append(queen_folder(home, f"{LATER} (copy)") / "events.jsonl", dump(turn(2, session=LATER)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert [(row["session_id"], row["is_copy"]) for row in rows(made, "node_steps")] == [(SESSION, True)]
    assert [(row["session_id"], row["is_copy"]) for row in rows(made, "llm_turns")] == [(LATER, True)]
    assert {(row["session_id"], row["is_copy"]) for row in rows(made, "sessions")} == {(SESSION, True), (LATER, True)}


def test_turns_that_only_a_snapshot_of_a_fork_holds_count(tmp_path: Path) -> None:
    """An upgrade moves one of two folders of a fork there; both were written to."""
    home = tmp_path / "hive"
    live = home / "colonies/leads/queens/queen_growth/sessions" / SESSION
    append(live / "events.jsonl", dump(turn(1), turn(2)))
    append(home / f"colonies/leads/legacy_fork_snapshots/{SESSION}.1/events.jsonl", dump(turn(1), turn(3)))
    worker = home / f"colonies/leads/legacy_fork_snapshots/{SESSION}/workers/{LATER}"
    append(worker / "events.jsonl", dump(turn(4, session=LATER)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    found = sorted((row["iteration"], row["session_id"], row["is_copy"]) for row in rows(made, "llm_turns"))
    assert found == [(1, SESSION, False), (2, SESSION, False), (3, SESSION, True), (4, LATER, True)]
    assert made.preview(home).passed_over == ()


def test_a_copy_of_an_agent_does_not_name_the_session(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    for agent in ("mail_sorter_old", "mail_sorter"):
        folder = home / "agents" / agent / "sessions" / SESSION
        append(folder / "logs" / "tool_logs.jsonl", dump(step(1)))
        (folder / "state.json").write_text(json.dumps({"status": "active", "agent_id": agent}))
    folders = hive_layout.session_folders(home, KINDS)
    assert [(folder.agent_name, folder.is_copy) for folder in folders] == [
        ("mail_sorter", False),
        ("mail_sorter_old", True),
    ]
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert len(rows(made, "sessions")) == len(rows(made, "node_steps")) == 1


def test_a_chosen_name_is_a_copy_s_only_beside_its_original(tmp_path: Path) -> None:
    sessions = tmp_path / "agents" / "scout" / "sessions"
    for name in ("nightly", "nightly.bak", "weekly.1"):
        (sessions / name).mkdir(parents=True)
    found = {
        folder.path.name: (folder.session_id, folder.is_copy) for folder in hive_layout.session_folders(tmp_path, KINDS)
    }
    assert found == {"nightly": ("nightly", False), "nightly.bak": ("nightly", True), "weekly.1": ("weekly.1", False)}


def chosen_sessions(home: Path, *names: str, with_events: bool = True) -> None:
    """Sessions of names that somebody chose, each with a turn of its own in both logs."""
    for number, name in enumerate(names, 1):
        folder = home / "agents" / "scout" / "sessions" / name
        append(folder / "logs" / "tool_logs.jsonl", dump(step(number)))
        if with_events:
            append(folder / "events.jsonl", dump(turn(number, session=name)))


@pytest.mark.parametrize("with_events", [True, False])
def test_sessions_that_are_named_like_copies_are_sessions(tmp_path: Path, with_events: bool) -> None:
    """Of a chosen name only the content tells: each of these has turns of its own."""
    home = tmp_path / "hive"
    chosen_sessions(home, "nightly", "nightly_2", "nightly old", "backup of nightly", with_events=with_events)
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    owners = {row["session_id"] for row in rows(made, "node_steps")}
    assert len(owners) == 4
    assert {row["is_copy"] for row in rows(made, "node_steps")} == {False}
    if with_events:
        assert {row["session_id"] for row in rows(made, "llm_turns")} == owners, "steps find their events"


@pytest.mark.parametrize("kinds", [(), ("logs",), ("events",)])
def test_a_log_that_no_consent_covers_is_not_looked_into(
    tmp_path: Path, kinds: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen_sessions(tmp_path, "nightly", "nightly_2")
    opened: list[str] = []
    really = lines.open_plain
    monkeypatch.setattr(lines, "open_plain", lambda path: opened.append(path.name) or really(path))
    found = hive_layout.session_folders(tmp_path, kinds)
    assert ("events.jsonl" in opened, "tool_logs.jsonl" in opened) == ("events" in kinds, "logs" in kinds)
    assert len({folder.session_id for folder in found}) == (2 if kinds else 1)


@pytest.mark.parametrize("with_events", [True, False])
def test_a_copy_of_a_chosen_session_adds_nothing(tmp_path: Path, with_events: bool) -> None:
    """Also where the original lost its first lines since, and where the copy was written to."""
    home = tmp_path / "hive"
    chosen_sessions(home, "nightly", with_events=with_events)
    original = home / "agents" / "scout" / "sessions" / "nightly"
    copy = shutil.copytree(original, original.with_name("nightly_old"))
    append(copy / "logs" / "tool_logs.jsonl", dump(step(8)))
    if with_events:
        (original / "events.jsonl").write_bytes(dump(turn(9, session="nightly")))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert len({row["session_id"] for row in rows(made, "node_steps")}) == 1
    assert sorted(row["is_copy"] for row in rows(made, "node_steps")) == [False, True]


def test_a_colony_that_is_named_like_a_copy_is_one(tmp_path: Path) -> None:
    """Its metadata tell: a copy has the original's."""
    for name, told in {
        "desk": {"queen_session_id": SESSION, "colony_name": "desk"},
        "desk_2": {"queen_session_id": LATER, "colony_name": "desk_2"},
        "desk_old": {"queen_session_id": f"{LATER[:-1]}9"},
        "desk (copy)": {"queen_session_id": SESSION, "colony_name": "desk"},
        "desk_bak": {"queen_session_id": SESSION},
        "desk_3": {},
    }.items():
        folder = tmp_path / "colonies" / name
        folder.mkdir(parents=True)
        if told:
            (folder / "metadata.json").write_text(json.dumps(told))
    found = [folder.colony_name for folder in hive_layout.colony_folders(tmp_path)]
    assert found == ["desk", "desk_2", "desk_old"]


def test_folders_that_look_like_sessions_are_told_and_not_read(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    places = [
        f"queens.bak/queen_technology/sessions/{SESSION}/events.jsonl",
        "my_exports/run/logs/tool_logs.jsonl",
        f"archive/{LATER}/meta.json",
    ]
    for place in places:
        append(home / place, dump(turn(2)))
    for place in ("archive/notes/meta.json", f"secrets/{SESSION}/events.jsonl", "event_logs/events.jsonl"):
        append(home / place, b"{}")
    made = granted(tmp_path / "apiary", home)
    shown = made.preview(home).passed_over
    assert {str(Path(path).relative_to(home)) for path in shown} == {
        f"queens.bak/queen_technology/sessions/{SESSION}", "my_exports/run", f"archive/{LATER}"
    }  # fmt: skip
    made.ship(home)
    assert len(rows(made, "llm_turns")) == 1
    told = made.sources("other")
    assert [row["outcome"] for row in told] == ["unknown_layout"] * 3
    with made.state() as state:
        assert state.value("session_folders_passed_over") == "3"


def test_what_a_copy_owned_before_becomes_the_original_s(tmp_path: Path) -> None:
    """A state of the first release: the copy's name was a session of its own, keyed, and owned the step."""
    home = tmp_path / "hive"
    original = flat_folder(home)
    append(original / "logs" / "tool_logs.jsonl", dump(step(1)))
    copy = shutil.copytree(original, original.with_name(f"{SESSION}.bak"))
    made = device(tmp_path / "apiary")
    made.grant([home])
    made.ship(home)
    assert [row["session_id"] for row in rows(made, "node_steps")] == [SESSION]
    keyed = f"k1_{'0' * 32}"
    with made.state() as state:
        state._db.execute("UPDATE seen SET owner = ?", (keyed,))
        state._db.execute("DELETE FROM snapshot WHERE signature = 'known'")
    made.ship(home)
    sent = [row["session_id"] for row in made.delivered("node_steps", newest=False)]
    assert sent == [SESSION, SESSION], "sent once more, as a correction"
    assert copy.is_dir()
