"""Lines of Claude Code's transcripts: responses, tool calls, sub-agent runs, troubles, compactions.

A response stands on several lines, and in copies of its session: each line gives parts of its record (base.Part), of
which the device keeps the best. Does not belong here: which files there are (layout.py), what a file says of its
session as a whole (sessions.py), what it claims was used (claims.py).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cached_property

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import Clock, Instant, epoch_time, utc_time
from pipelines.device.lines import UnreadableError, tail
from pipelines.device.readers.base import At, Json, Part, Parts, Rank, Record, count, joined
from pipelines.device.readers.claude_code import claims
from pipelines.device.readers.claude_code.layout import IN_FILE, Transcript, agent_session

SYNTHETIC = "<synthetic>"  # the program's own words in the place of a response
# Types that are known; beside assistant, user, system and cost-state nothing is read of them. Some name people.
KNOWN_TYPES = frozenset({
    "agent-name", "agent-setting", "ai-title", "assistant", "attachment", "attribution-snapshot", "bridge-session",
    "content-replacement", "cost-state", "custom-title", "file-history-snapshot", "last-prompt", "mode",
    "permission-mode", "pr-link", "progress", "queue-operation", "summary", "system", "tag", "user", "worktree-state",
})  # fmt: skip
STOP_REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "tool_use": "tool_calls", "max_tokens": "length",
    "model_context_window_exceeded": "length", "refusal": "content_filter",
}  # fmt: skip
CLAIM = "in/"  # the parts that say which session holds a record
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MATTERS = re.compile(rb'"(?:usage|modelUsage|subtype|isApiErrorMessage)"\s*:|"tool_(?:use|result)"')
_KNOWN_TYPE = re.compile(rb'"type"\s*:\s*"(?:' + "|".join(sorted(KNOWN_TYPES)).encode() + rb')"')
_TIME = re.compile(rb'"timestamp"\s*:\s*"([0-9T:.+Z-]{10,40})"')
_LIMIT = re.compile(r"limit reached|usage limit|hit your (?:\w+ ){0,3}limit", re.IGNORECASE)
_RESET = re.compile(r"\|(\d{10})\b", re.ASCII)


def may_matter(data: bytes) -> bool:
    """Whether a line can hold a record, or is torn: most hold prompts and results, and are passed over unparsed."""
    return _MATTERS.search(data) is not None or not data.rstrip().endswith(b"}")


def is_prompt(found: Json) -> bool:
    """Whether a line is what an agent was told, and no result of a tool."""
    message = found.get("message")
    is_result = isinstance(message, dict) and any(item.get("type") == "tool_result" for item in _content(message))
    return found.get("type") == "user" and not is_result


def is_record(found: Json) -> bool:
    """Whether an object is a line, and not something inside a torn one."""
    if isinstance(found.get("message"), dict):
        return True
    kind = found.get("type")
    return isinstance(kind, str) and not {"sessionId", "uuid", "timestamp", "leafUuid", "messageId"}.isdisjoint(found)


def is_unknown(found: Json) -> bool:
    """Whether a line of which no record was made is of a type that nobody has looked at yet."""
    return found.get("type", "assistant") not in KNOWN_TYPES


def is_unknown_line(data: bytes) -> bool:
    """The same of a line that was passed over."""
    return _KNOWN_TYPE.search(data) is None


@dataclass(frozen=True)
class Origin:
    """Whose a line is: the session it belongs to, or was copied from; of a sub-agent its own session."""

    session_id: str
    parent_session_id: str | None
    is_sidechain: bool
    is_copy: bool

    @property
    def role(self) -> str:
        """The contract's `agent_role`."""
        return "worker" if self.is_sidechain else "agent"

    @property
    def values(self) -> dict[str, object]:
        """The columns that only the origin knows."""
        return {
            "session_id": self.session_id, "parent_session_id": self.parent_session_id, "agent_role": self.role,
        }  # fmt: skip


