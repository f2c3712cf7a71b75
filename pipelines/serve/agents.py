"""The routes on agents and tools: who works, over time, by type, by name, with scorecards; tools, and which are used
together.

Shares and means are made here of sums that the marts keep, so that a range of days is not a mean of means.
Does not belong here: usage and money (api.py), a person's verdict on an agent (mart_operator_actions).
"""

from typing import Annotated, Literal

from fastapi import FastAPI, Query

from pipelines.serve.dependencies import Answer, Data, Id, Page, answer, listed

Hours = Annotated[int, Query(ge=1, le=24 * 31, description="as many hours before the newest start of a run")]
Days = Annotated[int, Query(ge=1, le=366, description="as many days before the newest")]
TaskClass = Annotated[str, Query(max_length=100, description="a kind of work; `all`: all kinds together")]
PERIODS = {"day": 1, "week": 7, "month": 31}
Period = Literal["day", "week", "month"]

# Of one row for each run.
OUTCOMES = """
    count(*) AS executions, count(*) FILTER (WHERE is_success) AS successes,
    count(*) FILTER (WHERE outcome = 'partial') AS partials, count(*) FILTER (WHERE outcome = 'failed') AS failures,
    count(*) FILTER (WHERE outcome = 'timeout') AS timeouts, count(*) FILTER (WHERE outcome = 'stopped') AS stops,
    count(*) FILTER (WHERE is_finished) AS finished,
    round(count(*) FILTER (WHERE is_success) / nullif(count(*) FILTER (WHERE is_finished), 0), 4) AS success_share,
    round(avg(wall_seconds), 3) AS mean_seconds
"""
SPENT = """
    sum(turns) AS turns, sum(input_tokens) + sum(output_tokens) AS total_tokens,
    sum(unreported_turns) AS unreported_turns, sum(reported_cost_usd) AS reported_cost_usd
"""
TODAY = "started_date = (SELECT max(started_date) FROM mart)"


def agent_routes(app: FastAPI) -> None:
    """Agents: who is at work, how it went, by time, type and name."""

    @app.get("/api/agents", tags=["agents"])
    def agents(data: Data, page: Page) -> Answer:
        """Agents in their current version: role, model, sessions, first and last seen."""
        return listed(data, page, "dim_agents", rest="WHERE is_current ORDER BY last_seen_at DESC NULLS LAST, agent_id")

    @app.get("/api/agents/scorecards", tags=["agents"])
    def scorecards(data: Data, page: Page, task_class: TaskClass = "all") -> Answer:
        """How the runs of each agent ended, what they cost and how long they took; the best first."""
        rest = "WHERE task_class = $task_class ORDER BY rank_in_class NULLS LAST, finished_runs DESC, agent_id"
        return listed(data, page, "mart_agent_scorecard", rest=rest, task_class=task_class)

    @app.get("/api/status", tags=["agents"])
    def status(data: Data, page: Page) -> Answer:
        """Sessions that have not ended: working, waiting, stalled or silent; since when, and as of when it is known."""
        rest = "WHERE status <> 'ended' ORDER BY last_event_at DESC NULLS LAST, session_id"
        return listed(data, page, "mart_status_snapshot", rest=rest)

    @app.get("/api/agents/current", tags=["agents"])
    def current(data: Data) -> Answer:
        """The newest day with runs: how many, how they went, what they used; and how many are active now."""
        return answer(
            data,
            data.rows(
                "mart_agent_executions",
                f"max(started_date) AS day, {OUTCOMES}, {SPENT},"
                " (SELECT count(*) FROM mart WHERE is_active) AS active_agents",
                f"WHERE {TODAY} HAVING count(*) > 0",
            ),
        )

    @app.get("/api/agents/active", tags=["agents"])
    def active(data: Data, page: Page) -> Answer:
        """Runs that are active, with the time they have taken until `known_as_of`."""
        return listed(
            data, page, "mart_agent_executions",
            "session_id, parent_session_id, agent_name, agent_type, state, turns, started_at, last_heard_at,"
            " greatest(epoch($known::TIMESTAMPTZ - started_at), 0) AS seconds_so_far",
            "WHERE is_active ORDER BY started_at DESC NULLS LAST, session_id, run_key",
            known=data.known_as_of(),
        )  # fmt: skip

    @app.get("/api/agents/timeline", tags=["agents"])
    def timeline(data: Data, page: Page, hours: Hours = 24) -> Answer:
        """Runs by the UTC hour of their start."""
        return listed(
            data, page, "mart_agent_executions",
            f"started_hour_at AS hour, {OUTCOMES}, mode(agent_type ORDER BY agent_type) AS dominant_type",
            "WHERE started_hour_at > (SELECT max(started_hour_at) FROM mart) - to_hours($hours) GROUP BY 1 ORDER BY 1",
            hours=hours,
        )  # fmt: skip

    @app.get("/api/agents/types/distribution", tags=["agents"])
    def types(data: Data, page: Page) -> Answer:
        """Runs by kind of session; the shares add up to one."""
        return listed(
            data, page, "mart_agent_executions",
            f"agent_type, {OUTCOMES}, {SPENT}, count(*) / (SELECT count(*) FROM mart) AS share",
            "GROUP BY 1 ORDER BY executions DESC, 1",
        )  # fmt: skip

    @app.get("/api/agents/performance/{name}", tags=["agents"])
    def performance(data: Data, page: Page, name: Id, days: Days = 7) -> Answer:
        """One agent: a row for all of the days, then one for each."""
        return listed(
            data, page, "mart_agent_executions",
            f"started_date AS day, {OUTCOMES}, {SPENT}, min(wall_seconds) AS min_seconds,"
            " quantile_disc(wall_seconds, 0.5) AS p50_seconds, quantile_disc(wall_seconds, 0.95) AS p95_seconds,"
            " quantile_disc(wall_seconds, 0.99) AS p99_seconds, max(wall_seconds) AS max_seconds",
            "WHERE agent_name = $name AND started_date > (SELECT max(started_date) FROM mart) - $days"
            " GROUP BY GROUPING SETS ((), (started_date)) HAVING count(*) > 0 ORDER BY started_date NULLS FIRST",
            name=name, days=days,
        )  # fmt: skip


