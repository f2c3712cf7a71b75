"""hyperhive as an agent runtime: which of its files are read, and by which reader.

Does not belong here: where its files lie (layout.py), what they mean (the modules beside).
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

from pipelines.contract import wire
from pipelines.device import lines
from pipelines.device.clock import utc_time
from pipelines.device.readers.base import BadRow, Contents, Group, Item, Json, Reading, Record, Setting, Snapshot
from pipelines.device.readers.claude_code import layout as claude
from pipelines.device.readers.claude_code import transcripts
from pipelines.device.readers.claude_code.runtime import CLAUDE_CODE
from pipelines.device.readers.hyperhive import broker, layout, turns

_TIME = re.compile(rb'"timestamp"\s*:\s*"([0-9T:.+Z-]{10,40})"')
SECOND = timedelta(seconds=1)  # the table's times are whole seconds, cut off
Span = tuple[datetime, datetime]


class Hyperhive:
    """hyperhive's state folders."""

    name = "hyperhive"
    title = "hyperhive"
    versions = "turn statistics with and without the last call's columns; brokers of both places"
    usual_homes = staticmethod(layout.usual_homes)
    is_home = staticmethod(layout.is_home)

    def homes_in(self, home: Path) -> list[Path]:
        """The home: those of its agents are read with it."""
        return [home]

    def contents(self, home: Path, setting: Setting) -> Contents:
        """Transcripts of the agents; then the statistics of their turns, and the broker."""
        agents = layout.agents(home)
        found = [(agent, CLAUDE_CODE.contents(layout.transcripts(agent), setting)) for agent in agents]
        names = frozenset(agent.name for agent in agents)

        def snapshots(reading: Reading) -> Iterator[Snapshot]:
            for agent, contents in found:
                known = turns.Agent(agent.name, names)
                for statistics in layout.statistics(agent):
                    yield _statistics(statistics, agent, known, reading)
                for snapshot in contents.snapshots(reading):
                    yield replace(snapshot, read=partial(_named, snapshot, agent))
            path = layout.broker(home)
            if path is not None:
                yield Snapshot(
                    key="requests", files=(path, _log_of(path)), kind="broker", consent="tasks",
                    read=partial(broker.read, path, reading.scratch),
                )  # fmt: skip

        return Contents([log for _, contents in found for log in contents.logs], snapshots)


HYPERHIVE = Hyperhive()


def _statistics(path: Path, agent: Path, known: turns.Agent, reading: Reading) -> Snapshot:
    own = tuple(found.path for found in claude.transcripts(layout.transcripts(agent)) if found.agent is None)

    def read() -> list[Item | Group]:
        # First the rows: a turn's lines are written before its row.
        rows = turns.read(path, reading.scratch)
        times = _Times(own, rows)
        return list(turns.records(rows, known, times.is_covered))

    return Snapshot(
        key="turns", files=(path, _log_of(path), *own), kind="turn_stats", consent="events", read=read,
    )  # fmt: skip


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _named(snapshot: Snapshot, agent: Path) -> Iterable[Item | Record | Group | BadRow] | None:
    """What a transcript says of its session, with the name of the agent whose it is."""
    items = snapshot.read()
    return (
        None
        if items is None
        else [
            replace(item, values=item.values | {"agent_name": agent.name})
            if isinstance(item, Item)
            and item.table is wire.SESSIONS
            and item.values.get("session_kind") == "agent_session"
            else item
            for item in items
        ]
    )


class _Times:
    """Which turns have lines in transcripts of their agent. Those of sub-agents say nothing: rows leave them out.

    Rows have whole seconds: a line in the second in which one turn ends and another begins is of the later one from its
    prompt on, and before that of the earlier one if anything else is left of that.
    """

    def __init__(self, paths: Iterable[Path], rows: Iterable[turns.Turn]) -> None:
        self._since: datetime | None = None
        self._covered: set[Span] = set()
        # Turns of an agent follow one another: in the order of their starts those before an instant are looked at from
        # the last one back, as far as the longest turn reaches.
        spans = sorted({(turn.started_at, turn.ended_at + SECOND) for turn in rows})
        starts = [start for start, _ in spans]
        longest = max((end - start for start, end in spans), default=SECOND)
        shared: list[tuple[datetime, list[Span]]] = []
        begun: dict[Span, datetime] = {}
        for path in paths:
            for data in _lines(path):
                for text in map(bytes.decode, _TIME.findall(data)):
                    at = utc_time(text)
                    if at is None:
                        continue
                    if (self._since is None or at < self._since) and _own_lines(data, text):
                        self._since = at
                    first, last = bisect_left(starts, at - longest), bisect_right(starts, at)
                    within = [span for span in spans[first:last] if at < span[1]]
                    if self._covered.issuperset(within) or not (found := _own_lines(data, text)):
                        continue
                    if len(within) == 1:
                        self._covered.update(within)
                        continue
                    shared.append((at, within))
                    if any(map(transcripts.is_prompt, found)):
                        begun[within[-1]] = min(at, begun.get(within[-1], at))
        for at, within in shared:
            *earlier, later = within
            is_all_shared = later[1] <= max(end for _, end in earlier)
            if is_all_shared or at >= begun.get(later, at + SECOND) or self._covered.isdisjoint(earlier):
                self._covered.add(later)

    def is_covered(self, turn: turns.Turn) -> bool:
        """Whether a line stands within it. A turn that says it used nothing needs none where transcripts begin before
        it: had it made a response, they would hold it."""
        is_within = (turn.started_at, turn.ended_at + SECOND) in self._covered
        return is_within or (not turn.tokens and self._since is not None and self._since <= turn.started_at)


def _own_lines(data: bytes, text: str) -> list[Json]:
    """The entries whose own time it is: it is not of something in them, nor of a sub-agent."""
    return [
        found
        for _, found in lines.parse(data, transcripts.is_record, errors="replace").records
        if found.get("timestamp") == text and found.get("isSidechain") is not True
    ]


def _lines(path: Path) -> Iterator[bytes]:
    try:
        for chunk in lines.read_new(path, lines.Checkpoint()):
            yield from (line.data for line in chunk.lines if line.data is not None)
    except (FileNotFoundError, lines.UnreadableError):
        return  # of what cannot be read there is no usage but the row's
