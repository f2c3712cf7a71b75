"""`apiary me`: what the agents of this machine used, for its owner, in a base install.

Does not belong here: counting (pipelines/device/own_usage.py), prices (pipelines/list_prices).
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, progress, say, seconds, tell, terminal_width
from pipelines.contract.numbers import money, pluralize

if TYPE_CHECKING:
    from pipelines.device.own_usage import OwnUsage, Turn
    from pipelines.list_prices import ListPrices

PERIODS = ("today", "week", "month", "all")
TITLES = {"today": "today", "week": "this week", "month": "this month", "all": "all time"}
DIMENSIONS = ("model", "project", "agent", "day")
TREND_DAYS = 30
CLEARED = "\x1b[H\x1b[2J\x1b[3J"  # the screen, and the cursor at its beginning
LONGEST_NAME = 30  # on a terminal
BARS = "▁▂▃▄▅▆▇█"
NOTES = {
    "r": "the source's own estimate is part of the cost, for turns that the shipped price book has no price for",
    "n": "the cost is without some tokens, which nothing tells a price of",
}


@dataclass(frozen=True)
class Costed:
    """A turn with its day in the owner's zone, and its cost by the shipped price book."""

    turn: "Turn"
    day: date | None
    rated_cost_usd: Decimal | None


class Totals:
    """Sums of turns. Costs are exact, in USD; a turn has the book's price, else its reported cost, else none.

    `unpriced`: tokens of turns without the book's price, as in the warehouse; `uncosted`: those without any cost.
    `source_reported` is what the sources reported of all turns, also of those that the book has a price for.
    """

    def __init__(self, turns: Iterable[Costed]) -> None:
        self.turns = self.input = self.read = self.written = self.output = self.unpriced = self.uncosted = 0
        self.rated: Decimal | None = None
        self.reported: Decimal | None = None
        self.source_reported = Decimal(0)
        with localcontext(prec=80):
            for each in turns:
                turn = each.turn
                self.turns += 1
                self.input += turn.input_tokens
                self.read += turn.cache_read_input_tokens
                self.written += turn.cache_write_input_tokens
                self.output += turn.output_tokens
                self.source_reported += turn.reported_cost_usd or 0
                if each.rated_cost_usd is not None:
                    self.rated = (self.rated or Decimal(0)) + each.rated_cost_usd
                    continue
                self.unpriced += turn.input_tokens + turn.output_tokens
                if turn.reported_cost_usd is not None:
                    self.reported = (self.reported or Decimal(0)) + turn.reported_cost_usd
                else:
                    self.uncosted += turn.input_tokens + turn.output_tokens
            costs = [cost for cost in (self.rated, self.reported) if cost is not None]
            self.cost = sum(costs, Decimal(0)) if costs else None

    def cells(self) -> list[object]:
        """Its row of a table."""
        notes = [self.reported is not None and "r", self.cost is not None and self.uncosted > 0 and "n"]
        cost = "no price" if self.cost is None and self.turns else money(self.cost)
        share = f"{self.read * 100 / self.input:.0f}%" if self.input else "-"
        return [self.turns, self.input, share, self.output, cost, " ".join(note for note in notes if note)]

    def as_json(self) -> dict[str, Any]:
        """All of it, exact; costs as text."""
        return {
            "turns": self.turns, "input_tokens": self.input, "cache_read_input_tokens": self.read,
            "cache_write_input_tokens": self.written, "output_tokens": self.output,
            "cost_usd": _exact(self.cost), "rated_cost_usd": _exact(self.rated),
            "reported_only_cost_usd": _exact(self.reported), "reported_cost_usd": _exact(self.source_reported),
            "unpriced_tokens": self.unpriced, "uncosted_tokens": self.uncosted,
        }  # fmt: skip


COLUMNS = ("turns", "input tokens", "from cache", "output tokens", "cost USD", "note")
OPTIONAL = ("output tokens", "turns")


def _exact(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost.normalize():f}"


