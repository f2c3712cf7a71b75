"""`apiary export`, `verify`, `prove` and `reconcile`: what finance types.

Does not belong here: what the commands do (pipelines/billing), closing a month (periods.py), accounts (accounts.py).
"""

import argparse
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pipelines.commands.billing_warehouse import (
    as_of_option,
    checks_of,
    export_context,
    moment,
    month_argument,
    opened,
)
from pipelines.commands.names import say
from pipelines.commands.tables import as_json, show
from pipelines.commands.terminal import Shared, Stop, note, progress, store_of
from pipelines.commands.terminal import day as parse_day
from pipelines.commands.warehouse import require_order
from pipelines.contract.numbers import pluralize
from pipelines.home import Home

# Columns of a reconciliation that a narrow terminal does without, in this order.
NO_REPORT = "no_report"  # of rpt_reconciliation
PARTS = ("rounding cost", "timing cost", "quantity cost", "price cost", "our quantity", "their quantity")


def _export_days(options: argparse.Namespace) -> int:
    from pipelines.billing import attestation, exports

    home = Home.from_environment()
    with opened(home) as (connection, _):
        checks = checks_of(connection)
        with progress("writing statements"):
            done = exports.export_days(export_context(home, connection, options, checks))
            attestation.attest(home.exports, home.books, as_of=options.as_of)
    written = sum(item.is_new for item in done)
    say(f"{pluralize(len(done), 'day')} looked at, {written} written under {home.exports / 'daily'}")
    return 0


def _export_month(options: argparse.Namespace) -> int:
    from pipelines.billing import attestation, closing, current, exports, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    accepted = exports.Acceptance(options.accept, options.actor, options.reason) if options.accept else None
    if accepted and not options.account:
        raise Stop(2, "an acceptance is of one account's statement: name it with --account")
    with opened(home) as (connection, book):
        checks, held = checks_of(connection), dict[str, str]()
        with progress("writing statements"):
            export = export_context(home, connection, options, checks)
            if options.account:
                done = [exports.export_month(export, period, options.account, accepted=accepted)]
            else:
                done, held = exports.export_months(export, period, closing.accounts_of(connection, book, period))
            current.refresh(export.statements)
            attestation.attest(home.exports, home.books, as_of=options.as_of)
    for item in done:
        say(f"{'written' if item.is_new else 'unchanged'}: {item.folder} ({pluralize(item.rows, 'row')})")
    for account, reason in held.items():
        say(f"held back: {account}: {reason}")
    return 1 if held else 0


def _alerts(options: argparse.Namespace) -> int:
    from pipelines.billing import alert_messages, closing, export_alerts

    home = Home.from_environment()
    last_month = (options.as_of.date().replace(day=1) - timedelta(days=1)).replace(day=1)
    with opened(home) as (connection, book):
        export = export_context(home, connection, options, checks_of(connection))
        alerts = export_alerts.find(export, closing.accounts_of(connection, book, last_month))
        export_alerts.write(home.exports, alerts)
    say(alert_messages.text(alerts))
    for failure in alert_messages.deliver(home.exports, alerts):
        note(failure)
    return 1 if alerts else 0


def _restatement(options: argparse.Namespace) -> int:
    from pipelines.billing import exports, periods

    home = Home.from_environment()
    period = periods.month_of(options.period)
    with opened(home) as (connection, _):
        export = export_context(home, connection, options, checks_of(connection))
        restated = exports.month_restatement(export, period, options.account)
    if options.json:
        print(as_json(restated))
        return 0
    names = ["change", "cause", "currency", "billed_cost_before", "billed_cost_after", "row_key"]
    show([{name: row[name] for name in names} for row in restated], nothing="no row", is_exact=options.exact)
    differing = pluralize(len(restated), "row differs", "rows differ")
    say(f"{differing} from the last version: {exports.restatement_sha256(restated)[:12]}")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from pipelines.billing import verify
    from pipelines.store import open_store

    home = Home.from_environment()
    books = options.books
    if books is None and options.folder.resolve() == home.exports.resolve():
        books = home.books
    anchor = open_store(options.anchor) if options.anchor else None
    verified = verify.verify(options.folder, books=books, anchor=anchor, public_key=options.public_key)
    for fault in verified.faults:
        say(f"{fault.path}: {fault.what}")
    say(
        f"{pluralize(verified.statements, 'statement')}, {pluralize(verified.files, 'file')},"
        f" {pluralize(len(verified.faults), 'fault')}"
    )
    return 1 if verified.faults else 0


def _prove(options: argparse.Namespace) -> int:
    from pipelines.billing import prove
    from pipelines.store import open_store

    home = Home.from_environment()
    with opened(home) as (connection, book), progress("following the chain"):
        proof = prove.prove(connection, options.row, home.exports, open_store(store_of(options)), book)
    if options.json:
        print(as_json(proof.told))
    else:
        for text in proof.lines:
            say(text)
    return 0 if proof.is_whole else 1


def _reconcile_import(options: argparse.Namespace) -> int:
    from pipelines.billing import provider_reports

    pages = [path.read_text("utf-8") for path in options.pages]
    report = provider_reports.parse_pages(options.kind, pages, pulled_at=options.pulled_at)
    kept = provider_reports.keep(Home.from_environment().books / "provider", report)
    say(f"kept: {kept}; `apiary run` reconciles it")
    return 0


