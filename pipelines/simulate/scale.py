"""Devices of any number with work of any size: homes of all runtimes as agents write them, or the batches of a landing.

Rows that are written directly are those of a device that has read them; what reading would add (copies, torn lines,
other runtimes) is in homes only.
Does not belong here: what a home looks like (homes.py and those beside it), delivering rows (commands/simulate.py).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.contract import wire
from pipelines.contract.table import Table
from pipelines.simulate.claude_code import ClaudeCodeSpec
from pipelines.simulate.counts import Usage
from pipelines.simulate.fleet import DeviceSpec, OtherHome
from pipelines.simulate.homes import HomeSpec, Layout, write_home
from pipelines.simulate.hyperhive import HyperhiveSpec
from pipelines.simulate.openclaw import OpenClawSpec

TENANTS = ("northwind-orchards", "lantern-freight", "quarry-and-sons")
LAYOUTS: tuple[Layout, ...] = ("v2", "v3", "doc")
ZONES = ("America/Los_Angeles", "Europe/Berlin", "Asia/Kolkata", "UTC")
REGIONS = ("us", "eu", "ap")
SESSION_TURNS = 100  # of a long day's session
MODELS = ("claude-opus-4-6", "gpt-5.5", "gemini-3-flash-preview")
TOOLS = ("read_file", "write_file", "web_search", "terminal_exec")
QUEENS = ("queen_technology", "queen_growth", "queen_finance_fundraising")


@dataclass(frozen=True)
class Written:
    """What was written: turns and steps, and their tokens."""

    turns: int = 0
    input_tokens: int = 0
    output_tokens: int = 0

    def __add__(self, other: Written) -> Written:
        return Written(
            self.turns + other.turns, self.input_tokens + other.input_tokens, self.output_tokens + other.output_tokens
        )

    @classmethod
    def of(cls, usage: Usage) -> Written:
        """Of the truth of a home."""
        return cls(usage.turns, usage.input_tokens, usage.output_tokens)


def devices(
    number: int, *, days: int, turns_per_day: int, last_day: date, seed: int = 1, only_hive: bool = False
) -> tuple[DeviceSpec, ...]:
    """So many devices of three tenants. Three of four turns are of Hive, in each of its layouts; the fourth is of one
    of the other runtimes. A home has a fixed cast of special cases beside them."""
    first_day = last_day - timedelta(days=days - 1)
    others = 0 if only_hive else turns_per_day // 4
    return tuple(
        DeviceSpec(
            tenant=TENANTS[place % len(TENANTS)], user=f"user-{place:05}", region=REGIONS[place % len(REGIONS)],
            name=f"device-{place:05}", home=_hive(place, first_day, days, turns_per_day - others, seed),
            other=_other(place, first_day, days, others, seed) if others else None,
        )
        for place in range(number)
    )  # fmt: skip


def _hive(place: int, first_day: date, days: int, turns: int, seed: int) -> HomeSpec:
    sessions = math.ceil(turns / SESSION_TURNS)
    return HomeSpec(
        layout=LAYOUTS[place % len(LAYOUTS)], seed=1_000 * seed + place, timezone=ZONES[place % len(ZONES)],
        first_day=first_day, days=days, queens_per_day=sessions, turns_per_session=math.ceil(turns / sessions),
    )  # fmt: skip


def _other(place: int, first_day: date, days: int, turns: int, seed: int) -> OtherHome:
    seed = 1_000 * seed + place
    match place % 3:
        case 0:
            sessions = math.ceil(turns / SESSION_TURNS)
            return ClaudeCodeSpec(
                seed=seed, first_day=first_day, days=days, sessions_per_day=sessions,
                responses=math.ceil(turns / sessions),
            )  # fmt: skip
        case 1:
            return OpenClawSpec(seed=seed, first_day=first_day, days=days, responses=turns)
        case _:
            return HyperhiveSpec(seed=seed, first_day=first_day, days=days, turns_per_day=turns)


def write_homes(folder: Path, device: DeviceSpec) -> Written:
    """The homes of a device, in folders named by their runtimes."""
    written = Written.of(write_home(folder / "hive", device.home).total)
    return written + Written.of(device.other.write(folder / device.other.folder)) if device.other else written


# A landing -----------------------------------------------------------------------------------------------------------


def rows_of(device: DeviceSpec, redactor: Any, day: date) -> Iterator[tuple[str, dict[str, Any], Written]]:
    """The rows of a device's day by table, as it stages them, and what they count for. `redactor`: the device's."""
    spec, nothing = device.home, Written()
    for place in range(spec.queens_per_day):
        name = f"{device.tenant}/{device.name}/{spec.seed}/{day}/{place}"
        start = datetime(day.year, day.month, day.day, 7 + place % 10, place % 60, tzinfo=UTC)
        session = f"session_{start:%Y%m%d_%H%M%S}_{_hex(name)[:8]}"
        common = {
            "session_id": session, "agent_runtime": "hive", "occurred_at": start, "time_basis": "local_resolved",
            "is_time_ambiguous": False, "utc_offset_seconds": 0, "offset_basis": "device_zone",
        }  # fmt: skip
        yield "sessions", _made(redactor, wire.SESSIONS, name, {
            "session_id": session, "agent_runtime": "hive", "queen_name": QUEENS[place % len(QUEENS)],
            "user_id": device.user, "evidence": "meta", "session_kind": "queen", "status": "completed",
            "phase": "independent", "started_at": start, "observed_at": start + timedelta(hours=2), "is_copy": False,
        }), nothing  # fmt: skip
        turn = _made(redactor, wire.LLM_TURNS, name, {
            **common, "stream_id": "queen", "node_id": "queen", "model": MODELS[place % len(MODELS)],
            "agent_role": "queen", "stop_reason": "tool_calls", "iteration": 0, "input_tokens": 0, "output_tokens": 0,
            "cache_read_input_tokens": 0, "cache_write_input_tokens": 128, "is_copy": False,
        })  # fmt: skip
        call = _made(redactor, wire.TOOL_CALLS, name, {
            **common, "tool_name": TOOLS[place % len(TOOLS)], "origin": "event", "agent_role": "queen",
            "is_error": False, "duration_seconds": 0.25, "is_copy": False,
        })  # fmt: skip
        judged = _made(redactor, wire.STATUS_EVENTS, name, {
            **common, "node_id": "queen", "kind": "judged", "agent_role": "queen", "verdict": "RETRY", "iteration": 0,
        })  # fmt: skip
        for number in range(spec.turns_per_session):
            at = start + timedelta(seconds=11 * number)
            used = 4_000 + 37 * number, 60 + number % 700
            ids = _hex(f"{name}/{number}")
            yield "llm_turns", turn | {
                "record_id": ids[:32], "occurred_at": at, "iteration": number, "input_tokens": used[0],
                "output_tokens": used[1], "cache_read_input_tokens": used[0] // 2,
            }, Written(1, *used)  # fmt: skip
            yield (
                "tool_calls",
                call | {"record_id": ids[16:48], "occurred_at": at, "is_error": number % 9 == 0},
                nothing,
            )
            yield "status_events", judged | {"record_id": ids[32:], "occurred_at": at, "iteration": number}, nothing


def _made(redactor: Any, table: Table, name: str, values: dict[str, Any]) -> dict[str, Any]:
    """A row as it may leave. Raises ValueError if the contract does not take it."""
    row: dict[str, Any] | None = redactor.row(table, {**values, "record_id": _hex(f"{table.name}/{name}")[:32]})
    if row is None:
        raise ValueError(f"the simulated row does not fit {table.name}")
    return row


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
