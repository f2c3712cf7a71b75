"""Where things may be read: every layout's places, and no other, whatever stands there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.device.readers.hive import layout as hive_layout
from pipelines.device.readers.hive.layout import ColonyFolder, SessionFolder
from tests.device.driving import LATER, SESSION

KINDS = ("events", "logs")
Q, C, A, W = "queen_technology", "leads", "scout", "session_20260504_101600_00000001"


def made(home: Path, place: str) -> SessionFolder:
    (home / place / "logs").mkdir(parents=True)
    (found,) = [folder for folder in hive_layout.session_folders(home, KINDS) if folder.path == home / place]
    return found


LAYOUTS = {"queen": "v1", "agents": "v2", "queens": "v3", "colonies": "v3", "_misc": "v3", "sessions": "other"}


@pytest.mark.parametrize(
    ("place", "session", "kind", "told"),
    [
        (f"queen/session/{SESSION}", SESSION, "queen", {}),
        (f"agents/queens/{Q}/sessions/{SESSION}", SESSION, "queen", {"queen_name": Q}),
        (
            f"agents/queens/{Q}/sessions/{SESSION}/workers/{W}",
            W, "worker", {"queen_name": Q, "parent_session_id": SESSION},
        ),
        (f"queens/{Q}/sessions/{SESSION}", SESSION, "queen", {"queen_name": Q}),
        (f"queens/{Q}/sessions/{SESSION}/workers/{W}", W, "worker", {"queen_name": Q, "parent_session_id": SESSION}),
        (f"colonies/{C}/queens/{Q}/sessions/{SESSION}", SESSION, "colony_queen", {"colony_name": C, "queen_name": Q}),
        (
            f"colonies/{C}/queens/{Q}/sessions/{SESSION}/workers/{W}",
            W, "worker", {"queen_name": Q, "parent_session_id": SESSION},
        ),
        (f"colonies/{C}/queen/{SESSION}", SESSION, "colony_queen", {"colony_name": C}),
        (f"colonies/{C}/workers/{W}", W, "worker", {"colony_name": C}),
        (f"sessions/{SESSION}", SESSION, "other", {}),
        (f"agents/{A}/sessions/nightly", "nightly", "agent_session", {"agent_name": A}),
        (f"agents/{C}/worker/sessions/{SESSION}", SESSION, "graph_run", {"colony_name": C}),
        (f"agents/{C}/reader/sessions/{SESSION}", SESSION, "graph_run", {"colony_name": C}),
        (f"agents/{A}/graphs/report/sessions/{SESSION}", SESSION, "secondary_graph", {"agent_name": A}),
        (
            f"agents/{A}/runtime_logs/runs/20260204T101500_0a1b2c3d",
            "20260204T101500_0a1b2c3d", "legacy_run", {"agent_name": A},
        ),
        (f"_misc/{SESSION}", SESSION, "other", {}),
    ],
)  # fmt: skip
def test_every_place_of_a_session(tmp_path: Path, place: str, session: str, kind: str, told: dict[str, str]) -> None:
    found = made(tmp_path, place)
    logs = found.path if kind == "legacy_run" else found.path / "logs"
    layout = "v1" if kind == "legacy_run" else LAYOUTS[place.partition("/")[0]]
    assert found == SessionFolder(tmp_path / place, session, kind, logs=logs, layout=layout, **told)


def test_a_session_is_listed_once_and_the_earliest_first(tmp_path: Path) -> None:
    for place in (
        f"queens/{Q}/sessions/{LATER}",
        f"agents/queens/{Q}/sessions/{SESSION}",
        "agents/zeta/sessions/nightly",
    ):
        (tmp_path / place).mkdir(parents=True)
    found = hive_layout.session_folders(tmp_path, KINDS)
    assert [folder.session_id for folder in found] == ["nightly", SESSION, LATER]
    assert len({folder.path for folder in found}) == 3


@pytest.mark.parametrize(
    "place",
    [
        f"archive/{SESSION}", "event_logs", "llm_logs", "credentials", "secrets", "failed_requests", "memories/global",
        f"queens/{Q}/sessions/{SESSION}/conversations/parts", f"queens/{Q}/sessions/{SESSION}/artifacts",
        f"queens/{Q}/sessions/{SESSION}/data/sessions/{LATER}", ".message_index/x", f"colonies/{C}/tracker",
        f"colonies/{C}/seed_conversation/parts", f"colonies/{C}/profiles/x",
    ],
)  # fmt: skip
def test_no_other_place_is_a_session(tmp_path: Path, place: str) -> None:
    (tmp_path / place).mkdir(parents=True)
    assert not [f for f in hive_layout.session_folders(tmp_path, KINDS) if f.path == tmp_path / place]


def test_a_link_is_not_followed_wherever_it_stands(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "hive", tmp_path / "elsewhere"
    (elsewhere / "sessions" / SESSION / "logs").mkdir(parents=True)
    (elsewhere / "data").mkdir()
    (home / "agents").mkdir(parents=True)
    (home / "sessions").symlink_to(elsewhere / "sessions")
    (home / "agents" / "scout").symlink_to(elsewhere)
    (home / "_misc").mkdir()
    (home / "_misc" / LATER).symlink_to(elsewhere / "sessions" / SESSION)
    assert hive_layout.session_folders(home, KINDS) == []
    real = home / "queens" / Q / "sessions" / SESSION
    real.mkdir(parents=True)
    (real / "logs").symlink_to(elsewhere / "sessions" / SESSION / "logs")
    (folder,) = hive_layout.session_folders(home, KINDS)
    assert folder.logs is None, "a link in a folder's place leads to files that no pattern names"
    colony = home / "colonies" / C
    colony.mkdir(parents=True)
    (colony / "data").symlink_to(elsewhere / "data")
    assert hive_layout.progress_dbs(ColonyFolder(colony, C)) == []


def test_homes_of_accounts_are_homes(tmp_path: Path) -> None:
    (tmp_path / "users" / "0a1b").mkdir(parents=True)
    (tmp_path / "users" / "file").write_text("")
    assert hive_layout.homes_in(tmp_path) == [tmp_path, tmp_path / "users" / "0a1b"]


def test_a_folder_with_a_name_of_odd_bytes_is_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    (tmp_path / "colonies" / name).mkdir(parents=True)
    assert [folder.colony_name for folder in hive_layout.colony_folders(tmp_path)] == [name]


def test_the_usual_homes_are_what_is_named_or_what_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HIVE_HOME", str(tmp_path / "named"))
    assert hive_layout.usual_homes() == [tmp_path / "named"]
    monkeypatch.delenv("HIVE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert hive_layout.usual_homes() == []
    (tmp_path / ".hive").mkdir()
    assert hive_layout.usual_homes() == [tmp_path / ".hive"]


@pytest.mark.parametrize(
    "entry",
    [
        "configuration.json", "runtime_id", ".migrated-v2", ".migrated-v3", "queen/session/s/events.jsonl",
        "agents/queens/q/sessions/s/meta.json", "agents/a/sessions/s/logs/details.jsonl", "sessions/s/state.json",
        "queens/q/sessions/s/workers/w/events.jsonl", "colonies/c/metadata.json", "colonies/c/tracker/progress.db",
        "users/u/queens/q/sessions/s/events.jsonl", "_misc/s/events.jsonl", "agents/a/runtime_logs/runs/r/summary.json",
    ],
)  # fmt: skip
def test_a_home_is_known_by_what_the_runtime_writes(tmp_path: Path, entry: str) -> None:
    for other in ("letter.txt", "sessions/2026/11/x", "agents/notes/todo.md", "colonies/ants/photo.jpg", "users/ada/x"):
        path = tmp_path / other
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    assert not hive_layout.is_home(tmp_path)
    path = tmp_path / entry
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    assert hive_layout.is_home(tmp_path)