def _reconcile_fetch(options: argparse.Namespace) -> int:
    from pipelines.billing import provider_client, provider_reports

    require_order(options)
    report = provider_client.fetch(
        options.kind, options.first_day, options.last_day, pulled_at=datetime.now(UTC).replace(microsecond=0)
    )
    kept = provider_reports.keep(Home.from_environment().books / "provider", report)
    say(f"{pluralize(len(report.pages), 'page')} kept: {kept}; `apiary run` reconciles them")
    return 0


def _reconcile_show(options: argparse.Namespace) -> int:
    require_order(options)
    with opened(Home.from_environment()) as (connection, _):
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
    told = [dict(zip(names, row, strict=True)) for row in rows]
    compared = [row for row in told if row["explained_by"] != NO_REPORT]
    show(
        told if options.json else compared, nothing="no provider's report is reconciled in this time",
        is_json=options.json, is_exact=options.exact, optional=PARTS,
    )  # fmt: skip
    if not options.json and (missing := sorted({row["provider_name"] for row in told if row not in compared})):
        say(
            f"without a report: {', '.join(missing)}; bring one with `apiary reconcile import`, or ask for it with"
            " `apiary reconcile fetch`"
        )
    return 0


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    _add_export(group, shared)
    _add_reconcile(group, shared)
    verify = shared.add(
        group, "verify", "whether statements are what their manifests say; needs the files only", _verify
    )
    verify.add_argument("folder", type=Path, metavar="DIR")
    verify.add_argument("--books", type=Path, metavar="DIR", help="the book of periods; default: of these exports")
    verify.add_argument("--anchor", metavar="URL", default=os.environ.get("APIARY_ANCHOR"),
                        help="where copies of the signed heads are (or APIARY_ANCHOR)")  # fmt: skip
    verify.add_argument("--public-key", metavar="HEX", help="the only key whose signature counts")
    prove = shared.add(
        group, "prove", "the chain of one row: lines, turns, bytes in the store, price, approver", _prove, shared.store
    )
    prove.add_argument("row", metavar="ROW", help="x_RowKey of a statement")
    prove.add_argument("--json", action="store_true", help="one object on standard output")


def _add_export(group: Any, shared: Shared) -> None:
    month, as_of = month_argument(), as_of_option(required=True)
    override = argparse.ArgumentParser(add_help=False)
    override.add_argument("--override-by", default="", metavar="NAME", help="who writes it although checks fail")
    override.add_argument("--override-reason", default="", metavar="TEXT", help="why; printed in the manifest")
    exports = group.add_parser("export", help="billing statements: CSV, Parquet, manifest").add_subparsers(
        required=True, metavar="COMMAND"
    )
    shared.add(exports, "days", "the statements of days whose rows have changed", _export_days, as_of, override)
    monthly = shared.add(exports, "month", "the statements of one month", _export_month, month, as_of, override)
    monthly.add_argument("--account", metavar="ID", help="one account's only; default: all")
    monthly.add_argument("--accept", default="", metavar="RESTATEMENT", help="the restatement that was looked at")
    monthly.add_argument("--actor", default="", metavar="NAME", help="who accepts it")
    monthly.add_argument("--reason", default="", metavar="TEXT", help="why")
    shared.add(
        exports, "alerts", "what is missing, late or held back; tells the people who are to know", _alerts,
        as_of_option(required=False),
    )  # fmt: skip
    restated = shared.add(
        exports,
        "restatement",
        "what another version of a month would change",
        _restatement,
        month,
        as_of,
        shared.exact,
    )
    restated.add_argument("--account", required=True, metavar="ID", help="whose statement")
    restated.add_argument("--json", action="store_true", help="one array on standard output")


def _add_reconcile(group: Any, shared: Shared) -> None:
    reports = group.add_parser("reconcile", help="our figures against the providers' reports").add_subparsers(
        required=True, metavar="COMMAND"
    )
    kinds = ["openai-costs", "openai-usage", "anthropic-costs", "anthropic-usage"]
    bring = shared.add(reports, "import", "keep a report that was downloaded", _reconcile_import)
    bring.add_argument("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))
    bring.add_argument("pages", type=Path, nargs="+", metavar="FILE")
    bring.add_argument("--pulled-at", type=moment, required=True, metavar="T", help="when it was downloaded")
    fetch = shared.add(reports, "fetch", "ask a provider for a report", _reconcile_fetch)
    fetch.add_argument("kind", choices=kinds, metavar="KIND", help=", ".join(kinds))
    fetch.add_argument("--from", dest="first_day", type=parse_day, required=True, metavar="D")
    fetch.add_argument("--to", dest="last_day", type=parse_day, required=True, metavar="D")
    shown = shared.add(
        reports, "show", "the variance by day, provider, model and kind of token", _reconcile_show, shared.exact
    )
    shown.add_argument("--from", dest="first_day", type=parse_day, metavar="D")
    shown.add_argument("--to", dest="last_day", type=parse_day, metavar="D")
    shown.add_argument("--json", action="store_true", help="one array on standard output")
