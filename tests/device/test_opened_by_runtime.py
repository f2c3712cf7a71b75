"""Which files of a home of each runtime are opened: those of its list, and nothing of what is private beside them.

Python's audit sees every open of a Python file and of a database. Does not belong here: what was read from those files.
"""

from __future__ import annotations

import re
import sys
from datetime import date
from pathlib import Path

import pytest

from pipelines.device.readers import registry
from pipelines.simulate.claude_code import ClaudeCodeSpec
from pipelines.simulate.fleet import OtherHome
from pipelines.simulate.hyperhive import HyperhiveSpec
from pipelines.simulate.openclaw import OpenClawSpec
from tests.device.driving import granted

DAY = date(2026, 11, 2)
WATCHED: list[str] = []
SESSION = "11111111-1111-4111-8111-111111111111"
AGENT = r"[^/]+/subagents/(workflows/[^/]+/)?agent-[^/]+\.(jsonl|meta\.json)"
CLAUDE = rf"projects/[^/]+/({AGENT}|[^/]+\.jsonl)|stats-cache\.json"
SECRETS = (".credentials.json", "history.jsonl", "settings.json", "todos/x.json", "projects/-x/memory/MEMORY.md")
CASES: dict[str, tuple[OtherHome, str, tuple[str, ...]]] = {
    "claude-code": (
        ClaudeCodeSpec(seed=1, first_day=DAY, days=1), CLAUDE,
        (*SECRETS, f"projects/-x/{SESSION}/tool-results/a.txt", f"projects/-x/{SESSION}.jsonl.bak"),
    ),
    "openclaw": (
        OpenClawSpec(seed=1, first_day=DAY, days=1, era="sqlite"),
        r"agents/[^/]+/(sessions/[^/]+|agent/openclaw-agent\.sqlite)|state/openclaw\.sqlite|subagents/runs\.json",
        (
            "openclaw.json", "credentials/oauth.json", "state/other.sqlite", "agents/main/agent/auth-profiles.json",
            f"agents/main/session-sqlite-import-archive/main.{SESSION}.jsonl.imported-1", "workspace/MEMORY.md",
            f"agents/main/sessions/{SESSION}.trajectory.jsonl",
            f"agents/main/sessions/{SESSION}.checkpoint.{SESSION}.jsonl",
        ),
    ),
    "hyperhive": (
        HyperhiveSpec(seed=1, first_day=DAY, days=1),
        rf"agents/[^/]+/(harness/hyperhive-turn-stats\.sqlite|claude/({CLAUDE}))|db/broker\.sqlite",
        (
            "agents/mira/harness/hyperhive-events.sqlite", "agents/mira/harness/hyperhive-model", "db/other.sqlite",
            "agents/mira/notes.md", *(f"agents/mira/claude/{name}" for name in SECRETS),
        ),
    ),
}  # fmt: skip
is_watching = False


def listen(event: str, values: tuple[object, ...]) -> None:
    """Take down what is opened while somebody watches; a hook cannot be taken away."""
    if is_watching and event in ("open", "sqlite3.connect"):
        WATCHED.append(str(values[0]))


@pytest.mark.parametrize("runtime", CASES)
def test_nothing_else_of_a_home_is_opened(tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, allowed, traps = CASES[runtime]
    home = tmp_path / spec.folder
    spec.write(home)
    for trap in traps:
        (home / trap).parent.mkdir(parents=True, exist_ok=True)
        (home / trap).write_text("CANARY-TRAP-000001")
    found = registry.recognised(home)
    assert found is not None
    assert found.name == runtime
    made = granted(tmp_path / "apiary", home)
    sys.addaudithook(listen)
    WATCHED.clear()
    monkeypatch.setattr(sys.modules[__name__], "is_watching", True)
    made.preview(home)
    made.ship(home)
    monkeypatch.setattr(sys.modules[__name__], "is_watching", False)
    names = {name.partition("?")[0].removeprefix("file:") for name in WATCHED}
    opened = {str(Path(name).relative_to(home)) for name in names if name.startswith(f"{home}/")}
    assert opened
    assert [name for name in opened if not re.fullmatch(allowed, name)] == []
    assert [trap for trap in traps if trap in opened] == []
    kept = (path for path in made.home.root.rglob("*") if path.is_file())
    assert all(b"CANARY" not in path.read_bytes() for path in kept)
