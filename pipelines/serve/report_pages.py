"""What the pages of the report hold: for each section a question, a query on the published marts, and a chart of it.

The queries are shown on the pages and run as they stand in any DuckDB client. Tenant and period are not in them: the
report opens the marts of one tenant (report.py), and `{days[COLUMN]}` becomes the condition on the days of a period.
Does not belong here: how a page looks (report.py, templates/), sums that have a name (models/metrics.yml).
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipelines.warehouse.metrics import metrics

HEADLINES = (
    "turns", "total_tokens", "rated_cost_usd", "unpriced_tokens", "reported_cost_usd", "unreported_turns",
    "wasted_tokens", "wasted_cost_usd", "tool_calls", "sessions",
)  # fmt: skip
ROWS = 50
"""Rows of a table at most; a page says if there are more, and its query has them all."""


class Chart(NamedTuple):
    """`columns`: a column for each day of the first column. `bars`: a bar for each row, named by the column `name`."""

    kind: str
    value: str
    name: str = ""


class Section(NamedTuple):
    """A question and its answer. `of`: the mart whose descriptions explain the columns that are no metrics."""

    title: str
    text: str
    of: str
    sql: str
    chart: Chart | None = None


class Page(NamedTuple):
    """A page; those about the present have no period."""

    name: str
    title: str
    text: str
    sections: Sequence[Section]
    has_period: bool = True


def _sums(*names: str) -> str:
    return ",\n    ".join(f"{metrics()[name].formula} AS {name}" for name in names)


SPENT = _sums("turns", "total_tokens", "rated_cost_usd", "unpriced_tokens", "reported_cost_usd")
PRICED = "Rated: list price of the price book. Tokens without a price are not in it: their cost is unknown, not zero."


def _most(title: str, text: str, column: str, name: str, of: str = "mart_usage_rollup") -> Section:
    """Usage by one dimension, most tokens first."""
    return Section(
        title, text, of,
        f"SELECT tenant_id AS tenant, {column} AS {name}, {SPENT}\nFROM mart_usage_rollup\n"
        f"WHERE {{days[zone_date]}} AND {column} IS NOT NULL\nGROUP BY ALL ORDER BY total_tokens DESC, tenant, {name}",
        Chart("bars", "total_tokens", name),
    )  # fmt: skip


def _daily(title: str, text: str, value: str) -> Section:
    return Section(
        title, text, "mart_usage_rollup",
        f"SELECT zone_date AS day, {SPENT},\n"
        "    count(DISTINCT user_id) AS users, count(DISTINCT session_id) AS sessions\nFROM mart_usage_rollup\n"
        "WHERE {days[zone_date]}\nGROUP BY ALL ORDER BY day DESC",
        Chart("columns", value),
    )  # fmt: skip


MODELS = _most("Which models are used?", PRICED, "model", "model")
ALERTS = Section(
    "What needs attention?", "Alerts, the newest first; late is how long the data took to show it.", "mart_alerts",
    "SELECT alert_kind, severity, what_to_do, occurred_at, tenant_id AS tenant, subject_id, found_value,\n"
    "    expected_value, detected_late_by_seconds\nFROM mart_alerts\nORDER BY occurred_at DESC, alert_id",
)  # fmt: skip
STATUS = Section(
    "How many sessions are in which state?",
    "By the last that was heard of each.",
    "mart_status_snapshot",
    "SELECT status, count(*) AS sessions\nFROM mart_status_snapshot\nGROUP BY ALL ORDER BY sessions DESC, status",
    Chart("bars", "sessions", "status"),
)
BUDGETS = Section(
    "Will the budgets last?",
    "Each in its own measure, tokens or USD.",
    "mart_budget",
    "SELECT budget_id AS budget, tenant_id AS tenant, period, measure, used_amount, limit_amount,\n"
    "    used_amount / nullif(limit_amount, 0) AS used_share, forecast_low_amount, forecast_amount,\n"
    "    forecast_high_amount, runs_out_date, budget_state\nFROM mart_budget\nWHERE is_current\n"
    "ORDER BY used_share DESC NULLS LAST, budget",
    Chart("bars", "used_share", "budget"),
)

PAGES = (
    Page("overview", "Overview", "What was used, what it cost, and what needs attention.", (
        _daily("What is spent per day?", PRICED, "rated_cost_usd"), MODELS, STATUS, BUDGETS, ALERTS,
    )),
    Page("spend", "Spend", PRICED, (
        _daily("What is spent per day?", PRICED, "rated_cost_usd"),
        _daily("How many tokens per day?", "Input, with its cache, and output.", "total_tokens"),
        Section(
            "What has no price?", "Models without a price in the price book; their tokens are in no cost above.",
            "mart_usage_rollup",
            "SELECT model, sum(unpriced_turns) AS unpriced_turns, sum(unpriced_tokens) AS unpriced_tokens\n"
            "FROM mart_usage_rollup\nWHERE {days[zone_date]} AND unpriced_tokens > 0\n"
            "GROUP BY ALL ORDER BY unpriced_tokens DESC, model",
            Chart("bars", "unpriced_tokens", "model"),
        ),
        Section(
            "What was wasted?", "Turns whose work was cancelled, failed, was replayed, or came of a stall.",
            "mart_usage_rollup",
            f"SELECT waste_kind, {SPENT}\nFROM mart_usage_rollup\nWHERE {{days[zone_date]}} AND waste_kind <> 'none'\n"
            "GROUP BY ALL ORDER BY total_tokens DESC, waste_kind",
            Chart("bars", "total_tokens", "waste_kind"),
        ),
        Section(
            "What does inherited context cost?", "Over all time. Forks and workers begin with the conversation of their"
            " parent and send it again with every turn.", "mart_session_usage",
            "SELECT inheritance_kind, count(*) AS sessions, sum(input_tokens) AS input_tokens,\n"
            "    sum(inherited_input_tokens) AS inherited_input_tokens,\n"
            "    sum(inherited_cache_read_input_tokens) AS inherited_cache_read_input_tokens,\n"
            "    sum(first_turn_cost_usd) AS first_turn_cost_usd\n"
            "FROM mart_session_usage\nWHERE inheritance_kind IS NOT NULL\nGROUP BY ALL ORDER BY inheritance_kind",
        ),
        BUDGETS,
    )),
    Page("models", "Models", "Usage and cost by model.", (
        MODELS,
        Section(
            "How much of the input came from a cache?", "Cache reads as a share of the input.", "mart_usage_rollup",
            "SELECT model, sum(input_tokens) AS input_tokens,\n"
            "    sum(cache_read_input_tokens) AS cache_read_input_tokens,\n"
            "    sum(cache_read_input_tokens) / sum(input_tokens) AS cache_read_share\nFROM mart_usage_rollup\n"
            "WHERE {days[zone_date]} AND input_tokens > 0\nGROUP BY ALL ORDER BY input_tokens DESC, model",
            Chart("bars", "cache_read_share", "model"),
        ),
        _most("Which agent runtimes are used?", "The program that wrote the logs.", "agent_runtime", "agent_runtime"),
    )),
    Page("users", "Users", "Usage and cost by user.", (
        _most("Which users use most?", "UNATTRIBUTED: the user of the session is unknown.", "user_id", "user"),
        Section(
            "At which hours of the day?", "Hours of the tenant's zone.", "agg_usage_quarter_hourly",
            "SELECT hours.hour AS hour, coalesce(sum(turns), 0)::BIGINT AS turns\nFROM range(24) AS hours (hour)\n"
            "LEFT JOIN (FROM agg_usage_quarter_hourly WHERE {days[zone_date]}) ON hour(zone_hour) = hours.hour\n"
            "GROUP BY ALL ORDER BY hour",
            Chart("columns", "turns"),
        ),
    )),
    Page("projects", "Colonies and projects", "Usage and cost by colony and by project.", (
        _most("Which colonies use most?", "A colony is all sessions under its queen.", "colony_id", "colony_id"),
        Section(
            "Which projects use most?", "Of runtimes that name the project of a session.", "dim_sessions",
            f"SELECT used.tenant_id AS tenant, project_id, {SPENT}\n"
            "FROM mart_usage_rollup AS used\n"
            "JOIN (SELECT tenant_id, session_id, project_id FROM dim_sessions) USING (tenant_id, session_id)\n"
            "WHERE {days[zone_date]} AND project_id IS NOT NULL\n"
            "GROUP BY ALL ORDER BY total_tokens DESC, tenant, project_id",
            Chart("bars", "total_tokens", "project_id"),
        ),
        Section(
            "How are the colonies?", "Now, as of the last that was heard.", "mart_colony_health",
            "SELECT colony_id, tenant_id AS tenant, sessions, working_sessions, waiting_sessions, stalled_sessions,\n"
            "    silent_sessions, ended_sessions, failed_sessions, stalled_seconds, last_event_at, known_as_of\n"
            "FROM mart_colony_health\nORDER BY stalled_sessions DESC, failed_sessions DESC, tenant, colony_id",
        ),
    )),
    Page("agents", "Agents", "Usage of agents, how their runs ended, and what people decided about them.", (
        Section(
            "Which agents use most?", PRICED, "dim_sessions",
            f"SELECT used.tenant_id AS tenant, agent_id, {SPENT}\n"
            "FROM mart_usage_rollup AS used\n"
            "JOIN (SELECT tenant_id, session_id, agent_id FROM dim_sessions) USING (tenant_id, session_id)\n"
            "WHERE {days[zone_date]}\nGROUP BY ALL ORDER BY total_tokens DESC, tenant, agent_id",
            Chart("bars", "total_tokens", "agent_id"),
        ),
        Section(
            "Which agents succeed?", "Over all time, all kinds of work together. Agents with too few finished runs have"
            " no rank; the rank goes by the lower end of what so many runs allow to say.", "mart_agent_scorecard",
            "SELECT tenant_id AS tenant, agent_id, rank_in_class, finished_runs, open_runs, success_share,\n"
            "    success_low, failures, timeouts, stops, p50_seconds, p95_seconds, success_p50_cost_usd\n"
            "FROM mart_agent_scorecard\n"
            "WHERE task_class = 'all'\nORDER BY success_share DESC NULLS LAST, finished_runs DESC, tenant, agent_id",
            Chart("bars", "success_share", "agent_id"),
        ),
        Section(
            "Who does which kind of work best?", "The kind is told by the tool that a run used most.",
            "mart_agent_routing",
            "SELECT tenant_id AS tenant, task_class, agent_id, next_agent_id, agents, finished_runs, success_share,\n"
            "    success_low, is_clear\nFROM mart_agent_routing\nORDER BY tenant, finished_runs DESC, task_class",
        ),
        Section(
            "What did people decide, and what do the runs say?",
            "Each action of an operator beside the runs, stalls and errors of the days before and after it.",
            "mart_operator_actions",
            "SELECT acted_at, tenant_id AS tenant, agent_id, action, reason, runs_before, successes_before,\n"
            "    failures_before, stalls_before, tool_errors_before, runs_after, successes_after, failures_after\n"
            "FROM mart_operator_actions\nORDER BY acted_at DESC, action_id",
        ),
        Section(
            "How do runs end, and why do they fail?", "Runs that began in the period.", "mart_agent_executions",
            "SELECT agent_type, coalesce(outcome, state) AS outcome_or_state, error_class, count(*) AS runs,\n"
            "    median(wall_seconds) AS median_seconds, max(wall_seconds) AS longest_seconds\n"
            "FROM mart_agent_executions\nWHERE {days[started_date]}\n"
            "GROUP BY ALL ORDER BY runs DESC, agent_type, outcome_or_state, error_class",
        ),
    )),
    Page("status", "Status now", "Who works, waits, is stalled or silent, since when, and as of when that is known.", (
        STATUS,
        Section(
            "Which sessions have not ended?", "Nothing after the last word of each device is known.",
            "mart_status_snapshot",
            "SELECT s.status, s.silent_seconds, d.agent_id, s.session_id, s.status_since, s.tenant_id AS tenant,\n"
            "    s.blocked_kind, s.phase, s.open_task_count, s.in_flight_workers, s.last_event_at, s.known_as_of\n"
            "FROM mart_status_snapshot AS s\nJOIN dim_sessions AS d USING (tenant_id, session_id)\n"
            "WHERE s.status <> 'ended'\nORDER BY s.last_event_at DESC NULLS LAST, tenant, s.session_id",
        ),
        Section(
            "Which triggers were missed?", "Fires that were due and did not happen.", "fct_triggers",
            "SELECT trigger_type, missed_between, missed_since, is_overdue, fires, interval_seconds, next_due_at,\n"
            "    session_id, tenant_id AS tenant\nFROM fct_triggers\n"
            "ORDER BY missed_between + missed_since DESC NULLS LAST, tenant, trigger_id",
        ),
    ), has_period=False),
    Page("tools", "Tools", "What is called, how often it fails, how long it takes.", (
        Section(
            "Which tools are called?", "Finished calls. Worst p95: 95 % of the calls of the worst day took no longer.",
            "agg_tools_daily",
            "SELECT tool_name, sum(calls) AS calls, sum(errors) AS errors, sum(errors) / sum(calls) AS error_share,\n"
            "    max(p95_seconds) AS worst_p95_seconds\nFROM agg_tools_daily\nWHERE {days[usage_date]}\n"
            "GROUP BY ALL ORDER BY calls DESC, tool_name",
            Chart("bars", "calls", "tool_name"),
        ),
        Section(
            "Which tools are used together?", "Over all time. Lift: how many times as often as by chance.",
            "agg_tool_pairs",
            "SELECT tenant_id AS tenant, first_tool_name, second_tool_name, sessions, lift\nFROM agg_tool_pairs\n"
            "WHERE lift > 1\nORDER BY lift DESC, sessions DESC, tenant, first_tool_name, second_tool_name",
        ),
    )),
    Page("tasks", "Tasks", "How far the work is.", (
        Section(
            "How far are the tasks?", "Tasks of progress databases and task lists, templates left out.",
            "mart_task_progress",
            "SELECT tenant_id AS tenant, state, count(*) AS tasks, count(*) FILTER (WHERE is_blocked) AS blocked,\n"
            "    count(*) FILTER (WHERE is_stale_claim) AS stale_claims, sum(retries) AS retries\n"
            "FROM mart_task_progress\nWHERE list_kind <> 'colony_template'\n"
            "GROUP BY ALL ORDER BY tenant, tasks DESC, state",
            Chart("bars", "tasks", "state"),
        ),
        Section(
            "Which tasks are not done?", "The ones longest in their state first.", "mart_task_progress",
            "SELECT state, state_since, is_blocked, tenant_id AS tenant, list_id, task_id, open_blockers, retries,\n"
            "    steps_done, steps, is_stale_claim, error_class, known_as_of\nFROM mart_task_progress\n"
            "WHERE list_kind <> 'colony_template' AND state NOT IN ('done', 'deleted')\n"
            "ORDER BY state_since NULLS LAST, tenant, list_id, task_id",
        ),
    ), has_period=False),
    Page("sessions", "Sessions", "The largest trees of sessions, with all that they started.", (
        Section(
            "Which sessions used most, with everything they started?", PRICED, "mart_session_usage",
            "SELECT tenant_id AS tenant, session_id, subtree_sessions, subtree_turns,\n"
            "    subtree_input_tokens + subtree_output_tokens AS subtree_tokens, subtree_rated_cost_usd,\n"
            "    subtree_unpriced_tokens, subtree_cost_usd\nFROM mart_session_usage\nWHERE is_top\n"
            "ORDER BY subtree_tokens DESC, tenant, session_id",
            Chart("bars", "subtree_tokens", "session_id"),
        ),
        Section(
            "What does the tree of the largest sessions look like?",
            "The five largest trees; each dot is a step down. Edges: fork, worker, or stated by the session's file.",
            "mart_session_tree",
            "WITH largest AS (\n    SELECT tenant_id, session_id AS root_session_id,\n"
            "        row_number() OVER (ORDER BY subtree_input_tokens + subtree_output_tokens DESC, session_id)\n"
            "            AS place\n"
            "    FROM mart_session_usage WHERE is_top QUALIFY place <= 5\n)\n"
            "SELECT tenant_id AS tenant, repeat('· ', depth) || session_id AS session_id, edge_kind, session_kind,\n"
            "    own_turns, own_active_seconds, subtree_sessions, subtree_turns, subtree_failures, subtree_open_runs\n"
            "FROM mart_session_tree JOIN largest USING (tenant_id, root_session_id)\nORDER BY place, path",
        ),
    ), has_period=False),
    Page("coverage", "Coverage and alerts", "What is known, what is missing, and what needs attention.", (
        Section(
            "Is everything here that was sent?", "By device, over all time.", "mart_coverage",
            "SELECT sum(rows_sent) AS rows_sent, sum(rows_loaded) AS rows_loaded, tenant_id AS tenant, device_id,\n"
            "    sum(batches) AS batches, sum(rows_dropped) AS rows_dropped, sum(lines_seen) AS lines_seen,\n"
            "    sum(lines_rejected) AS lines_rejected, sum(source_lost_bytes) AS source_lost_bytes,\n"
            "    max(known_as_of) AS known_as_of\nFROM mart_coverage\nGROUP BY ALL ORDER BY tenant, device_id",
        ),
        Section(
            "Which batches are missing?", "Devices whose batches do not follow each other without a gap.",
            "mart_manifest_chain",
            "SELECT tenant_id AS tenant, device_id, epoch, places, missing_batches, forks, rollbacks, is_overdue,\n"
            "    oldest_gap_at, last_received_at\nFROM mart_manifest_chain\nWHERE NOT is_dense\n"
            "ORDER BY missing_batches DESC, tenant, device_id, epoch",
        ),
        ALERTS,
    ), has_period=False),
)  # fmt: skip
