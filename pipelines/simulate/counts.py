"""The exact usage of a home: counted once, at the moment each turn is made.

Never reads a file back: a truth taken from the files would share the reader's mistakes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import date
from decimal import Context, Decimal

UNKNOWN_MODEL = "unknown"
# The default context rounds at 28 digits, which a long sum of 17-digit floats can reach.
_EXACT = Context(prec=80)


@dataclass(frozen=True)
class Usage:
    """Sums over turns. Cache tokens are subsets of the input tokens. A tool call counts with its turn."""

    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_input_tokens: int = 0
    cache_write_input_tokens: int = 0
    tool_calls: int = 0
    reported_cost_usd: Decimal = Decimal(0)
    unreported_turns: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            turns=self.turns + other.turns,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_input_tokens=self.cache_read_input_tokens + other.cache_read_input_tokens,
            cache_write_input_tokens=self.cache_write_input_tokens + other.cache_write_input_tokens,
            tool_calls=self.tool_calls + other.tool_calls,
            reported_cost_usd=_EXACT.add(self.reported_cost_usd, other.reported_cost_usd),
            unreported_turns=self.unreported_turns + other.unreported_turns,
        )


@dataclass(frozen=True)
class Truth:
    """What a perfect reader of one home would report.

    `by_utc_day` goes by the true instant; a turn known only from L3 lies in a session that stays within one UTC day,
    because its lines carry no time. `torn_lines` counts broken fragments in every file, copies included;
    `lost_turns` counts the turns that went with them, once. `tasks_by_status` covers progress.db wherever it lies.
    """

    total: Usage
    by_model: dict[str, Usage]
    by_utc_day: dict[date, Usage]
    by_agent_kind: dict[str, Usage]
    by_session: dict[str, Usage]
    raw_turn_lines: int
    torn_lines: int
    lost_turns: int
    tasks_by_status: dict[str, int]
    parents: dict[str, str]
    private: tuple[str, ...]


def _usages() -> defaultdict[str, Usage]:
    return defaultdict(Usage)


def _days() -> defaultdict[date, Usage]:
    return defaultdict(Usage)


def _numbers() -> defaultdict[str, int]:
    return defaultdict(int)


@dataclass
class Tally:
    """Counts while a home is being made. Files report their raw and torn lines last, when they are complete."""

    total: Usage = Usage()
    by_model: defaultdict[str, Usage] = field(default_factory=_usages)
    by_utc_day: defaultdict[date, Usage] = field(default_factory=_days)
    by_agent_kind: defaultdict[str, Usage] = field(default_factory=_usages)
    by_session: defaultdict[str, Usage] = field(default_factory=_usages)
    tasks: defaultdict[str, int] = field(default_factory=_numbers)
    parents: dict[str, str] = field(default_factory=dict)
    lost_turns: int = 0
    raw_sources: list[Callable[[], int]] = field(default_factory=list)
    torn_sources: list[Callable[[], int]] = field(default_factory=list)

    def turn(self, usage: Usage, *, model: str, day: date, kind: str, session: str) -> None:
        """Count a turn under its model, UTC day, kind of agent and session."""
        self.total += usage
        self.by_model[model] += usage
        self.by_utc_day[day] += usage
        self.by_agent_kind[kind] += usage
        self.by_session[session] += usage

    def close(self, private: tuple[str, ...]) -> Truth:
        """The truth, once every file is complete."""
        return Truth(
            total=self.total,
            by_model=dict(self.by_model),
            by_utc_day=dict(self.by_utc_day),
            by_agent_kind=dict(self.by_agent_kind),
            by_session=dict(self.by_session),
            raw_turn_lines=sum(count() for count in self.raw_sources),
            torn_lines=sum(count() for count in self.torn_sources),
            lost_turns=self.lost_turns,
            tasks_by_status=dict(self.tasks),
            parents=dict(self.parents),
            private=private,
        )
