"""Quota snapshots: what the warehouse counted of each tenant's budgets, put into the store for its devices.

Does not belong here: the form of a snapshot (contract/quota.py), what is counted (models/), what a device answers
(device/quota.py).
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, cast

import duckdb

from pipelines.contract.quota import Budget, Counted, Period, Scope, Snapshot, as_of_in_key, period_of, prefix
from pipelines.store import Store

# Budgets of colonies and of rated cost are watched in the warehouse only: a device does not know which colony another
# device's use is of, and has no price book.
_BUDGETS = """
    SELECT b.tenant_id, b.scope, b.scope_id, b.period, b.measure, b.limit_amount, b.warn_at, b.unpriced_limit_tokens,
        b.budget_id
    FROM staging.stg_billing__budgets AS b
    WHERE b.scope IN ('tenant', 'user') AND b.measure <> 'rated_cost_usd'
        AND b.valid_from <= $today AND (b.valid_to IS NULL OR b.valid_to > $today)
    ORDER BY b.budget_id
"""
_USED = (
    "SELECT used_amount, unpriced_tokens FROM marts.mart_budget WHERE budget_id = $budget AND period_start_date = $day"
)
_BATCHES = """
    SELECT tenant_id, region, device_id, epoch, list(seq ORDER BY seq)
    FROM (SELECT DISTINCT tenant_id, region, device_id, epoch, seq FROM wire.batches WHERE status = 'loaded')
    GROUP BY ALL ORDER BY ALL
"""


def snapshots(connection: duckdb.DuckDBPyConnection, *, now: datetime) -> list[Snapshot]:
    """One snapshot for each tenant and region that ever sent a batch, with the budgets in force at `now` (aware).

    Raises SnapshotError for a budget that no snapshot can say.
    """
    as_of = now.astimezone(UTC).replace(microsecond=0)
    budgets: dict[str, list[Budget]] = {}
    for row in connection.execute(_BUDGETS, {"today": as_of.date()}).fetchall():
        budgets.setdefault(row[0], []).append(_budget(connection, row, as_of))
    counted: dict[tuple[str, str], list[Counted]] = {}
    for tenant, region, device, epoch, numbers in connection.execute(_BATCHES).fetchall():
        counted.setdefault((tenant, region), []).append(Counted(device=device, epoch=epoch, ranges=_runs(numbers)))
    return [
        Snapshot(tenant=tenant, region=region, as_of=as_of, counted=tuple(of), budgets=tuple(budgets.get(tenant, ())))
        for (tenant, region), of in sorted(counted.items())
    ]


def publish(connection: duckdb.DuckDBPyConnection, store: Store, *, now: datetime | None = None) -> list[str]:
    """Put every tenant's snapshot into the store; the keys.

    A tenant without budgets gets one only if it had one before: the last word on a budget that ended must be that there
    is none. Raises SnapshotError, StoreUnavailableError, StoreRefusedError.
    """
    keys = []
    for summed in snapshots(connection, now=now or datetime.now(UTC)):
        region, tenant = summed.region, summed.tenant
        times = (as_of_in_key(entry.key, region=region, tenant=tenant) for entry in store.list(prefix(region, tenant)))
        newest = next(filter(None, times), None)
        if summed.budgets or newest:
            # Two of one second would be ordered by their hashes, and a device could keep the older for ever.
            as_of = max(summed.as_of, newest + timedelta(seconds=1)) if newest else summed.as_of
            snapshot = replace(summed, as_of=as_of)
            store.put(snapshot.key, snapshot.to_json())
            keys.append(snapshot.key)
    return keys


def _budget(connection: duckdb.DuckDBPyConnection, row: tuple[Any, ...], as_of: datetime) -> Budget:
    _, scope, user, period, measure, limit, warn_at, unpriced_limit, budget_id = row
    start, end = period_of(cast("Period", period), as_of)
    # No row: nothing was used in this period yet, or nothing of it has arrived.
    used = connection.execute(_USED, {"budget": budget_id, "day": start.date()}).fetchone() or (Decimal(0), 0)
    return Budget(
        scope=cast("Scope", scope), user=user, period=cast("Period", period), start=start, end=end, measure=measure,
        limit=limit, warn_at=warn_at, used=used[0], unpriced_tokens=used[1], unpriced_limit_tokens=unpriced_limit,
    )  # fmt: skip


def _runs(numbers: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ascending numbers as first and last of each run."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)
