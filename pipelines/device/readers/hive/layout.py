"""Where Hive keeps what may be read, in every layout it has had. A path that no pattern names is never opened.

Conversations, artifacts, a session's data, credentials, secrets, configuration, failed requests, debug logs, memories
and tracker databases match no pattern. Does not belong here: opening files, what is in them.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pipelines.contract.keys import is_generated
from pipelines.device.readers.base import NOT_LISTED, FileState
from pipelines.device.readers.hive.copies import glued, is_other_colony, marked, session_of, told_apart


@dataclass(frozen=True, slots=True)
class SessionFolder:
    """One folder of a session. The session is known by its id, never by the path: folders move.

    `logs` is the folder of its runtime logs, if it has one of its own (a link to one elsewhere is none). `layout` is
    the version of the source that keeps sessions there. `is_copy`: its place or its name tells that it is a copy of the
    session's folder. `files`: how the files in it that may be read stood when it was listed.
    """

    path: Path
    session_id: str
    kind: str
    queen_name: str | None = None
    agent_name: str | None = None
    colony_name: str | None = None
    parent_session_id: str | None = None
    logs: Path | None = None
    layout: str = "other"
    is_copy: bool = False
    files: FileState = field(default=NOT_LISTED, compare=False)


@dataclass(frozen=True)
class ColonyFolder:
    """One folder of a colony."""

    path: Path
    colony_name: str


class Listing(NamedTuple):
    """What is in a folder: the names of the real folders, and how the files that may be read stand. A folder that may
    be entered and not listed has no names."""

    folders: tuple[str, ...] = ()
    files: FileState = NOT_LISTED

    def has_folder(self, path: str, name: str) -> bool:
        """Whether a real folder of a name is in the folder at `path`."""
        return name in self.folders if self.files is not NOT_LISTED else _is_folder(Path(path, name))


Make = Callable[[str, list[str], Listing], SessionFolder]


def _folder(kind: str, layout: str, *, is_copy: bool = False, **places: int) -> Make:
    """A maker of session folders of one kind and layout; `places` says which `*` of the pattern holds which name."""

    def make(path: str, parts: list[str], listed: Listing) -> SessionFolder:
        names = {name: parts[index] for name, index in places.items()}
        session_id, is_named_copy = session_of(parts[-1])
        if "parent_session_id" in names:
            names["parent_session_id"], is_in_copy = session_of(names["parent_session_id"])
            is_named_copy |= is_in_copy
        files = listed.files
        if kind == "legacy_run":
            logs = Path(path)
        elif listed.has_folder(path, "logs"):
            logs = Path(path, "logs")
            files = files.beside(f"{path}/logs", LOG_FILES)
        else:
            logs = None
        return SessionFolder(
            Path(path), session_id, kind, logs=logs, layout=layout, is_copy=is_copy or is_named_copy, files=files,
            **names,
        )  # fmt: skip

    return make


# Pattern -> what a folder that matches it is. `*` is one name, and parts[i] is the i-th `*`.
SESSION_FOLDERS: tuple[tuple[str, Make], ...] = (
    ("queen/session/*", _folder("queen", "v1")),
    ("agents/queens/*/sessions/*", _folder("queen", "v2", queen_name=0)),
    ("agents/queens/*/sessions/*/workers/*", _folder("worker", "v2", queen_name=0, parent_session_id=1)),
    ("queens/*/sessions/*", _folder("queen", "v3", queen_name=0)),
    ("queens/*/sessions/*/workers/*", _folder("worker", "v3", queen_name=0, parent_session_id=1)),
    ("colonies/*/queens/*/sessions/*", _folder("colony_queen", "v3", colony_name=0, queen_name=1)),
    (
        "colonies/*/queens/*/sessions/*/workers/*",
        # No colony: a fork copies the folders of its parent's workers into its own; the parent tells the colony.
        _folder("worker", "v3", queen_name=1, parent_session_id=2),
    ),
    ("colonies/*/queen/*", _folder("colony_queen", "v3", colony_name=0)),
    ("colonies/*/workers/*", _folder("worker", "v3", colony_name=0)),
    # Where an upgrade moves the other copy of a fork that was written to in two places.
    ("colonies/*/legacy_fork_snapshots/*", _folder("colony_queen", "v3", colony_name=0, is_copy=True)),
    (
        "colonies/*/legacy_fork_snapshots/*/workers/*",
        _folder("worker", "v3", parent_session_id=1, is_copy=True),
    ),
    ("sessions/*", _folder("other", "other")),
    ("sessions/*/workers/*", _folder("worker", "other", parent_session_id=0)),
    ("agents/*/sessions/*", _folder("agent_session", "v2", agent_name=0)),
    ("agents/*/worker/sessions/*", _folder("graph_run", "v2", colony_name=0)),
    ("agents/*/*/sessions/*", _folder("graph_run", "v2", colony_name=0)),
    ("agents/*/graphs/*/sessions/*", _folder("secondary_graph", "v2", agent_name=0)),
    ("agents/*/runtime_logs/runs/*", _folder("legacy_run", "v1", agent_name=0)),
    ("agents/*/*/runtime_logs/runs/*", _folder("legacy_run", "v1", agent_name=0)),
    ("agents/*/graphs/*/runtime_logs/runs/*", _folder("legacy_run", "v1", agent_name=0)),
    ("_misc/*", _folder("other", "v3")),
)
COLONY_FOLDERS = "colonies/*"
# What a home has from the first start of the runtime on, and what its session and colony folders hold.
HOME_FILES = ("configuration.json", "runtime_id", ".migrated-v2", ".migrated-v3")
SESSION_ENTRIES = (
    "events.jsonl", "meta.json", "state.json", "summary.json", "details.jsonl", "tool_logs.jsonl", "runs.jsonl",
    "tasks.json", "logs", "conversations", "workers", "data", "artifacts",
)  # fmt: skip
SESSION_LOGS = (
    "events.jsonl", "tool_logs.jsonl", "details.jsonl", "logs/tool_logs.jsonl", "logs/details.jsonl",
)  # fmt: skip
LOG_FILES = ("tool_logs.jsonl", "details.jsonl", "summary.json")
SESSION_FILES = frozenset({"events.jsonl", "runs.jsonl", "meta.json", "state.json", "tasks.json", *LOG_FILES})
"""Every file of a session that a reader opens."""
NEVER_LISTED = frozenset({
    "conversations", "artifacts", "data", "logs", "credentials", "secrets", "failed_requests", "llm_logs", "event_logs",
    "memories", ".message_index", "mcp_registry", "seed_conversation", "profiles", "tracker", "browser-logs",
})  # fmt: skip
MAX_FOLDERS = 100_000  # a home that holds more folders beside its sessions is not looked through to the end
COLONY_ENTRIES = ("metadata.json", "data", "tracker", "workers", "queen", "queens")
USER_HOMES = "users/*"  # the desktop application keeps a home per account in the shared one


def usual_homes() -> list[Path]:
    """Where Hive's home is when nobody names one: `HIVE_HOME`, then the platform's places. Only those that exist."""
    named = os.environ.get("HIVE_HOME")
    if named:
        return [Path(named).expanduser()]
    home = Path.home()
    places = [home / ".hive"]
    if sys.platform == "darwin":
        places.append(home / "Library" / "Application Support" / "Hive")
    if sys.platform == "win32":
        places.append(home / "AppData" / "Roaming" / "Hive")
    return [place for place in places if place.is_dir()]


def is_home(folder: Path) -> bool:
    """Whether a folder is a home of Hive, by the names in it; a home without any session yet is one."""
    if any((folder / name).is_file() for name in HOME_FILES):
        return True
    session_folders = (path for pattern, _ in SESSION_FOLDERS for path, _ in _matches(folder, pattern))
    if any(os.path.lexists(path / name) for path in session_folders for name in SESSION_ENTRIES):
        return True
    colonies = (path for path, _ in _matches(folder, COLONY_FOLDERS))
    if any(os.path.lexists(path / name) for path in colonies for name in COLONY_ENTRIES):
        return True
    return any(is_home(path) for path, _ in _matches(folder, USER_HOMES))


def homes_in(home: Path) -> list[Path]:
    """A home and the homes of accounts within it."""
    return [home, *(path for path, _ in _matches(home, USER_HOMES))]


def session_folders(home: Path, consented: Collection[str]) -> list[SessionFolder]:
    """Every session folder of a home, earliest session first, an original before its copies.

    `consented`: the kinds of logs that may be looked into where only the content tells a copy.
    """
    found: dict[str, SessionFolder] = {}
    listed: dict[str, Listing] = {}
    for pattern, make in SESSION_FOLDERS:
        for path, parts in _descend(str(home), pattern.split("/"), [], listed):
            if path not in found:  # patterns overlap
                found[path] = make(path, parts, _list(path, listed))
    return list(told_apart(found.values(), consented))


def colony_folders(home: Path) -> list[ColonyFolder]:
    """Every colony folder of a home but copies that lie beside their original.

    Shadow folders, named by a session id, have no metadata and are no colonies.
    """
    found = [ColonyFolder(path, parts[0]) for path, parts in _matches(home, COLONY_FOLDERS)]
    beside = {folder.colony_name: folder.path for folder in found}

    def is_copy(folder: ColonyFolder) -> bool:
        original = beside.get(marked(folder.colony_name) or "")
        return original is not None and not is_other_colony(folder.path, original)

    return [folder for folder in found if not is_copy(folder)]


def passed_over(home: Path, known: Iterable[SessionFolder]) -> Iterator[Path]:
    """Folders that look like a session's, by the names in them, and lie where no pattern looks.

    Nothing in them is read. A folder of content is not even listed.
    """
    paths = {str(folder.path) for folder in known}
    root = str(home)
    waiting, left = [root], MAX_FOLDERS
    while waiting and left > 0:
        folder = waiting.pop()
        for name in _list(folder, {}).folders:
            path = f"{folder}/{name}"
            if path in paths or name in NEVER_LISTED or (folder == root and name == "users"):
                continue
            left -= 1
            is_named = glued(name) is not None or is_generated(name)
            entries = (*SESSION_LOGS, *(("meta.json",) if is_named else ()))
            if any(os.path.lexists(f"{path}/{entry}") for entry in entries):
                yield Path(path)
            else:
                waiting.append(path)


def progress_dbs(colony: ColonyFolder) -> list[Path]:
    """Where a colony's progress.db may be: the migration to the newest layout moved it."""
    folders = (colony.path / "data", colony.path / "tracker")
    return [folder / "progress.db" for folder in folders if _is_folder(folder)]


def _matches(home: Path, pattern: str) -> Iterator[tuple[Path, list[str]]]:
    for path, parts in _descend(str(home), pattern.split("/"), [], {}):
        yield Path(path), parts


def _descend(
    folder: str, pattern: list[str], parts: list[str], listed: dict[str, Listing]
) -> Iterator[tuple[str, list[str]]]:
    """The folders that match a pattern, and the names that its stars stand for. `listed`: what was listed before."""
    if not pattern:
        yield folder, parts
        return
    head, *rest = pattern
    found = _list(folder, listed)
    if head != "*":
        if found.has_folder(folder, head):
            yield from _descend(f"{folder}/{head}", rest, parts, listed)
        return
    for name in found.folders:
        yield from _descend(f"{folder}/{name}", rest, [*parts, name], listed)


def _list(folder: str, listed: dict[str, Listing]) -> Listing:
    """What is in a folder, which is listed once. A link is not followed."""
    found = listed.get(folder)
    if found is None:
        folders, files = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.name in SESSION_FILES:
                        files.append((entry.name, entry.stat(follow_symlinks=False)))
            found = Listing(tuple(sorted(folders)), FileState.of(files))
        except OSError:
            found = Listing()
        listed[folder] = found
    return found


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
