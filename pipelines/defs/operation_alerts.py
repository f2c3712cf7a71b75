"""What the people who run this must hear of: a run that failed, a check that failed, marts that are stale.

Found in Dagster's own records, so that runs from a terminal and runs of the daemon are told alike: by the sensor, and
at the end of each foreground run. What is wrong now stands in `operation/alerts.json`; when each began in
`operation/raised.jsonl`, from which `mart_alerts` has its rows. Does not belong here: the channels (alert_channels.py),
billing's own alerts (billing/export_alerts.py), what is checked (the assets), what a kind asks for (the seed
alert_kinds).
"""

import json
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dagster as dg
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus

from pipelines import alert_channels
from pipelines.contract.numbers import pluralize
from pipelines.defs.ownership import FRESHNESS
from pipelines.defs.resources import HOME
from pipelines.home import Home, replace_file
from pipelines.warehouse import raised_alerts
from pipelines.warehouse.raised_alerts import Raised

UI_URL = "APIARY_UI_URL"  # where people reach the Dagster UI; without it messages name runs and have no link
FILE, SENT = "alerts.json", "alerts_sent.json"
EVERY_SECONDS = 60
OK = "the warehouse runs as it should"
SERVER = "[DagsterApiServer] "
FROM_OUTSIDE = "This run has been marked as failed from outside"
MAX_FOUND = 300  # characters of what was found
PUBLISHED = dg.AssetKey(["published", "marts"])
Kind = Literal["run_failed", "gate_failed", "check_failed", "quarantine", "erasure_waits", "export_held_back", "stale"]
OF_THE_LEDGER = "quarantine"  # the models find these in the ledger, by tenant and reason
# Checks that only warn, and are told all the same.
WARNINGS: dict[str, Kind] = {
    "no_batch_is_quarantined": "quarantine",
    "every_request_is_finished": "erasure_waits",
    "exports_complete": "export_held_back",
}


@dataclass(frozen=True)
class OperationAlert:
    """One thing that somebody must look at; `subject` is a job, a check or an asset, `since` when it began."""

    kind: Kind
    subject: str
    found: str
    run_id: str | None
    what_to_do: str
    docs_page: str
    link: str | None
    since: str


def find(instance: dg.DagsterInstance, checks: Collection[dg.AssetCheckKey], *, now: datetime) -> list[OperationAlert]:
    """What is wrong as Dagster's records say it now, in a fixed order; what has been put right since is not told.

    Texts do not change while nothing changes: each set of alerts is told once.
    """
    return [*_failed_runs(instance), *_failed_checks(instance, checks), *_stale(instance, now)]


def tell(home: Home, alerts: list[OperationAlert]) -> list[str]:
    """Write the alerts down and tell the channels; what could not be delivered, one line each. Raises OSError."""
    folder = home.root / "operation"
    path = folder / FILE
    known = {(row["kind"], row["subject"]): row["since"] for row in _read(path)}
    # First the book: a process that dies in between notes the same beginning twice, and it counts once.
    began = [alert for alert in alerts if alert.kind != OF_THE_LEDGER and (alert.kind, alert.subject) not in known]
    raised_alerts.record(
        home.raised_alerts,
        [Raised(alert.kind, alert.subject, alert.run_id, datetime.fromisoformat(alert.since)) for alert in began],
    )
    alerts = [replace(alert, since=known.get((alert.kind, alert.subject), alert.since)) for alert in alerts]
    rows = [asdict(alert) for alert in alerts]
    text = json.dumps(rows, indent=1) + "\n"
    if not path.exists() or path.read_text("utf-8") != text:
        replace_file(path, text.encode())
    subject = (
        f"{pluralize(len(alerts), 'thing in the warehouse needs', 'things in the warehouse need')} somebody"
        if alerts
        else OK
    )
    message = alert_channels.Message(rows, subject, "\n".join(map(_line, alerts)) or OK)
    return alert_channels.deliver(folder / SENT, message, well=OK)


