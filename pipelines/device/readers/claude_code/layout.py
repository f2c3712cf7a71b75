"""Where Claude Code keeps what may be read. A path that no pattern names is never opened.

Prompts (history.jsonl), accounts (.claude.json), credentials, settings, tool results, journals of workflows, todo, plan
and memory files match no pattern. Folder names are made of paths and leave the device in no form.
Does not belong here: opening files, what is in them.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from uuid import UUID

from pipelines.contract.keys import is_generated

AGENT_FILE = re.compile(r"agent-(?P<agent>[A-Za-z0-9_-]{1,128})\.jsonl", re.ASCII)
_GENERATED_AGENT = re.compile(r"[0-9a-f]{6,40}|aside-[0-9a-z]{4,24}", re.ASCII)
IN_FILE = "sidechain"  # old versions wrote sub-agents into the main transcript, without a name


@dataclass(frozen=True)
class Transcript:
    """One file of lines. `session`: the session it is named after. `agent`: the sub-agent whose file it is."""

    path: Path
    session: str
    agent: str | None = None

    @property
    def meta(self) -> Path:
        """What stands beside a sub-agent's file about it."""
        return self.path.with_suffix(".meta.json")


def usual_homes() -> list[Path]:
    """The folders that `CLAUDE_CONFIG_DIR` lists, else the two usual ones."""
    named = os.environ.get("CLAUDE_CONFIG_DIR", "")
    places = [Path(place.strip()).expanduser() for place in re.split(r"[,\n]", named) if place.strip()]
    home = Path.home()
    return [place for place in places or [home / ".claude", home / ".config" / "claude"] if place.is_dir()]


def is_home(path: Path) -> bool:
    """Whether a folder holds transcripts where Claude Code keeps them."""
    return (path / "projects").is_dir() and next(transcripts(path), None) is not None


def transcripts(home: Path) -> Iterator[Transcript]:
    """Every transcript of a home: of sessions, of their sub-agents, and of sub-agents that workflows started."""
    for project in _folders(home / "projects"):
        for path in _files(project):
            yield Transcript(path, path.stem)
        for session in _folders(project):
            for path in _files(session):  # an early layout
                yield Transcript(path, path.stem)
            yield from _agents(session / "subagents", session.name)
            for workflow in _folders(session / "subagents" / "workflows"):
                yield from _agents(workflow, session.name)


def _agents(folder: Path, session: str) -> Iterator[Transcript]:
    for path in _files(folder):
        match = AGENT_FILE.fullmatch(path.name)
        if match is not None:
            yield Transcript(path, session, match["agent"])


def statistics(home: Path) -> Path:
    """The cache of statistics of a home."""
    return home / "stats-cache.json"


def agent_session(session: str, agent: str) -> str:
    """The id of a sub-agent's own session: the same on every device that holds its session.

    Where no program made the agent's or the session's id it is keyed on its way out, like any id of a form that we do
    not know: a hash without a key would be found again with a list of words.
    """
    name = f"{session}/{agent}"
    is_made = is_generated(session) and (agent == IN_FILE or _GENERATED_AGENT.fullmatch(agent))
    return str(UUID(sha256(f"claude-code/agent/{name}".encode()).hexdigest()[:32])) if is_made else name


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)]


def _files(folder: Path) -> list[Path]:
    """Files of lines; a link or a pipe among them is told by whoever opens it."""
    return [
        Path(entry.path)
        for entry in _entries(folder)
        if entry.name.endswith(".jsonl") and not entry.is_dir(follow_symlinks=False)
    ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a real folder; a link to one is not followed, an unreadable one is empty."""
    if folder.is_symlink():
        return []
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
