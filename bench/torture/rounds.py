"""One round: a writer, devices and an ingest at once, killed again and again; then quiet, and the count.

Does not belong here: what a life does (lives.py), adding rounds up (report.py).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from bench.torture import lives, points, truth
from bench.torture.lives import DIED, DONE, FAILED, NO_CONSENT, Counters, Life
from bench.torture.writer import Writer

DRAIN_TRIES = 12
MAX_LIFE_SECONDS = 900.0  # a life that takes longer hangs


@dataclass
class Actor:
    """One program that is started again whenever it is not alive."""

    name: str
    plan: Callable[[], Life]
    counters: Counters = field(default_factory=Counters)
    pid: int = 0
    life: Life = field(default_factory=lambda: Life("", 0))
    started: float = 0.0
    kill_at: float = 0.0
    moment: tuple[int, int] = (0, 0)
    usual: float = 0.3
    """How long a life takes that nobody ends, in seconds."""


@dataclass
class Outcome:
    """What happened in one round, as it is written down."""

    seed: int
    seconds: float = 0.0
    deaths: int = 0
    killed: int = 0
    exited: int = 0
    lives: int = 0
    records: int = 0
    lines: int = 0
    points: dict[str, int] = field(default_factory=dict)
    full_at: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    acts: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    has_small_disk: bool = False
    verdict: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        return not self.problems and all(self.verdict.get(name) == 0 for name in truth.WRONG)


class Round:
    """Everything of one round, under one folder: `homes` for the agents, `disk` for Apiary, which may run full."""

    def __init__(
        self, folder: Path, *, seed: int, deaths: int, records: int, hits: Counter[str], has_small_disk: bool
    ) -> None:
        self.rng = random.Random(seed)
        self.disk, self.notes = folder / "disk", folder / "notes"
        self.agents = folder / "homes"
        for path in (self.disk, self.notes, self.agents):
            path.mkdir(parents=True, exist_ok=True)
        self.writer = Writer(self.agents / "a", seed)
        self.target_deaths, self.target_records = deaths, records
        self.hits = hits
        self.outcome = Outcome(seed, has_small_disk=has_small_disk)
        self.store, self.usb = (self.disk / "store").as_uri(), (self.disk / "usb").as_uri()
        (self.disk / "tenant.key").write_text("5e" * 32)
        self.actors = [self._device("a", self.agents / "a"), Actor("load", self._plan_load)]
        self.needs_consent: set[str] = {"a"}
        self.ballast_until = 0.0
        self.sizes = {
            "batch_rows": self.rng.choice((500, 2000, 5000)),
            "chunk": self.rng.choice((1 << 15, 1 << 17, 1 << 20)),
            "shared_ms": self.rng.choice((5, 20, 100)),
        }

    # running --------------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Torture, then let it come to rest and judge."""
        started = time.monotonic()
        while self.outcome.deaths < self.target_deaths or self.writer.records < self.target_records:
            for actor in list(self.actors):
                if not actor.pid:
                    self._between(actor)
                    self._start(actor, actor.plan())
                else:
                    self._look(actor)
            self._act()
            if self.outcome.problems:
                break
        for actor in self.actors:
            while actor.pid:
                self._look(actor)
                time.sleep(0.001)
        if not self.outcome.problems:
            self._drain()
        self._sum_up(started)
        return self.outcome

    def _act(self) -> None:
        """The writer keeps its pace with the deaths; when it is ahead, the machine belongs to the lives."""
        share = self.outcome.deaths / self.target_deaths
        if self.writer.records <= self.target_records * share + 2000 or self.outcome.deaths >= self.target_deaths:
            for _ in range(5):
                self.writer.act()
        else:
            time.sleep(0.005)
        if self.outcome.has_small_disk:
            self._fill_or_free()

    def _start(self, actor: Actor, life: Life) -> None:
        actor.life, actor.started = life, time.monotonic()
        actor.moment = self.writer.now()
        if life.role == "withdraw":
            self.writer.withdrawn()
        self.outcome.lives += 1
        actor.pid = os.fork()
        if not actor.pid:
            lives.live(life, actor.counters)
        # Who is to die at a point, or to live, is killed only if it hangs.
        is_hunted = life.point is None and not life.is_calm and self.rng.random() < 0.75
        seconds = self.rng.uniform(0.002, 1.2 * actor.usual) if is_hunted else MAX_LIFE_SECONDS
        actor.kill_at = actor.started + seconds

    def _look(self, actor: Actor) -> None:
        pid, status = os.waitpid(actor.pid, os.WNOHANG)
        if not pid:
            if time.monotonic() >= actor.kill_at:
                if actor.kill_at - actor.started >= MAX_LIFE_SECONDS:
                    self.outcome.problems.append(f"a life hangs: {actor.life}")
                os.kill(actor.pid, signal.SIGKILL)
                actor.kill_at += MAX_LIFE_SECONDS
            return
        actor.pid = 0
        self._ended(actor, status)

    def _ended(self, actor: Actor, status: int) -> int:
        code = os.waitstatus_to_exitcode(status)
        life, taken = actor.life, time.monotonic() - actor.started
        if code == -signal.SIGKILL:
            self.outcome.killed += 1
            self.outcome.deaths += 1
        elif code == DIED:
            self.outcome.exited += 1
            self.outcome.deaths += 1
            self.outcome.points[str(life.point)] = self.outcome.points.get(str(life.point), 0) + 1
            self.hits[str(life.point)] += 1
        elif code == FAILED or code < 0:
            text = (self.notes / "errors.txt").read_text()[-6000:] if (self.notes / "errors.txt").exists() else ""
            self.outcome.problems.append(f"{actor.name} {life.role} ended with {code}: {text}")
        else:
            if life.role in ("ship", "load"):
                actor.usual = 0.8 * actor.usual + 0.2 * min(taken, 2.0)
            if life.role == "ship" and code == DONE and life.store == self.store:
                self.writer.sent(life.agents, actor.moment)
            if life.role == "ship" and code == NO_CONSENT:
                self.needs_consent.add(actor.name)
            if life.role == "enrol" and code == DONE:
                self.needs_consent.discard(actor.name)
        return code

    # plans ----------------------------------------------------------------------------------------------------------

    def _device(self, name: str, agents: Path) -> Actor:
        return Actor(name, lambda: self._plan_device(name, agents))

    def _plan_device(self, name: str, agents: Path) -> Life:
        role = "ship"
        if name in self.needs_consent:
            role = "enrol"
        elif name == "a" and self.rng.random() < self._withdrawals():
            role = self.rng.choice(("withdraw", "withdraw", "withdraw", "enrol"))
        usb = name == "b" and role == "ship" and self.rng.random() < 0.3
        life = Life(
            role, self.rng.getrandbits(32), home=self.disk / name, agents=agents,
            store=self.usb if usb else self.store, notes=self.notes, sizes=self.sizes,
        )  # fmt: skip
        names = points.DEVICE if role == "ship" else points.OWNER
        if role == "enrol":
            names = points.OWNER[:3]
        elif role == "withdraw":
            names = points.OWNER[3:]
        life = self._with_point(life, names)
        if life.point == "receipt.pruned":
            life = replace(life, sizes=self.sizes | {"receipt_seconds": 0})
        if life.point is not None and life.point.startswith("bury"):
            life = replace(life, sizes=self.sizes | {"rejected_below": 0.5})
        return life

    def _plan_load(self) -> Life:
        life = Life(
            "load", self.rng.getrandbits(32), home=self.disk / "warehouse", store=self.store, usb=self.usb,
            notes=self.notes,
        )  # fmt: skip
        life.home.mkdir(exist_ok=True)
        return self._with_point(life, points.INGEST)

    def _with_point(self, life: Life, names: tuple[str, ...]) -> Life:
        """Half of all lives die at a point, the rarest first; some find the disk full there."""
        if self.rng.random() > 0.6:
            return life
        weights = [1 / (1 + self.hits[name]) ** 2 + 0.001 for name in names]
        (point,) = self.rng.choices(names, weights)
        passes = 1 if self.hits[point] < 20 else self.rng.choice((1, 1, 2, 5, 20))
        action = "full" if self.rng.random() < 0.12 else "exit"
        return replace(life, point=point, passes=passes, action=action)

    def _withdrawals(self) -> float:
        """How often the owner acts: early, when there is little to read again, and until each of its points was hit."""
        is_rare = min(self.hits[name] for name in points.OWNER) < 20
        often, seldom = (0.4, 0.04) if is_rare else (0.08, 0.003)
        return often if self._is_early() else seldom

    def _is_early(self) -> bool:
        return self.outcome.deaths < self.target_deaths * 0.25

    def _between(self, actor: Actor) -> None:
        """What happens to a device while nothing of it runs: lost and restored states, copies, clones."""
        share = self.outcome.deaths / self.target_deaths
        home, aside = self.disk / actor.name, self.agents / "backups" / actor.name
        if actor.name == "a" and share > 0.3 and len(self.actors) == 2:
            self.writer.copy_home(self.agents / "b")
            self.actors.append(self._device("b", self.agents / "b"))
            self.needs_consent.add("b")
            self._count("copied_home")
        elif actor.name == "a" and share > 0.6 and len(self.actors) == 3:
            self._free()  # a copy of half a state would be another fault than this one
            shutil.copytree(home, self.disk / "c", ignore=shutil.ignore_patterns("lock"))
            self.actors.append(self._device("c", self.agents / "a"))
            self._count("cloned_state")
        elif actor.name in ("a", "b") and actor.name not in self.needs_consent:
            chance = self.rng.random()
            rare = 0.02 if self._is_early() else 0.001
            if chance < rare:
                lives.lose_state(home)
                self.needs_consent.add(actor.name)
                self._count("lost_state")
            elif chance < 2 * rare:
                lives.keep_state(home, aside)
                self._count("backed_up_state")
            elif chance < 3 * rare and lives.restore_state(home, aside):
                self._count("restored_state")
            elif 3 * rare < chance < 4 * rare and (home / "device" / "state.db").exists():
                lives.damage_state(home, self.rng)
                self._count("damaged_state")

    def _count(self, what: str) -> None:
        self.outcome.states[what] = self.outcome.states.get(what, 0) + 1

    def _fill_or_free(self) -> None:
        """The disk runs full, to some random byte, for a moment."""
        now, ballast = time.monotonic(), self.disk / "ballast"
        if self.ballast_until:
            if now >= self.ballast_until:
                self._free()
        elif self.rng.random() < 0.004:
            left = shutil.disk_usage(self.disk).free - self.rng.choice((0, 1 << 14, 1 << 17, 1 << 20))
            if left > 0:
                # A life may take the last bytes first.
                with ballast.open("wb") as file, suppress(OSError):
                    os.posix_fallocate(file.fileno(), 0, left)
                self.ballast_until = now + self.rng.uniform(0.02, 0.3)
                self._count("disk_filled")

    def _free(self) -> None:
        (self.disk / "ballast").unlink(missing_ok=True)
        self.ballast_until = 0.0

    # the end --------------------------------------------------------------------------------------------------------

    def _drain(self) -> None:
        self._free()
        self.writer.finish()
        for actor in [actor for actor in self.actors if actor.name != "load"]:
            for _ in range(DRAIN_TRIES):
                life = replace(self._plan_device(actor.name, actor.plan().agents), point=None, is_calm=True)
                life = replace(life, role="enrol" if actor.name in self.needs_consent else "ship", store=self.store)
                if self._live_through(actor, life) == DONE and life.role == "ship":
                    break
            else:
                self.outcome.problems.append(f"{actor.name} does not come to rest")
        load = next(actor for actor in self.actors if actor.name == "load")
        if self._live_through(load, replace(self._plan_load(), point=None, is_calm=True)) != DONE:
            self.outcome.problems.append("the load does not come to rest")

    def _live_through(self, actor: Actor, life: Life) -> int:
        self._start(actor, life)
        _, status = os.waitpid(actor.pid, 0)
        actor.pid = 0
        return self._ended(actor, status)

    def _sum_up(self, started: float) -> None:
        outcome = self.outcome
        if not outcome.problems:
            outcome.verdict = self._judged()
        outcome.records, outcome.lines, outcome.acts = self.writer.records, self.writer.lines, self.writer.acts
        counted: Counter[str] = Counter()
        for actor in self.actors:
            counted.update(dict(actor.counters.items()))
        outcome.full_at = {name[5:]: times for name, times in counted.items() if name.startswith("full:") and times}
        outcome.faults = {name: times for name, times in counted.items() if not name.startswith("full:") and times}
        outcome.seconds = round(time.monotonic() - started, 1)

    def _judged(self) -> dict[str, Any]:
        """The verdict, made in a child: what counts must not stay in the process that forks."""
        answer = self.notes / "verdict.json"
        pid = os.fork()
        if not pid:
            try:
                verdict = truth.judge(
                    self.disk / "warehouse" / "warehouse.duckdb", self.disk / "warehouse" / "published",
                    self.writer.ranges, refused=self.notes / "refused.txt",
                    summaries=(
                        {number for path, number in self.writer.summaries.items() if path.exists()},
                        self.writer.all_summaries,
                    ),
                )  # fmt: skip
                answer.write_text(json.dumps(asdict(verdict)))
            except BaseException:  # noqa: BLE001 - a child must not come back
                answer.write_text(json.dumps({"failed": traceback.format_exc()}))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        found: dict[str, Any] = json.loads(answer.read_text())
        return found
