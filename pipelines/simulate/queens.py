"""Queen sessions: their turns, their workers, their forks into colonies and the graph runs they start.

Does not decide which sessions a home has.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from pipelines.simulate.colonies import shadow_folder, task_list
from pipelines.simulate.counts import UNKNOWN_MODEL
from pipelines.simulate.disk import JsonLines
from pipelines.simulate.events import Bus, EventLog, Stream
from pipelines.simulate.home_context import HomeContext
from pipelines.simulate.runtime_logs import RuntimeLog, run_event, state_file
from pipelines.simulate.stores import conversation, llm_log_line, sidebar_cache
from pipelines.simulate.turns import Clock, Turn
from pipelines.simulate.words import Json

Outcome = Literal["success", "partial", "failed", "stopped", "crashed"]


@dataclass(frozen=True, kw_only=True)
class WorkerPlan:
    """How one worker goes. A pruned one was cleaned away: only lifecycle events and a tombstone tell of it."""

    outcome: Outcome
    turns: int
    has_own_events: bool = False
    is_pruned: bool = False


@dataclass(frozen=True, kw_only=True)
class _Said:
    """An event and when it was written, which can be later than the time it carries."""

    event: Json
    at: datetime


class QueenSession:
    """One queen's session and everything that shares its events.jsonl."""

    def __init__(
        self,
        context: HomeContext,
        *,
        queen: str,
        start: datetime,
        colony: str | None = None,
        parent: QueenSession | None = None,
        with_debug: bool = False,
    ) -> None:
        self.context = context
        self.queen = queen
        self.colony = colony
        self.clock = context.clock(start)
        self.session = context.session_id(self.clock.now)
        self.folder = context.queen_folder(queen, self.session, colony)
        self.started_at = self.clock.now
        self.workers: list[str] = []
        self.iteration = 0
        self.meta: Json = {"created_at": self.clock.now.timestamp(), "queen_id": queen}
        self.debug_turns = JsonLines(ascii_only=True) if with_debug else None
        path = f"{self.folder}/events.jsonl"
        log = parent.bus.log.copy(path) if parent else EventLog(context, path)
        self.bus: Bus = Bus(context, log, debug=JsonLines(ascii_only=True) if with_debug else None)
        self._voice = Stream(context, "queen", self.session, self.bus.publish, "queen")
        self._model = context.mill.model()
        self._steps: list[Turn] = []
        self._logs: RuntimeLog | None = None
        if context.layout == "doc":
            logs = f"{self.folder}/logs"
            self._logs = (
                parent._logs.copy(logs, run_id=self.session)
                if parent and parent._logs
                else RuntimeLog(context, logs, run_id=self.session, agent=queen, goal=f"goal_{queen}", node_names=False)
            )
            self._logs.start(self.clock.now)

    def open(self) -> None:
        """A process starts. Also what a cold restore writes."""
        self.bus.restart()
        at = self.clock.wait(0.01, 0.4)
        who = {"queen_id": self.queen, "name": self.context.words.tag("queen-name"), "title": "Head"}
        self._voice.announce("queen_identity_selected", who, at)
        phase: Json = {"phase": "working" if self.colony else "independent"}
        if self.colony:
            phase["agent_path"] = self.context.words.own_path(f"colonies/{self.colony}")
        self._voice.announce("queen_phase_changed", phase, at)
        self._voice.say("node_loop_started", {"max_iterations": 999999}, at)

    def restore(self) -> None:
        """The old process is gone, maybe in the middle of a line; a new one appends to the same file."""
        self.clock.wait(600, 3000)
        if self.context.layout == "v2":
            self.meta["created_at"] = self.clock.now.timestamp()
        self.open()

    def ask(self) -> None:
        """The user's message and the start of an iteration."""
        voice, words = self._voice, self.context.words
        at = self.clock.wait(5, 120)
        voice.say("client_input_received", {"content": words.text("user-input", foreign=True, rich=True)}, at)
        voice.say("node_loop_iteration", {"iteration": self.iteration, "phase": "independent"}, at)
        fill = voice.context_fill(6000.0 + 2500 * self.iteration, 2 * self.iteration, at)
        self.bus.publish(fill, at)

    def _make(
        self, *, tools: int | None = None, is_old: bool = False, free: bool = False, priced: bool = False
    ) -> Turn:
        mill = self.context.mill
        model = mill.priced_model() if priced else self._model
        return mill.turn(self.clock, model=model, step=self.iteration, tools=tools, is_old=is_old, free=free)

    def turn(
        self,
        *,
        is_old: bool = False,
        free: bool = False,
        broken_text: bool = False,
        after_tear: bool = False,
        ending: bytes = b"\n",
    ) -> None:
        """One whole iteration, counted. `after_tear`: half a status line stands in front of the turn's own record."""
        self.ask()
        turn = self._make(is_old=is_old, free=free, priced=is_old or free)
        voice = self._voice
        for call in turn.tools:
            voice.tool(call, ended_at=call.at + timedelta(seconds=call.seconds))
        delta = {"content": turn.text[-9:], "snapshot": turn.text, "inner_turn": 0, "iteration": self.iteration}
        voice.say("client_output_delta", delta, turn.started_at)
        if self.context.rng.random() < 0.3:
            voice.say("llm_reasoning_delta", {"content": self.context.words.text("reasoning")}, turn.started_at)
        if after_tear:
            self.bus.tear(voice.context_fill(1000.0, 1, turn.at))
        extra = None
        if broken_text:
            # Written by a host that could not decode a file name: strict JSON readers refuse the whole line.
            extra = {"full_request": {"prompt": self.context.words.text("full-request") + " caf\udce9.txt"}}
        self.bus.publish(voice.turn_event(turn, self.iteration, extra=extra), turn.at, ending=ending)
        self.context.tally.turn(
            turn.reported(), model=turn.model, day=turn.at.date(), kind="queen", session=self.session
        )
        if self._logs:
            self._logs.step("queen", self.iteration, turn, "")
        if self.debug_turns is not None:
            self.debug_turns.add(llm_log_line(self.context, self.session, "queen", self.iteration, turn))
        self._steps.append(turn)
        self.iteration += 1

    def lost_turn(self) -> None:
        """The process dies while it writes the turn's line."""
        self.ask()
        turn = self._make(tools=0)
        self.bus.tear(self._voice.turn_event(turn, self.iteration))
        self.context.tally.lost_turns += 1
        self.iteration += 1

    def cancelled_turn(self) -> None:
        """Cancelled before anything came: the event has no model and no tokens, and is a turn all the same."""
        self.ask()
        made = self._make(tools=0)
        nothing = {"input_tokens": 0, "output_tokens": 0, "cache_read": 0, "cache_write": 0, "cost": 0.0}
        turn = replace(made, model="", stop_reason="cancelled", **nothing)  # type: ignore[arg-type]
        self.bus.publish(self._voice.turn_event(turn, self.iteration), turn.at)
        self._count(turn)

    def snapshot(self) -> None:
        """The other folder of a fork that was written to in two places, where an upgrade moves it.

        One turn of it stands nowhere else.
        """
        log = self.bus.log.copy(f"colonies/{self.colony}/legacy_fork_snapshots/{self.session}/events.jsonl")
        turn = self._make(tools=0)
        log.add(self._voice.turn_event(turn, self.iteration), turn.at)
        log.save()
        self.context.disk.json(f"{log.path.rpartition('/')[0]}/meta.json", self.meta, turn.at, indent=None)
        self._count(turn)

    def trash(self, at: datetime) -> None:
        """A copy of the session's folder that was put aside."""
        log = self.bus.log.copy(f"{self.folder}.jtrash-{int(at.timestamp())}/events.jsonl")
        self.context.disk.write(log.path, log.lines.content(), at)
        self.context.disk.json(f"{log.path.rpartition('/')[0]}/meta.json", self.meta, at, indent=None)

    def _count(self, turn: Turn) -> None:
        model = turn.model or UNKNOWN_MODEL
        self.context.tally.turn(turn.reported(), model=model, day=turn.at.date(), kind="queen", session=self.session)
        self.iteration += 1

    def blank_line(self) -> None:
        """Leave an empty line in the event file."""
        self.bus.log.lines.add_blank()

    def status_events(self) -> None:
        """Once each: what tells how a session is doing."""
        voice, words, at = self._voice, self.context.words, self.clock.wait(0.5, 3)
        say = voice.say
        say("node_stalled", {"reason": words.text("stall-reason")}, at)
        say("node_tool_doom_loop", {"description": f"read_file x5 {words.tag('doom-loop')}"}, at)
        say("stream_ttft_exceeded", {"ttft_seconds": 63.5, "limit_seconds": 60.0}, at)
        say("stream_inactive", {"idle_seconds": 131.0, "limit_seconds": 120.0}, at)
        say("stream_nudge_sent", {"reason": words.text("nudge-reason"), "nudge_count": 1}, at)
        say("tool_call_replay_detected", {"tool_name": "read_file", "tool_use_id": f"toolu_{self.context.hex(12)}"}, at)
        say("node_retry", {"retry_count": 1, "max_retries": 5, "error": words.error("retry-error")}, at)
        say("context_compacted", {"level": "llm", "usage_before": 0.84, "usage_after": 0.27}, at)
        cry = {"reason": words.text("escalation"), "context": words.text("escalation-context")}
        say("escalation_requested", cry, at)
        say("client_input_requested", {"questions": [{"id": "q1", "prompt": words.text("question")}]}, at)
        self.bus.publish(voice.context_fill(float("nan"), 0, at), at)
        hook = {"headers": {"authorization": words.key()}, "payload": {"text": words.text("webhook-payload")}}
        voice.announce("webhook_received", hook, at)
        self._trigger_events(at)
        self._task_events(at)
        self._missed_firings(at)

    def _trigger_events(self, at: datetime) -> None:
        words = self.context.words
        trigger: Json = {
            "trigger_id": words.name("trigger"),
            "trigger_type": "timer",
            "trigger_config": {"cron": "15 6 * * 1-5"},
            "name": words.text("trigger-name"),
        }
        for kind in ("available", "activated", "fired", "updated", "deactivated", "removed"):
            at += timedelta(seconds=2)
            self._voice.announce(f"trigger_{kind}", trigger, at)

    def _missed_firings(self, at: datetime) -> None:
        """A timer of ten minutes that fires after ten, and then after thirty: twice it did not."""
        timer: Json = {
            "trigger_id": self.context.words.name("trigger"),
            "trigger_type": "timer",
            "trigger_config": {"interval_minutes": 10},
        }
        for minute, kind in ((1, "activated"), (11, "fired"), (41, "fired"), (42, "deactivated")):
            self.clock.now = at + timedelta(minutes=minute)
            self._voice.announce(f"trigger_{kind}", timer, self.clock.now)

    def _task_events(self, at: datetime) -> None:
        words = self.context.words
        base: Json = {"task_list_id": self._list_id(), "task_id": 1}
        record = {"id": 1, "subject": words.text("task-subject"), "status": "pending", "owner": "queen"}
        self._voice.announce("task_created", {**base, "record": record}, at)
        done = {**base, "record": {**record, "status": "completed"}, "fields": ["status"]}
        self._voice.announce("task_updated", done, at + timedelta(seconds=9))
        self._voice.announce("task_deleted", base, at + timedelta(seconds=12))

    def _list_id(self) -> str:
        return self.session if self.context.layout == "v3" else f"session:queen:{self.session}"

    def _worker(self, plan: WorkerPlan, clock: Clock) -> list[_Said]:
        """All events of one worker, to be put among those of the others."""
        context, words = self.context, self.context.words
        worker = context.session_id(clock.now)
        folder = context.worker_folder(self.folder, worker, self.colony)
        said: list[_Said] = []
        name = f"worker:{worker}"
        written = [clock.now]

        def hear(event: Json, at: datetime) -> None:
            written[0] = max(written[0], at)
            said.append(_Said(event=event, at=written[0]))

        voice = Stream(context, name, worker, hear, worker, queen_session=self.session)
        started = clock.now
        if plan.has_own_events:
            self.bus.split(name, EventLog(context, f"{folder}/events.jsonl"))
        voice.say("node_loop_started", {"max_iterations": 50}, started)
        if plan.outcome != "success":
            retry = {"retry_count": 1, "max_retries": 5, "error": words.error("retry-error")}
            voice.say("node_retry", retry, clock.wait(1, 3))
        spent = self._worker_turns(plan, clock, voice, worker=worker, folder=folder, written=written)
        task = words.text("worker-task", rich=True)
        if plan.outcome != "crashed":
            self._worker_end(plan, clock, voice, worker=worker, task=task, started=started, spent=spent)
        self._worker_files(plan, worker=worker, folder=folder, task=task, started=started, ended=clock.now)
        self.workers.append(worker)
        context.tally.parents[worker] = self.session
        return said

    def _worker_turns(
        self, plan: WorkerPlan, clock: Clock, voice: Stream, *, worker: str, folder: str, written: list[datetime]
    ) -> int:
        context, spent = self.context, 0
        logs = None
        if context.layout == "doc":
            goal = f"goal_{self.queen}"
            logs = RuntimeLog(context, f"{folder}/logs", run_id=worker, agent=worker, goal=goal, node_names=False)
            logs.start(clock.now)
        turns = []
        if plan.is_pruned:
            clock.wait(20, 90)
            return context.rng.randint(9000, 60000)
        model = context.mill.model()
        for iteration in range(plan.turns):
            at = clock.wait(0.5, 4)
            turn = context.mill.turn(clock, model=model, step=iteration)
            spent += turn.input_tokens + turn.output_tokens
            voice.say("node_loop_iteration", {"iteration": iteration}, at)
            voice.send(voice.context_fill(3000.0 + 900 * iteration, iteration, at), at)
            for call in turn.tools:
                voice.tool(call, ended_at=call.at + timedelta(seconds=call.seconds))
            written[0] = max(written[0], turn.at)
            delta = {"content": turn.text[-7:], "snapshot": turn.text, "inner_turn": 0}
            voice.say("llm_text_delta", delta, turn.started_at)
            voice.send(voice.turn_event(turn, iteration), turn.at)
            is_last = iteration == plan.turns - 1
            verdict = "ACCEPT" if is_last else "RETRY"
            feedback = context.words.text("verdict-feedback")
            judged = {"action": verdict, "feedback": feedback, "judge_type": "implicit", "iteration": iteration}
            voice.say("judge_verdict", judged, turn.at)
            context.tally.turn(turn.reported(), model=turn.model, day=turn.at.date(), kind="worker", session=worker)
            turns.append(turn)
            if logs:
                logs.step(worker, iteration, turn, verdict)
        if logs:
            if plan.outcome != "crashed":
                error = context.words.error("worker-error") if plan.outcome == "failed" else None
                logs.node(worker, turns, exit_status="failure" if error else "success", error=error)
                logs.end(clock.now)
            logs.save()
        return spent

    def _worker_end(
        self, plan: WorkerPlan, clock: Clock, voice: Stream, *, worker: str, task: str, started: datetime, spent: int
    ) -> None:
        words, at = self.context.words, clock.wait(0.1, 1)
        error = words.error("worker-error") if plan.outcome == "failed" else None
        voice.say("node_loop_completed", {"iterations": plan.turns}, at)
        if plan.outcome != "stopped":
            done: Json = {"worker_id": worker, "colony_id": self.session, "task": task}
            if error:
                voice.say("execution_failed", {**done, "error": error}, at)
            else:
                voice.say("execution_completed", {**done, "success": True, "error": None, "output_keys": []}, at)
        report = {
            "worker_id": worker,
            "colony_id": self.session,
            "task": task,
            "status": plan.outcome,
            "summary": words.text("report-summary"),
            "data": {words.tag("report-key"): words.address()},
            "error": error,
            "duration_seconds": (at - started).total_seconds(),
            "tokens_used": 0 if plan.outcome == "stopped" else spent,
        }
        voice.say("subagent_report", report, at)

    def _worker_files(
        self, plan: WorkerPlan, *, worker: str, folder: str, task: str, started: datetime, ended: datetime
    ) -> None:
        context, words, disk = self.context, self.context.words, self.context.disk
        if context.layout == "v3" and self.colony:
            meta = {
                "worker_id": worker,
                "queen_session_id": self.session,
                "queen_name": self.queen,
                "colony_id": self.colony,
                "spawned_at": started.timestamp(),
                "task": task[:500],
                "profile_name": "",
                "batch_id": None,
                "batch_index": len(self.workers),
                "batch_size": 3,
                "worker_seq": 0,
                "goal": words.text("worker-goal"),
            }
            disk.json(f"{folder}/meta.json", meta, started)
            task_list(context, folder, list_id=None, owner=worker, at=started)
        if plan.is_pruned:
            tombstone = {"status": "completed", "summary": words.text("tombstone"), "error": None, "tokens_used": 0}
            disk.json(f"{folder}/result.json", tombstone, ended)
            return
        conversation(context, f"{folder}/conversations", ["worker-task", "worker-answer"], ended, node=worker)
        if context.layout == "doc":
            state = state_file(
                context,
                session=worker,
                agent=worker,
                goal=f"goal_{self.queen}",
                status="crashed" if plan.outcome == "crashed" else "completed",
                started_at=started,
                ended_at=ended,
                path=[worker],
                run=context.hex(12),
                error=None,
            )
            disk.json(f"{folder}/state.json", state, ended, ascii_only=False)

    def send_workers(self, plans: Sequence[WorkerPlan]) -> None:
        """Workers run side by side: their lines are mixed in one file."""
        heard: list[_Said] = []
        at = self.clock.now
        for plan in plans:
            at += timedelta(seconds=self.context.rng.uniform(0.2, 1.5))
            clock = self.context.clock(at)
            heard += self._worker(plan, clock)
            self.clock.now = max(self.clock.now, clock.now)
        for one in sorted(heard, key=lambda said: said.at):
            self.bus.publish(one.event, one.at)

    def graph_run(self, log: RuntimeLog, runs: JsonLines, *, nodes: Sequence[str], fails: bool) -> None:
        """A graph run in the queen's process: its turns are in her events and, a second time, in its own L3."""
        context, words = self.context, self.context.words
        run = context.hex(12)
        model = context.mill.model()
        started = self.clock.wait(2, 20)
        voice = Stream(context, "default", self.session, self.bus.publish, None)
        log.start(started)
        runs.add(run_event(context, run, "run_started", started))
        self._run_event(voice, "execution_started", {"input": {"task": words.text("graph-input")}}, started, run)
        for node in nodes:
            speaker = replace(voice, node=node)
            turns = []
            for index in range(2):
                at = self.clock.wait(0.5, 3)
                turn = context.mill.turn(self.clock, model=model, step=index)
                speaker.say("node_loop_iteration", {"iteration": self.iteration}, at)
                for call in turn.tools:
                    speaker.tool(call, ended_at=call.at + timedelta(seconds=call.seconds))
                self.bus.publish(speaker.turn_event(turn, self.iteration), turn.at)
                verdict = "ACCEPT" if index else "RETRY"
                feedback = words.text("verdict-feedback")
                judged = {
                    "action": verdict,
                    "feedback": feedback,
                    "judge_type": "implicit",
                    "iteration": self.iteration,
                }
                speaker.say("judge_verdict", judged, turn.at)
                log.step(node, index, turn, verdict)
                context.tally.turn(
                    turn.reported(), model=turn.model, day=turn.at.date(), kind="agent_run", session=self.session
                )
                turns.append(turn)
                self.iteration += 1
            is_broken = fails and node == nodes[-1]
            error = words.error("graph-error") if is_broken else None
            log.node(node, turns, exit_status="failure" if error else "success", error=error)
        ended = self.clock.wait(0.1, 1)
        log.end(ended)
        if fails:
            error = words.error("graph-error")
            self._run_event(voice, "execution_failed", {"error": error}, ended, run)
            runs.add(run_event(context, run, "run_failed", ended, error=error))
        else:
            output = {words.tag("graph-output-key"): words.text("graph-output")}
            self._run_event(voice, "execution_completed", {"output": output}, ended, run)
            runs.add(run_event(context, run, "run_completed", ended))

    def _run_event(self, voice: Stream, kind: str, data: Json, at: datetime, run: str) -> None:
        event = voice.event(kind, data, at)
        self.bus.publish({**event, "correlation_id": self.session, "run_id": run}, at)

    def fork(self, colony: str, *, with_marker: bool) -> QueenSession:
        """The whole folder is copied, history included; the copy then goes its own way."""
        context, words = self.context, self.context.words
        at = self.clock.wait(1, 5)
        self.save()
        child = QueenSession(context, queen=self.queen, start=at, colony=colony, parent=self)
        shutil.copytree(context.disk.root / self.folder, context.disk.root / child.folder)
        child.iteration = self.iteration
        child.meta |= {
            "forked_from": self.session,
            "colony_fork": True,
            "agent_name": words.text("agent-name"),
            "agent_path": words.own_path(f"colonies/{colony}"),
        }
        if context.layout == "v3":
            child.meta["colony_id"] = colony
        context.tally.parents[child.session] = self.session
        created = {
            "colony_name": colony,
            "colony_path": words.own_path(f"colonies/{colony}"),
            "queen_session_id": child.session,
            "is_new": True,
            "task": words.text("colony-task"),
        }
        self._voice.announce("colony_created", created, at)
        self.meta |= {
            "agent_path": words.own_path(f"colonies/{colony}"),
            "colony_spawned": True,
            "spawned_colony_name": colony,
            "spawned_colony_at": at.isoformat(),
        }
        if with_marker:
            preview = words.text("fork-summary", rich=True)
            data = {"parent_session_id": self.session, "fork_time": at.isoformat(), "summary_preview": preview}
            marker = {"type": "colony_fork_marker", "stream_id": "queen", "data": data, "timestamp": at.isoformat()}
            child.bus.log.add(marker, at)
        done = {"status": "done" if with_marker else "failed", "completed_at": at.isoformat()}
        context.disk.json(f"{child.folder}/compaction_status.json", done, at)
        child.open()
        loaded = {"colony_id": colony, "colony_name": colony, "worker_path": created["colony_path"]}
        child._voice.announce("worker_colony_loaded", loaded, child.clock.now)
        return child

    def janitor(self, at: datetime) -> None:
        """Rewrites the event file aside and moves it in: another inode, fewer lines, other bytes, same values."""
        self.bus.log.lines.rewrite(lambda event: event["type"] != "context_usage_updated")
        target = self.context.disk.root / self.bus.log.path
        aside = target.with_suffix(".jsonl.tmp")
        aside.write_bytes(self.bus.log.lines.content())
        aside.replace(target)
        self.context.disk.date(target, at)
        self.context.disk.write(f"{self.folder}/.janitor.lock", b"", at)

    def save(self) -> None:
        """Write everything the session folder holds at this moment."""
        context, at = self.context, self.clock.now
        self.bus.save()
        context.disk.json(f"{self.folder}/meta.json", self.meta, at, indent=None)
        conversation(context, f"{self.folder}/conversations", ["input", "text", "again"], at, node="queen")
        context.disk.write(f"{self.folder}/data/result_1.txt", context.words.text("spilled-result").encode(), at)
        sidebar_cache(context, self.folder, at)
        folder = context.task_list_folder(self.folder, self.session)
        list_id = None if context.layout == "v3" else self._list_id()
        task_list(context, folder, list_id=list_id, owner="queen", at=self.started_at)
        if context.layout == "v2":
            shadow_folder(context, self.session, at)
        if self._logs:
            self._save_logs(at)

    def _save_logs(self, at: datetime) -> None:
        """Only the documented layout has runtime logs and a state for a queen."""
        if self._logs is None:
            return
        fresh, self._steps = self._steps, []
        if fresh:
            self._logs.node("queen", fresh, exit_status="paused")
            self._logs.end(at)
        self._logs.save()
        state = state_file(
            self.context,
            session=self.session,
            agent=self.queen,
            goal=f"goal_{self.queen}",
            status="completed",
            started_at=self.started_at,
            ended_at=at,
            path=["queen"],
            run=self.context.hex(12),
            error=None,
        )
        self.context.disk.json(f"{self.folder}/state.json", state, at, ascii_only=False)
