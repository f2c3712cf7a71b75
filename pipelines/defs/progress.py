"""Progress of a run in a terminal: one line per step on standard error, and whatever is wrong.

Does not belong here: Dagster's own event log; that has everything.
"""

import logging
from typing import Any

import dagster as dg

from pipelines import log_format

SHOWN = {
    "STEP_START": "…",
    "STEP_SUCCESS": "ok",
    "STEP_FAILURE": "FAILED",
    "STEP_SKIPPED": "skipped",
    "STEP_UP_FOR_RETRY": "again",
}
BUILDING = ("billing_models", "analytics_models")  # dbt says much: of these steps warnings alone are shown
TITLES = {
    "erasure__requests": "take up requests to be erased",
    "wire": "load what arrived",
    "arrival_gate": "gate: arrival",
    "billing_models": "build and test what is billed",
    "billing_gate": "gate: billing",
    "billing__statements": "export the billing days",
    "billing__statements_exports_complete": "look for statements that are missing",
    "analytics_models": "build and test the analytics",
    "departure_gate": "gate: departure",
    "published__marts": "publish the marts",
    "erasure__receipts": "erase what is on the list and prove it",
    "quota__snapshots": "publish the quota snapshots",
}


class _ProgressHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        meta: dict[str, Any] = getattr(record, "dagster_meta", {})
        event, step = meta.get("dagster_event"), meta.get("step_key") or ""
        about = {"run_id": meta.get("run_id"), "step": step or None}
        if event is not None and event.event_type_value in SHOWN:
            kind = event.event_type_value
            took = getattr(event.event_specific_data, "duration_ms", None)
            seconds = f" {took / 1000:.1f} s" if took else ""
            log_format.write(
                f"  {SHOWN[kind]:<7} {TITLES.get(step, step)}{seconds}",
                level="error" if kind == "STEP_FAILURE" else "info", event=kind,
                seconds=took / 1000 if took else None, **about,
            )  # fmt: skip
        elif event is None and record.levelno >= (logging.WARNING if step in BUILDING else logging.INFO):
            text = meta.get("orig_message", record.getMessage())
            log_format.write(f"          {text}", level=record.levelname.lower(), **about)


@dg.logger(config_schema={})
def progress_logger(_: dg.InitLoggerContext) -> logging.Logger:
    """Writes one line per step."""
    logger = logging.Logger("apiary", level=logging.DEBUG)  # Dagster tells its steps at this level
    logger.addHandler(_ProgressHandler())
    return logger


@dg.definitions
def loggers() -> dg.Definitions:
    """The logger by the name that a run's configuration gives it."""
    return dg.Definitions(loggers={"progress": progress_logger})
