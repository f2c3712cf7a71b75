"""What is told of arrival days. Does not belong here: partitions (tests/defs/test_partitions.py)."""

from datetime import date

from pipelines.contract.wire import MAX_CLAIMED_TOKENS
from pipelines.warehouse import arrivals, landing, load
from tests.warehouse_part.batches import START, MemoryStore, batch, row, wire


def test_a_day_tells_more_tokens_than_a_column_holds() -> None:
    """They are all tenants' together, each within its contract; the sums are for people and stop no load."""
    store, count = MemoryStore(), 2**63 // MAX_CLAIMED_TOKENS + 1
    batch(store, {"control_totals": [row("control_totals", n, input_tokens=MAX_CLAIMED_TOKENS) for n in range(count)]})
    with wire() as connection:
        load.load(connection, store, landing.pending(store, ()))
        days = arrivals.rows_by_day(connection, date.min, date.max)["control_totals"]
    assert days == {START.date(): {"rows": count, "input_tokens": count * MAX_CLAIMED_TOKENS, "output_tokens": count}}
