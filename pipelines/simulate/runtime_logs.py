"""The runtime logs of one run folder: summary.json (L1), details.jsonl (L2), tool_logs.jsonl (L3), and state.json.

Does not count: whether a step is a turn depends on what else lies on the disk.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Literal

from pipelines.simulate.disk import JsonLines
from pipelines.simulate.home_context import HomeContext
from pipelines.simulate.turns import Turn
from pipelines.simulate.words import Json

Status = Literal["completed", "failed", "paused", "cancelled", "crashed"]


class RuntimeLog:
    """The three files of one folder. Several runs append to the lines; the summary is of the last run that ended."""

    def __init__(
        self, context: HomeContext, folder: str, *, run_id: str, agent: str, goal: str, node_names: bool = True
    ) -> None:
        self.folder = folder
        self.run_id = run_id
        self._context = context
        self._agent = agent
        self._goal = goal
        self._node_names = node_names
        self._steps = JsonLines(ascii_only=False)
        self._details = JsonLines(ascii_only=False)
        self._summary: Json | None = None
        self._summary_at: datetime | None = None
        self._last_at: datetime | None = None
        self._totals = [0, 0, 0]
        self._count_torn()

    def _count_torn(self) -> None:
        self._context.tally.torn_sources.append(lambda: self._steps.torn + self._details.torn)

    def copy(self, folder: str, *, run_id: str) -> RuntimeLog:
        """Logs which begin with these lines, as a fork has them."""
        twin = RuntimeLog(
            self._context, folder, run_id=run_id, agent=self._agent, goal=self._goal, node_names=self._node_names
        )
        twin._steps = self._steps.copy()
        twin._details = self._details.copy()
        twin._totals = list(self._totals)
        return twin

    def start(self, at: datetime) -> None:
        """Begin a run: a new trace, the same files."""
        self._trace = self._context.hex(32)
        self._execution = self._context.hex(32)
        self._started_at = at
        self._path: list[str] = []
        self._reasons: list[str] = []
        self._run_ms = 0
        self._last_at = at

    def _step(self, node: str, index: int) -> Json:
        return {
            "node_id": node,
            "node_type": "event_loop",
            "step_index": index,
            "llm_text": "",
            "tool_calls": [],
            "input_tokens": 0,
            "output_tokens": 0,
            "latency_ms": 0,
            "verdict": "",
            "verdict_feedback": "",
            "error": "",
            "stacktrace": "",
            "is_partial": False,
            "trace_id": self._trace,
            "span_id": self._context.hex(16),
            "parent_span_id": "",
            "execution_id": self._execution,
        }

    def _turn_step(self, node: str, index: int, turn: Turn, verdict: str) -> Json:
        calls = [
            {
                "tool_use_id": call.use_id,
                "tool_name": call.name,
                "tool_input": call.arguments,
                "result": call.result,
                "is_error": call.is_error,
                "start_timestamp": call.at.isoformat(),
                "duration_s": call.seconds,
            }
            for call in turn.tools
        ]
        feedback = self._context.words.text("verdict-feedback") if verdict == "RETRY" else ""
        return {
            **self._step(node, index),
            "llm_text": turn.text,
            "tool_calls": calls,
            "input_tokens": turn.input_tokens,
            "output_tokens": turn.output_tokens,
            "latency_ms": turn.latency_ms,
            "verdict": verdict,
            "verdict_feedback": feedback,
        }

    def step(self, node: str, index: int, turn: Turn, verdict: str, *, ending: bytes = b"\n") -> None:
        """Append the L3 line of a turn."""
        self._steps.add(self._turn_step(node, index, turn, verdict), ending=ending)
        self._last_at = turn.at

    def tear_step(self, node: str, index: int, turn: Turn) -> None:
        """Leave half of an L3 line."""
        self._steps.tear(self._turn_step(node, index, turn, ""))
        self._last_at = turn.at

    def partial_step(self, node: str, index: int, at: datetime) -> None:
        """A step that died: its tokens are zero on disk, and it still is a step."""
        words = self._context.words
        died = {"error": words.error("step-error"), "stacktrace": words.traceback("step-trace"), "is_partial": True}
        self._steps.add({**self._step(node, index), **died})
        self._last_at = at

    def compaction(self, node: str) -> None:
        """Not a step: index -1 marks that the context was cut."""
        marker = {"llm_text": "History shortened: 84% -> 27%", "verdict": "COMPACTION", "verdict_feedback": "level=llm"}
        self._steps.add({**self._step(node, -1), **marker})

    def blank(self) -> None:
        """Leave an empty line."""
        self._steps.add_blank()

    def node(self, node: str, turns: list[Turn], *, exit_status: str, error: str | None = None) -> None:
        """The end of one node's execution. Steps can be missing here and there: the two levels need not agree."""
        words = self._context.words
        spent = sum(turn.latency_ms for turn in turns)
        given, got = sum(turn.input_tokens for turn in turns), sum(turn.output_tokens for turn in turns)
        reasons = [f"Node {node} failed: {error}"] if error else []
        line = {
            "node_id": node,
            "node_name": f"{words.tag('node-name')} {node}" if self._node_names else node.title(),
            "node_type": "event_loop",
            "success": error is None,
            "error": error,
            "stacktrace": words.traceback("node-trace") if error else "",
            "total_steps": len(turns),
            "tokens_used": given + got,
            "input_tokens": given,
            "output_tokens": got,
            "latency_ms": spent,
            "attempt": 1,
            "exit_status": exit_status,
            "accept_count": 0 if error else 1,
            "retry_count": max(0, len(turns) - 1),
            "escalate_count": 0,
            "continue_count": 0,
            "needs_attention": bool(reasons),
            "attention_reasons": reasons,
            "trace_id": self._trace,
            "span_id": self._context.hex(16),
        }
        self._details.add(line)
        self._path.append(node)
        self._reasons += reasons
        self._run_ms += spent
        self._totals = [self._totals[0] + 1, self._totals[1] + given, self._totals[2] + got]

    def end(self, at: datetime) -> None:
        """Write L1. A run that was killed or cancelled never gets here, and an older summary stays as it is."""
        failed = bool(self._reasons)
        self._summary = {
            "run_id": self.run_id,
            "agent_id": self._agent,
            "goal_id": self._goal,
            "status": "failure" if failed else "success",
            "total_nodes_executed": self._totals[0],
            "node_path": self._path,
            "total_input_tokens": self._totals[1],
            "total_output_tokens": self._totals[2],
            "needs_attention": failed,
            "attention_reasons": self._reasons,
            "started_at": self._started_at.isoformat(),
            "duration_ms": self._run_ms,
            "execution_quality": "failed" if failed else "clean",
            "trace_id": self._trace,
            "execution_id": self._execution,
        }
        self._summary_at = at

    def save(self) -> None:
        """Write what there is: no summary when no run ended."""
        disk, at = self._context.disk, self._last_at
        if at is None:
            return
        disk.write(f"{self.folder}/tool_logs.jsonl", self._steps.content(), at)
        if details := self._details.content():
            disk.write(f"{self.folder}/details.jsonl", details, at)
        if self._summary is not None and self._summary_at is not None:
            disk.json(f"{self.folder}/summary.json", self._summary, self._summary_at, ascii_only=False)


