"""The definitions for tests whose runs are killed: a run that comes to the step named in the file KILL_AT kills itself.

From a terminal: `python -m tests.end_to_end.killing run`. For `dagster dev`: this module; where KILL_EVERY_MINUTE is
set it also has the daily schedule's function on a clock that ticks each minute. Does not belong here: tests
(test_kill_matrix.py).
"""

import os
import signal
import threading
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import DagsterEvent

KILL_AT = "KILL_AT"
EVERY_MINUTE = "KILL_EVERY_MINUTE"
# Seconds into a step that lasts longer: the load has begun, dbt is at work, files are half written.
INTO = {"wire": 0.5, "arrival_gate": 1.0, "billing_models": 5.0, "analytics_models": 5.0, "published__marts": 0.5}

_step_start_event = DagsterEvent.step_start_event


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def step_start_event(step_context: Any) -> DagsterEvent:
    """Dagster's own, and then the death that is asked for, once."""
    order, step = Path(os.environ[KILL_AT]), step_context.step.key
    if order.exists() and order.read_text("utf-8") == step:
        order.unlink()
        if step not in INTO:
            _kill()
        threading.Timer(INTO[step], _kill).start()
    return _step_start_event(step_context)


DagsterEvent.step_start_event = staticmethod(step_start_event)


def definitions() -> dg.Definitions:
    """Apiary's own."""
    from pipelines.definitions import defs as apiary

    if EVERY_MINUTE not in os.environ:
        return apiary
    from pipelines.defs.schedules import daily, daily_schedule

    @dg.schedule(job=daily, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
    def every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
        """What the daily schedule asks for."""
        request = daily_schedule(context)
        assert isinstance(request, dg.RunRequest)
        return request

    return dg.Definitions.merge(apiary, dg.Definitions(schedules=[every_minute]))


if __name__ == "__main__":
    from pipelines.cli import main

    raise SystemExit(main())
else:
    defs = definitions()
