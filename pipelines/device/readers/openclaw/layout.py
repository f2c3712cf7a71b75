"""Where OpenClaw keeps what may be read: the transcripts of agents, their session stores and databases.

Everything that is not named here is never opened: trajectories and checkpoints repeat transcripts with whole prompts,
the import archive repeats what the database holds.
Does not belong here: what a file means (transcripts.py, databases.py).
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SESSION_ID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_STAMP = r"\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d[-.]\d{3}Z"
# `<session>.jsonl`, of a fork `<time>_<session>.jsonl`, of a thread `<session>-topic-<id>.jsonl`, and their archives.
TRANSCRIPT = re.compile(
    rf"({_STAMP}_)?(?P<session>{SESSION_ID})(-topic-[\w-]{{1,64}})?\.jsonl(\.(reset|deleted)\.{_STAMP}(\.[0-9a-f]{{32}})?)?"
    r"(?P<packed>\.zst)?",
    re.ASCII,
)
FOLDERS = (".openclaw", ".clawdbot", ".moltbot", ".moldbot")
MAX_AGENTS = 1000


@dataclass(frozen=True)
class Transcript:
    """A transcript's file and the session that its name says."""

    path: Path
    session_id: str
    is_packed: bool


def usual_homes() -> list[Path]:
    """`OPENCLAW_STATE_DIR`, then the folders of all names that OpenClaw had, in the user's home: those that exist."""
    named = os.environ.get("OPENCLAW_STATE_DIR")
    places = [Path(named).expanduser()] if named else []
    return [path for path in [*places, *(Path.home() / name for name in FOLDERS)] if path.is_dir()]


def is_home(path: Path) -> bool:
    """Whether it is named like OpenClaw's state folder or holds its settings and agents."""
    return path.name in FOLDERS or ((path / "openclaw.json").is_file() and (path / "agents").is_dir())


def agents(home: Path) -> list[Path]:
    """The folders of agents, in the order of their names."""
    return sorted(_folders(home / "agents"))[:MAX_AGENTS]


def transcripts(agent: Path) -> list[Transcript]:
    """Transcripts of an agent and their archives, in the order of their names."""
    found = []
    for path in sorted(_entries(agent / "sessions")):
        match = TRANSCRIPT.fullmatch(path.name)
        if match is not None:
            found.append(Transcript(path, match["session"], match["packed"] is not None))
    return found


def session_store(agent: Path) -> Path:
    """The file era's index of sessions."""
    return agent / "sessions" / "sessions.json"


def database(agent: Path) -> Path:
    """The database of an agent, from 2026.8.1 on."""
    return agent / "agent" / "openclaw-agent.sqlite"


def state_database(home: Path) -> Path:
    """The database of runs and scheduled jobs, from 2026.7 on."""
    return home / "state" / "openclaw.sqlite"


def subagent_runs(home: Path) -> Path:
    """The runs of sub-agents before 2026.7."""
    return home / "subagents" / "runs.json"


def _entries(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_file(follow_symlinks=False))
    except OSError:
        return


def _folders(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            yield from (Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False))
    except OSError:
        return
