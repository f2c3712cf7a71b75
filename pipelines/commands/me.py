"""`apiary me`: what the agents of this machine used, for its owner, in a base install.

Does not belong here: counting (pipelines/device/own_usage.py), prices (pipelines/list_prices).
"""

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, progress, say, seconds, tell, terminal_width
from pipelines.contract.numbers import money, pluralize
from pipelines.home import BusyError, Home

if TYPE_CHECKING:
    from pipelines.device.own_sums import Found, Sum
    from pipelines.device.own_usage import Turn

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


def cells(sums: Iterable["Sum"]) -> list[object]:
    """A row of a table: the total of these sums."""
    from pipelines.device.own_sums import total

    found = total(sums)
    cost = _cost(found)
    notes = [found.reported is not None and "r", cost is not None and found.uncosted > 0 and "n"]
    text = "no price" if cost is None and found.turns else money(cost)
    share = f"{found.read * 100 / found.input:.0f}%" if found.input else "-"
    return [found.turns, found.input, share, found.output, text, " ".join(note for note in notes if note)]


def exact(sums: Iterable["Sum"]) -> dict[str, Any]:
    """All of the total of these sums; costs as text, in USD."""
    from pipelines.device.own_sums import total

    found = total(sums)
    return {
        "turns": found.turns, "input_tokens": found.input, "cache_read_input_tokens": found.read,
        "cache_write_input_tokens": found.written, "output_tokens": found.output,
        "cost_usd": _exact(_cost(found)), "rated_cost_usd": _exact(found.rated),
        "reported_only_cost_usd": _exact(found.reported), "reported_cost_usd": _exact(found.source_reported),
        "unpriced_tokens": found.unpriced, "uncosted_tokens": found.uncosted,
    }  # fmt: skip


def _cost(total: "Sum") -> Decimal | None:
    """The book's price where it has one, else what the source reported; None if there is neither."""
    costs = [cost for cost in (total.rated, total.reported) if cost is not None]
    with localcontext(prec=80):
        return sum(costs, Decimal(0)) if costs else None


COLUMNS = ("turns", "input tokens", "from cache", "output tokens", "cost USD", "note")
OPTIONAL = ("output tokens", "turns")


def _exact(cost: Decimal | None) -> str | None:
    return None if cost is None else f"{cost.normalize():f}"


def _me(options: argparse.Namespace) -> int:
    from pipelines.device import homes as agent_homes
    from pipelines.device import own_sums, own_usage

    own = Home.from_environment()
    if options.forget:
        was_kept = own_sums.forget(own)
        say("what was kept of your usage is removed" if was_kept else "nothing was kept of your usage")
        return 0
    homes, problems = agent_homes.named_homes(options.home) if options.home else (agent_homes.usual(), [])
    if not homes:
        raise Stop(2, "no agent home was found in the usual places: name one with --home")
    timezone = own_usage.zone_of(options.timezone)
    zone = ZoneInfo(timezone)
    folder = own_sums.place(own, homes, timezone) if options.keep or own_sums.is_kept(own) else None
    summed, made_with = summing(zone)
    told: set[str] = set()
    try:
        with own_sums.opened(homes, timezone=timezone, summed=summed, made_with=made_with, folder=folder) as sums:
            while True:
                now = datetime.now(UTC)
                with progress("reading") as step:
                    found = sums.read(now=now, progress=None if told else step)
                view = _View(
                    found, now.astimezone(zone), timezone, homes, options.period, options.by or DIMENSIONS, folder
                )
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
    except BusyError:
        raise Stop(1, f"another `apiary me` keeps what it reads in {folder}: wait for it to end") from None


def summing(zone: ZoneInfo) -> tuple[Callable[["Turn"], "Sum"], str]:
    """What makes a turn a sum of one, with its day in the owner's zone and its cost by the shipped price book; and what
    that is made with. A turn whose time nothing tells has no day and no price."""
    from pipelines.device.own_sums import sum_of
    from pipelines.list_prices import ListPrices, Usage, edition

    books: list[ListPrices] = []  # opened for the first turn: where nothing is new there is none

    def summed(turn: "Turn") -> "Sum":
        if turn.occurred_at is None:
            return sum_of(turn, None, None)
        if not books:
            books.append(ListPrices())
        cost = books[0].cost(
            Usage(
                turn.source_model, turn.occurred_at, turn.input_tokens, turn.cache_read_input_tokens,
                turn.cache_write_input_tokens, turn.cache_write_5m_input_tokens, turn.cache_write_1h_input_tokens,
                turn.output_tokens, turn.service_tier, turn.speed,
            )
        )  # fmt: skip
        return sum_of(turn, turn.occurred_at.astimezone(zone).date(), cost)

    return summed, edition()


def within(sums: Iterable["Sum"], period: str, today: date) -> list["Sum"]:
    """The sums of a period that ends with today. A week begins on Monday."""
    if period == "all":
        return list(sums)
    first = {"today": today, "week": today - timedelta(days=today.weekday()), "month": today.replace(day=1)}[period]
    return [each for each in sums if each.day is not None and first <= each.day <= today]


