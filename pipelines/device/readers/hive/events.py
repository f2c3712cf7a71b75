"""Hive's events.jsonl: usage, tool calls, status, runs, triggers. Streaming and content events are never parsed.

Does not belong here: other files of a session (logs.py, state.py), what is a copy (the record's key decides).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.contract.table import Table
from pipelines.contract.vocabulary import is_public
from pipelines.device.clock import Instant, LogClock
from pipelines.device.readers.base import Fields, Record
from pipelines.device.readers.hive.layout import SessionFolder
from pipelines.device.readers.hive.offset_readings import from_tool_start, stamp_of

Event = dict[str, Any]
MAX_RUNNING = 10_000  # calls that never end must not fill the memory
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"([a-z_]+)"')
_CALL = re.compile(rb'"data"\s*:\s*\{\s*"tool_use_id"\s*:\s*"([\w.:-]{1,128})"', re.ASCII)


@dataclass(frozen=True)
class Context:
    """What an event's reader knows besides the event, in one pass over a log."""

    folder: SessionFolder
    times: LogClock
    tool_starts: Mapping[str, datetime] = field(default_factory=dict)
    """When tools started in UTC, as the session's step log says, by the id of the call."""
    started: dict[str, Instant] = field(default_factory=dict)
    """When the tools that have not ended yet were called, by the id of the call."""

    def look_back(self, data: bytes) -> None:
        """Take note of a line that stands before this pass: what is under way, and what time it was."""
        first = _TYPE.match(data)
        if first is None:
            return
        if first[1] == b"tool_call_started":
            self._remember_start(data)
        elif first[1].decode() in WANTED:
            self.times.event_time(stamp_of(data))

    def may_matter(self, data: bytes) -> bool:
        """`may_matter`, which also remembers when a tool was called: the event of its end does not say."""
        first = _TYPE.match(data)
        if first is not None and first[1] == b"tool_call_started":
            self._remember_start(data)
        return _may_matter(data, first)

    def _remember_start(self, data: bytes) -> None:
        # Never parsed: it holds the call's arguments.
        call, when = _CALL.search(data), stamp_of(data)
        if call is None or when is None or len(self.started) >= MAX_RUNNING:
            return
        name = call[1].decode()
        utc = self.tool_starts.get(name)
        reading = from_tool_start(when, utc) if utc else None
        if reading is not None:
            self.times.add(reading)
        start = self.times.event_time(when)
        if start is not None:
            self.started[name] = start

    def seconds_since_start(self, call: object, end: Instant | None) -> float | None:
        """How long a call took; None if its start was not seen, or stands behind its end."""
        start = self.started.pop(call, None) if isinstance(call, str) else None
        if start is None or end is None or end.at < start.at:
            return None
        return (end.at - start.at).total_seconds()


# Fields that are known and not read. Of the records that are not named here the fields are written down nowhere.
ENVELOPE = frozenset({
    "type", "stream_id", "node_id", "execution_id", "data", "timestamp", "correlation_id", "colony_id", "run_id", "seq",
})  # fmt: skip
PRIVATE = {
    "llm_turn_complete": frozenset({
        "system_prefix_sha", "system_suffix_sha", "history_anchor_idx", "message_count", "full_request",
    }),
    "tool_call_completed": frozenset({"result", "tool_input", "tool_index"}),
}  # fmt: skip


def _role(stream: object) -> str:
    if not isinstance(stream, str) or not stream:
        return "other"
    if stream in ("queen", "overseer"):
        return "queen"
    return "worker" if stream == "worker" or stream.startswith("worker:") else "graph"