class Reader:
    """Reads the lines of one transcript."""

    def __init__(self, transcript: Transcript, clock: Clock) -> None:
        self._transcript = transcript
        self._clock = clock

    def parse(self, found: Json, _: At) -> Iterator[Record]:
        """The records of a line."""
        when = self._clock.event_time(found.get("timestamp"))
        origin = origin_of(found, self._transcript)
        message = found.get("message")
        message = message if isinstance(message, dict) else {}
        kind = found.get("type", message.get("role"))  # the first versions wrote no type
        if kind == "assistant":
            if message.get("model") == SYNTHETIC or found.get("isApiErrorMessage") is True:
                yield _trouble(found, message, origin, when)
            elif isinstance(message.get("usage"), dict):
                yield from self._response(found, message, origin, when)
            yield from self._calls(message, origin, when)
        elif kind == "user":
            yield from _results(message, when)
            run = _agent_run(found.get("toolUseResult"), origin, when)
            if run is not None:
                yield run
        elif kind == "system":
            event = _system_event(found, origin, when)
            if event is not None:
                yield event
        elif kind == "cost-state":
            yield from claims.cost_state(found, self._transcript.session)

    @cached_property
    def _ended_at(self) -> datetime | None:
        """The last time in the file."""
        try:
            data, _ = tail(self._transcript.path)
        except (OSError, UnreadableError):
            return None
        times = (utc_time(match.decode()) for match in _TIME.findall(data))
        return max((time for time in times if time), default=None)

    def _claim(self, origin: Origin) -> dict[str, Part]:
        """That a session holds the record, by the last of its files: one may be an older copy."""
        ended_at = self._ended_at
        ended = _microseconds(ended_at) if ended_at else 0
        flags = {
            "is_sidechain": origin.is_sidechain, "is_copy": origin.is_copy, "transcript_ended_at": ended_at,
        }  # fmt: skip
        rank = (int(origin.is_sidechain), int(origin.is_copy), -ended)
        return {f"{CLAIM}{origin.session_id}": Part(rank, origin.values | flags)}

    def _response(self, found: Json, message: Json, origin: Origin, when: Instant | None) -> Iterator[Record]:
        usage = message["usage"]
        response_id = _response_id(found, message, origin)
        stop = message.get("stop_reason")
        is_final = isinstance(stop, str)
        offer = {
            "service_tier": usage.get("service_tier"),
            "speed": usage.get("speed"),
            "inference_geo": _geo(usage.get("inference_geo")),
        }
        own = {
            "stop_reason": STOP_REASONS.get(stop, "other") if isinstance(stop, str) else None,
            "reported_cost_usd": found.get("costUSD"),
        }
        requests = [("message", 0, usage, message.get("model"), own)]
        iterations = usage.get("iterations")
        advisors = [
            item
            for item in (iterations if isinstance(iterations, list) else ())
            if isinstance(item, dict) and item.get("type") == "advisor_message"
        ]
        requests += [("advisor", number, item, item.get("model"), {}) for number, item in enumerate(advisors)]
        for kind, number, counts, model, more in requests:
            values = _tokens(counts) | offer | more | _times(when) | {
                "response_id": response_id, "turn_grain": "response", "request_kind": kind, "model": model,
                "is_final": is_final,
            }  # fmt: skip
            key = (Constant("response"), response_id, Constant(kind), number)
            yield Record(
                wire.LLM_TURNS, key, fallback_key=(origin.parent_session_id or origin.session_id,),
                at=when.at if when else None, is_turn=kind == "message",
                parts={"usage": Part(_rank(values, when), values), **self._claim(origin)},
                needed=frozenset({"usage"}), finish=_finished,
            )  # fmt: skip

    def _calls(self, message: Json, origin: Origin, when: Instant | None) -> Iterator[Record]:
        """The tool calls of a line: a response has one content block a line, so only all its lines have all calls."""
        for item in _content(message):
            if item.get("type") == "tool_use" and isinstance(item.get("id"), str):
                values = {"tool_name": item.get("name"), "origin": "event"} | _times(when)
                call = Part((_microseconds(when.at) if when else 0,), values)
                yield _call_record(item["id"], {"call": call, **self._claim(origin)}, when)


