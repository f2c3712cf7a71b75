"""Hive's runtime logs: L3 steps, L2 node exits, L1 run summaries, and runs.jsonl.

L2 and L3 lines have no clock; which of them count as turns is decided in the warehouse. Does not belong here: events.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import Clock, LogClock, utc_time
from pipelines.device.readers.base import Fields, Record
from pipelines.device.readers.hive.layout import SessionFolder
from pipelines.device.readers.hive.offset_readings import from_run

# Fields that are known and not read: content, and what stands elsewhere already.
PRIVATE_OF_STEP = frozenset({
    "node_type", "llm_text", "verdict_feedback", "stacktrace", "parent_span_id", "execution_id",
})  # fmt: skip
PRIVATE_OF_CALL = frozenset({"tool_use_id", "tool_input", "result"})
PRIVATE_OF_DETAIL = frozenset({"node_name", "stacktrace"})
PRIVATE_OF_SUMMARY = frozenset({"run_id", "node_path", "execution_id"})


@dataclass(frozen=True)
class Place:
    """Where a line stands: its session, its number, the file's time, how many bytes stand before it."""

    folder: SessionFolder
    number: int
    modified_at: datetime | None
    position: int = 0


def is_step(found: dict[str, Any]) -> bool:
    """Whether an object is an L3 line, and not something inside a torn one."""
    return "node_id" in found and "step_index" in found


def is_detail(found: dict[str, Any]) -> bool:
    """Whether an object is an L2 line."""
    return "node_id" in found and ("exit_status" in found or "tokens_used" in found or "success" in found)


def is_run(found: dict[str, Any]) -> bool:
    """Whether an object is a line of runs.jsonl."""
    return "run_id" in found and isinstance(found.get("event"), str)


def _span_key(kind: str, line: dict[str, Any], place: Place) -> tuple[object, ...]:
    """`span_id` is random and unique. Lines of early versions have none: their content and place must do."""
    span = line.get("span_id")
    if isinstance(span, str) and span:
        return (Constant(kind), span)
    return (Constant(kind), place.folder.session_id, place.number, _content(line))


def _content(found: dict[str, Any]) -> str:
    """The hash of an object. One nested so deep that it cannot be written is told by its place alone."""
    try:
        text = json.dumps(found, sort_keys=True, default=str)
    except RecursionError:
        text = ""
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def tool_starts(line: dict[str, Any]) -> Iterator[tuple[str, datetime]]:
    """The UTC starts of the tool calls of an L3 line, by the id of the call."""
    calls = line.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict) and isinstance(name := call.get("tool_use_id"), str):
            started_at = utc_time(call.get("start_timestamp"))
            if started_at is not None:
                yield name, started_at


# Not the line's number: a failed write may be repeated. A line without a span has its place in its key.
NUMBERS_OF_STEP = ("step_index", "input_tokens", "output_tokens", "latency_ms", "tool_started_at")


def steps(line: dict[str, Any], place: Place) -> list[Record]:
    """The records of an L3 line: the step, then its tool calls, whose `step_record_id` is the step's identity."""
    key = _span_key("step", line, place)
    line = Fields(line)
    made = line.get("tool_calls")
    calls = [Fields(call) for call in made if isinstance(call, dict)] if isinstance(made, list) else []
    starts = [utc_time(call.get("start_timestamp")) for call in calls]
    started_at = min((start for start in starts if start), default=None)
    session_id = place.folder.session_id
    index = line.get("step_index")
    values: dict[str, object] = {
        "session_id": session_id,
        "trace_id": line.get("trace_id"),
        "span_id": line.get("span_id"),
        "node_id": line.get("node_id"),
        "verdict": line.get("verdict"),
        "error_class": line.get("error"),
        "step_index": index,
        "source_line": place.number,
        "input_tokens": line.get("input_tokens", 0),
        "output_tokens": line.get("output_tokens", 0),
        "latency_ms": line.get("latency_ms"),
        "tool_call_count": calls,
        "is_partial": line.get("is_partial"),
        "tool_started_at": started_at,
        "is_copy": place.folder.is_copy,
        "file_modified_at": place.modified_at,
    }
    is_turn = isinstance(index, int) and index >= 0
    step = Record(
        wire.NODE_STEPS, key, values, started_at, is_turn, belongs_to_folder=True, fields_dropped=line.dropped,
        fields_unknown=line.beside(PRIVATE_OF_STEP), fallback_key=tuple(values[name] for name in NUMBERS_OF_STEP),
    )  # fmt: skip
    records = [step]
    for number, (call, start) in enumerate(zip(calls, starts, strict=True)):
        called: dict[str, object] = {
            "session_id": session_id,
            "tool_name": call.get("tool_name"),
            "origin": "step",
            "agent_role": "agent",
            "is_error": call.get("is_error"),
            "duration_seconds": call.get("duration_s"),
            "occurred_at": start,
            "time_basis": "utc" if start else None,
            "is_time_ambiguous": False if start else None,
            "is_copy": place.folder.is_copy,
        }
        records.append(Record(
            wire.TOOL_CALLS, (*key, number), called, start, belongs_to_folder=True, fields_dropped=call.dropped,
            fields_unknown=call.beside(PRIVATE_OF_CALL),
        ))  # fmt: skip
    return records


