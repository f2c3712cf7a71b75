"""Puts bytes on disk the way Hive leaves them: times of change in the past, line files with their usual damage.

Knows nothing about what the lines mean.
"""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any


def dump(value: Any, *, ascii_only: bool) -> bytes:
    """One value as JSON bytes."""
    # Lone surrogates can only be written as escapes; files with raw text must never hold one.
    return json.dumps(value, ensure_ascii=ascii_only).encode("utf-8")


class Disk:
    """Writes below one home and dates every file."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._folders: set[Path] = set()

    def write(self, path: str, content: bytes, at: datetime) -> None:
        """Write a file below the home, with the given time of change."""
        target = self.root / path
        if target.parent not in self._folders:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._folders.add(target.parent)
        target.write_bytes(content)
        self.date(target, at)

    def json(self, path: str, value: Any, at: datetime, *, indent: int | None = 2, ascii_only: bool = True) -> None:
        """Write a JSON document."""
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        self.write(path, text.encode("utf-8"), at)

    def date(self, target: Path, at: datetime) -> None:
        """Set a file's time of change."""
        seconds = int(at.timestamp() * 1_000_000) * 1000
        os.utime(target, ns=(seconds, seconds))


class JsonLines:
    """An append-only line file. A torn line stays without its end, so the next record is glued to it."""

    def __init__(self, *, ascii_only: bool) -> None:
        self._ascii_only = ascii_only
        self._lines: list[bytes] = []
        self._torn_start = b""
        self.torn = 0

    def copy(self) -> JsonLines:
        """The same lines for another file."""
        twin = JsonLines(ascii_only=self._ascii_only)
        twin._lines = list(self._lines)
        twin._torn_start = self._torn_start
        twin.torn = self.torn
        return twin

    def add(self, value: Any, *, ending: bytes = b"\n") -> None:
        """Append a record, glued to a torn one if there is one."""
        self._lines.append(self._torn_start + dump(value, ascii_only=self._ascii_only) + ending)
        self._torn_start = b""

    def add_blank(self) -> None:
        """Append an empty line."""
        self._lines.append(b"\n")

    def tear(self, value: Any) -> None:
        """Half a record: cut inside a letter of two or more bytes where there is one past the middle."""
        whole = dump(value, ascii_only=self._ascii_only)
        cut = len(whole) * 2 // 3
        wide = next((place for place, byte in enumerate(whole) if byte >= 0xC0), None)
        self._torn_start = whole[: cut if wide is None else wide + 1]
        self.torn += 1

    def rewrite(self, keep: Any) -> None:
        """What a clean-up does: drop lines, write the others anew with the same values and other bytes."""
        rewritten = []
        for line in self._lines:
            value = json.loads(line) if line.strip() else None
            if value is not None and keep(value):
                rewritten.append(json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n")
        self._lines = rewritten

    def content(self) -> bytes:
        """The bytes of the file, a torn end included."""
        return b"".join(self._lines) + self._torn_start
