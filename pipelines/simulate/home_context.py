"""What the writers of one simulated home share: random numbers, words, disk, tally, calendar,
and where the layout puts things.

Makes no content and writes no file.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal
from zoneinfo import ZoneInfo

from pipelines.simulate.counts import Tally
from pipelines.simulate.disk import Disk
from pipelines.simulate.turns import Clock, Mill
from pipelines.simulate.words import Words

Layout = Literal["v2", "v3", "doc"]


@dataclass(frozen=True)
class Calendar:
    """The device's zone. Hive writes local time without a zone in some places and UTC in others."""

    zone: ZoneInfo

    def instant(self, day: date, hour: float) -> datetime:
        """The instant of an hour of a local day."""
        local = datetime.combine(day, time(), tzinfo=self.zone) + timedelta(hours=hour)
        return local.astimezone(UTC)

    def naive(self, at: datetime) -> str:
        """Local time without a zone, as events carry it."""
        return at.astimezone(self.zone).replace(tzinfo=None).isoformat()

    def stamp(self, at: datetime) -> str:
        """Local time as session ids carry it."""
        return at.astimezone(self.zone).strftime("%Y%m%d_%H%M%S")


@dataclass(frozen=True)
class HomeContext:
    """What the writers of one home share: the layout, random numbers, words, the disk, counts and the time zone."""

    layout: Layout
    rng: random.Random
    words: Words
    mill: Mill
    disk: Disk
    tally: Tally
    calendar: Calendar

    def hex(self, digits: int) -> str:
        """Random hexadecimal digits."""
        return f"{self.rng.getrandbits(4 * digits):0{digits}x}"

    def session_id(self, at: datetime) -> str:
        """The id of a session or a worker."""
        return f"session_{self.calendar.stamp(at)}_{self.hex(8)}"

    def task_id(self) -> str:
        """A random UUID."""
        return str(uuid.UUID(int=self.rng.getrandbits(128), version=4))

    def clock(self, at: datetime) -> Clock:
        """A clock that starts within a second of the given time."""
        return Clock(at + timedelta(microseconds=self.rng.randrange(1_000_000)), self.rng)

    def queen_folder(self, queen: str, session: str, colony: str | None) -> str:
        """Where a queen's session lies."""
        if self.layout == "doc":
            return f"sessions/{session}"
        if self.layout == "v2":
            return f"agents/queens/{queen}/sessions/{session}"
        return (
            f"colonies/{colony}/queens/{queen}/sessions/{session}" if colony else f"queens/{queen}/sessions/{session}"
        )

    def worker_folder(self, queen_folder: str, worker: str, colony: str | None) -> str:
        """Where a parallel worker lies."""
        if self.layout == "doc":
            return f"sessions/{worker}"
        if self.layout == "v3" and colony:
            return f"colonies/{colony}/workers/{worker}"
        return f"{queen_folder}/workers/{worker}"

    def task_list_folder(self, queen_folder: str, session: str) -> str:
        """Where the task list of a queen's session lies."""
        return f"agents/queen/sessions/{session}" if self.layout == "doc" else queen_folder

    def agent_folder(self, agent: str, session: str) -> str:
        """Where a standalone agent's session lies."""
        return f"sessions/{session}" if self.layout == "doc" else f"agents/{agent}/sessions/{session}"
