"""docs/adding-a-runtime.md, followed with a runtime that nobody has: one class, one line in the registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.contract import wire
from pipelines.device import grant
from pipelines.device.readers import registry
from pipelines.device.readers.base import At, Contents, Json, Log, Record, Runtime, Setting
from tests.device.driving import device, granted, simulated


class Parrot:
    """A runtime that writes one line for each response."""

    name = "parrot"
    title = "Parrot"
    versions = "1.0"

    def usual_homes(self) -> list[Path]:
        place = Path.home() / ".parrot"
        return [place] if place.is_dir() else []

    def is_home(self, path: Path) -> bool:
        return (path / "said").is_dir()

    def homes_in(self, home: Path) -> list[Path]:
        return [home]

    def contents(self, home: Path, setting: Setting) -> Contents:
        def parse(found: Json, _: At) -> Iterator[Record]:
            when = setting.clock.event_time(found.get("at"))
            values = {
                "session_id": found["session"], "agent_role": "agent", "turn_grain": "response",
                "model": found["model"],
                "input_tokens": found["in"], "output_tokens": found["out"],
                "occurred_at": when.at if when else None, "time_basis": when.basis if when else None,
            }  # fmt: skip
            key = ("response", found["id"], "message", 0)
            yield Record(wire.LLM_TURNS, key, values, when.at if when else None, is_turn=True)

        logs = [
            Log(path=path, kind="other", consent="events", is_record=lambda found: "id" in found, parse=parse)
            for path in sorted((home / "said").glob("*.jsonl"))
        ]
        return Contents(logs, lambda _: iter(()))


PARROT: Runtime = Parrot()
WORDS = {
    "id": "msg_01234567890123456789", "session": "1" * 8 + "a" * 24, "at": "2026-10-06T07:30:00Z",
    "model": "claude-opus-5",
    "in": 40, "out": 7, "text": "CANARY-TEXT-000001",
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("HIVE_HOME", raising=False)
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    monkeypatch.setattr(registry, "RUNTIMES", (PARROT, *registry.RUNTIMES))
    column = wire.LLM_TURNS.by_name["agent_runtime"]
    object.__setattr__(column, "values", (*wire.AGENT_RUNTIMES, "parrot"))
    made = tmp_path / ".parrot"
    (made / "said").mkdir(parents=True)
    (made / "said" / "a.jsonl").write_text(json.dumps(WORDS) + "\n")
    (made / "never.txt").write_text("CANARY-TEXT-000002")
    yield made
    object.__setattr__(column, "values", wire.AGENT_RUNTIMES)


def test_a_runtime_is_one_class_and_one_line(home: Path, tmp_path: Path) -> None:
    assert [(found.path, found.runtime.name) for found in registry.usual_homes() if found.runtime] == [(home, "parrot")]
    assert registry.recognised(home) is PARROT
    hive = tmp_path / "hive"
    simulated(hive, "v3")
    made = granted(tmp_path / "apiary", home, hive)
    made.ship(home, hive)
    runtimes = {row["agent_runtime"] for row in made.delivered("llm_turns")}
    assert runtimes == {"parrot", "hive"}
    (turn,) = (row for row in made.delivered("llm_turns") if row["agent_runtime"] == "parrot")
    assert (turn["input_tokens"], turn["output_tokens"], turn["model"]) == (40, 7, "claude-opus-5")
    sent = b"".join(path.read_bytes() for path in made.home.root.rglob("*") if path.is_file())
    assert b"CANARY" not in sent


def test_a_consent_that_names_another_runtime_leaves_it_unread(home: Path, tmp_path: Path) -> None:

    made = device(tmp_path / "apiary")
    hive = tmp_path / "hive"
    simulated(hive, "v3")
    grant.grant(made.home, [home, hive], history="include", sources=["hive"])
    shipped = made.ship(home, hive)
    assert {row["agent_runtime"] for row in made.delivered("llm_turns")} == {"hive"}
    assert [problem for problem in shipped.problems if "does not cover Parrot" in problem]
