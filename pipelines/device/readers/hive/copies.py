"""Copies of session folders: which session a folder's name means, and which of several folders is the original.

People and programs copy folders beside the original: `….bak`, `… (copy)`, `….jtrash-1763622000`, a whole agent.
A copy's turns are the original's, and a copy never says what a session is while an original does. People also choose
such names: of `nightly` and `nightly_2` only what is in them tells.
Does not belong here: where folders may lie (layout.py).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.contract.keys import RUN_STAMP, SESSION_ID, is_generated
from pipelines.device import documents, lines

if TYPE_CHECKING:
    from pipelines.device.readers.hive.layout import SessionFolder

_ID = re.compile(rf"{SESSION_ID}|{RUN_STAMP}", re.ASCII)
# What follows without a break may be more of an id if it is hexadecimal up to its end: not `copy` or `xX`.
_GENERATED = re.compile(rf"(?<![0-9A-Za-z])(?:{_ID.pattern})(?![0-9A-Fa-f]+(?![0-9A-Za-z]))", re.ASCII)
_MARK = re.compile(
    r"(?:^copy of |^backup of |^\.|(?:[ ._-]*(?:\((?:copy|kopie|copie|copia|\d+)(?: \d+)?\)|~"
    r"|[ ._-](?:bak|backup|copy|kopie|copie|copia|old|orig|save|saved|trash|jtrash|tmp|\d+)(?![a-z])))+$)",
    re.IGNORECASE,
)
# What the first lines tell whose folder it is, and the consent that each needs.
_LOGS = {"events.jsonl": "events", "tool_logs.jsonl": "logs", "details.jsonl": "logs"}


def session_of(name: str) -> tuple[str, bool]:
    """The session that a folder's name means, and whether the name is that of a copy.

    A generated id is unique, so a name with one and something beside it is a copy's. Of a name that a person chose only
    its siblings tell (`marked`).
    """
    ids = set(_GENERATED.findall(name))
    if len(ids) != 1:
        return name, False
    (session_id,) = ids
    return session_id, session_id != name


def glued(name: str) -> str | None:
    """The one generated id that a longer name holds in any place; None if it holds none or several.

    `session_of` takes an id with letters or digits right beside it for another one where it could be: only that the
    session itself is known tells.
    """
    ids = set(_ID.findall(name))
    return ids.pop() if len(ids) == 1 and name not in ids else None


def marked(name: str) -> str | None:
    """The name without what marks a copy; None if nothing does."""
    bare = _MARK.sub("", name)
    bare = _MARK.sub("", bare)  # a mark in front and one behind
    return bare if bare and bare != name else None


def is_other_colony(folder: Path, original: Path) -> bool:
    """Whether a colony's folder that is named like a copy is a colony of its own: its metadata have its own name, or
    another queen's session than the original's."""
    metadata, _ = documents.load(folder / "metadata.json")
    if folder.name in (metadata.get("colony_name"), metadata.get("colony_id")):
        return True
    before, _ = documents.load(original / "metadata.json")
    queens = metadata.get("queen_session_id"), before.get("queen_session_id")
    return None not in queens and queens[0] != queens[1]


def told_apart(folders: Iterable[SessionFolder], consented: Collection[str]) -> Iterator[SessionFolder]:
    """The folders with their copies marked, the original of each session before its copies.

    Of folders that name one session by several agents, colonies or queens the one with the shortest names is the
    original: a copy's name is the original's and something beside it. `consented`: the kinds of logs that may be looked
    into where only the content tells.
    """
    listed = list(folders)
    beside = {
        (folder.path.parent, folder.path.name): folder for folder in listed if not is_generated(folder.session_id)
    }
    known = {folder.session_id for folder in listed if is_generated(folder.session_id)}
    sessions: dict[str, list[SessionFolder]] = {}
    for folder in listed:
        if (session_id := glued(folder.session_id)) in known:
            folder = replace(folder, session_id=session_id, is_copy=True)  # noqa: PLW2901
        if (parent_id := glued(folder.parent_session_id or "")) in known:
            folder = replace(folder, parent_session_id=parent_id, is_copy=True)  # noqa: PLW2901
        bare = marked(folder.session_id) if beside and not folder.is_copy else None
        original = beside.get((folder.path.parent, bare or ""))
        if original is not None and not _is_other_session(folder, original, consented):
            folder = replace(folder, session_id=original.session_id, is_copy=True)  # noqa: PLW2901
        sessions.setdefault(folder.session_id, []).append(folder)
    for session_id in sorted(sessions):
        group = sessions[session_id]
        yield from group if len(group) == 1 else sorted(_with_copies(group), key=_rank)


def _is_other_session(folder: SessionFolder, original: SessionFolder, consented: Collection[str]) -> bool:
    """Whether a folder that is named like a copy is a session of its own: its first event names it, or its logs begin
    otherwise than the original's. The event of a copy names the original, also where that lost lines since."""
    logs = [name for name, kind in _LOGS.items() if kind in consented]
    own = {name: _first_line(folder, name) for name in logs}
    named = _session_named(own.get("events.jsonl"))
    if named in (folder.session_id, original.session_id):
        return named == folder.session_id
    pairs = [(line, other) for name, line in own.items() if line and (other := _first_line(original, name))]
    return bool(pairs) and all(mine != other for mine, other in pairs)


def _first_line(folder: SessionFolder, name: str) -> bytes | None:
    """The first line of a log, up to 64 KiB of it; None without one."""
    place = folder.path if name == "events.jsonl" else folder.logs
    try:
        with lines.open_plain((place or folder.path) / name) as file:
            return file.readline(1 << 16) or None
    except (lines.UnreadableError, OSError):
        return None


def _session_named(line: bytes | None) -> str | None:
    """The session that an event names."""
    try:
        found = lines.loads(line or b"")
    except (ValueError, RecursionError):
        return None
    name = found.get("execution_id") if isinstance(found, dict) else None
    return name if isinstance(name, str) else None


def _with_copies(group: Iterable[SessionFolder]) -> Iterator[SessionFolder]:
    originals: dict[str, SessionFolder] = {}
    for folder in sorted(group, key=_rank):
        first = originals.setdefault(folder.kind, folder)
        # A fork has its own copy of the folders of its parent's workers, under the same names.
        is_other = _names(folder) != _names(first) and folder.kind != "worker"
        yield replace(folder, is_copy=folder.is_copy or is_other)


def _names(folder: SessionFolder) -> tuple[str, str, str]:
    return folder.agent_name or "", folder.colony_name or "", folder.queen_name or ""


def _rank(folder: SessionFolder) -> tuple[bool, int, str]:
    return folder.is_copy, len("".join(_names(folder))), str(folder.path)
