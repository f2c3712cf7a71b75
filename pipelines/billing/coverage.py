"""How much of what was used has a price, and one decision for all that has none yet.

Does not belong here: what a sheet is and who may approve it (prices.py), rating (models/).
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path

import duckdb

from pipelines.billing import plausibility, prices
from pipelines.billing.prices import Entry, PriceError, Sheet

MILLIONTH = Decimal("0.000001")
# A write whose lifetime the log does not tell is charged as the shorter one.
PRICED_AS = {"cache_write_unknown": "cache_write_5m"}
USED = """
    SELECT lines.model, lines.provider_name, lines.price_model, lines.component, sum(lines.quantity)::BIGINT AS tokens,
        coalesce(sum(lines.quantity) FILTER (WHERE lines.contracted_unit_price IS NULL), 0)::BIGINT AS unpriced,
        coalesce(bool_and(prices.approved_by = 'quorum') FILTER (WHERE lines.price_id IS NOT NULL), false) AS is_agreed
    FROM read_parquet($lines) AS lines
    LEFT JOIN read_parquet($prices) AS prices ON lines.price_id = prices.price_id
    WHERE lines.quantity > 0 AND ($first IS NULL OR lines.usage_date >= $first)
        AND ($end IS NULL OR lines.usage_date < $end)
    GROUP BY ALL ORDER BY ALL
"""
MAY_COST = """
    SELECT model, currency, sum(low_cost), CASE WHEN bool_and(high_cost IS NOT NULL) THEN sum(high_cost) END
    FROM read_parquet($lines)
    WHERE quantity > 0 AND contracted_unit_price IS NULL
        AND ($first IS NULL OR usage_date >= $first) AND ($end IS NULL OR usage_date < $end)
    GROUP BY model, currency HAVING count(low_cost) > 0 ORDER BY ALL
"""


@dataclass
class Used:
    """A model that was used: its tokens by component, and the sheets that may become its price, by source."""

    model: str
    provider_name: str | None
    price_model: str | None
    tokens: int = 0
    unpriced_tokens: int = 0
    is_agreed: bool = True
    unpriced: dict[str, int] = field(default_factory=dict)
    candidates: dict[str, list[Sheet]] = field(default_factory=dict)
    is_contested: bool = False
    may_cost: dict[str, tuple[Decimal, Decimal | None]] = field(default_factory=dict)
    """By currency, the least and the most that its tokens without a price come to by all prices that are known; no most
    where some of them have none."""

    @property
    def status(self) -> str:
        """One of agreed (two sources state it), priced, contested (sources contradict), proposed, missing."""
        if self.unpriced_tokens == 0:
            return "agreed" if self.is_agreed else "priced"
        if not self.candidates:
            return "missing"
        return "contested" if self.is_contested else "proposed"

    def at_stake(self) -> dict[str, tuple[Decimal, Decimal]]:
        """By source, what the tokens without a price cost at its cheapest and at its dearest hour."""
        found = {}
        for source, sheets in self.candidates.items():
            low = high = Decimal(0)
            for component, tokens in self.unpriced.items():
                name = PRICED_AS.get(component, component)
                stated = [
                    p.unit_price for s in sheets for p in s.prices if p.component == name and not p.context_tier_min
                ]
                if stated:
                    low += tokens * MILLIONTH * min(stated)
                    high += tokens * MILLIONTH * max(stated)
            found[source] = (low, high)
        return found


def used(
    folders: Sequence[Path], published: Path, *, now: datetime, first: object = None, end: object = None
) -> list[Used]:
    """Every model of the published usage (UTC days from `first` up to, not including, `end`), most tokens first."""
    current = published / "current"
    if not (current / "fct_rated_lines.parquet").exists():
        raise PriceError("nothing is published yet: `apiary run` first")
    given = {"lines": str(current / "fct_rated_lines.parquet"), "first": first, "end": end}
    with duckdb.connect() as connection:
        rows = connection.execute(USED, given | {"prices": str(current / "dim_prices.parquet")}).fetchall()
        bounds = connection.execute(MAY_COST, given).fetchall()
    book = prices.entries(folders)
    contested = {d.sheet.offer[:2] for d in prices.contradictions(book, as_of=now) if d.context_tier_min == 0}
    undecided: dict[tuple[str, str], list[Entry]] = defaultdict(list)
    for entry in book:
        if not entry.decisions and not entry.sheet.is_batch and entry.sheet.service_tier == "standard":
            undecided[entry.sheet.offer[:2]].append(entry)
    found: dict[str, Used] = {}
    for model, provider, price_model, component, tokens, unpriced, is_agreed in rows:
        one = found.setdefault(model, Used(model, provider, price_model))
        one.tokens += tokens
        one.unpriced_tokens += unpriced
        one.is_agreed = one.is_agreed and bool(is_agreed)
        if unpriced:
            one.unpriced[component] = one.unpriced.get(component, 0) + unpriced
    for model, currency, low, high in bounds:
        found[model].may_cost[currency] = low, high
    for one in found.values():
        offer = (one.provider_name or "", one.price_model or "")
        one.is_contested = offer in contested
        for entry in undecided[offer]:
            one.candidates.setdefault(entry.sheet.source.name, []).append(entry.sheet)
    return sorted(found.values(), key=lambda one: (-one.tokens, one.model))


def settle(
    folders: Sequence[Path], models: Collection[Used], *, prefer: str, by: str, reason: str, now: datetime,
    is_accepted: bool,
) -> list[Sheet]:  # fmt: skip
    """Approve a price for every model without one that some source has, in one decision. Raises PriceError.

    `prefer`: a source, or `lowest` or `highest` of what the tokens would cost; a model that the source does not have
    takes the one it has.
    """
    chosen: dict[str, Sheet] = {}
    approved = prices.approved(prices.entries(folders), known_at=now)
    for one in models:
        if not one.unpriced_tokens or not one.candidates:
            continue
        taken = [entry.sheet for entry in approved if entry.sheet.offer[:2] == (one.provider_name, one.price_model)]
        for sheet in one.candidates[_source(one.at_stake(), prefer)]:
            rivals = [other for other in (*taken, *chosen.values()) if other.offer == sheet.offer]
            if not any(sheet.overlaps(other) for other in rivals):
                chosen[sheet.sheet_id] = sheet
    if not chosen:
        return []
    return plausibility.approve(folders, [*chosen], by=by, reason=reason, now=now, is_accepted=is_accepted)


def _source(costs: Mapping[str, tuple[Decimal, Decimal]], prefer: str) -> str:
    if prefer in costs:
        return prefer
    ranked = sorted(costs, key=lambda source: (costs[source], source))
    return ranked[0] if prefer == "lowest" else ranked[-1]
