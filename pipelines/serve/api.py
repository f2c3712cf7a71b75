"""The routes on usage: by session, model, colony, queen and in rollups; budgets and alerts. A published mart each.

Whoever asks has a key, and the key says whose rows there are. Everything is GET. Nothing here has a column for content:
the marts have none. Does not belong here: sums that have a name (models/metrics.yml), who a key is of (keys.py),
agents and tools (agents.py).
"""

from collections.abc import Iterator
from datetime import date
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Path, Query, Request
from fastapi.security import APIKeyHeader
from pydantic import BaseModel, Field

from pipelines.home import Home
from pipelines.serve import keys
from pipelines.serve.tenant_data import Row, TenantData, open_tenant, sums
from pipelines.warehouse.metrics import metrics

FORMULAS = {name: metric.formula for name, metric in metrics().items()}
TOKENS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "total_tokens")
MEASURES = (
    "turns", *TOKENS, "tool_calls", "reported_turns", "unreported_turns", "unreported_tokens", "reported_cost_usd",
    "priced_turns", "unpriced_turns", "unpriced_tokens", "rated_cost_usd", "rated_cost_low_usd", "rated_cost_high_usd",
)  # fmt: skip
USAGE = sums(MEASURES, FORMULAS)
MOST = "ORDER BY total_tokens DESC"
MAX_ROWS = 1000
# What a rollup may be grouped by: the word of the route -> the mart's column.
GROUPS = {"user": "user_id", "tenant": "tenant_id", "model": "model", "colony": "colony_id", "day": "usage_date",
          "session": "session_id"}  # fmt: skip

GroupBy = Literal["user", "tenant", "model", "colony", "day", "session"]
Id = Annotated[str, Path(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_.:@+/-]+$")]
Day = Annotated[date | None, Query(description="a UTC day")]
_header = APIKeyHeader(name="X-API-Key", auto_error=False, description="made by `apiary serve --make-key TENANT`")


class Answer(BaseModel):
    """What every route says: when the data is of, and its rows. Exact amounts are text; null is unknown, not zero."""

    known_as_of: str | None = Field(description="when the last of what is known of the tenant had arrived")
    rows: list[dict[str, Any]]


def _data(request: Request, key: Annotated[str | None, Depends(_header)]) -> Iterator[TenantData]:
    home: Home = request.app.state.home
    tenant = keys.tenant_of(home, key) if key else None
    if tenant is None:
        raise HTTPException(401, "no valid key in X-API-Key", {"WWW-Authenticate": "X-API-Key"})
    with open_tenant(home.published, tenant) as data:
        yield data


Data = Annotated[TenantData, Depends(_data)]


def answer(data: TenantData, rows: list[Row]) -> Answer:
    """What a route says."""
    known = data.row("dim_tenants", "known_as_of")
    return Answer(known_as_of=known["known_as_of"] if known else None, rows=rows)


def _usage(data: TenantData, mart: str, by: GroupBy | None, rest: str = "", **values: object) -> list[Row]:
    """Usage by one dimension, most tokens first; as one row without a dimension."""
    if by is None:
        return data.rows(mart, USAGE, f"{rest} HAVING count(*) > 0", **values)
    return data.rows(mart, f"{GROUPS[by]} AS {by}, {USAGE}", f"{rest} GROUP BY 1 {MOST}, 1 LIMIT {MAX_ROWS}", **values)


def _found(rows: list[Row], what: str) -> list[Row]:
    if not rows:
        raise HTTPException(404, f"no usage of this {what} is known")
    return rows


def usage_routes(app: FastAPI) -> None:
    """Usage: what a session, a model, a colony, a queen used; and rollups."""

    @app.get("/api/sessions/{session_id}/usage", tags=["usage"])
    def session_usage(data: Data, session_id: Id) -> Answer:
        """A session: its own use, what it took over from its parent, its subtree."""
        found = data.rows("mart_session_usage", "* EXCLUDE (tenant_id)", "WHERE session_id = $id", id=session_id)
        return answer(data, _found(found, "session"))

    @app.get("/api/sessions/{session_id}/usage/by-model", tags=["usage"])
    def session_usage_by_model(data: Data, session_id: Id) -> Answer:
        """A session by model."""
        where = "WHERE session_id = $id"
        return answer(data, _found(_usage(data, "mart_usage_rollup", "model", where, id=session_id), "session"))

    @app.get("/api/usage/by-model", tags=["usage"])
    def usage_by_model(data: Data, start: Day = None, end: Day = None) -> Answer:
        """All use by model, both days included."""
        return answer(data, _usage(data, "mart_usage_rollup", "model", _RANGE, start=start, end=end))

    @app.get("/api/colonies/{colony_id}/usage", tags=["usage"])
    def colony_usage(data: Data, colony_id: Id) -> Answer:
        """A colony: all of its sessions, and of it what its queen used herself."""
        found = data.rows("mart_colony_usage", "* EXCLUDE (tenant_id)", "WHERE colony_id = $id", id=colony_id)
        return answer(data, _found(found, "colony"))

    @app.get("/api/queens/{queen_name}/usage", tags=["usage"])
    def queen_usage(
        data: Data, queen_name: Id, start: Day = None, end: Day = None, group_by: GroupBy | None = None
    ) -> Answer:
        """A queen in a range of days, both included."""
        where = f"{_RANGE} AND queen_name = $queen"
        return answer(data, _usage(data, "mart_queen_usage", group_by, where, start=start, end=end, queen=queen_name))

    @app.get("/api/usage/rollup", tags=["usage"])
    def usage_rollup(data: Data, group_by: GroupBy, start: Day = None, end: Day = None) -> Answer:
        """All use by one dimension in a range of days, both included."""
        return answer(data, _usage(data, "mart_usage_rollup", group_by, _RANGE, start=start, end=end))

    @app.get("/api/budgets", tags=["usage"])
    def budgets(data: Data) -> Answer:
        """Present budgets, what is used of them, and what is to be expected."""
        return answer(data, data.rows("mart_budget", "* EXCLUDE (tenant_id)", "WHERE is_current ORDER BY budget_id"))

    @app.get("/api/alerts", tags=["usage"])
    def alerts(data: Data, days: Annotated[int, Query(ge=1, le=366)] = 7) -> Answer:
        """What somebody should look at, newest first, of the last days before the newest."""
        return answer(
            data,
            data.rows(
                "mart_alerts", "* EXCLUDE (tenant_id)",
                "WHERE alert_date > (SELECT max(alert_date) FROM mart) - $days"
                f" ORDER BY occurred_at DESC, alert_id LIMIT {MAX_ROWS}",
                days=days,
            ),
        )  # fmt: skip


_RANGE = "WHERE ($start IS NULL OR usage_date >= $start) AND ($end IS NULL OR usage_date <= $end)"
