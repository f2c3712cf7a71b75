"""The books as assets: what people signed and what was noted of the pipeline, brought into the warehouse first.

Does not belong here: reading and writing books (billing/books.py, billing/ledger.py).
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.billing import agreements, books, ledger
from pipelines.contract.numbers import pluralize
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.resources import HOME, WRITER, FoldersResource
from pipelines.home import private_folder
from pipelines.warehouse import book_changes, raised_alerts

LEDGER = {
    "periods": "Months that the book of periods knows, as they stand now.",
    "period_events": "The book of periods.",
    "closed_lines": "The lines of closed periods, as they were sealed.",
    "provider_costs": "The buckets of all reports of providers.",
    "restatements": "What versions of statements changed.",
}

ALERTS = ["operation", "alerts"]


def _specs() -> list[dg.AssetSpec]:
    described = {book.name: book.grain for book in books.BOOKS} | {"knowledge": "Up to when the books know."} | LEDGER
    specs = [
        dg.AssetSpec(["billing", name], description=text, **labels("books"), kinds={"duckdb", "csv"})
        for name, text in described.items()
    ]
    noted = "Alerts about the pipeline itself, as they began."
    return [*specs, dg.AssetSpec(ALERTS, description=noted, **labels("books"), kinds={"duckdb"})]


@dg.multi_asset(name="books", specs=_specs(), pool=WRITER, **BY_ARRIVAL)
def signed_books(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, folders: FoldersResource
) -> Iterator[dg.MaterializeResult[None]]:
    """Read every book: the shipped rows, then the site's own."""
    private_folder(Path(duckdb.database).parent)
    signed = [books.SHIPPED, Path(folders.books)]
    with duckdb.get_connection() as connection:
        for budget, reason in agreements.move_budgets(connection, signed, at=agreements.now()).items():
            context.log.warning(f"budget {budget} of an earlier release is not in force: {reason}; `apiary budget set`")
        book_changes.touch(
            connection, {book.name: books.read(book, signed) for book in (books.CACHE_CONVENTIONS, books.SESSION_USERS)}
        )
        rows = books.load(connection, signed)
        ledger.load(connection, Path(folders.books))
        ledger.load_restatements(connection, Path(folders.exports))
        alerts, damaged = raised_alerts.load(connection, HOME.raised_alerts)
    if damaged:
        context.log.warning(f"{pluralize(damaged, 'line')} of {HOME.raised_alerts} cannot be read and is passed over")
    for name, count in rows.items():
        yield dg.MaterializeResult(asset_key=["billing", name], metadata={"rows": count})
    for name in ("knowledge", *LEDGER):
        yield dg.MaterializeResult(asset_key=["billing", name])
    yield dg.MaterializeResult(asset_key=ALERTS, metadata={"rows": alerts})