def _me(options: argparse.Namespace) -> int:
    from pipelines.device import homes as agent_homes
    from pipelines.device import own_usage
    from pipelines.list_prices import ListPrices

    homes, problems = agent_homes.named_homes(options.home) if options.home else (agent_homes.usual(), [])
    if not homes:
        raise Stop(2, "no agent home was found in the usual places: name one with --home")
    timezone = own_usage.zone_of(options.timezone)
    zone, prices = ZoneInfo(timezone), ListPrices()
    told: set[str] = set()
    with closing(own_usage.Reader(homes, timezone=timezone)) as reader:
        while True:
            now = datetime.now(UTC)
            with progress("reading") as step:
                found = reader.read(now=now, progress=None if told else step)
            view = _View(
                found, costed(found, zone, prices), now.astimezone(zone), timezone, homes, options.period,
                options.by or DIMENSIONS,
            )  # fmt: skip
            if options.json:
                print(json.dumps(view.as_json()))
            else:
                if options.watch and sys.stdout.isatty():
                    sys.stdout.write(CLEARED)
                view.print()
            for problem in (*problems, *found.problems):
                if problem not in told:
                    tell(0, problem)
            told |= {*problems, *found.problems}
            if not options.watch:
                return 0
            sys.stdout.flush()
            time.sleep(options.watch)


def costed(found: "OwnUsage", zone: ZoneInfo, prices: "ListPrices") -> list[Costed]:
    """The turns with their costs. A turn whose time nothing tells has no day and no price."""
    from pipelines.list_prices import Usage

    return [
        Costed(
            turn,
            turn.occurred_at.astimezone(zone).date() if turn.occurred_at else None,
            None if turn.occurred_at is None else prices.cost(
                Usage(
                    turn.source_model, turn.occurred_at, turn.input_tokens, turn.cache_read_input_tokens,
                    turn.cache_write_input_tokens, turn.cache_write_5m_input_tokens, turn.cache_write_1h_input_tokens,
                    turn.output_tokens, turn.service_tier, turn.speed,
                )
            ),
        )
        for turn in found.turns
    ]  # fmt: skip


def within(turns: Iterable[Costed], period: str, today: date) -> list[Costed]:
    """The turns of a period that ends with today. A week begins on Monday."""
    if period == "all":
        return list(turns)
    first = {"today": today, "week": today - timedelta(days=today.weekday()), "month": today.replace(day=1)}[period]
    return [each for each in turns if each.day is not None and first <= each.day <= today]


def grouped(turns: Iterable[Costed], dimension: str) -> dict[str, Totals]:
    """Totals by model, project, agent or day: days in order, else the one with the most tokens first."""
    key: Mapping[str, Callable[[Costed], str]] = {
        "model": lambda each: each.turn.model, "project": lambda each: each.turn.project,
        "agent": lambda each: each.turn.agent,
        "day": lambda each: each.day.isoformat() if each.day else "no time",
    }  # fmt: skip
    groups: dict[str, list[Costed]] = {}
    for each in turns:
        groups.setdefault(key[dimension](each), []).append(each)
    totals = {name: Totals(group) for name, group in sorted(groups.items())}
    if dimension == "day":
        return totals
    return dict(sorted(totals.items(), key=lambda item: -(item[1].input + item[1].output)))


