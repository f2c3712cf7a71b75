"""`apiary run`, `ingest` and `usage`: what the data team types.

Does not belong here: what the commands do (pipelines/warehouse, pipelines/defs), Dagster's programs (orchestration.py).
"""

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipelines import engine
from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, note, say, store_of
from pipelines.commands.terminal import day as parse_day
from pipelines.contract.numbers import pluralize, words
from pipelines.contract.pseudonyms import renaming
from pipelines.engine import Engine
from pipelines.home import Home

HEADINGS = {
    "input_tokens": "input", "output_tokens": "output", "cache_read_input_tokens": "cache read",
    "cache_write_input_tokens": "cache write", "reported_cost_usd": "reported cost USD",
    "rated_cost_usd": "rated cost USD", "rated_cost_low_usd": "priced turns at least",
    "rated_cost_high_usd": "priced turns at most",
    "unreported_turns": "cost not reported",
}  # fmt: skip
COSTS = ("reported_cost_usd", "rated_cost_usd", "rated_cost_low_usd", "rated_cost_high_usd")
DIMENSIONS = ("model", "tenant", "user", "colony", "session", "agent", "kind", "runtime", "day")
NAMED = 3  # models without a price that are named below the table
LIMIT = 50  # drawing many thousands of rows takes longer than finding them
OPTIONAL = (
    "tool calls", "cache write", "turns", "cost not reported", "turns without a price",
    ("priced turns at least", "priced turns at most"), "reported cost USD", "cache read", "tokens without a price",
)  # fmt: skip
"""Columns of usage that a narrow terminal does without, in this order."""


def _run(options: argparse.Namespace) -> int:
    run_job(Home.from_environment(), store_of(options), day=options.date, is_forced=options.force)
    return 0


def run_job(home: Home, store_url: str, *, day: date | None = None, is_forced: bool = False) -> None:
    """Run the job in this process's environment, once no other run is at work.

    Where nothing can have changed since the last run nothing is done, unless a day is named or it `is_forced`.
    """
    if day is None and not is_forced and _is_unchanged(home, store_url):
        return
    from pipelines.warehouse import arrivals

    with alone(home, store_url, "apiary run") as foreground:
        first, today = arrivals.first_day(home.first_arrival_day), datetime.now(UTC).date()
        if day is not None and not first <= day <= today:
            note(f"arrival days go from {first} to {today}: {day} is none of them, nothing was done")
            return
        note("running the warehouse job")
        foreground.run(home, store_url, day=day)
    note(f"published: {home.published / 'current'}")


def _is_unchanged(home: Home, store_url: str) -> bool:
    """Whether a run would change nothing; then it is told. Dagster is not imported for it."""
    from pipelines.defs import last_run
    from pipelines.store import open_store
    from pipelines.warehouse import lock

    with lock.hold(lock.path_of(home.warehouse), "apiary run", waiting=note):
        store = open_store(store_url)
        since = last_run.unchanged_since(home, store, last_run.inputs(home, store, today=datetime.now(UTC)))
    if since is None:
        return False
    note(f"nothing has changed since the run that ended at {since:%Y-%m-%d %H:%M:%S} UTC: there is nothing to do")
    note(f"published: {home.published / 'current'}")
    return True


@contextmanager
def alone(home: Home, store_url: str, name: str) -> Iterator[Any]:
    """Hold the lock of a warehouse, and what runs its jobs in this process's environment."""
    engine.require(Engine.DUCKDB, Engine.DUCKLAKE)
    from pipelines.store import open_store
    from pipelines.warehouse import arrivals, lock

    os.environ["APIARY_HOME"] = str(home.root)
    os.environ["APIARY_STORE"] = store_url
    os.environ["APIARY_WAREHOUSE"] = str(home.warehouse)
    arrivals.note_first_day(home.first_arrival_day, open_store(store_url))
    from pipelines.defs import foreground  # its partitions begin on that day

    try:
        with foreground.ending_on_signals(), lock.hold(lock.path_of(home.warehouse), name, waiting=note):
            yield foreground
    except BaseException as error:
        # A signal, by Python's name or Dagster's: who ends this process on it has said so and still marks the run. An
        # exit before that would leave the run as if it were at work, and say the same again.
        if not isinstance(error, Exception):
            time.sleep(2 * foreground.STOP_SECONDS)
        raise