def origin_of(found: Json, transcript: Transcript) -> Origin:
    """Whose a line is."""
    stamp = found.get("forkedFrom")
    copied_from = stamp.get("sessionId") if isinstance(stamp, dict) else None
    is_copy = isinstance(copied_from, str) and bool(copied_from)
    named = copied_from if is_copy else found.get("sessionId")
    session = named if isinstance(named, str) and named else transcript.session
    if found.get("isSidechain") is not True and transcript.agent is None:
        return Origin(session, None, False, is_copy)
    agent = found.get("agentId")
    name = transcript.agent or (agent if isinstance(agent, str) and agent else IN_FILE)
    return Origin(agent_session(session, name), session, True, is_copy)


def _response_id(found: Json, message: Json, origin: Origin) -> str:
    """The identity of a response. Without any the line's place and numbers must do: only numbers and generated ids."""
    for name in (message.get("id"), found.get("uuid"), found.get("requestId")):
        if isinstance(name, str) and name:
            return name
    tokens = _tokens(message["usage"])
    return "/".join(map(str, (origin.session_id, found.get("timestamp"), *tokens.values())))


def _tokens(usage: Json) -> dict[str, object]:
    """Tokens by the contract's names. A number of another type makes its column None, which costs the line."""
    split = usage.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    five, hour = (count(split.get(f"ephemeral_{kept}_input_tokens")) for kept in ("5m", "1h"))
    uncached, read, written, output = (
        count(usage.get(name, 0))
        for name in ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens")
    )
    written = max(written or 0, (five or 0) + (hour or 0))
    details, tools = usage.get("output_tokens_details"), usage.get("server_tool_use")
    return {
        "input_tokens": None if uncached is None else uncached + (read or 0) + written,
        "cache_read_input_tokens": read,
        "cache_write_input_tokens": written,
        "cache_write_5m_input_tokens": five,
        "cache_write_1h_input_tokens": hour,
        "output_tokens": output,
        "reasoning_output_tokens": count(details.get("thinking_tokens")) if isinstance(details, dict) else None,
        "web_search_requests": count(tools.get("web_search_requests")) if isinstance(tools, dict) else None,
    }


def _rank(values: dict[str, object], when: Instant | None) -> Rank:
    """A stop reason, then the largest output, then the latest; what follows only makes the choice the same always."""
    output, whole, read = (
        count(values.get(name)) or 0 for name in ("output_tokens", "input_tokens", "cache_read_input_tokens")
    )
    late = _microseconds(when.at) if when else 0
    return (int(not values["is_final"]), -output, -late, -whole, -read)


def _call_record(call_id: str, parts: Parts, when: Instant | None) -> Record:
    return Record(
        wire.TOOL_CALLS, (Constant("call"), call_id), at=when.at if when else None, parts=parts,
        needed=frozenset({"call"}), finish=_finished_call,
    )  # fmt: skip


def _finished(parts: Parts) -> dict[str, object]:
    """A record with its origin: of the sessions that hold it a main one, of these one that holds no marked copy, of
    these the one that ended first, as what is resumed goes on in another file."""
    claims = {name: part for name, part in parts.items() if name.startswith(CLAIM)}
    others = {name: part for name, part in parts.items() if name not in claims}

    def place(name: str) -> Rank:
        sidechain, copy, ended = claims[name].rank
        return sidechain, copy, -int(ended), name

    return joined(others) | dict(claims[min(claims, key=place)].values)


def _finished_call(parts: Parts) -> dict[str, object]:
    """A call and, once it was seen, its result: it took the time between their lines."""
    values = _finished(parts) | {"is_final": "result" in parts}
    if "result" in parts:
        (begun,), (ended,) = parts["call"].rank, parts["result"].rank
        if isinstance(begun, int) and isinstance(ended, int) and begun and ended >= begun:
            values["duration_seconds"] = (ended - begun) / 1_000_000
    return values


