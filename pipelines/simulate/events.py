"""The event bus of one session process and the events.jsonl files it writes.

Decides which file an event goes to; does not decide what happens in a session.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from pipelines.simulate.disk import JsonLines
from pipelines.simulate.home_context import HomeContext
from pipelines.simulate.turns import ToolCall, Turn
from pipelines.simulate.words import Json

TURN = "llm_turn_complete"
# Written to the queen's file as well when a worker has a file of its own.
_LIFECYCLE = {"node_loop_started", "subagent_report", "execution_completed", "execution_failed"}


class EventLog:
    """One events.jsonl."""

    def __init__(self, context: HomeContext, path: str, *, lines: JsonLines | None = None, turn_lines: int = 0) -> None:
        self.path = path
        self.lines = lines or JsonLines(ascii_only=True)
        self.turn_lines = turn_lines
        self.last_at: datetime | None = None
        self._context = context
        context.tally.raw_sources.append(lambda: self.turn_lines)
        context.tally.torn_sources.append(lambda: self.lines.torn)

    def copy(self, path: str) -> EventLog:
        """A file that begins with these lines, as a fork has it."""
        return EventLog(self._context, path, lines=self.lines.copy(), turn_lines=self.turn_lines)

    def add(self, event: Json, at: datetime, *, ending: bytes = b"\n") -> None:
        """Append an event."""
        self.lines.add(event, ending=ending)
        self.turn_lines += event["type"] == TURN
        self.last_at = at if self.last_at is None else max(at, self.last_at)

    def save(self) -> None:
        """Write the file or files."""
        if self.last_at is not None:
            self._context.disk.write(self.path, self.lines.content(), self.last_at)


class Bus:
    """Takes the events of one queen's process and routes them."""

    def __init__(self, context: HomeContext, log: EventLog, *, debug: JsonLines | None = None) -> None:
        self.log = log
        self._context = context
        self._seq = 0
        self._worker_logs: dict[str, EventLog] = {}
        self.debug = debug

    def restart(self) -> None:
        """A new process counts from one again: the same number stands twice in one file."""
        self._seq = 0

    def split(self, stream: str, log: EventLog) -> None:
        """Give a worker an event file of its own."""
        self._worker_logs[stream] = log

    def publish(self, event: Json, at: datetime, *, ending: bytes = b"\n") -> None:
        """Route an event to the queen's file, the worker's, or both."""
        if self._context.layout == "v3":
            self._seq += 1
            event = {**event, "seq": self._seq}
        own = self._worker_logs.get(str(event["stream_id"]))
        if own is not None:
            own.add(event, at)
        if own is None or event["type"] in _LIFECYCLE:
            self.log.add(event, at, ending=ending)
        if self.debug is not None:
            self.debug.add(event)

    def tear(self, event: Json) -> None:
        """Leave half of an event in the queen's file."""
        self.log.lines.tear(event)

    def save(self) -> None:
        """Write the file or files."""
        self.log.save()
        for log in self._worker_logs.values():
            log.save()


@dataclass(frozen=True)
class Stream:
    """One voice on the bus: the queen, a worker, a graph run."""

    context: HomeContext
    name: str
    execution: str
    send: Callable[[Json, datetime], None]
    node: str | None
    # On disk `colony_id` of a parallel worker's event is its queen's session, not a colony.
    queen_session: str | None = None

    def event(self, kind: str, data: Json, at: datetime, *, node: bool = True, execution: bool = True) -> Json:
        """A record as it stands on disk."""
        return {
            "type": kind,
            "stream_id": self.name,
            "node_id": self.node if node else None,
            "execution_id": self.execution if execution else None,
            "data": data,
            "timestamp": self.context.calendar.naive(at),
            "correlation_id": None,
            "colony_id": self.queen_session,
        }

    def say(self, kind: str, data: Json, at: datetime) -> None:
        """Publish an event of this node and execution."""
        self.send(self.event(kind, data, at), at)

    def announce(self, kind: str, data: Json, at: datetime) -> None:
        """An event of the session, not of a node or an execution."""
        self.send(self.event(kind, data, at, node=False, execution=False), at)

    def context_fill(self, tokens: float, messages: int, at: datetime) -> Json:
        """How full the context is: by far the most frequent line, and NaN when nothing is known."""
        window = 180000
        known = 0 if math.isnan(tokens) else int(tokens)
        data = {
            "usage_ratio": tokens / window,
            "usage_pct": round(100 * known / window),
            "message_count": messages,
            "estimated_tokens": known,
            "max_context_tokens": window,
            "trigger": "iteration_start",
        }
        return self.event("context_usage_updated", data, at, execution=False)

    def tool(self, call: ToolCall, *, ended_at: datetime) -> None:
        """Publish both events of a tool call."""
        named = {"tool_use_id": call.use_id, "tool_name": call.name}
        self.say("tool_call_started", {**named, "tool_input": call.arguments}, call.at)
        self.say("tool_call_completed", {**named, "result": call.result, "is_error": call.is_error}, ended_at)

    def turn_event(self, turn: Turn, iteration: int, *, extra: Json | None = None) -> Json:
        """The record which holds a turn's usage."""
        data: Json = {
            "stop_reason": turn.stop_reason,
            "model": turn.model,
            "input_tokens": turn.input_tokens,
            "output_tokens": turn.output_tokens,
        }
        if not turn.is_old:
            data["cached_tokens"] = turn.cache_read
            data["cache_creation_tokens"] = turn.cache_write
            data["cost_usd"] = turn.cost
        data["iteration"] = iteration
        return self.event(TURN, {**data, **(extra or {})}, turn.at)