def sparkline(numbers: Sequence[int]) -> str:
    """A bar for each number, by its share of the largest; a dot for none."""
    most = max(numbers, default=0)
    return "".join(BARS[(number * len(BARS) - 1) // most] if number else "·" for number in numbers)


def _trend(turns: Iterable[Costed], today: date) -> list[tuple[date, int]]:
    tokens: Counter[date | None] = Counter()
    for each in turns:
        tokens[each.day] += each.turn.input_tokens + each.turn.output_tokens
    days = [today - timedelta(days=back) for back in range(TREND_DAYS - 1, -1, -1)]
    return [(each, tokens[each]) for each in days]


@dataclass(frozen=True)
class _View:
    """What was asked for, of what was found."""

    found: "OwnUsage"
    turns: list[Costed]
    now: datetime
    timezone: str
    homes: Sequence[Path]
    period: str
    dimensions: Sequence[str]

    @property
    def today(self) -> date:
        """The day in the owner's zone."""
        return self.now.date()

    def as_json(self) -> dict[str, Any]:
        """All of it, exact."""
        shown = within(self.turns, self.period, self.today)
        by = {
            name: [{name: value, **totals.as_json()} for value, totals in grouped(shown, name).items()]
            for name in self.dimensions
        }
        return {
            "today": self.today.isoformat(), "timezone": self.timezone, "homes": [str(home) for home in self.homes],
            "step_turns": _steps(self.turns), "held_turns": self.found.held_turns,
            "rejected_lines": self.found.rejected_lines,
            "totals": {name: Totals(within(self.turns, name, self.today)).as_json() for name in PERIODS},
            "period": self.period, "by": by,
            "tokens_by_day": {day.isoformat(): tokens for day, tokens in _trend(self.turns, self.today)},
        }  # fmt: skip

    def print(self) -> None:
        """As tables."""
        say(f"{self.now:%Y-%m-%d %H:%M:%S} in {self.timezone}; read here and now, nothing is kept or sent")
        for home in self.homes:
            say(f"  {home}")
        rows = [[TITLES[name], *Totals(within(self.turns, name, self.today)).cells()] for name in PERIODS]
        notes = _table("period", rows)
        trend = _trend(self.turns, self.today)
        if any(tokens for _, tokens in trend):
            say(f"\ntokens a day, {trend[0][0]} to {self.today}: {sparkline([tokens for _, tokens in trend])}")
        shown = within(self.turns, self.period, self.today)
        last = max((each.day for each in self.turns if each.day), default=None)
        if not shown:
            used = f"the last use was on {last}: see it with `apiary me --period all`" if last else "nor ever before"
            say(f"\nnothing was used {TITLES[self.period]}; {used}")
        for dimension in self.dimensions if shown else ():
            say(f"\n{TITLES[self.period]} by {dimension}")
            groups = grouped(shown, dimension)
            names = _shortened(list(groups))
            notes |= _table(dimension, [[names[name], *totals.cells()] for name, totals in groups.items()])
        print()
        for note in sorted(notes):
            say(f"{note}: {NOTES[note]}")
        if steps := _steps(self.turns):
            say(
                f"in step logs only, without a model: {pluralize(steps, 'turn')}, counted where no event of the session"
                " has the same tokens"
            )
        if self.found.held_turns:
            say(f"not counted: {pluralize(self.found.held_turns, 'turn')} with a time later than now")
        if self.found.rejected_lines:
            say(f"not counted: {pluralize(self.found.rejected_lines, 'torn or unreadable line')}")


def _steps(turns: Iterable[Costed]) -> int:
    return sum(each.turn.turn_source == "step" for each in turns)


def _table(name: str, rows: list[list[object]]) -> set[str]:
    """Print it; the notes that stand in it."""
    names, optional = [name, *COLUMNS], OPTIONAL
    notes = {note for row in rows for note in str(row[-1]).split()}
    if not notes:
        names, rows = names[:-1], [row[:-1] for row in rows]
    table(names, rows, optional=optional)
    return notes


def _shortened(names: Sequence[str]) -> dict[str, str]:
    """Names as a terminal shows them: long ones by their end, as long as that tells them apart."""
    home = str(Path.home())
    shown = {name: f"~{name[len(home) :]}" if name.startswith(f"{home}/") else name for name in names}
    if terminal_width() is None:
        return shown
    short = {name: f"…{text[1 - LONGEST_NAME :]}" if len(text) > LONGEST_NAME else text for name, text in shown.items()}
    return short if len(set(short.values())) == len(short) else shown


def add(group: Any, shared: Shared) -> None:
    """The command under `apiary`."""
    text = "show the usage in your own agents' homes: read on this machine, nothing is kept or sent"
    me = shared.add(group, "me", text, _me, shared.homes)
    me.add_argument("--period", choices=PERIODS, default="month", help="what the tables by name are of (month)")
    me.add_argument("--by", choices=DIMENSIONS, action="append", help="one of the tables; may be given several times")
    me.add_argument(
        "--watch", type=seconds, nargs="?", const=5.0, metavar="5s", help="show it again and again, until Ctrl-C (5s)"
    )
    me.add_argument("--timezone", metavar="ZONE", help="of days and of Hive's local times (that of this machine)")
    me.add_argument("--json", action="store_true", help="exact numbers, in clear, for programs")