def _ingest(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import ingest

    source = options.source.expanduser()
    if not source.is_dir():
        raise Stop(2, f"{source} is no folder: name one that `apiary device export --to` wrote")
    done = ingest.ingest(source, open_store(store_of(options)))
    say(f"{pluralize(done.created, 'object')} brought in, {done.existed} were there already; `apiary run` loads them")
    return 0


def require_order(options: argparse.Namespace) -> None:
    """Raises Stop if `--to` is before `--from`: nothing lies between them, which would look like no usage."""
    if options.first_day and options.last_day and options.last_day < options.first_day:
        raise Stop(2, f"--to {options.last_day} is before --from {options.first_day}")


def _usage(options: argparse.Namespace) -> int:
    from pipelines.warehouse import usage

    require_order(options)
    rows = usage.usage(
        Home.from_environment().published, options.by, first_day=options.first_day, last_day=options.last_day
    )
    if options.json:
        print(json.dumps(rows))
        return 0
    usage_table(rows, is_exact=options.exact, limit=None if options.all else options.limit)
    return 0


def usage_table(rows: Sequence[dict[str, Any]], *, is_exact: bool = False, limit: int | None = None) -> None:
    """Print usage as a table of at most `limit` rows, and what of it has no price."""
    if not rows:
        say("no usage")
        return
    names = [name for name in rows[0] if name != "unpriced_models"]
    shown = rows[:limit]
    cells = [[_usage_cell(row, name) for name in names] for row in shown]
    headings = [HEADINGS.get(name, words(name)) for name in names]
    table(headings, cells, optional=OPTIONAL, is_exact=is_exact)
    if more := len(rows) - len(shown):
        say(f"{pluralize(more, 'more row')}: see all with --all")
    if unpriced := sum(row["unpriced_tokens"] for row in rows):
        tokens = sum(row["input_tokens"] + row["output_tokens"] for row in rows)
        weights: Counter[str] = Counter()
        for row in rows:
            for model in row["unpriced_models"]:
                weights[model] += row["unpriced_tokens"]
        models = [model for model, _ in sorted(weights.items(), key=lambda item: (-item[1], item[0]))]
        if not is_exact:
            models = list(map(renaming(models), models))
        more_models = f" and {len(models) - NAMED} more" if len(models) > NAMED else ""
        say(
            f"the rated cost is of {tokens - unpriced:,} of {pluralize(tokens, 'token')};"
            f" {pluralize(unpriced, 'token has', 'tokens have')} no price:"
            f" {', '.join(models[:NAMED])}{more_models}",
            "`apiary prices coverage` says what they may cost",
        )


def _usage_cell(row: dict[str, Any], name: str) -> object:
    if name == "rated_cost_usd" and row[name] is None and row["unpriced_tokens"]:
        return "no price"
    return Decimal(row[name]) if name in COSTS and row[name] is not None else row[name]


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: write 100")
    return int(text)


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    ingest = shared.add(group, "ingest", "bring in a folder that a device exported", _ingest, shared.store)
    ingest.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
    run = shared.add(group, "run", "load, build, check, publish and export, once", _run, shared.store)
    run.add_argument("--date", type=parse_day, metavar="D", help="only what arrived on this UTC day")
    run.add_argument("--force", action="store_true", help="also if nothing has changed since the last run")
    usage = shared.add(group, "usage", "show usage from the published data", _usage, shared.exact)
    usage.add_argument("--by", required=True, choices=DIMENSIONS)
    usage.add_argument("--from", dest="first_day", type=parse_day, metavar="D", help="first UTC day")
    usage.add_argument("--to", dest="last_day", type=parse_day, metavar="D", help="last UTC day")
    usage.add_argument("--limit", type=_count, default=LIMIT, metavar="N", help=f"rows of the table ({LIMIT})")
    usage.add_argument("--all", action="store_true", help="all rows")
    usage.add_argument("--json", action="store_true", help="one array of all rows on standard output, exact")