def _worker_of(event: Event) -> str | None:
    """The worker whose stream it is: some of its events name no execution, and they stand in its queen's file."""
    stream = event.get("stream_id")
    return (
        (stream.removeprefix("worker:") or None) if isinstance(stream, str) and stream.startswith("worker:") else None
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


class _Common:
    """The parts that all records of one event share."""

    def __init__(self, event: Event, context: Context, position: int | None) -> None:
        self.event = event
        self.data = Fields(event["data"] if isinstance(event["data"], dict) else {})
        self.execution_id = _text(event.get("execution_id"))
        self.session_id = self.execution_id or context.folder.session_id
        self.belongs_to_folder = self.execution_id is None
        self.colony = _text(event.get("colony_id"))  # on parallel workers' events: the queen session, whatever its name
        self.parent_session_id = self.colony if self.colony != self.session_id else None
        self.role = _role(event.get("stream_id"))
        self.stamp = event.get("timestamp")
        self.when: Instant | None = context.times.event_time(self.stamp, run_id=event.get("run_id"), position=position)
        stream = event.get("stream_id")
        is_public_stream = isinstance(stream, str) and is_public("streams", stream)
        self.key = (self.execution_id, Constant(stream) if is_public_stream else stream, self.stamp)

    @property
    def unknown(self) -> int:
        """How many fields no version that we know of has."""
        private = PRIVATE.get(self.event["type"])
        return len(self.event.keys() - ENVELOPE) + (0 if private is None else self.data.beside(private))

    def times(self) -> dict[str, object]:
        if self.when is None:
            return {}
        return {
            "occurred_at": self.when.at,
            "time_basis": self.when.basis,
            "is_time_ambiguous": self.when.is_ambiguous,
            "utc_offset_seconds": self.when.utc_offset_seconds,
            "offset_basis": self.when.offset_basis,
        }


def _turn(event: Event, context: Context, position: int | None) -> Record:
    common = _Common(event, context, position)
    data = common.data
    # One may be missing; without both it is no turn. One that is there and no number is not zero: it is refused.
    missing = 0 if "input_tokens" in data or "output_tokens" in data else None
    tokens = (data.get("input_tokens", missing), data.get("output_tokens", missing))
    values = {
        "session_id": common.session_id,
        "parent_session_id": common.parent_session_id,
        "stream_id": event.get("stream_id"),
        "node_id": event.get("node_id"),
        "model": data.get("model"),
        "agent_role": common.role,
        "stop_reason": data.get("stop_reason"),
        "iteration": data.get("iteration"),
        "input_tokens": tokens[0],
        "cache_read_input_tokens": data.get("cached_tokens"),
        "cache_write_input_tokens": data.get("cache_creation_tokens"),
        "output_tokens": tokens[1],
        "reported_cost_usd": data.get("cost_usd"),
        "reported_credits": data.get("credits"),
        "is_copy": context.folder.is_copy,
        **common.times(),
    }
    key = (*common.key, data.get("iteration"))
    numbers = (*tokens, *(values[name] for name in NUMBERS_OF_TURN))
    return _record(
        wire.LLM_TURNS, key, values, common, is_turn=True, fallback_key=numbers,
        told_apart_by=(event.get("node_id"), *tokens),
    )  # fmt: skip


NUMBERS_OF_TURN = ("cache_read_input_tokens", "cache_write_input_tokens", "reported_cost_usd")


def _tool_call(event: Event, context: Context, position: int | None) -> Record:
    common = _Common(event, context, position)
    values = {
        "session_id": common.session_id,
        "parent_session_id": common.parent_session_id,
        "tool_name": common.data.get("tool_name"),
        "origin": "event",
        "agent_role": common.role,
        "is_error": common.data.get("is_error"),
        "duration_seconds": context.seconds_since_start(common.data.get("tool_use_id"), common.when),
        "is_copy": context.folder.is_copy,
        **common.times(),
    }
    return _record(wire.TOOL_CALLS, (*common.key, common.data.get("tool_use_id")), values, common)


STATUS_KINDS = {
    "queen_phase_changed": "phase_changed",
    "node_stalled": "stalled",
    "node_tool_doom_loop": "doom_loop",
    "stream_inactive": "inactive",
    "stream_ttft_exceeded": "slow_first_token",
    "stream_nudge_sent": "nudged",
    "tool_call_replay_detected": "tool_replayed",
    "node_retry": "retried",
    "judge_verdict": "judged",
    "context_compacted": "compacted",
    "node_loop_started": "loop_started",
    "node_loop_completed": "loop_completed",
    "client_input_requested": "input_requested",
    "client_input_received": "input_received",
    "escalation_requested": "escalated",
    "payment_required": "payment_required",
    "credentials_required": "credentials_required",
    "context_usage_updated": "context_updated",
    "task_created": "task_created",
    "task_updated": "task_updated",
    "task_deleted": "task_deleted",
    "task_list_reset": "task_list_reset",
}


def _status(event: Event, context: Context, position: int | None) -> Record:
    common = _Common(event, context, position)
    data = common.data
    worker = _worker_of(event) if common.belongs_to_folder else None
    task = Fields(_object(data.get("record"))) if event["type"].startswith("task_") else Fields({})
    task_id = data.get("task_id", task.get("id"))
    values = {
        "session_id": worker or common.session_id,
        "parent_session_id": common.colony if worker and common.colony != worker else common.parent_session_id,
        "node_id": event.get("node_id"),
        "kind": STATUS_KINDS[event["type"]],
        "agent_role": common.role,
        "phase": data.get("phase"),
        "verdict": data.get("action"),
        "error_class": data.get("error") or data.get("reason"),
        "iteration": data.get("iteration", data.get("iterations")),
        "retry_count": data.get("retry_count"),
        "task_id": str(task_id) if isinstance(task_id, int) else task_id,
        "task_status": task.get("status"),
        "context_tokens": data.get("estimated_tokens"),
        "context_limit_tokens": data.get("max_context_tokens"),
        "seconds": data.get("ttft_seconds", data.get("idle_seconds")),
        **common.times(),
    }
    key: tuple[object, ...] = (Constant(event["type"]), *common.key, data.get("iteration"))
    key = (*key, task_id) if event["type"].startswith("task_") else key
    return _record(
        wire.STATUS_EVENTS, key, values, common, owned=worker is not None, told_apart_by=(event.get("node_id"),)
    )


RUN_KINDS = {
    "execution_started": "started",
    "execution_completed": "completed",
    "execution_failed": "failed",
    "execution_paused": "paused",
    "execution_resumed": "resumed",
    "execution_resurrected": "resurrected",
    "worker_completed": "completed",
    "worker_failed": "failed",
    "subagent_report": "report",
}


MAX_RUN_SECONDS = 10**9  # thirty years: beyond it a number is no duration


def _run(event: Event, context: Context, position: int | None) -> Record:
    common = _Common(event, context, position)
    data = common.data
    worker = _text(data.get("worker_id"))
    values = {
        "session_id": worker or common.session_id,
        "parent_session_id": common.parent_session_id,
        "run_id": event.get("run_id"),
        "correlation_id": event.get("correlation_id"),
        "kind": RUN_KINDS[event["type"]],
        "outcome": data.get("status"),
        "origin": "event",
        "error_class": data.get("error"),
        "tokens_used": data.get("tokens_used"),
        "tool_calls_used": data.get("tool_calls_used"),
        "duration_seconds": data.get("duration_seconds"),
        **common.times(),
    }
    key = (Constant(event["type"]), *common.key, worker)
    record = _record(wire.AGENT_RUNS, key, values, common, owned=worker is not None)
    took = values["duration_seconds"]
    is_known = isinstance(took, (int, Decimal)) and not isinstance(took, bool) and 0 <= took < MAX_RUN_SECONDS
    began = record.at - timedelta(seconds=float(took)) if record.at and is_known else None
    return replace(record, totals=("tokens_used", "tool_calls_used", "duration_seconds"), totals_since=began)


TRIGGER_KINDS = ("available", "activated", "deactivated", "fired", "removed", "updated")


def _trigger(event: Event, context: Context, position: int | None) -> Record:
    common = _Common(event, context, position)
    data = common.data
    config = data.get("trigger_config") if isinstance(data.get("trigger_config"), dict) else {}
    minutes = config.get("interval_minutes") if config else None
    values = {
        "session_id": common.session_id,
        "trigger_id": data.get("trigger_id"),
        "kind": event["type"].removeprefix("trigger_"),
        "trigger_type": data.get("trigger_type"),
        "interval_seconds": minutes * 60 if isinstance(minutes, int) and not isinstance(minutes, bool) else None,
        **common.times(),
    }
    return _record(wire.TRIGGERS, (Constant(event["type"]), *common.key, data.get("trigger_id")), values, common)


def _colony_created(event: Event, context: Context, position: int | None) -> Record | None:
    """What the event says of the new colony's queen session: its parent is the session that made it."""
    common = _Common(event, context, position)
    child = _text(common.data.get("queen_session_id"))
    if child is None:
        return None
    values = {
        "session_id": child,
        "parent_session_id": common.session_id if common.session_id != child else None,
        "colony_name": common.data.get("colony_name"),
        "evidence": "event",
        "session_kind": "colony_queen",
        "observed_at": common.when.at if common.when else None,
    }
    at = common.when.at if common.when else None
    return Record(
        wire.SESSIONS, (Constant("event"), child, common.stamp), values, at, fields_dropped=common.data.dropped,
        fields_unknown=common.unknown,
    )  # fmt: skip


def _record(
    table: Table, key: tuple[object, ...], values: dict[str, object], common: _Common, *, is_turn: bool = False,
    owned: bool = False, fallback_key: tuple[object, ...] = (), told_apart_by: tuple[object, ...] = (),
) -> Record:  # fmt: skip
    at = common.when.at if common.when else None
    in_folder = common.belongs_to_folder and not owned
    return Record(
        table, key, values, at, is_turn, in_folder, fallback_key, told_apart_by, fields_dropped=common.data.dropped,
        fields_unknown=common.unknown,
    )  # fmt: skip


WANTED: dict[str, Callable[[Event, Context, int | None], Record | None]] = {
    "llm_turn_complete": _turn,
    "tool_call_completed": _tool_call,
    "colony_created": _colony_created,
    **dict.fromkeys(STATUS_KINDS, _status),
    **dict.fromkeys(RUN_KINDS, _run),
    **{f"trigger_{kind}": _trigger for kind in TRIGGER_KINDS},
}
# Types that are known and not read: streaming text, content, and what no mart asks for.
PASSED_OVER = frozenset({
    "client_credential_form_requested", "client_input_committed", "client_output_delta", "client_reasoning",
    "colony_fork_marker", "colony_suggestion_requested", "colony_template_assignment", "constraint_violation",
    "context_compaction_started", "credential_provider_connected", "credential_provider_disconnected", "crm_changed",
    "custom", "goal_achieved", "goal_progress", "llm_reasoning_delta", "llm_text_delta", "loop_state_changed",
    "missed_triggers", "node_action_plan", "node_input_blocked", "node_internal_output", "node_loop_iteration",
    "queen_identity_selected", "reminder_injected", "session_forked", "session_snapshot", "state_changed",
    "state_conflict", "stream_started", "stream_stopped", "task_list_reattach_mismatch", "tool_call_started",
    "tool_catalog_refreshed", "tools_config_changed", "webhook_received", "worker_colony_loaded",
})  # fmt: skip
_WANTED = {kind.encode() for kind in WANTED}
_KNOWN = {kind.encode() for kind in (*WANTED, *PASSED_OVER)}
_WANTED_ANYWHERE = re.compile(rb'"type"\s*:\s*"(?:' + "|".join(WANTED).encode() + rb')"')


def may_matter(data: bytes) -> bool:
    """Whether a line can hold a wanted event. Most lines are streaming text: they are passed over without parsing.

    A wanted event may be glued to a torn unwanted one, so the whole line is searched.
    """
    return _may_matter(data, _TYPE.match(data))


def _may_matter(data: bytes, first: re.Match[bytes] | None) -> bool:
    if first is not None and first[1] not in _WANTED:
        return _WANTED_ANYWHERE.search(data, first.end()) is not None
    return True


def is_unknown_line(data: bytes) -> bool:
    """Whether a line that was passed over is of a type that no version we know of writes."""
    first = _TYPE.match(data)
    return first is not None and first[1] not in _KNOWN


def is_unknown(event: Event) -> bool:
    """Whether an event is of such a type."""
    return event["type"] not in WANTED and event["type"] not in PASSED_OVER


def is_event(found: dict[str, Any]) -> bool:
    """Whether an object is an event, and not something inside a torn one."""
    return isinstance(found.get("type"), str) and "data" in found and "timestamp" in found


def read(event: Event, context: Context, position: int | None = None) -> Record | None:
    """The record of an event; None for an event nobody asked for. `position`: of its line in the log."""
    reader = WANTED.get(event["type"])
    return reader(event, context, position) if reader else None
