"""Copies of session folders: which session a folder's name means, and which of several folders is the original.

People and programs copy folders beside the original: `….bak`, `… (copy)`, `….jtrash-1763622000`, a whole agent.
A copy's turns are the original's, and a copy never says what a session is while an original does.
Does not belong here: where folders may lie (layout.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.contract.keys import RUN_STAMP, SESSION_ID

if TYPE_CHECKING:
    from pipelines.device.readers.hive.layout import SessionFolder

_GENERATED = re.compile(rf"(?<![0-9A-Za-z])(?:{SESSION_ID}|{RUN_STAMP})(?![0-9A-Za-z])", re.ASCII)
_MARK = re.compile(
    r"(?:^copy of |^backup of |^\.|(?:[ ._-]*(?:\((?:copy|kopie|copie|copia|\d+)(?: \d+)?\)|~"
    r"|[ ._-](?:bak|backup|copy|kopie|copie|copia|old|orig|save|saved|trash|jtrash|tmp|\d+)(?![a-z])))+$)",
    re.IGNORECASE,
)


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


def marked(name: str) -> str | None:
    """The name without what marks a copy; None if nothing does."""
    bare = _MARK.sub("", name)
    bare = _MARK.sub("", bare)  # a mark in front and one behind
    return bare if bare and bare != name else None


def told_apart(folders: Iterable[SessionFolder]) -> Iterator[SessionFolder]:
    """The folders with their copies marked, the original of each session before its copies.

    Of folders that name one session by several agents, colonies or queens the one with the shortest names is the
    original: a copy's name is the original's and something beside it.
    """
    listed = list(folders)
    beside = {(folder.path.parent, folder.path.name) for folder in listed}
    groups: dict[tuple[str, str], list[SessionFolder]] = {}
    for folder in listed:
        bare = None if folder.is_copy else marked(folder.session_id)
        if bare is not None and (folder.path.parent, bare) in beside:
            folder = replace(folder, session_id=bare, is_copy=True)  # noqa: PLW2901
        groups.setdefault((folder.session_id, folder.kind), []).append(folder)
    found = []
    for group in groups.values():
        first, *others = sorted(group, key=_rank)
        found.append(first)
        for folder in others:
            # A fork has its own copy of the folders of its parent's workers, under the same names.
            is_other = _names(folder) != _names(first) and folder.kind != "worker"
            found.append(replace(folder, is_copy=folder.is_copy or is_other))
    return iter(sorted(found, key=lambda folder: (folder.session_id, *_rank(folder))))


def _names(folder: SessionFolder) -> tuple[str, str, str]:
    return folder.agent_name or "", folder.colony_name or "", folder.queen_name or ""


def _rank(folder: SessionFolder) -> tuple[bool, int, str]:
    return folder.is_copy, len("".join(_names(folder))), str(folder.path)