TOOLS = """
    tool_name, sum(tool_calls) AS calls, sum(tool_errors) AS errors, count(DISTINCT session_id) AS sessions,
    sum(tool_calls) / sum(sum(tool_calls)) OVER () AS share,
    round(sum(tool_calls) / count(DISTINCT session_id), 3) AS calls_per_session
"""
_CALLED = "WHERE tool_calls > 0 AND usage_date > (SELECT max(usage_date) FROM mart) - $days GROUP BY 1"


def tool_routes(app: FastAPI) -> None:
    """Tools: what is called, and together with what."""

    @app.get("/api/tools/usage", tags=["tools"])
    def tools(data: Data, page: Page, period: Period = "day") -> Answer:
        """Tools by calls, in the newest day, week or month."""
        rest = f"{_CALLED} ORDER BY calls DESC, 1"
        return listed(data, page, "agg_usage_quarter_hourly", TOOLS, rest, days=PERIODS[period])

    @app.get("/api/tools/insights", tags=["tools"])
    def insights(data: Data, period: Period = "day") -> Answer:
        """The five tools called most and the five called least."""
        ranks = "row_number() OVER (ORDER BY sum(tool_calls) DESC, tool_name)"
        least = "row_number() OVER (ORDER BY sum(tool_calls), tool_name)"
        rest = f"{_CALLED} QUALIFY {ranks} <= 5 OR {least} <= 5 ORDER BY most_used_rank"
        selected = f"{TOOLS}, {ranks} AS most_used_rank, {least} AS least_used_rank"
        return answer(data, data.rows("agg_usage_quarter_hourly", selected, rest, days=PERIODS[period]))

    @app.get("/api/tools/correlations", tags=["tools"])
    def correlations(data: Data, page: Page, min_sessions: Annotated[int, Query(ge=1, le=10**6)] = 2) -> Answer:
        """Pairs of tools that sessions use together more often than by chance: lift above one."""
        return listed(
            data, page, "agg_tool_pairs",
            rest="WHERE sessions >= $least AND lift > 1"
            " ORDER BY lift DESC, sessions DESC, first_tool_name, second_tool_name",
            least=min_sessions,
        )  # fmt: skip
