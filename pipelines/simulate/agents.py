"""Standalone agents: sessions known only from runtime logs, because no event file speaks of them.

Knows nothing about queens and colonies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from pipelines.simulate.counts import UNKNOWN_MODEL, Usage
from pipelines.simulate.disk import JsonLines
from pipelines.simulate.home_context import HomeContext
from pipelines.simulate.runtime_logs import RuntimeLog, Status, run_event, state_file
from pipelines.simulate.stores import conversation
from pipelines.simulate.turns import Turn

_EXIT = {"completed": "success", "failed": "failure", "paused": "paused", "cancelled": "success", "crashed": "success"}


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An exported agent: its name, its goal and the nodes of its graph, all chosen by a person."""

    name: str
    goal: str
    nodes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """How one run goes. A torn one has its last step cut off, in the middle of a letter."""

    status: Status
    with_tools: bool = True
    compacted: bool = False
    torn: bool = False


def hire(context: HomeContext, base: str) -> Agent:
    """A new agent with names of its own."""
    words = context.words
    nodes = tuple(words.name(verb) for verb in ("gather", "weigh", "write"))
    return Agent(name=words.name(base), goal=words.name("goal"), nodes=nodes)


def within_utc_day(at: datetime) -> datetime:
    """Earlier by some hours when the evening is too short: L3 lines carry no time, so the session names the day."""
    left = datetime.combine(at.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC) - at
    return at - timedelta(hours=4) if left < timedelta(hours=3) else at


class AgentSession:
    """One session folder with one or more runs in it."""

    def __init__(
        self, context: HomeContext, agent: Agent, *, session: str, folder: str, start: datetime, legacy: bool = False
    ) -> None:
        self._context = context
        self._agent = agent
        self._session = session
        self._folder = folder
        self._legacy = legacy
        self._clock = context.clock(start)
        logs = folder if legacy else f"{folder}/logs"
        self._log = RuntimeLog(context, logs, run_id=session, agent=agent.name, goal=agent.goal)
        self._runs = JsonLines(ascii_only=True)
        self._step_lines = 0
        context.tally.raw_sources.append(lambda: self._step_lines)

    def _count(self, usage: Usage, at: datetime) -> None:
        self._step_lines += 1
        self._context.tally.turn(usage, model=UNKNOWN_MODEL, day=at.date(), kind="agent_session", session=self._session)

    def _turn(self, step: int, run: Run) -> Turn:
        self._clock.wait(1, 8)
        return self._context.mill.turn(self._clock, model=UNKNOWN_MODEL, step=step, tools=None if run.with_tools else 0)

    def _node(self, node: str, run: Run, *, is_last: bool, legacy_line: bool) -> str | None:
        """The steps of one node and its line. Gives back the error that ended the run, if one did."""
        turns = []
        for index in range(self._context.rng.randint(1, 3)):
            turn = self._turn(index, run)
            ending = b"\r\n" if legacy_line and index == 0 else b"\n"
            self._log.step(node, index, turn, "RETRY" if index == 0 else "ACCEPT", ending=ending)
            self._count(turn.logged(), turn.at)
            turns.append(turn)
        if run.compacted and is_last:
            self._log.compaction(node)
        if is_last and run.torn:
            lost = self._turn(len(turns), replace(run, with_tools=False))
            text = self._context.words.text("turn-text", foreign=True)
            self._log.tear_step(node, len(turns), replace(lost, text=text))
            self._context.tally.lost_turns += 1
        if is_last and run.status == "crashed":
            return None
        error = None
        if is_last and run.status == "failed":
            error = self._context.words.error("run-error")
            self._log.partial_step(node, len(turns), self._clock.wait(0.1, 2))
            self._count(Usage(turns=1, unreported_turns=1), self._clock.now)
        self._log.node(node, turns, exit_status=_EXIT[run.status] if is_last else "success", error=error)
        return error

    def play(self, runs: Sequence[Run]) -> None:
        """Write the runs, one behind the other, into the same files."""
        context, agent = self._context, self._agent
        for number, run in enumerate(runs):
            if number:
                self._clock.wait(300, 1200)
            started = self._clock.wait(0.1, 1)
            self._log.start(started)
            run_id = context.hex(12)
            self._runs.add(run_event(context, run_id, "run_started", started))
            error: str | None = None
            for place, node in enumerate(agent.nodes):
                is_last = node == agent.nodes[-1]
                error = self._node(node, run, is_last=is_last, legacy_line=self._legacy and place == 0) or error
                if number and place == 0:
                    self._log.blank()
            ended = self._clock.wait(0.1, 2)
            if run.status in {"completed", "failed", "paused"}:
                self._log.end(ended)
            if run.status != "crashed":
                self._runs.add(run_event(context, run_id, f"run_{run.status}", ended, error=error))
        self._log.save()
        if not self._legacy:
            self._save(runs[-1].status, run_id, started, ended, error)

    def _save(self, status: Status, run_id: str, started: datetime, ended: datetime, error: str | None) -> None:
        context, agent, folder = self._context, self._agent, self._folder
        context.disk.write(f"{folder}/runs.jsonl", self._runs.content(), ended)
        state = state_file(
            context,
            session=self._session,
            agent=agent.name,
            goal=agent.goal,
            status=status,
            started_at=started,
            ended_at=ended,
            path=list(agent.nodes),
            run=run_id,
            error=error,
        )
        context.disk.json(f"{folder}/state.json", state, ended, ascii_only=False)
        if status == "crashed":
            context.disk.write(f"{folder}/state.json.tmp", b'{"schema_version": "1.1", "status": "comp', ended)
        context.disk.write(f"{folder}/artifacts/notes_1.txt", context.words.text("artifact").encode(), ended)
        conversation(context, f"{folder}/conversations", ["agent-input", "agent-answer"], ended, node=agent.nodes[-1])
