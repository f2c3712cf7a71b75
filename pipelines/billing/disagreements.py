"""What it would cost to believe the wrong catalog: contradictions between sources, times the tokens seen.

Does not belong here: finding contradictions (prices.py), deciding them (a person).
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from pipelines.billing import prices
from pipelines.contract.numbers import plain

MILLIONTH = Decimal("0.000001")
SEEN = """
    SELECT coalesce(sum(quantity), 0)
    FROM read_parquet(?)
    WHERE provider_name = ? AND price_model = ?
      AND (component = ? OR (component = 'cache_write_unknown' AND ? = 'cache_write_5m'))
      AND (? & (1 << CAST(isodow(occurred_at AT TIME ZONE 'UTC') - 1 AS INTEGER))) <> 0
      AND epoch_us(occurred_at) // 1000000 % 86400 >= ? AND epoch_us(occurred_at) // 1000000 % 86400 < ?
"""


def report(folders: Sequence[Path], published: Path, *, as_of: datetime) -> list[dict[str, Any]]:
    """Each contradiction with the tokens published so far in its hours, and what they differ by.

    Tokens of a tier are those of all turns: which request passed its threshold is not known. Raises BookError.
    """
    lines = published / "current" / "fct_rated_lines.parquet"
    rows = []
    with duckdb.connect() as connection:
        for found in prices.contradictions(prices.entries(folders), as_of=as_of):
            sheet, tokens = found.sheet, 0
            if lines.exists() and not sheet.is_batch:
                values = [str(lines), sheet.provider_name, sheet.model, found.component, found.component,
                          found.dow_mask, found.tod_from, found.tod_to]  # fmt: skip
                tokens = int((connection.execute(SEEN, values).fetchone() or (0,))[0])
            at_stake = tokens * MILLIONTH * abs(found.price - found.other_price)
            rows.append(
                {
                    "offer": sheet.name, "component": found.component, "from_input_tokens": found.context_tier_min,
                    "weekdays": found.dow_mask, "from_second": found.tod_from, "to_second": found.tod_to,
                    "source": sheet.source.name, "price": plain(found.price), "other_source": found.other.source.name,
                    "other_price": plain(found.other_price), "tokens_seen": tokens, "at_stake": plain(at_stake),
                    "currency": sheet.currency,
                }
            )  # fmt: skip
    return rows
