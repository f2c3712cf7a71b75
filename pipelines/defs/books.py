"""The books as assets: what people signed, brought into the warehouse before the models rate by it.

Does not belong here: reading and writing books (billing/books.py).
"""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.billing import books
from pipelines.defs.resources import WRITER, FoldersResource
from pipelines.home import private_folder


def _specs() -> list[dg.AssetSpec]:
    described = {book.name: book.grain for book in books.BOOKS} | {"knowledge": "Up to when the books know."}
    return [
        dg.AssetSpec(["billing", name], description=text, group_name="billing", kinds={"duckdb", "csv"})
        for name, text in described.items()
    ]


@dg.multi_asset(name="books", specs=_specs(), pool=WRITER)
def signed_books(duckdb: DuckDBResource, folders: FoldersResource) -> Iterator[dg.MaterializeResult[None]]:
    """Read every book: the shipped rows, then the site's own."""
    private_folder(Path(duckdb.database).parent)
    with duckdb.get_connection() as connection:
        rows = books.load(connection, [books.SHIPPED, Path(folders.books)])
    for name, count in rows.items():
        yield dg.MaterializeResult(asset_key=["billing", name], metadata={"rows": count})
    yield dg.MaterializeResult(asset_key=["billing", "knowledge"])
