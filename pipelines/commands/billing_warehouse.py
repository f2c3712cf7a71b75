"""The warehouse as the commands of finance open it: with the books as they are now, while no run is at work.

Does not belong here: commands (finance.py, periods.py, accounts.py).
"""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipelines.commands.terminal import Stop, progress
from pipelines.home import BusyError, Home, exclusive

if TYPE_CHECKING:
    import duckdb

    from pipelines.billing.exports import ExportContext
    from pipelines.billing.gate import Check
    from pipelines.billing.periods import Book


@contextmanager
def opened(home: Home) -> Iterator[tuple["duckdb.DuckDBPyConnection", "Book"]]:
    """The warehouse and the book of periods; site's books are read anew. Raises Stop."""
    with progress("opening the warehouse"):
        import duckdb

        from pipelines.billing import books, ledger
        from pipelines.warehouse import database

    if not database.exists(home.warehouse):
        raise Stop(1, "there is no warehouse yet: `apiary run` makes it")
    try:
        with exclusive(home.root / "warehouse" / "lock"), database.connect(home.warehouse) as connection:
            with progress("reading the books"):
                connection.execute("SET TimeZone = 'UTC'")
                books.load(connection, [books.SHIPPED, home.books])
                book = ledger.load(connection, home.books)
            yield connection, book
    except BusyError:
        raise Stop(1, "a run of this warehouse is at work: wait for it to end") from None
    except (duckdb.CatalogException, duckdb.BinderException):
        raise Stop(
            1, "the warehouse's billing marts are missing or of another version: `apiary run` makes them"
        ) from None


def checks_of(connection: "duckdb.DuckDBPyConnection") -> list["Check"]:
    """The billing gate, judged now."""
    with progress("checking what is billed"):
        from pipelines.billing import gate
        from pipelines.quality import gates

        return [
            check
            for suite in gates.suites("billing")
            for check in gate.judged(suite.name, gates.run(suite, connection))
        ]


def export_context(
    home: Home, connection: "duckdb.DuckDBPyConnection", options: argparse.Namespace, checks: list["Check"]
) -> "ExportContext":
    """What statements are made from."""
    from pipelines.billing import exports, gate, ledger, periods
    from pipelines.billing.statements import StatementStore

    signed = getattr(options, "override_by", ""), getattr(options, "override_reason", "")
    return exports.ExportContext(
        connection=connection, statements=StatementStore.open(home.exports),
        book=periods.read(ledger.book_path(home.books)), as_of=options.as_of, checks=checks, issuer=exports.issuer(),
        override=gate.Override(*signed) if any(signed) else None, is_attested=True,
    )  # fmt: skip


def moment(text: str) -> datetime:
    """An instant with its zone. Raises argparse.ArgumentTypeError."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no instant: write 2026-11-04T09:00:00Z")
    return found


def _until_now(text: str) -> datetime:
    """An instant that is not in the future. Raises argparse.ArgumentTypeError."""
    from datetime import UTC

    found = moment(text)
    if found > datetime.now(UTC):
        raise argparse.ArgumentTypeError(f"{text} lies in the future: nothing is known as of then")
    return found


def as_of_option(*, required: bool) -> argparse.ArgumentParser:
    """`--as-of`."""
    from datetime import UTC

    parser = argparse.ArgumentParser(add_help=False)
    text = "the instant the decision is made for, with its zone, not after now" + ("" if required else "; default: now")
    default: Any = None if required else datetime.now(UTC)
    parser.add_argument("--as-of", type=_until_now, required=required, default=default, metavar="T", help=text)
    return parser


def signed_options() -> argparse.ArgumentParser:
    """`--actor` and `--reason`: who does it and why."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--actor", required=True, metavar="NAME", help="who does it")
    parser.add_argument("--reason", required=True, metavar="TEXT", help="why")
    return parser


def month_argument() -> argparse.ArgumentParser:
    """The month, as `YYYY-MM`."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("period", metavar="YYYY-MM")
    return parser