def _results(message: Json, when: Instant | None) -> Iterator[Record]:
    for item in _content(message):
        if item.get("type") == "tool_result" and isinstance(item.get("tool_use_id"), str):
            result = Part((_microseconds(when.at) if when else 0,), {"is_error": item.get("is_error") is True})
            yield _call_record(item["tool_use_id"], {"result": result}, when)


def _content(message: Json) -> Iterator[Json]:
    content = message.get("content")
    for item in content if isinstance(content, list) else ():
        if isinstance(item, dict):
            yield item


def _agent_run(result: object, origin: Origin, when: Instant | None) -> Record | None:
    """What the tool that runs sub-agents says when one has ended. Its tokens are those of its last request only."""
    agent = result.get("agentId") if isinstance(result, dict) else None
    if not isinstance(result, dict) or not isinstance(agent, str) or result.get("status") == "async_launched":
        return None
    duration = count(result.get("totalDurationMs"))
    values = {
        # All agents lie beside the session that somebody began, also those that an agent started.
        "session_id": agent_session(origin.parent_session_id or origin.session_id, agent),
        "parent_session_id": origin.session_id,
        "kind": "completed",
        "outcome": "success" if result.get("status") == "completed" else "other",
        "tool_calls_used": result.get("totalToolUseCount"),
        "duration_seconds": None if duration is None else Decimal(duration) / 1000,
        **_times(when),
    }
    key = (Constant("agent"), values["session_id"])
    return Record(wire.AGENT_RUNS, key, values, when.at if when else None)


def _system_event(found: Json, origin: Origin, when: Instant | None) -> Record | None:
    if found.get("subtype") == "compact_boundary":
        data = found.get("compactMetadata")
        data = data if isinstance(data, dict) else {}
        more = {
            "kind": "compacted", "compaction_trigger": data.get("trigger"), "context_tokens": data.get("preTokens"),
        }  # fmt: skip
    elif found.get("subtype") == "turn_duration":
        duration = count(found.get("durationMs"))
        more = {"kind": "turn_completed", "seconds": None if duration is None else Decimal(duration) / 1000}
    else:
        return None
    return _event(found, more, origin, when)


def _trouble(found: Json, message: Json, origin: Origin, when: Instant | None) -> Record:
    """An error of the provider, a limit that was reached, or words that the program put in a response's place."""
    texts = [item["text"] for item in _content(message) if isinstance(item.get("text"), str)]
    text = " ".join(texts)[:4000]
    if found.get("isApiErrorMessage") is not True:
        return _event(found, {"kind": "synthetic_message"}, origin, when)
    is_limit = _LIMIT.search(text) is not None
    reset = _RESET.search(text)
    more: dict[str, object] = {
        "kind": "limit_reached" if is_limit else "api_error",
        "error_class": "rate limit" if is_limit else text,
        "resets_at": epoch_time(int(reset[1])) if reset else None,
    }
    return _event(found, more, origin, when)


def _event(found: Json, more: dict[str, object], origin: Origin, when: Instant | None) -> Record:
    uuid = found.get("uuid")
    place = (uuid,) if isinstance(uuid, str) and uuid else (origin.session_id, found.get("timestamp"))
    key = (Constant("line"), *place, Constant(more["kind"]))
    return Record(wire.STATUS_EVENTS, key, origin.values | more | _times(when), when.at if when else None)


def _geo(value: object) -> object:
    return None if value in ("not_available", "") else value


def _times(when: Instant | None) -> dict[str, object]:
    if when is None:
        return {}
    return {
        "occurred_at": when.at, "time_basis": when.basis, "is_time_ambiguous": when.is_ambiguous,
        "utc_offset_seconds": when.utc_offset_seconds, "offset_basis": when.offset_basis,
    }  # fmt: skip


def _microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)
