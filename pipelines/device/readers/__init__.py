"""Readers: what one agent runtime leaves on disk becomes records with source values. Hive is the first runtime.

Does not belong here: redaction, identity hashes, consent, state: a reader only says what it found.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pipelines.contract.table import Table


@dataclass(frozen=True)
class Record:
    """One thing found: its table, its natural key as the source wrote it, and the source's values by column.

    `at` is the record's own time, if it has one: consent without history goes by it. `is_turn`: a naive sum would
    count it. `belongs_to_folder`: the session is known from the folder only, so a fork's copy names the wrong one and
    the earliest session that holds the record owns it.
    """

    table: Table
    key: tuple[object, ...]
    values: Mapping[str, object]
    at: datetime | None = None
    is_turn: bool = False
    belongs_to_folder: bool = False
    fields_dropped: int = 0
    fields_unknown: int = 0
    """Of the dropped fields, those that nobody has looked at yet: a newer version of the source writes them."""


class Fields(dict[str, Any]):
    """A JSON object that remembers which of its fields were asked for: the rest is dropped, and counted."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self._asked: set[str] = set()

    def get(self, key: str, default: Any = None) -> Any:
        """The field's value, or the default."""
        self._asked.add(key)
        return super().get(key, default)

    @property
    def dropped(self) -> int:
        """How many fields nobody asked for."""
        return len(self.keys() - self._asked)

    def beside(self, known: frozenset[str]) -> int:
        """How many of them are none of those that are known, and dropped on purpose."""
        return len(self.keys() - self._asked - known)


@dataclass(frozen=True)
class SessionFolder:
    """One folder of a session. The session is known by its id, never by the path: folders move.

    `logs` is the folder of its runtime logs, if it has one of its own (a link to one elsewhere is none). `layout` is
    the version of the source that keeps sessions there.
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


@dataclass(frozen=True)
class ColonyFolder:
    """One folder of a colony."""

    path: Path
    colony_name: str
