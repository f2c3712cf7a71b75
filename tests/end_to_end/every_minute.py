"""The definitions with the daily schedule's function on a clock that ticks each minute, for `dagster dev` in tests.

Does not belong here: tests (test_kill_matrix.py).
"""

import dagster as dg

from pipelines.definitions import defs as apiary
from pipelines.defs.schedules import daily, daily_schedule


@dg.schedule(job=daily, cron_schedule="* * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def every_minute(context: dg.ScheduleEvaluationContext) -> dg.RunRequest:
    """What the daily schedule asks for."""
    request = daily_schedule(context)
    assert isinstance(request, dg.RunRequest)
    return request


defs = dg.Definitions.merge(apiary, dg.Definitions(schedules=[every_minute]))
