"""Writes one Hive home and gives back its exact truth: which sessions, agents and colonies it has, and their troubles.

How a session, an agent or a colony looks on disk is in the modules beside this one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

from pipelines.simulate.agents import Agent, AgentSession, Run, hire, within_utc_day
from pipelines.simulate.colonies import colony_records, colony_stores
from pipelines.simulate.counts import UNKNOWN_MODEL, Tally, Truth, Usage
from pipelines.simulate.disk import Disk, JsonLines
from pipelines.simulate.home_context import Calendar, HomeContext, Layout
from pipelines.simulate.queens import QueenSession, WorkerPlan
from pipelines.simulate.runtime_logs import RuntimeLog, Status
from pipelines.simulate.stores import conversation, debug_copies, home_files
from pipelines.simulate.turns import Mill
from pipelines.simulate.words import BUILT_IN_QUEENS, Words

__all__ = ["UNKNOWN_MODEL", "HomeSpec", "Layout", "Truth", "Usage", "write_home"]

_STATUSES: tuple[Status, ...] = ("completed", "failed", "paused", "cancelled", "crashed")


@dataclass(frozen=True, kw_only=True)
class HomeSpec:
    """What to write. Beside the daily sessions every home has a fixed cast of special cases, whatever its size.

    Secrets are looked for as they are: a secret with letters beyond ASCII would be escaped in the files.
    """

    layout: Layout
    seed: int
    timezone: str
    first_day: date
    days: int = 3
    queens_per_day: int = 1
    turns_per_session: int = 5
    secrets: Sequence[str] = ()

    def __post_init__(self) -> None:
        if min(self.days, self.queens_per_day, self.turns_per_session) < 1:
            raise ValueError("days, queens_per_day and turns_per_session must be at least 1")


def write_home(root: Path, spec: HomeSpec) -> Truth:
    """Write the home into `root` (the folder that plays ~/.hive) and return what a perfect reader would report."""
    rng = random.Random(f"{spec.layout}|{spec.seed}|{spec.timezone}|{spec.first_day}")
    words = Words(rng, secrets=spec.secrets)
    mill = Mill(rng, words, private_model=f"openai/{words.name('acme-internal')}", custom_tool=words.name("mcp_push"))
    calendar = Calendar(ZoneInfo(spec.timezone))
    root.mkdir(parents=True, exist_ok=True)
    context = HomeContext(spec.layout, rng, words, mill, Disk(root), Tally(), calendar)
    _Home(context, spec).write()
    return context.tally.close(words.planted)


class _Home:
    def __init__(self, context: HomeContext, spec: HomeSpec) -> None:
        self._context = context
        self._spec = spec
        self._last_day = spec.first_day + timedelta(days=spec.days - 1)
        self._own_queen = context.words.name("queen")
        self._worker_turns = (spec.turns_per_session + 1) // 2
        self._agent = hire(context, "agent")

    def write(self) -> None:
        first = self._daily_sessions()
        self._colonies(first)
        self._restored_session()
        self._crashed_session()
        self._special_agents()
        home_files(self._context, self._at(self._last_day, 20.5))

    def _at(self, day: date, hour: float) -> datetime:
        return self._context.calendar.instant(day, hour + self._context.rng.uniform(0, 0.4))

    def _plan(self, *outcomes: str, own: bool = False) -> list[WorkerPlan]:
        turns = self._worker_turns
        kinds = {"success": WorkerPlan(outcome="success", turns=turns, has_own_events=own)}
        kinds["partial"] = WorkerPlan(outcome="partial", turns=turns, has_own_events=own)
        kinds["failed"] = WorkerPlan(outcome="failed", turns=turns, has_own_events=own)
        kinds["stopped"] = WorkerPlan(outcome="stopped", turns=turns)
        kinds["crashed"] = WorkerPlan(outcome="crashed", turns=turns)
        return [kinds[outcome] for outcome in outcomes]

    def _daily_sessions(self) -> QueenSession:
        """Every day's sessions. Gives back the very first, early in the day, which colonies fork from."""
        spec, context = self._spec, self._context
        queens = (*BUILT_IN_QUEENS, self._own_queen)
        first = QueenSession(context, queen=queens[0], start=self._at(spec.first_day, 8.5), with_debug=True)
        first.open()
        self._talk(first, workers=True)
        for number in range(spec.days):
            day = spec.first_day + timedelta(days=number)
            hours = sorted(context.rng.uniform(7, 17) for _ in range(spec.queens_per_day - (number == 0)))
            for place, hour in enumerate(hours, start=1):
                queen = queens[(number + place) % len(queens)]
                session = QueenSession(context, queen=queen, start=self._at(day, hour))
                session.open()
                self._talk(session, workers=place % 2 == 0)
                session.save()
                if place % 3 == 0:
                    self._agent_session(day, _STATUSES[place % len(_STATUSES)])
            self._agent_session(day, _STATUSES[number % len(_STATUSES)])
        return first

    def _talk(self, session: QueenSession, *, workers: bool) -> None:
        half = (self._spec.turns_per_session + 1) // 2
        for _ in range(half):
            session.turn()
        if workers:
            session.send_workers(self._plan("success", "partial"))
        for _ in range(self._spec.turns_per_session - half):
            session.turn()

    def _colonies(self, first: QueenSession) -> None:
        """A fork, a fork of the fork, and a parent that goes on after both."""
        context, spec = self._context, self._spec
        is_new = spec.layout == "v3"
        leads = context.words.name("leads", colony=True)
        audit = context.words.name("audit", colony=True)

        child = first.fork(leads, with_marker=True)
        colony_records(
            context, leads, queen=child.queen, source=first.session, session=child.session, at=child.started_at
        )
        for _ in range(spec.turns_per_session):
            child.turn()
        plans = self._plan("success", "failed", own=is_new) + self._plan("stopped")
        if is_new:
            plans.append(WorkerPlan(outcome="success", turns=2, is_pruned=True))
        child.send_workers(plans)
        if spec.layout == "v2":
            self._graph_runs(child, leads)

        grandchild = child.fork(audit, with_marker=False)
        colony_records(
            context,
            audit,
            queen=child.queen,
            source=child.session,
            session=grandchild.session,
            at=grandchild.started_at,
        )
        grandchild.turn()
        grandchild.send_workers(self._plan("success", "partial"))
        grandchild.status_events()

        child.turn()
        if is_new:
            child.cancelled_turn()
            child.snapshot()
        first.clock.now = max(first.clock.now, grandchild.started_at)
        first.turn()
        for session in (first, child, grandchild):
            session.save()
        if is_new:
            grandchild.trash(grandchild.clock.now)
        colony_stores(context, leads, workers=child.workers, at=child.clock.now, is_open=True)
        colony_stores(context, audit, workers=grandchild.workers, at=grandchild.clock.now, is_open=False)
        if spec.layout == "v3":
            first.janitor(self._at(self._last_day, 21))
            for colony in (leads, audit):
                conversation(context, f"colonies/{colony}/seed_conversation", ["seed"], child.started_at, node="queen")
        else:
            conversation(context, f"agents/{leads}/worker/conversations", ["seed"], child.started_at, node="worker")
        if first.bus.debug is not None and first.debug_turns is not None:
            debug_copies(context, first.bus.debug, first.debug_turns, first.started_at, first.clock.now)

    def _graph_runs(self, queen: QueenSession, colony: str) -> None:
        """Two runs under the queen's own session id, with runtime logs that repeat her events."""
        context, words = self._context, self._context.words
        folder = f"agents/{colony}/worker/sessions/{queen.session}"
        nodes = [words.name("intake"), words.name("draft")]
        goal = words.name("goal")
        log = RuntimeLog(context, f"{folder}/logs", run_id=queen.session, agent=f"{colony}-graph", goal=goal)
        runs = JsonLines(ascii_only=True)
        queen.graph_run(log, runs, nodes=nodes, fails=False)
        queen.graph_run(log, runs, nodes=nodes, fails=True)
        log.save()
        at = queen.clock.now
        context.disk.write(f"{folder}/runs.jsonl", runs.content(), at)
        state = {
            "progress": {"current_node": nodes[-1], "path": nodes, "steps_executed": len(nodes)},
            "timestamps": {"updated_at": context.calendar.naive(at)},
            "data_buffer": {"task": words.text("state-buffer")},
            "buffer_keys": ["task"],
        }
        context.disk.json(f"{folder}/state.json", state, at)

    def _restored_session(self) -> None:
        """Killed in the middle of a line and started again; odd lines of every kind, each holding a turn."""
        session = QueenSession(self._context, queen=BUILT_IN_QUEENS[2], start=self._at(self._last_day, 9))
        session.open()
        session.turn(broken_text=True)
        session.turn(is_old=True)
        session.turn(free=True)
        session.blank_line()
        session.lost_turn()
        session.restore()
        session.turn(after_tear=True)
        session.turn(ending=b"\r\n")
        session.save()

    def _crashed_session(self) -> None:
        """The process died: no worker reported, and the last turn is half a line."""
        session = QueenSession(self._context, queen=self._own_queen, start=self._at(self._last_day, 13))
        session.open()
        session.turn()
        session.send_workers(self._plan("crashed", "crashed"))
        session.lost_turn()
        session.save()

    def _agent_session(self, day: date, status: Status) -> None:
        """A day's ordinary agent session."""
        run = Run(status=status, torn=status == "crashed")
        self._play(self._agent, day, [run], hour=self._context.rng.uniform(7, 16))

    def _play(
        self, agent: Agent, day: date, runs: Sequence[Run], *, hour: float, session: str | None = None, folder: str = ""
    ) -> None:
        context = self._context
        start = within_utc_day(self._at(day, hour))
        name = session or context.session_id(start)
        place = f"{folder}/{name}" if folder else context.agent_folder(agent.name, name)
        AgentSession(context, agent, session=name, folder=place, start=start).play(runs)

    def _special_agents(self) -> None:
        """Every way an agent's session ends or is stored.

        Among them a stale summary beside a second run that died, and a second run glued to the torn end of the first.
        """
        context, day = self._context, self._last_day
        agent = hire(context, "inspector")
        for number, status in enumerate(_STATUSES):
            run = Run(status=status, torn=status == "crashed", compacted=number == 0, with_tools=status != "cancelled")
            self._play(agent, self._spec.first_day, [run], hour=7 + number)
        self._play(agent, day, [Run(status="completed"), Run(status="crashed", torn=True)], hour=8)
        self._play(agent, day, [Run(status="crashed", torn=True), Run(status="completed")], hour=10)
        job = f"nightly-{context.words.name('sweep')}"
        self._play(agent, day, [Run(status="completed")], hour=11, session=job)
        graph = f"agents/{agent.name}/graphs/{context.words.name('report')}/sessions"
        self._play(agent, day, [Run(status="completed", compacted=True)], hour=12, folder=graph)
        start = within_utc_day(self._at(self._spec.first_day, 6.5))
        legacy = f"{start.strftime('%Y%m%dT%H%M%S')}_{context.hex(8)}"
        folder = f"agents/{agent.name}/runtime_logs/runs/{legacy}"
        played = AgentSession(context, agent, session=legacy, folder=folder, start=start, legacy=True)
        played.play([Run(status="completed", with_tools=False)])
