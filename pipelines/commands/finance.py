"""`apiary period`, `export`, `verify`, `prove` and `reconcile`: what finance types.

Does not belong here: what the commands do (pipelines/billing).
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, store_of
from pipelines.commands.terminal import day as parse_day
from pipelines.home import BusyError, Home, exclusive

if TYPE_CHECKING:
    import duckdb

    from pipelines.billing.exports import Scene
    from pipelines.billing.gate import Check
    from pipelines.billing.periods import Book


def _status(options: argparse.Namespace) -> int:
    from pipelines.billing import closing, periods

    home = Home.from_environment()
    with _warehouse(home) as (connection, book):
        if options.period is None:
            rows: list[list[object]] = [
                [f"{t.period:%Y-%m}", t.after, t.actor, t.reason, f"{t.as_of:%Y-%m-%d %H:%M}"] for t in book.transitions
            ]
            table(["period", "became", "by", "because", "as of (UTC)"], rows)
            frozen = book.closed_through
            print(
                f"closed through {frozen:%Y-%m}; corrections go to {book.oldest_open:%Y-%m}" if frozen else "all open"
            )
            return 0
        period = periods.month_of(options.period)
        ready = closing.readiness(connection, book, period, as_of=options.as_of, checks=_checks(connection))
        if options.json:
            said = {"status": book.status(period), "conditions": [asdict(c) for c in ready.conditions]}
            print(json.dumps(said | {"totals": ready.totals, "totals_sha256": ready.totals_sha256}))
            return 0
        print(f"{options.period} is {book.status(period)}")
        table(
            ["condition", "met", "found", "can be waived"],
            [
                [c.name, "yes" if c.is_met else "NO", c.found, "yes" if c.can_be_waived else "no"]
                for c in ready.conditions
            ],
        )
        _print_totals(ready.totals)
        print(f"closing it signs these totals: --sign {ready.totals_sha256[:12]}")
    return 0


def _close(options: argparse.Namespace) -> int:
    from pipelines.billing import closing, exports, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    waived = dict(_waiver(text) for text in options.waive)
    with _warehouse(home) as (connection, _):
        checks = _checks(connection)
        transition = closing.close(
            connection, home.books, period, actor=options.actor, reason=options.reason, as_of=options.as_of,
            checks=checks, waived=waived, signed=options.sign,
        )  # fmt: skip
        print(f"{options.period} is {transition.after}")
        if transition.after == "closing":
            print(f"late usage is waited for until {transition.grace_until:%Y-%m-%d %H:%M} UTC; then close it again")
            return 0
        scene = _scene(home, connection, options, checks)
        exports.export_days(scene)
        done = exports.export_month(scene, period)
        print(f"sealed {(transition.seal or '')[:12]}; statement: {done.folder}")
    return 0


def _reopen(options: argparse.Namespace) -> int:
    from pipelines.billing import ledger, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    with _warehouse(home) as (connection, book):
        transition = periods.reopen(
            book, period, actor=options.actor, reason=options.reason, as_of=options.as_of,
            requested_by=options.requested_by,
        )  # fmt: skip
        periods.write(ledger.book_path(home.books), transition)
        ledger.load(connection, home.books)
    print(f"{options.period} is open: its files stay as they are, corrections go there after the next `apiary run`")
    return 0


def _export_days(options: argparse.Namespace) -> int:
    from pipelines.billing import exports

    home = Home.from_environment()
    with _warehouse(home) as (connection, _):
        done = exports.export_days(_scene(home, connection, options, _checks(connection)))
    print(f"{len(done)} days looked at, {sum(item.is_new for item in done)} written under {home.exports / 'daily'}")
    return 0


def _export_month(options: argparse.Namespace) -> int:
    from pipelines.billing import exports, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    accepted = exports.Acceptance(options.accept, options.actor, options.reason) if options.accept else None
    with _warehouse(home) as (connection, _):
        scene = _scene(home, connection, options, _checks(connection))
        done = exports.export_month(scene, period, accepted=accepted)
    print(f"{'written' if done.is_new else 'unchanged'}: {done.folder} ({done.rows} rows)")
    return 0


def _restatement(options: argparse.Namespace) -> int:
    from pipelines.billing import exports, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    with _warehouse(home) as (connection, _):
        restated = exports.month_restatement(_scene(home, connection, options, _checks(connection)), period)
    if options.json:
        print(json.dumps(restated, default=str))
        return 0
    names = ["change", "cause", "currency", "billed_cost_before", "billed_cost_after", "row_key"]
    table([name.replace("_", " ") for name in names], [[_exact(row[name]) for name in names] for row in restated])
    print(f"{len(restated)} rows differ from the last version: {exports.restatement_sha256(restated)[:12]}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from pipelines.billing import verify

    verified = verify.verify(options.folder)
    for fault in verified.faults:
        print(f"{fault.path}: {fault.what}")
    print(f"{verified.statements} statements, {verified.files} files, {len(verified.faults)} faults")
    return 1 if verified.faults else 0


def _prove(options: argparse.Namespace) -> int:
    from pipelines.billing import prove
    from pipelines.store import open_store

    home = Home.from_environment()
    with _warehouse(home) as (connection, _):
        proof = prove.prove(connection, options.row, home.exports, open_store(store_of(options)))
    if options.json:
        print(json.dumps(proof.told, default=str))
    else:
        for text in proof.lines:
            print(text)
    return 0 if proof.is_whole else 1


def _reconcile_import(options: argparse.Namespace) -> int:
    from pipelines.billing import provider_reports

    pages = [path.read_text("utf-8") for path in options.pages]
    report = provider_reports.parse_pages(options.kind, pages, pulled_at=options.pulled_at)
    kept = provider_reports.keep(Home.from_environment().books / "provider", report)
    print(f"kept: {kept}; `apiary run` reconciles it")
    return 0


def _reconcile_fetch(options: argparse.Namespace) -> int:
    from pipelines.billing import provider_client, provider_reports

    report = provider_client.fetch(
        options.kind, options.first_day, options.last_day, pulled_at=datetime.now(UTC).replace(microsecond=0)
    )
    kept = provider_reports.keep(Home.from_environment().books / "provider", report)
    print(f"{len(report.pages)} pages kept: {kept}; `apiary run` reconciles them")
    return 0


def _reconcile_show(options: argparse.Namespace) -> int:
    with _warehouse(Home.from_environment()) as (connection, _):
        cursor = connection.execute(
            """
            SELECT usage_date, provider_name, model, token_type, variance_class, explained_by, our_quantity,
                their_quantity, our_cost, their_cost, timing_cost, quantity_cost, price_cost, rounding_cost
            FROM marts.rpt_reconciliation WHERE usage_date BETWEEN ? AND ? ORDER BY ALL
            """,
            [options.first_day or date.min, options.last_day or date.max],
        )
        names = [column[0] for column in cursor.description or []]
        rows = cursor.fetchall()
    if options.json:
        print(json.dumps([dict(zip(names, row, strict=True)) for row in rows], default=str))
    else:
        table([name.replace("_", " ") for name in names], [[_exact(value) for value in row] for row in rows])
    return 0


@contextmanager
def _warehouse(home: Home) -> Iterator[tuple["duckdb.DuckDBPyConnection", "Book"]]:
    """The warehouse with the books as they are now, while no run is at work."""
    import duckdb

    from pipelines.billing import ledger

    if not home.warehouse.exists():
        raise Stop(1, "there is no warehouse yet: `apiary run` makes it")
    try:
        with exclusive(home.root / "warehouse" / "lock"), duckdb.connect(str(home.warehouse)) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            yield connection, ledger.load(connection, home.books)
    except BusyError:
        raise Stop(1, "a run of this warehouse is at work: wait for it to end") from None
    except duckdb.CatalogException:
        raise Stop(1, "the warehouse has no billing marts yet: `apiary run` makes them") from None


def _checks(connection: "duckdb.DuckDBPyConnection") -> list["Check"]:
    from pipelines.billing import gate
    from pipelines.quality import gates

    return [
        check for suite in gates.suites("departure") for check in gate.judged(suite.name, gates.run(suite, connection))
    ]


def _scene(
    home: Home, connection: "duckdb.DuckDBPyConnection", options: argparse.Namespace, checks: list["Check"]
) -> "Scene":
    from pipelines.billing import exports, gate, ledger, periods
    from pipelines.billing.statements import Shelf

    signed = getattr(options, "override_by", ""), getattr(options, "override_reason", "")
    return exports.Scene(
        connection=connection, shelf=Shelf.open(home.exports), book=periods.read(ledger.book_path(home.books)),
        as_of=options.as_of, checks=checks, issuer=exports.issuer(),
        override=gate.Override(*signed) if any(signed) else None,
    )  # fmt: skip


def _print_totals(totals: Mapping[str, Mapping[str, Mapping[str, str]]]) -> None:
    rows: list[list[object]] = [
        [currency, category, int(sums["rows"]), sums["BilledCost"], sums["ListCost"]]
        for currency, categories in totals.items()
        for category, sums in categories.items()
    ]
    table(["currency", "category", "rows", "billed", "list"], rows)


def _exact(value: object) -> object:
    from decimal import Decimal

    from pipelines.contract.numbers import plain

    return plain(value) if isinstance(value, Decimal) else value


def _waiver(text: str) -> tuple[str, str]:
    name, found, reason = text.partition("=")
    if not found or not reason.strip():
        raise Stop(2, f"--waive {text}: write the condition and why, like --waive 'arrivals=the laptop was retired'")
    return name, reason


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no instant: write 2026-11-04T09:00:00Z")
    return moment


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    as_of = argparse.ArgumentParser(add_help=False)
    as_of.add_argument(
        "--as-of", type=_moment, required=True, metavar="T", help="the instant the decision is made for, with its zone"
    )
    signed = argparse.ArgumentParser(add_help=False)
    signed.add_argument("--actor", required=True, metavar="NAME", help="who does it")
    signed.add_argument("--reason", required=True, metavar="TEXT", help="why")
    month = argparse.ArgumentParser(add_help=False)
    month.add_argument("period", metavar="YYYY-MM")
    _add_period(group, shared, month, as_of, signed)
    _add_export(group, shared, month, as_of)
    _add_reconcile(group, shared)
    verify = shared.add(
        group, "verify", "whether statements are what their manifests say; needs the files only", _verify
    )
    verify.add_argument("folder", type=Path, metavar="DIR")
    prove = shared.add(
        group, "prove", "the chain of one row: lines, turns, bytes in the store, price, approver", _prove, shared.store
    )
    prove.add_argument("row", metavar="ROW", help="x_RowKey of a statement")
    prove.add_argument("--json", action="store_true", help="one object on standard output")


def _add_period(group: Any, shared: Shared, *parents: argparse.ArgumentParser) -> None:
    month, as_of, signed = parents
    periods = group.add_parser("period", help="months of billing: open, closing, closed").add_subparsers(
        required=True, metavar="COMMAND"
    )
    status = shared.add(periods, "status", "what is closed; of one month, what stands in the way", _status)
    status.add_argument("period", nargs="?", metavar="YYYY-MM")
    status.add_argument("--as-of", type=_moment, default=datetime.now(UTC), metavar="T", help="default: now")
    status.add_argument("--json", action="store_true", help="one object on standard output")
    close = shared.add(periods, "close", "the next step towards closed", _close, month, as_of, signed)
    close.add_argument("--sign", default="", metavar="TOTALS", help="the totals that `period status` showed")
    close.add_argument("--waive", action="append", default=[], metavar="CONDITION=REASON")
    reopen = shared.add(periods, "reopen", "let corrections into a closed month", _reopen, month, as_of, signed)
    reopen.add_argument("--requested-by", required=True, metavar="NAME", help="who asked for it")


def _add_export(group: Any, shared: Shared, *parents: argparse.ArgumentParser) -> None:
    month, as_of = parents
    override = argparse.ArgumentParser(add_help=False)
    override.add_argument("--override-by", default="", metavar="NAME", help="who writes it although checks fail")
    override.add_argument("--override-reason", default="", metavar="TEXT", help="why; printed in the manifest")
    exports = group.add_parser("export", help="billing statements: CSV, Parquet, manifest").add_subparsers(
        required=True, metavar="COMMAND"
    )
    shared.add(exports, "days", "the statements of days whose rows have changed", _export_days, as_of, override)
    monthly = shared.add(exports, "month", "the statement of one month", _export_month, month, as_of, override)
    monthly.add_argument("--accept", default="", metavar="RESTATEMENT", help="the restatement that was looked at")
    monthly.add_argument("--actor", default="", metavar="NAME", help="who accepts it")
    monthly.add_argument("--reason", default="", metavar="TEXT", help="why")
    restated = shared.add(
        exports, "restatement", "what another version of a month would change", _restatement, month, as_of
    )
    restated.add_argument("--json", action="store_true", help="one array on standard output")


def _add_reconcile(group: Any, shared: Shared) -> None:
    reports = group.add_parser("reconcile", help="our figures against the providers' reports").add_subparsers(
        required=True, metavar="COMMAND"
    )
    kinds = ["openai-costs", "openai-usage", "anthropic-costs", "anthropic-usage"]
    bring = shared.add(reports, "import", "keep a report that was downloaded", _reconcile_import)
    bring.add_argument("kind", choices=kinds)
    bring.add_argument("pages", type=Path, nargs="+", metavar="FILE")
    bring.add_argument("--pulled-at", type=_moment, required=True, metavar="T", help="when it was downloaded")
    fetch = shared.add(reports, "fetch", "ask a provider for a report", _reconcile_fetch)
    fetch.add_argument("kind", choices=kinds)
    fetch.add_argument("--from", dest="first_day", type=parse_day, required=True, metavar="D")
    fetch.add_argument("--to", dest="last_day", type=parse_day, required=True, metavar="D")
    show = shared.add(reports, "show", "the variance by day, provider, model and kind of token", _reconcile_show)
    show.add_argument("--from", dest="first_day", type=parse_day, metavar="D")
    show.add_argument("--to", dest="last_day", type=parse_day, metavar="D")
    show.add_argument("--json", action="store_true", help="one array on standard output")