def state_file(
    context: HomeContext,
    *,
    session: str,
    agent: str,
    goal: str,
    status: Status,
    started_at: datetime,
    ended_at: datetime,
    path: list[str],
    run: str,
    error: str | None,
) -> Json:
    """state.json of a graph or agent session. A crash leaves it active."""
    words, calendar = context.words, context.calendar
    ended = calendar.naive(ended_at)
    return {
        "schema_version": "1.1",
        "session_id": session,
        "stream_id": "default",
        "correlation_id": session,
        "status": "active" if status == "crashed" else status,
        "goal_id": goal,
        "agent_id": agent,
        "entry_point": "start",
        "timestamps": {
            "started_at": calendar.naive(started_at),
            "updated_at": ended,
            "completed_at": ended if status in {"completed", "failed"} else None,
            "paused_at_time": ended if status == "paused" else None,
        },
        "progress": {
            "current_node": path[-1],
            "paused_at": path[-1] if status == "paused" else None,
            "resume_from": None,
            "steps_executed": len(path),
            "total_tokens": 0,
            "total_latency_ms": int((ended_at - started_at) / timedelta(milliseconds=1)),
            "path": path,
            "total_retries": 1,
            "nodes_with_failures": [path[-1]] if error else [],
            "retry_details": {},
            "had_partial_failures": bool(error),
            "execution_quality": "failed" if error else "clean",
            "node_visit_counts": dict.fromkeys(path, 1),
        },
        "result": {"success": status == "completed", "error": error, "output": {"memo": words.text("state-output")}},
        "data_buffer": {words.tag("state-key"): words.text("state-buffer", foreign=True)},
        "metrics": {"decision_count": 0, "problem_count": 0, "total_input_tokens": 0, "total_output_tokens": 0},
        "problems": [{"what": words.text("state-problem")}] if error else [],
        "decisions": [],
        "input_data": {"topic": words.text("state-input"), "mail": words.address()},
        "current_run_id": run,
        "pid": 4000 + context.rng.randrange(20000),
        "isolation_level": "shared",
        "checkpoint_enabled": False,
        "latest_checkpoint_id": None,
        "active_triggers": [],
        "trigger_tasks": {"nightly": words.text("state-trigger")},
        "worker_configured": False,
        "task_list_id": None,
        "picked_up_from": None,
    }


def run_event(context: HomeContext, run: str, event: str, at: datetime, *, error: str | None = None) -> Json:
    """One line of runs.jsonl."""
    line: Json = {"run_id": run, "event": event, "timestamp": context.calendar.naive(at), "created_at": at.timestamp()}
    return {**line, "error": error} if error else line
