"""Rating and plans alone: books and turns are put in, the models are real, and what they say comes out.

Many small cases in a second, where a whole build takes several. Does not belong here: what is right (test_rating.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipelines.billing import books
from tests.billing.ledgers import RATED, rating_tables
from tests.warehouse import schema_of

Row = dict[str, Any]


class Rating:
    """One warehouse in memory that is asked again and again."""

    def __init__(self, models: Mapping[str, str], folder: Path) -> None:
        """`folder`: the books, which may grow between questions."""
        self.models = models
        self.folder = folder
        self.connection = duckdb.connect(":memory:")
        self.connection.execute("attach ':memory:' as warehouse; use warehouse; set TimeZone = 'UTC'")
        rating_tables(self.connection)
        self.connection.execute("drop table marts.dim_billing_accounts; drop table marts.fct_rated_lines")
        self.sign()
        for name in ("stg_billing__knowledge", "stg_billing__periods", *RATED):
            self.connection.execute(f"create view {schema_of(name)}.{name} as {models[name]}")

    def sign(self) -> None:
        """Read the books anew."""
        books.load(self.connection, [self.folder])

    def rate(self, turns: Iterable[Row], columns: str = "*") -> list[tuple[Any, ...]]:
        """The rated lines of some turns, in an order of their own."""
        self.put("marts.fct_llm_turns", [turn | {"turn_id": turn["record_id"]} for turn in turns])
        self.connection.execute(
            """
            update marts.fct_llm_turns set usage_date = cast(occurred_at at time zone 'UTC' as date);
            delete from rating.int_billing__rating_days;
            insert into rating.int_billing__rating_days
            select distinct tenant_id, usage_date, 1, 1 from marts.fct_llm_turns
            """
        )
        return self.connection.execute(f"select {columns} from marts.fct_rated_lines order by all").fetchall()

    def put(self, table: str, rows: Sequence[Row]) -> None:
        """These rows and no others, as far as the table has columns for them."""
        self.connection.execute(f"delete from {table}")
        if not rows:
            return
        found = self.connection.execute(f"select * from {table} limit 0").to_arrow_table().schema
        names = [name for name in found.names if name in rows[0]]
        arrow = pa.Table.from_pylist(list(rows), schema=pa.schema([found.field(name) for name in names]))
        self.connection.register("given_rows", arrow)
        self.connection.execute(f"insert into {table} by name select * from given_rows")
        self.connection.unregister("given_rows")
