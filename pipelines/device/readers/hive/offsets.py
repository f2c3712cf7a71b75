"""Finds on disk what tells the UTC offset of the machine that wrote a session's local times.

Does not belong here: what one file tells (offset_readings.py), resolving a time (clock.py).
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from pipelines.device import lines
from pipelines.device.clock import Clock, LogClock, OffsetReading, epoch_time
from pipelines.device.documents import load
from pipelines.device.readers.hive import logs, offset_readings
from pipelines.device.readers.hive.layout import SessionFolder


class Offsets:
    """The offset readings of one home's sessions. `kinds`: which files the consent lets be read."""

    def __init__(self, clock: Clock, folders: Sequence[SessionFolder], kinds: Collection[str]) -> None:
        self._clock = clock
        self._kinds = kinds
        self._folders: dict[str, list[SessionFolder]] = {}
        for folder in folders:
            self._folders.setdefault(folder.session_id, []).append(folder)
        self._found: dict[str, list[OffsetReading]] = {}

    def log_clock(self, folder: SessionFolder) -> LogClock:
        """The clock of the event log in a folder."""
        readings, modified_at = self._with_log(folder)
        left_out = {(r.at, r.offset) for r in self._of(folder)} - {(r.at, r.offset) for r in readings}
        is_contradicted = any(at.astimezone(self._clock.zone).utcoffset() != offset for at, offset in left_out)
        return LogClock(self._clock, readings, modified_at=modified_at, is_contradicted=is_contradicted)

    def of_session(self, folder: SessionFolder) -> list[OffsetReading]:
        """What is known of a session's offset, the best first: the time of its event log is believed last."""
        return [replace(reading, position=None) for reading in self._with_log(folder)[0]]

    def _with_log(self, folder: SessionFolder) -> tuple[list[OffsetReading], datetime | None]:
        readings = self._of(folder)
        path = folder.path / "events.jsonl"
        if "events" not in self._kinds or folder.kind == "legacy_run":
            return readings, None
        try:
            modified_at = epoch_time(Decimal(path.lstat().st_mtime_ns) / 1_000_000_000)
            data, start = lines.tail(path)
        except (OSError, lines.UnreadableError):
            return readings, None  # what is wrong with the log is told by its reader
        if modified_at is None:
            return readings, None
        last = offset_readings.from_tail(data, start, modified_at)
        kept = offset_readings.confirmed(readings, data, start, modified_at, last)
        return [*kept, *([last] if last else [])], modified_at

    def _of(self, folder: SessionFolder) -> list[OffsetReading]:
        """What the small files of a session tell; of a worker whose own tell nothing, those of its queen."""
        session_id, parent_id = folder.session_id, folder.parent_session_id
        if session_id not in self._found:
            places = self._folders.get(session_id, [folder])
            self._found[session_id] = list(dict.fromkeys(r for place in places for r in self._in(place)))
        parents = self._folders.get(parent_id or "", [])
        if self._found[session_id] or not parents or parent_id == session_id:
            return self._found[session_id]
        return self._of(replace(parents[0], parent_session_id=None))

    def _in(self, folder: SessionFolder) -> Iterator[OffsetReading]:
        if folder.kind == "legacy_run":
            return
        if "descriptions" in self._kinds:
            meta, _ = load(folder.path / "meta.json")
            reading = offset_readings.from_meta(folder.session_id, meta)
            if reading is not None:
                yield reading
        if "logs" not in self._kinds:
            return
        try:
            data, _ = lines.tail(folder.path / "runs.jsonl")
        except (FileNotFoundError, lines.UnreadableError):
            return  # what is wrong with it is told by its reader
        for line in data.splitlines():
            for _, found in lines.parse(line, logs.is_run).records:
                reading = offset_readings.from_run(found)
                if reading is not None:
                    yield reading