def grouped(sums: Iterable["Sum"], dimension: str) -> dict[str, list["Sum"]]:
    """Sums by model, project, agent or day: days in order, else those with the most tokens first."""
    groups: dict[str, list[Sum]] = {}
    for each in sums:
        day = each.day.isoformat() if each.day else "no time"
        name = {"model": each.model, "project": each.project, "agent": each.agent, "day": day}[dimension]
        groups.setdefault(name, []).append(each)
    ordered = sorted(groups.items())
    if dimension == "day":
        return dict(ordered)
    return dict(sorted(ordered, key=lambda item: -sum(each.input + each.output for each in item[1])))


def sparkline(numbers: Sequence[int]) -> str:
    """A bar for each number, by its share of the largest; a dot for none."""
    most = max(numbers, default=0)
    return "".join(BARS[(number * len(BARS) - 1) // most] if number else "·" for number in numbers)


def _trend(sums: Iterable["Sum"], today: date) -> list[tuple[date, int]]:
    tokens: Counter[date | None] = Counter()
    for each in sums:
        tokens[each.day] += each.input + each.output
    days = [today - timedelta(days=back) for back in range(TREND_DAYS - 1, -1, -1)]
    return [(each, tokens[each]) for each in days]


@dataclass(frozen=True)
class _View:
    """What was asked for, of what was found."""

    found: "Found"
    now: datetime
    timezone: str
    homes: Sequence[Path]
    period: str
    dimensions: Sequence[str]
    kept_in: Path | None

    @property
    def sums(self) -> list["Sum"]:
        """All that was used."""
        return self.found.sums

    @property
    def today(self) -> date:
        """The day in the owner's zone."""
        return self.now.date()

    def as_json(self) -> dict[str, Any]:
        """All of it, exact."""
        shown = within(self.sums, self.period, self.today)
        by = {
            name: [{name: value, **exact(sums)} for value, sums in grouped(shown, name).items()]
            for name in self.dimensions
        }
        return {
            "today": self.today.isoformat(), "timezone": self.timezone, "homes": [str(home) for home in self.homes],
            "step_turns": _steps(self.sums), "held_turns": self.found.held_turns,
            "rejected_lines": self.found.rejected_lines,
            "totals": {name: exact(within(self.sums, name, self.today)) for name in PERIODS},
            "period": self.period, "by": by,
            "tokens_by_day": {day.isoformat(): tokens for day, tokens in _trend(self.sums, self.today)},
        }  # fmt: skip

    def print(self) -> None:
        """As tables."""
        say(f"{self.now:%Y-%m-%d %H:%M:%S} in {self.timezone}; read here and now, nothing is sent")
        if self.kept_in is not None:
            say(f"sums are kept in {self.kept_in} (--forget removes them)")
        for home in self.homes:
            say(f"  {home}")
        rows = [[TITLES[name], *cells(within(self.sums, name, self.today))] for name in PERIODS]
        notes = _table("period", rows)
        trend = _trend(self.sums, self.today)
        if any(tokens for _, tokens in trend):
            say(f"\ntokens a day, {trend[0][0]} to {self.today}: {sparkline([tokens for _, tokens in trend])}")
        shown = within(self.sums, self.period, self.today)
        last = max((each.day for each in self.sums if each.day), default=None)
        if not shown:
            used = f"the last use was on {last}: see it with `apiary me --period all`" if last else "nor ever before"
            say(f"\nnothing was used {TITLES[self.period]}; {used}")
        for dimension in self.dimensions if shown else ():
            say(f"\n{TITLES[self.period]} by {dimension}")
            groups = grouped(shown, dimension)
            names = _shortened(list(groups))
            notes |= _table(dimension, [[names[name], *cells(sums)] for name, sums in groups.items()])
        print()
        for note in sorted(notes):
            say(f"{note}: {NOTES[note]}")
        if steps := _steps(self.sums):
            say(
                f"in step logs only, without a model: {pluralize(steps, 'turn')}, counted where no event of the session"
                " has the same tokens"
            )
        if self.found.held_turns:
            say(f"not counted: {pluralize(self.found.held_turns, 'turn')} with a time later than now")
        if self.found.rejected_lines:
            say(f"not counted: {pluralize(self.found.rejected_lines, 'torn or unreadable line')}")


def _steps(sums: Iterable["Sum"]) -> int:
    return sum(each.turns for each in sums if each.is_step)


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
    text = "show the usage in your own agents' homes: read on this machine, nothing is sent, or kept unless asked"
    me = shared.add(group, "me", text, _me, shared.homes)
    me.add_argument("--period", choices=PERIODS, default="month", help="what the tables by name are of (month)")
    me.add_argument("--by", choices=DIMENSIONS, action="append", help="one of the tables; may be given several times")
    me.add_argument(
        "--watch", type=seconds, nargs="?", const=5.0, metavar="5s", help="show it again and again, until Ctrl-C (5s)"
    )
    keeping = me.add_mutually_exclusive_group()
    keeping.add_argument(
        "--keep", action="store_true", help="from now on keep sums of what was read on this machine, to be faster"
    )
    keeping.add_argument("--forget", action="store_true", help="remove what was kept, and keep nothing from now on")
    me.add_argument("--timezone", metavar="ZONE", help="of days and of Hive's local times (that of this machine)")
    me.add_argument("--json", action="store_true", help="exact numbers, in clear, for programs")
