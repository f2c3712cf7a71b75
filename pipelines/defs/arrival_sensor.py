"""A run of the daily job when batches have arrived, so that nobody waits for the night.

It reads the landing alone: a run may have the warehouse open. Does not belong here: loading (wire.py).
"""

import hashlib
import json
from datetime import UTC, datetime

import dagster as dg

from pipelines.defs.partitions import arrival_range, nearest
from pipelines.defs.resources import StoreResource
from pipelines.defs.schedules import SENSOR_STATUS, daily
from pipelines.warehouse import landing

EVERY_SECONDS = 300
AHEAD = [
    dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]  # fmt: skip


@dg.sensor(
    job=daily,
    minimum_interval_seconds=EVERY_SECONDS,
    default_status=SENSOR_STATUS,
    description="Starts the daily job when the landing has batches that no run was started for.",
)
def arrivals(context: dg.SensorEvaluationContext, store: StoreResource) -> dg.SensorResult | dg.SkipReason:
    """One run for all that is new; none while a run of the job is under way, which may not have seen it.

    The cursor is the latest arrival that a run was asked for, and how many manifests the landing had up to it: one
    that is copied in with an older time changes the count. Fewer than before (an erasure, retention) is nothing new.
    """
    found = landing.pending(store.open(), ())
    if not found:
        return dg.SkipReason("the landing is empty")
    seen = json.loads(context.cursor) if context.cursor else {"until": "", "count": 0}
    until = datetime.fromisoformat(seen["until"]) if seen["until"] else datetime.min.replace(tzinfo=UTC)
    later = [arrival for arrival in found if arrival.received_at > until]
    is_older_new = len(found) - len(later) > seen["count"]
    now_seen = json.dumps({"until": found[-1].received_at.isoformat(), "count": len(found)})
    if not later and not is_older_new:
        return dg.SensorResult(skip_reason=f"nothing new since {seen['until']}", cursor=now_seen)
    if context.instance.get_runs(dg.RunsFilter(job_name=daily.name, statuses=AHEAD), limit=1):
        return dg.SkipReason("a run of the daily job is under way: what is new has a run of its own after it")
    today = datetime.now(UTC).date()
    first = found[0] if is_older_new else later[0]
    keys = hashlib.sha256("\n".join(sorted(arrival.key for arrival in found)).encode()).hexdigest()[:16]
    days = arrival_range(nearest(first.received_at.date(), today=today), today)
    return dg.SensorResult(run_requests=[dg.RunRequest(run_key=keys, tags=days)], cursor=now_seen)
