"""Writes Hive homes for benchmarks, as many bytes as asked for, and says what is in them.

Most bytes are streaming text and tool results; a turn takes about 8 KB of log, as in real homes. No record has a copy,
so that a plain sum over the lines is right. Does not belong here: homes with all troubles (pipelines/simulate).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

START = datetime(2026, 5, 4, 8)  # noqa: DTZ001 - local, as Hive writes it
TEXT = "The pears go out on Friday; row nine does not add up, and the old price was confirmed twice in June. "
MODELS = ("anthropic/claude-opus-4-6", "openai/gpt-5.5", "gemini/gemini-3-flash-preview")
TOOLS = ("read_file", "write_file", "web_search", "terminal_exec")
DELTAS = 9


@dataclass
class Sums:
    """What is in a home."""

    turns: int = 0
    steps: int = 0
    tool_calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    bytes: int = 0

    def told(self) -> dict[str, int]:
        """The sums that a reader of the logs must find."""
        return {name: number for name, number in asdict(self).items() if name != "bytes"}


def write(root: Path, *, megabytes: float, turns_per_session: int = 100) -> Sums:
    """A home with at least so many bytes of logs: four queen sessions to one agent with a step log."""
    sums, number = Sums(), 0
    while sums.bytes < megabytes * 1_000_000:
        start = START + timedelta(hours=number)
        session = f"session_{start:%Y%m%d_%H%M%S}_{number:08x}"
        if number % 5 < 4:
            path = root / "agents" / "queens" / "queen_technology" / "sessions" / session / "events.jsonl"
            lines = _events(session, start, turns_per_session, sums)
        else:
            path = root / "agents" / "inspector" / "sessions" / session / "logs" / "tool_logs.jsonl"
            lines = _steps(number, turns_per_session, sums)
        path.parent.mkdir(parents=True)
        data = "".join(f"{line}\n" for line in lines).encode()
        path.write_bytes(data)
        sums.bytes += len(data)
        number += 1
    return sums


def write_quiet(root: Path, sessions: int) -> None:
    """The cheapest quiet sessions: a folder, one turn, one description."""
    for number in range(sessions):
        start = START + timedelta(seconds=number)
        session = f"session_{start:%Y%m%d_%H%M%S}_{number:08x}"
        folder = root / "agents" / "queens" / "queen_technology" / "sessions" / session
        folder.mkdir(parents=True)
        line = _turn(session, start.isoformat(), 0, Sums())
        (folder / "events.jsonl").write_text(f"{line}\n", "utf-8")
        (folder / "meta.json").write_text('{"status": "completed", "phase": "independent"}', "utf-8")


def one_turn(session: str, number: int) -> str:
    """One more turn of a session; each number is another one."""
    return _turn(session, (START + timedelta(seconds=number)).isoformat(), number, Sums())


def _event(kind: str, session: str, stamp: str, data: dict[str, object]) -> str:
    return json.dumps({
        "type": kind, "stream_id": "queen", "node_id": "queen", "execution_id": session, "data": data,
        "timestamp": stamp, "correlation_id": None, "colony_id": None,
    })  # fmt: skip


def _turn(session: str, stamp: str, number: int, sums: Sums) -> str:
    tokens = 4_000 + number * 37, 60 + number % 700
    sums.turns += 1
    sums.input_tokens += tokens[0]
    sums.output_tokens += tokens[1]
    return _event("llm_turn_complete", session, stamp, {
        "stop_reason": "tool_calls", "model": MODELS[number % len(MODELS)], "input_tokens": tokens[0],
        "output_tokens": tokens[1], "cached_tokens": tokens[0] // 2, "cache_creation_tokens": 128,
        "cost_usd": tokens[0] / 1_000_000, "iteration": number,
    })  # fmt: skip


def _events(session: str, start: datetime, turns: int, sums: Sums) -> Iterator[str]:
    """The lines of a queen's session, in the order in which they are written."""
    at = start
    for number in range(turns):
        stamps = [(at + timedelta(microseconds=100_001 * step)).isoformat() for step in range(DELTAS + 8)]
        at += timedelta(seconds=11, microseconds=7)
        yield _event("node_loop_iteration", session, stamps[0], {"iteration": number})
        yield _event("context_usage_updated", session, stamps[1], {
            "usage_ratio": number / 1_000, "usage_pct": 2, "message_count": number, "estimated_tokens": 4_000 + number,
            "max_context_tokens": 180_000, "trigger": "iteration_start",
        })  # fmt: skip
        named = {"tool_use_id": f"toolu_{sums.tool_calls:012x}", "tool_name": TOOLS[number % len(TOOLS)]}
        sums.tool_calls += 1
        yield _event("tool_call_started", session, stamps[2], {**named, "tool_input": {"query": TEXT * 2}})
        result = {**named, "result": TEXT * 12, "is_error": number % 9 == 0}
        yield _event("tool_call_completed", session, stamps[3], result)
        for step in range(DELTAS):
            snapshot = TEXT * (1 + step // 3)
            delta = {"content": snapshot[-12:], "snapshot": snapshot, "inner_turn": 0}
            yield _event("llm_text_delta", session, stamps[4 + step], delta)
        yield _turn(session, stamps[-2], number, sums)
        judged = {"action": "RETRY", "feedback": TEXT, "judge_type": "implicit", "iteration": number}
        yield _event("judge_verdict", session, stamps[-1], judged)


def _steps(session: int, turns: int, sums: Sums) -> Iterator[str]:
    """The step log of an agent's session."""
    for number in range(turns):
        tokens = 2_000 + number * 11, 50 + number % 300
        sums.steps += 1
        sums.tool_calls += 1
        sums.input_tokens += tokens[0]
        sums.output_tokens += tokens[1]
        started = (START + timedelta(hours=session, seconds=12 * number)).isoformat()
        call = {
            "tool_use_id": f"toolu_{sums.tool_calls:012x}", "tool_name": TOOLS[number % len(TOOLS)],
            "tool_input": {"query": TEXT}, "result": TEXT * 20, "is_error": False,
            "start_timestamp": f"{started}+00:00", "duration_s": 0.25,
        }  # fmt: skip
        yield json.dumps({
            "node_id": "intake", "node_type": "event_loop", "step_index": number, "llm_text": TEXT * 8,
            "tool_calls": [call], "input_tokens": tokens[0], "output_tokens": tokens[1], "latency_ms": 900 + number,
            "verdict": "ACCEPT", "verdict_feedback": "", "error": "", "stacktrace": "", "is_partial": False,
            "trace_id": f"{session + 10**30:032x}", "span_id": f"{session * 10**6 + number + 10**15:016x}",
            "parent_span_id": "", "execution_id": f"{session + 10**31:032x}",
        })  # fmt: skip