def detail(line: dict[str, Any], place: Place) -> Record:
    """The record of an L2 line."""
    key = _span_key("detail", line, place)
    line = Fields(line)
    values = {
        "session_id": place.folder.session_id,
        "trace_id": line.get("trace_id"),
        "span_id": line.get("span_id"),
        "node_id": line.get("node_id"),
        "node_type": line.get("node_type"),
        "exit_status": line.get("exit_status"),
        "error_class": line.get("error"),
        "source_line": place.number,
        "attention_count": line.get("attention_reasons"),
        "is_success": line.get("success"),
        "needs_attention": line.get("needs_attention"),
        "file_modified_at": place.modified_at,
    }
    numbers = (
        "total_steps", "tokens_used", "input_tokens", "output_tokens", "latency_ms", "attempt", "accept_count",
        "retry_count", "escalate_count", "continue_count",
    )  # fmt: skip
    values |= {name: line.get(name) for name in numbers}
    return Record(
        wire.NODE_DETAILS, key, values, belongs_to_folder=True, fields_dropped=line.dropped,
        fields_unknown=line.beside(PRIVATE_OF_DETAIL), totals=numbers,
    )  # fmt: skip


TOTALS = ("total_nodes_executed", "total_input_tokens", "total_output_tokens")
"""What an L1 file sums up over all runs of its folder, those before a consent included."""


def summary(found: dict[str, Any], folder: SessionFolder) -> Record:
    """The record of an L1 file: one version of it."""
    content = _content(found)
    found = Fields(found)
    started_at = utc_time(found.get("started_at"))
    values = {
        "session_id": folder.session_id,
        "trace_id": found.get("trace_id"),
        "agent_name": found.get("agent_id"),
        "goal_id": found.get("goal_id"),
        "status": found.get("status"),
        "execution_quality": found.get("execution_quality"),
        "attention_count": found.get("attention_reasons"),
        "needs_attention": found.get("needs_attention"),
        "started_at": started_at,
    }
    values |= {name: found.get(name) for name in (*TOTALS, "duration_ms")}
    key = (found.get("trace_id") or folder.session_id, found.get("started_at"), content)
    return Record(
        wire.RUN_SUMMARIES, key, values, started_at, belongs_to_folder=True, fields_dropped=found.dropped,
        fields_unknown=found.beside(PRIVATE_OF_SUMMARY), totals=TOTALS,
    )  # fmt: skip


RUN_KINDS = {
    f"run_{kind}": kind for kind in ("started", "completed", "paused", "failed", "cancelled", "resumed", "resurrected")
}


def run(line: dict[str, Any], place: Place, clock: Clock) -> Record | None:
    """The record of a line of runs.jsonl; None for a kind nobody asked for. It tells its own UTC offset."""
    kind = RUN_KINDS.get(line["event"])
    if kind is None:
        return None
    reading = from_run(line)
    when = LogClock(clock, [reading] if reading else []).event_time(line.get("timestamp"))
    values = {
        "session_id": place.folder.session_id,
        "run_id": line.get("run_id"),
        "kind": kind,
        "origin": "runs_file",
        "error_class": line.get("error"),
        "occurred_at": when.at if when else None,
        "time_basis": when.basis if when else None,
        "is_time_ambiguous": when.is_ambiguous if when else None,
        "utc_offset_seconds": when.utc_offset_seconds if when else None,
        "offset_basis": when.offset_basis if when else None,
    }
    key = (Constant("runs"), line.get("run_id"), Constant(line["event"]), line.get("timestamp"))
    return Record(wire.AGENT_RUNS, key, values, at=when.at if when else None, belongs_to_folder=True)