def _read(path: Path) -> list[dict[str, Any]]:
    """The rows as they were written last; those of an earlier release, which do not say since when, as if new."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return []
    return [row for row in rows if "since" in row]


def _line(alert: OperationAlert) -> str:
    link = f" ({alert.link})" if alert.link else ""
    found = f"{alert.kind.replace('_', ' ')}: {alert.subject}: {alert.found}"
    return f"{found}; {alert.what_to_do}; {alert.docs_page}{link}"


def _alert(kind: Kind, subject: str, found: str, run_id: str | None, at: float) -> OperationAlert:
    base = os.environ.get(UI_URL, "").rstrip("/")
    link = f"{base}/runs/{run_id}" if base and run_id else None
    asked, since = raised_alerts.kinds()[kind], datetime.fromtimestamp(at, UTC).isoformat()
    return OperationAlert(kind, subject, found[:MAX_FOUND], run_id, asked.what_to_do, asked.docs_page, link, since)


def _failed_runs(instance: dg.DagsterInstance) -> Iterator[OperationAlert]:
    """Jobs whose last finished run failed. One that somebody stopped is known to that one."""
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    last: dict[str, dg.RunRecord] = {}
    for record in instance.get_run_records(dg.RunsFilter(statuses=ended), limit=200):
        last.setdefault(record.dagster_run.job_name, record)
    for job, record in sorted(last.items()):
        run = record.dagster_run
        if run.status is dg.DagsterRunStatus.FAILURE:
            found = f"run {run.run_id[:8]}: {_cause(instance, run.run_id)}"
            yield _alert("run_failed", job, found, run.run_id, record.end_time or record.update_timestamp.timestamp())


def _cause(instance: dg.DagsterInstance, run_id: str) -> str:
    kinds = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE, dg.DagsterEventType.ENGINE_EVENT}
    of_the_server = ""  # how the process of a run ended, where its code server saw it
    for entry in instance.all_logs(run_id, of_type=kinds):
        event = entry.dagster_event
        if event is None:
            continue
        if event.is_step_failure:
            error = event.step_failure_data.error
            while error is not None and error.cause is not None:
                error = error.cause
            return f"{event.step_key}: {error.message.strip().splitlines()[0] if error else 'failed'}"
        message = event.message or ""
        if message.startswith(SERVER):
            of_the_server = message.removeprefix(SERVER).partition(". ")[0]
        elif event.is_run_failure:
            return (of_the_server or message) if message.startswith(FROM_OUTSIDE) else message
    return "failed"


def _failed_checks(instance: dg.DagsterInstance, checks: Collection[dg.AssetCheckKey]) -> Iterator[OperationAlert]:
    storage = instance.event_log_storage
    latest = storage.get_latest_asset_check_execution_by_key(sorted(checks, key=str))
    for key, record in sorted(latest.items(), key=lambda item: item[0].to_user_string()):
        if record.status is not AssetCheckExecutionRecordStatus.FAILED or record.event is None:
            continue
        evaluation = record.event.dagster_event and record.event.dagster_event.asset_check_evaluation_data
        if not evaluation:
            continue
        is_error = evaluation.severity is dg.AssetCheckSeverity.ERROR
        kind: Kind | None = "gate_failed" if key.name.startswith("gate_") else WARNINGS.get(key.name)
        kind = kind or ("check_failed" if is_error else None)
        if kind is not None:
            told = _told(kind, evaluation.metadata)
            yield _alert(kind, key.to_user_string(), told, record.run_id, record.event.timestamp)


def _told(kind: Kind, metadata: Mapping[str, dg.MetadataValue[Any]]) -> str:
    """What a check says about itself: the lines of what failed where it marks them, else its short values."""
    if kind == "quarantine":
        reasons = metadata["reasons"].value if "reasons" in metadata else {}
        return ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
    failed = {name: value for name, value in metadata.items() if name.startswith("FAILED ")}
    plain = failed or {n: v for n, v in metadata.items() if isinstance(v, (dg.TextMetadataValue, dg.IntMetadataValue))}
    return "; ".join(f"{name.removeprefix('FAILED ')}: {value.value}" for name, value in plain.items()) or "failed"


def _stale(instance: dg.DagsterInstance, now: datetime) -> Iterator[OperationAlert]:
    """Marts that were published once and are older than their freshness policy allows."""
    event = instance.get_latest_materialization_event(PUBLISHED)
    if event is not None:
        at = datetime.fromtimestamp(event.timestamp, UTC)
        if now - at > FRESHNESS.fail_window.to_timedelta():
            found = f"published last on {at:%Y-%m-%d %H:%M} UTC"
            since = (at + FRESHNESS.fail_window.to_timedelta()).timestamp()
            yield _alert("stale", PUBLISHED.to_user_string(), found, event.run_id, since)


@dg.sensor(
    minimum_interval_seconds=EVERY_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    jobs=[],
    description="Tells people what failed, is stale or waits: APIARY_ALERT_WEBHOOK, APIARY_ALERT_EMAIL.",
)
def operation_alerts(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """Look and tell."""
    repository = context.repository_def
    checks = repository.asset_graph.asset_check_keys if repository else ()
    alerts = find(context.instance, checks, now=datetime.now(UTC))
    for failure in tell(HOME, alerts):
        context.log.warning(failure)
    return dg.SkipReason(f"{pluralize(len(alerts), 'alert')}" if alerts else OK)
