"""`apiary compare`: homes of agents as another program counts them, for development.

Does not belong here: how they are compared (pipelines/peers).
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, homes_of, say, tell
from pipelines.home import Home

if TYPE_CHECKING:
    from pipelines.peers.ccusage import Comparison


def _compare(options: argparse.Namespace) -> int:
    from pipelines.peers import ccusage

    homes: list[Path] = homes_of(options)
    try:
        found = list(ccusage.compare(ccusage.program(Home.from_environment()), homes))
    except ccusage.MissingError as error:
        tell(0, f"skipped: {error}")
        return 0
    if not found:
        raise Stop(2, "none of these homes is one that ccusage reads: name one of Claude Code or OpenClaw with --home")
    if options.json:
        print(json.dumps([vars(one) for one in found], default=_plain))
        return 0
    for one in found:
        _show(one)
    return 0


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else vars(value)


def _show(one: "Comparison") -> None:
    names = list(one.ours)
    say(f"{one.runtime}: {', '.join(map(str, one.homes))}")
    table(
        ["who", *(name.replace("_", " ") for name in names), "seconds"],
        [
            ["ccusage", *one.peer.values(), round(one.peer_seconds, 2)],
            ["apiary", *one.ours.values(), round(one.our_seconds, 2)],
        ],
    )
    reasons: dict[str, list[Any]] = defaultdict(lambda: [0, *(0 for _ in names)])
    for difference in one.differences:
        row = reasons[difference.reason]
        reasons[difference.reason] = [row[0] + 1, *(row[n + 1] + difference.off[name] for n, name in enumerate(names))]
    rows = [[reason, *counts] for reason, counts in sorted(reasons.items())]
    if any(one.not_explained.values()):
        rows.append(["not explained", None, *one.not_explained.values()])
    if rows:
        say("\nwhat ccusage counts more or less, by response (each of them: --json)")
        table(["why", "responses", *(name.replace("_", " ") for name in names)], rows)
    print()


def add(group: Any, shared: Shared) -> None:
    """The command under `apiary`."""
    about = "what another program counts of the same homes, and why it differs (development)"
    command = shared.add(group, "compare", about, _compare, shared.homes)
    command.add_argument(
        "--with", dest="peer", choices=["ccusage"], default="ccusage", help="the npm program (ccusage)"
    )
    command.add_argument("--json", action="store_true", help="every response that is counted differently")
