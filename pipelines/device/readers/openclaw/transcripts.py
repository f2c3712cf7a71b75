"""Lines of an OpenClaw transcript as records: responses with their usage, tool calls, compactions, failed responses.

The same lines stand in files, in the table `transcript_events` and in archives of both.
Does not belong here: where they lie (layout.py), how a database is opened (databases.py).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import epoch_time, utc_time
from pipelines.device.readers.base import Fields, Json, Part, Record, count
from pipelines.device.readers.openclaw.layout import SESSION_ID

RUNTIME = "openclaw"
MAX_MILLIS = 10**14  # the year 5138: beyond it a number is no time
MAX_CALLS = 10_000  # calls of one transcript that wait for their results
STOP_REASONS = {
    "stop": "stop", "toolUse": "tool_calls", "length": "length", "aborted": "cancelled", "error": "error",
}  # fmt: skip
_PARENT = re.compile(rf"(?P<session>{SESSION_ID})(-topic-[\w-]{{1,64}})?\.jsonl[\w.-]*$", re.ASCII)
_MATTERS = (b'"assistant"', b'"toolResult"', b'"compaction"', b'"session"')
_KNOWN_TYPES = frozenset({
    "session", "message", "compaction", "model_change", "thinking_level_change", "custom", "custom_message",
    "branch_summary", "label", "session_info", "reset",
})  # fmt: skip
_KNOWN_FIELDS = frozenset({
    "role", "content", "api", "timestamp", "responseModel", "errorMessage", "errorCode", "errorType", "thinking",
    "diagnostics",
    "details", "toolName", "__openclaw", "errorBody", "idempotencyKey",
})  # fmt: skip


@dataclass
class Head:
    """What the first line of a transcript says: since when it is, and whose history it begins with."""

    started_at: datetime | None = None
    parent_session_id: str | None = None


@dataclass
class Context:
    """A transcript while it is read.

    `session_id`: of its name or its row. `head`: of this transcript; `head_of`: of any session's. `is_subagent`: the
    session was spawned by another one. `calls`: the responses of calls whose results have not been read yet.
    """

    session_id: str
    head: Callable[[], Head]
    head_of: Callable[[str], Head]
    is_subagent: bool = False
    parent_session_id: str | None = None
    calls: dict[str, tuple[object, ...]] = field(default_factory=dict)


def head(found: Json | None) -> Head:
    """The head of a transcript, of its first line."""
    if not found or found.get("type") != "session":
        return Head()
    parent = found.get("parentSession")
    match = _PARENT.search(parent) if isinstance(parent, str) else None
    return Head(utc_time(found.get("timestamp")), match["session"] if match else None)


def may_matter(data: bytes) -> bool:
    """Whether a line can hold a record."""
    return any(word in data for word in _MATTERS)


def is_event(found: Json) -> bool:
    """Whether an object is an entry of a transcript."""
    return isinstance(found.get("type"), str)


def is_unknown(found: Json) -> bool:
    """Whether it is an entry of a type that no version we know of writes."""
    return found.get("type") not in _KNOWN_TYPES


def remember(found: Json, context: Context) -> None:
    """Take down which response made which calls, of a line that was read before."""
    message = found.get("message")
    if isinstance(message, dict) and message.get("role") == "assistant":
        _calls(found, message, context)


def read(found: Json, context: Context) -> Iterable[Record]:
    """The records of one entry."""
    match found.get("type"):
        case "message" if isinstance(message := found.get("message"), dict):
            match message.get("role"):
                case "assistant":
                    return _response(found, Fields(message), context)
                case "toolResult":
                    return _result(found, message, context)
        case "compaction":
            return _compaction(found, context)
    return ()


def _response(found: Json, message: Fields, context: Context) -> Iterator[Record]:
    usage = Fields(_object(message.get("usage")))
    at = _time(message.get("timestamp"), found)
    key = _key(found, message, context)
    fresh, read_, written, output = (
        count(usage.get(name) or 0) for name in ("input", "cacheRead", "cacheWrite", "output")
    )
    reasoning = usage.get("reasoningTokens")
    origin = _origin(at, context)
    cost = _object(usage.get("cost")).get("total")
    model = _model(message)
    reason = message.get("stopReason")
    if reason == "error" or message.get("errorMessage"):
        yield Record(
            wire.STATUS_EVENTS, (Constant("openclaw"), Constant("api_error"), *key),
            values={
                "agent_runtime": RUNTIME, "session_id": origin.values["session_id"], "kind": "api_error",
                "agent_role": "worker" if context.is_subagent else "agent",
                "error_class": message.get("errorMessage") or "error", "occurred_at": at,
                "time_basis": "utc" if at else None,
            },
            at=at,
        )  # fmt: skip
    if fresh == read_ == written == output == 0:
        return
    used = {
        "agent_runtime": RUNTIME, "agent_role": "worker" if context.is_subagent else "agent", "model": model,
        "stop_reason": STOP_REASONS.get(str(reason), "other") if reason else None,
        "response_id": message.get("responseId"), "turn_grain": "response", "request_kind": "message",
        # A number that is none costs the response: it is told as rejected.
        "input_tokens": None if fresh is None or read_ is None or written is None else fresh + read_ + written,
        "cache_read_input_tokens": read_,
        "cache_write_input_tokens": written, "output_tokens": output,
        "reasoning_output_tokens": reasoning if isinstance(reasoning, int) else None,
        "reported_cost_usd": cost, "is_sidechain": context.is_subagent, "is_final": True, "occurred_at": at,
        "time_basis": "utc" if at else None,
    }  # fmt: skip
    yield Record(
        wire.LLM_TURNS, (Constant("openclaw"), Constant("response"), *key), at=at, is_turn=True,
        fields_dropped=message.dropped,
        fallback_key=(origin.values["session_id"], fresh, read_, written, output),
        fields_unknown=message.beside(_KNOWN_FIELDS),
        parts={"usage": Part((), used), "origin": origin},
        needed=frozenset({"usage", "origin"}),
    )  # fmt: skip
    for call_id, name in _calls(found, message, context):
        yield _call(
            (Constant("openclaw"), Constant("call"), *key, call_id), context, at, {"tool_name": name, "occurred_at": at}
        )


def _result(found: Json, message: Json, context: Context) -> Iterator[Record]:
    call_id = message.get("toolCallId")
    key = context.calls.pop(call_id, None) if isinstance(call_id, str) else None
    if key is None:
        return  # the call stands in no line that is left
    duration = _object(message.get("details")).get("durationMs")
    is_error = message.get("isError")
    yield _call(
        (Constant("openclaw"), Constant("call"), *key, call_id), context, _time(message.get("timestamp"), found),
        {
            "is_error": is_error if isinstance(is_error, bool) else None, "is_final": True,
            "duration_seconds": _seconds(duration),
        },
        name="result",
    )  # fmt: skip


def _call(
    key: tuple[object, ...], context: Context, at: datetime | None, values: dict[str, object], *, name: str = "call"
) -> Record:
    if name == "call":
        values = values | {
            "agent_runtime": RUNTIME, "origin": "event", "agent_role": "worker" if context.is_subagent else "agent",
            "is_sidechain": context.is_subagent, "is_final": False, "time_basis": "utc" if at else None,
        }  # fmt: skip
    parts = {name: Part((0 if name == "call" else 1,), values), "origin": _origin(at, context)}
    return Record(wire.TOOL_CALLS, key, at=at, parts=parts, needed=frozenset({"call", "origin"}))


def _compaction(found: Json, context: Context) -> Iterator[Record]:
    at = utc_time(found.get("timestamp"))
    before = found.get("tokensBefore")
    key = (Constant("openclaw"), Constant("compacted"), found.get("id"), found.get("timestamp"))
    yield Record(
        wire.STATUS_EVENTS, key, at=at,
        values={
            "agent_runtime": RUNTIME, "session_id": _origin(at, context).values["session_id"], "kind": "compacted",
            "agent_role": "worker" if context.is_subagent else "agent",
            "context_tokens": before if isinstance(before, int) else None, "occurred_at": at,
            "time_basis": "utc" if at else None,
        },
    )  # fmt: skip


def _origin(at: datetime | None, context: Context) -> Part:
    """Whose a line is: what stands in a fork and is older than the fork was copied from its parent.

    The parent may hold a copy of it, too, and name its own parent: then it is that one's. Where the parent is not there
    the line of a session that is no copy speaks first, then the copy in the transcript that was forked first, in
    whatever order they are read.
    """
    made = context.head()
    if not (made.parent_session_id and at and made.started_at and at < made.started_at):
        values = {"session_id": context.session_id, "is_copy": False, "parent_session_id": context.parent_session_id}
        return Part((0, 0), values)
    passed = {context.session_id}
    session, above = made.parent_session_id, context.head_of(made.parent_session_id)
    while above.parent_session_id and above.started_at and at < above.started_at and session not in passed:
        passed.add(session)
        session, above = above.parent_session_id, context.head_of(above.parent_session_id)
    values = {
        "session_id": session, "is_copy": True, "parent_session_id": None,
        "transcript_ended_at": made.started_at,
    }  # fmt: skip
    return Part((1, int(made.started_at.timestamp() * 1000)), values)


def _key(found: Json, message: Json, context: Context) -> tuple[object, ...]:
    """The provider's id of the response; where there is none, the entry's id, which is unique in its session."""
    response = message.get("responseId")
    if isinstance(response, str) and response:
        return (response,)
    return (found.get("id"), found.get("timestamp"), message.get("timestamp"))


def _calls(found: Json, message: Json, context: Context) -> list[tuple[str, object]]:
    content = message.get("content")
    calls: list[tuple[str, object]] = []
    for item in content if isinstance(content, list) else ():
        if isinstance(item, dict) and item.get("type") == "toolCall" and isinstance(item.get("id"), str):
            calls.append((item["id"], item.get("name")))
            if len(context.calls) < MAX_CALLS:
                context.calls[item["id"]] = _key(found, message, context)
    return calls


def _model(message: Json) -> str | None:
    provider, model = message.get("provider"), message.get("model")
    if not isinstance(model, str) or not model:
        return None
    return f"{provider}/{model}" if isinstance(provider, str) and provider else model


def epoch_millis(millis: Any) -> datetime | None:
    """Milliseconds since 1970, as JavaScript writes them."""
    is_number = isinstance(millis, (int, Decimal)) and not isinstance(millis, bool) and 0 < millis < MAX_MILLIS
    return epoch_time(Decimal(millis) / 1000) if is_number else None


def _time(millis: Any, found: Json) -> datetime | None:
    """The message's own time (milliseconds since 1970), else that of the entry."""
    return epoch_millis(millis) or utc_time(found.get("timestamp"))


def _object(value: object) -> Json:
    return value if isinstance(value, dict) else {}


def _seconds(millis: object) -> float | None:
    if isinstance(millis, bool) or not isinstance(millis, (int, Decimal)) or not 0 <= millis < MAX_MILLIS:
        return None
    return float(millis) / 1000
