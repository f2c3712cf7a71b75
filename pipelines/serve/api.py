"""The routes on usage: sessions, models, colonies, queens and rollups; budgets and alerts. A published mart each.

Everything is GET. Nothing here has a column for content: the marts have none. Does not belong here: sums that have a
name (models/metrics.yml), keys and paging (dependencies.py), agents and tools (agents.py).
"""

from datetime import date
from typing import Annotated, Literal

from fastapi import FastAPI, HTTPException, Query

from pipelines.serve.dependencies import Answer, Data, Id, Page, answer, listed
from pipelines.serve.tenant_data import Row, TenantData, sums
from pipelines.warehouse.metrics import metrics

FORMULAS = {name: metric.formula for name, metric in metrics().items()}
TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "total_tokens")
MEASURES = (
    "turns", *TOKENS, "tool_calls", "reported_turns", "unreported_turns", "unreported_tokens", "reported_cost_usd",
    "priced_turns", "unpriced_turns", "unpriced_tokens", "rated_cost_usd", "rated_cost_low_usd", "rated_cost_high_usd",
)  # fmt: skip
USAGE = sums(MEASURES, FORMULAS)
# What a rollup may be grouped by: the word of the route -> the mart's column.
GROUPS = {"user": "user_id", "tenant": "tenant_id", "model": "model", "colony": "colony_id", "day": "usage_date",
          "session": "session_id"}  # fmt: skip

GroupBy = Literal["user", "tenant", "model", "colony", "day", "session"]
Day = Annotated[date | None, Query(description="a UTC day")]
Filter = Annotated[str | None, Query(max_length=200, description="only rows of this one")]


def _usage(data: TenantData, page: Page, mart: str, by: GroupBy | None, rest: str = "", **values: object) -> Answer:
    """Usage by one dimension, most tokens first; as one row without a dimension."""
    if by is None:
        return listed(data, page, mart, USAGE, f"{rest} HAVING count(*) > 0", **values)
    select = f"{GROUPS[by]} AS {by}, {USAGE}"
    return listed(data, page, mart, select, f"{rest} GROUP BY 1 ORDER BY total_tokens DESC, 1", **values)


def _found(rows: list[Row], what: str) -> list[Row]:
    if not rows:
        raise HTTPException(404, f"no usage of this {what} is known")
    return rows


def usage_routes(app: FastAPI) -> None:
    """Usage: what a session, a model, a colony, a queen used; and rollups."""

    @app.get("/api/sessions", tags=["sessions"])
    def sessions(  # noqa: PLR0917 - FastAPI passes them by name
        data: Data, page: Page, start: Day = None, end: Day = None, user: Filter = None, colony: Filter = None,
        agent: Filter = None,
    ) -> Answer:  # fmt: skip
        """Sessions, the newest start first; of a range of days of their start, both included."""
        return listed(
            data, page, "dim_sessions", "* EXCLUDE (tenant_id)",
            "WHERE ($start IS NULL OR (started_at AT TIME ZONE 'UTC')::DATE >= $start)"
            " AND ($end IS NULL OR (started_at AT TIME ZONE 'UTC')::DATE <= $end)"
            " AND ($user IS NULL OR user_id = $user) AND ($colony IS NULL OR colony_id = $colony)"
            " AND ($agent IS NULL OR agent_id = $agent) ORDER BY started_at DESC NULLS LAST, session_id",
            start=start, end=end, user=user, colony=colony, agent=agent,
        )  # fmt: skip

    @app.get("/api/sessions/{session_id}/usage", tags=["sessions"])
    def session_usage(data: Data, session_id: Id) -> Answer:
        """A session: its own use, what it took over from its parent, its subtree."""
        found = data.rows("mart_session_usage", "* EXCLUDE (tenant_id)", "WHERE session_id = $id", id=session_id)
        return answer(data, _found(found, "session"))

    @app.get("/api/sessions/{session_id}/usage/by-model", tags=["sessions"])
    def session_usage_by_model(data: Data, page: Page, session_id: Id) -> Answer:
        """A session by model."""
        found = _usage(data, page, "mart_usage_rollup", "model", "WHERE session_id = $id", id=session_id)
        if not page.offset:
            _found(found.rows, "session")
        return found

    @app.get("/api/usage/by-model", tags=["usage"])
    def usage_by_model(data: Data, page: Page, start: Day = None, end: Day = None) -> Answer:
        """All use by model, both days included."""
        return _usage(data, page, "mart_usage_rollup", "model", _RANGE, start=start, end=end)

    @app.get("/api/colonies/{colony_id}/usage", tags=["usage"])
    def colony_usage(data: Data, colony_id: Id) -> Answer:
        """A colony: all of its sessions, and of it what its queen used herself."""
        found = data.rows("mart_colony_usage", "* EXCLUDE (tenant_id)", "WHERE colony_id = $id", id=colony_id)
        return answer(data, _found(found, "colony"))

    @app.get("/api/queens/{queen_name}/usage", tags=["usage"])
    def queen_usage(  # noqa: PLR0917
        data: Data, page: Page, queen_name: Id, start: Day = None, end: Day = None, group_by: GroupBy | None = None
    ) -> Answer:
        """A queen in a range of days, both included."""
        where = f"{_RANGE} AND queen_name = $queen"
        return _usage(data, page, "mart_queen_usage", group_by, where, start=start, end=end, queen=queen_name)

    @app.get("/api/usage/rollup", tags=["usage"])
    def usage_rollup(data: Data, page: Page, group_by: GroupBy, start: Day = None, end: Day = None) -> Answer:
        """All use by one dimension in a range of days, both included."""
        return _usage(data, page, "mart_usage_rollup", group_by, _RANGE, start=start, end=end)

    @app.get("/api/budgets", tags=["usage"])
    def budgets(data: Data, page: Page) -> Answer:
        """Present budgets, what is used of them, and what is to be expected."""
        return listed(data, page, "mart_budget", "* EXCLUDE (tenant_id)", "WHERE is_current ORDER BY budget_id")

    @app.get("/api/alerts", tags=["usage"])
    def alerts(data: Data, page: Page, days: Annotated[int, Query(ge=1, le=366)] = 7) -> Answer:
        """What somebody should look at, newest first, of the last days before the newest."""
        return listed(
            data, page, "mart_alerts", "* EXCLUDE (tenant_id)",
            "WHERE alert_date > (SELECT max(alert_date) FROM mart) - $days ORDER BY occurred_at DESC, alert_id",
            days=days,
        )  # fmt: skip


_RANGE = "WHERE ($start IS NULL OR usage_date >= $start) AND ($end IS NULL OR usage_date <= $end)"
