"""What Hive's files tell about the UTC offset of the machine that wrote a session: local times beside epoch times.

Hive writes local times without an offset, and devices travel. Does not belong here: resolving a time (clock.py).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pipelines.device.clock import BLOCK_GAP, LATE, OffsetReading, epoch_time, local_stamp, local_time, offset_reading

STAMP_LAG = timedelta(seconds=3)  # meta.json is written this long after the id was made, which is cut to the second
SAME_MOMENT = timedelta(seconds=2)
JITTER = timedelta(milliseconds=500)
STEP_BACK = timedelta(minutes=1)
# Streaming text is written when its turn ends, with the time at which it came: its lines are out of order.
_STREAMING = re.compile(
    rb'\s*\{\s*"type"\s*:\s*"(?:llm_text_delta|llm_reasoning_delta|client_output_delta|client_reasoning)"'
)
_STAMP = re.compile(rb'"timestamp"\s*:\s*"([0-9T:.+-]{1,40})"')


def stamp_of(data: bytes) -> str | None:
    """The timestamp of a line of an event log, without parsing the line."""
    # The event's own time stands behind its data, which may hold other times.
    found = _STAMP.match(data, max(data.rfind(b'"timestamp"'), 0))
    return found[1].decode() if found else None


def from_meta(session_id: str, meta: dict[str, Any]) -> OffsetReading | None:
    """The local time in a generated id beside the epoch time at which meta.json says the session was made.

    A version of Hive overwrites that time on every restore: then it fits no offset, but for a rare coincidence.
    """
    local = local_time(local_stamp(session_id))
    at = epoch_time(meta.get("spawned_at")) or epoch_time(meta.get("created_at"))
    if local is None or at is None:
        return None
    return offset_reading(local, at, "session_created_at", early=JITTER, late=STAMP_LAG)


def from_run(line: dict[str, Any]) -> OffsetReading | None:
    """The local time of a line of runs.jsonl beside its epoch time."""
    local, at, run_id = local_time(line.get("timestamp")), epoch_time(line.get("created_at")), line.get("run_id")
    if local is None or at is None:
        return None
    named = run_id if isinstance(run_id, str) and run_id else None
    return offset_reading(local, at, "run_created_at", early=SAME_MOMENT, late=SAME_MOMENT, run_id=named)


def from_tool_start(local: object, started_at: datetime) -> OffsetReading | None:
    """The local time at which an event log says that a tool started beside the step log's UTC time of the same call."""
    written = local_time(local)
    if written is None:
        return None
    return offset_reading(written, started_at, "tool_started_at", early=SAME_MOMENT, late=SAME_MOMENT)


def from_tail(data: bytes, start: int, modified_at: datetime) -> OffsetReading | None:
    """The local time of an event log's last line beside the time at which the file was last written.

    `data`: the end of the file, from position `start` on. The reading holds for the lines that follow each other
    closely up to the end.
    """
    lines = _stamps(data, start)
    last = next(lines, None)
    if last is None:
        return None
    reading = offset_reading(last[1], modified_at, "file_modified_at", early=SAME_MOMENT, late=SAME_MOMENT)
    if reading is None:
        return None
    first = last
    for position, local in lines:
        if not -STEP_BACK <= first[1] - local <= BLOCK_GAP:
            break
        first = (position, local)
    begun_at = modified_at - (last[1] - first[1])
    return OffsetReading(begun_at, reading.offset, reading.basis, position=first[0])


def confirmed(
    readings: Iterable[OffsetReading], data: bytes, start: int, modified_at: datetime, tail: OffsetReading | None
) -> list[OffsetReading]:
    """The readings without those of meta.json that the end of an event log disproves: by them its last line would be
    later than the file.

    Then either the epoch time was overwritten whole quarters of an hour after the session began, or the machine has
    moved to the east since, or its zone's clock was put forward. Only if the lines before those of the end (`tail`) are
    earlier than these it may be one of the latter two: then the reading is kept and doubted.
    """
    last = next(_stamps(data, start), None)
    if last is None:
        return list(readings)
    begin = 0 if tail is None else tail.position or 0
    before = next((local for position, local in _stamps(data, start) if position < begin), None)
    kept = []
    for reading in readings:
        if reading.basis != "session_created_at" or _instant(last[1], reading) <= modified_at + LATE:
            kept.append(reading)
        elif tail is not None and before is not None and _instant(before, reading) <= tail.at:
            kept.append(replace(reading, is_doubtful=True))
    return kept


def _instant(local: datetime, reading: OffsetReading) -> datetime:
    return local.replace(tzinfo=UTC) - reading.offset


def _stamps(data: bytes, start: int) -> Iterator[tuple[int, datetime]]:
    """Position and local time of each whole line that has one, the last line first."""
    end = data.rfind(b"\n")
    while end > 0:
        begin = data.rfind(b"\n", 0, end) + 1
        line = data[begin:end]
        local = None if _STREAMING.match(line) else local_time(stamp_of(line))
        # The first line of the piece may be the end of one.
        if local is not None and (begin or not start):
            yield start + begin, local
        end = begin - 1
