"""The default fleet of the demo: a few tenants, their devices and homes. Also joins the truths of several homes.

Writes nothing: each device's home is written from its spec.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TypeVar

from pipelines.simulate.claude_code import ClaudeCodeSpec
from pipelines.simulate.homes import HomeSpec, Layout, Truth, Usage
from pipelines.simulate.hyperhive import HyperhiveSpec
from pipelines.simulate.openclaw import OpenClawSpec

_Key = TypeVar("_Key")
OtherHome = ClaudeCodeSpec | OpenClawSpec | HyperhiveSpec
_OTHERS: tuple[type[OtherHome], ...] = (ClaudeCodeSpec, OpenClawSpec, HyperhiveSpec)


@dataclass(frozen=True, kw_only=True)
class DeviceSpec:
    """One enrolled device. Tenant, user and region travel as they are, so they never look like an address."""

    tenant: str
    user: str
    region: str
    home: HomeSpec
    name: str
    other: OtherHome | None = None
    """A second home, of another runtime."""


_DEVICES: tuple[tuple[str, str, str, str, Layout, str, int], ...] = (
    ("northwind-orchards", "nadia-brook", "us", "nadia-laptop", "v2", "America/Los_Angeles", 1),
    ("northwind-orchards", "tomas-varga", "eu", "tomas-desktop", "v3", "Europe/Berlin", 2),
    ("lantern-freight", "ravi-osei", "ap", "ravi-laptop", "v3", "Asia/Kolkata", 1),
    ("lantern-freight", "ines-moreau", "ap", "ines-laptop", "doc", "Australia/Lord_Howe", 1),
    ("quarry-and-sons", "greta-quist", "eu", "greta-laptop", "v2", "UTC", 2),
    ("quarry-and-sons", "build-server", "us", "build-server", "doc", "America/New_York", 1),
)


def demo_fleet(*, last_day: date, days: int = 4, seed: int = 1) -> tuple[DeviceSpec, ...]:
    """Three tenants with two devices each; three of these have a home of another runtime beside Hive's.

    Work ends on the evening of `last_day`, in each device's own zone."""
    return tuple(
        DeviceSpec(
            tenant=tenant,
            user=user,
            region=region,
            name=name,
            home=HomeSpec(
                layout=layout,
                seed=100 * seed + number,
                timezone=zone,
                first_day=last_day - timedelta(days=days - 1),
                days=days,
                queens_per_day=queens,
            ),
            other=_OTHERS[number % len(_OTHERS)](
                seed=100 * seed + number, first_day=last_day - timedelta(days=days - 1), days=days
            )
            if number < len(_OTHERS)
            else None,
        )
        for number, (tenant, user, region, name, layout, zone, queens) in enumerate(_DEVICES)
    )


def _joined(parts: Iterable[Mapping[_Key, Usage]]) -> dict[_Key, Usage]:
    sums: defaultdict[_Key, Usage] = defaultdict(Usage)
    for part in parts:
        for key, usage in part.items():
            sums[key] += usage
    return dict(sums)


def merge(truths: Iterable[Truth]) -> Truth:
    """One truth for several homes."""
    all_of_them = tuple(truths)
    tasks: defaultdict[str, int] = defaultdict(int)
    for truth in all_of_them:
        for status, number in truth.tasks_by_status.items():
            tasks[status] += number
    return Truth(
        total=sum((truth.total for truth in all_of_them), Usage()),
        by_model=_joined(truth.by_model for truth in all_of_them),
        by_utc_day=_joined(truth.by_utc_day for truth in all_of_them),
        by_agent_kind=_joined(truth.by_agent_kind for truth in all_of_them),
        by_session=_joined(truth.by_session for truth in all_of_them),
        raw_turn_lines=sum(truth.raw_turn_lines for truth in all_of_them),
        torn_lines=sum(truth.torn_lines for truth in all_of_them),
        lost_turns=sum(truth.lost_turns for truth in all_of_them),
        tasks_by_status=dict(tasks),
        parents={child: parent for truth in all_of_them for child, parent in truth.parents.items()},
        private=tuple(dict.fromkeys(text for truth in all_of_them for text in truth.private)),
    )
