"""Views for people who ask questions in SQL: one for each question, over the published marts of the same file.

All views of usage have the same measures, so that one question has one answer at every grain. `pseudonym(text)` is the
name that screens and pages show for a keyed hash. Does not belong here: what a number means (models/, docs/metrics.md).
"""

from dataclasses import dataclass

import duckdb

from pipelines.contract.pseudonyms import ADJECTIVES, NOUNS

_MEASURES = """
    sum(u.turns)::BIGINT AS turns,
    sum(u.input_tokens)::BIGINT AS input_tokens,
    sum(u.cache_read_input_tokens)::BIGINT AS cache_read_input_tokens,
    sum(u.output_tokens)::BIGINT AS output_tokens,
    sum(u.input_tokens + u.output_tokens)::BIGINT AS tokens,
    sum(u.cache_read_input_tokens) / nullif(sum(u.input_tokens), 0) AS cache_share,
    sum(u.rated_cost_usd) AS rated_cost_usd,
    sum(u.reported_cost_usd) AS reported_cost_usd,
    sum(u.unpriced_tokens)::BIGINT AS unpriced_tokens
"""
_COLUMNS = {
    "turns": "Responses of models.",
    "input_tokens": "Tokens sent to models, those from caches included.",
    "cache_read_input_tokens": "Of the input tokens those that were read from a cache.",
    "output_tokens": "Tokens that models wrote.",
    "tokens": "Input and output tokens.",
    "cache_share": "Share of the input tokens that was read from a cache.",
    "rated_cost_usd": "Cost by the price book, of all tokens but the unpriced ones; NULL if none has a price.",
    "reported_cost_usd": "Cost as the agents reported it; NULL if none did.",
    "unpriced_tokens": "Tokens that no price in the book is for.",
}
_USAGE = "FROM agg_usage_session_daily AS u"
_SESSIONS = f"{_USAGE} LEFT JOIN dim_sessions AS s ON s.tenant_id = u.tenant_id AND s.session_id = u.session_id"


@dataclass(frozen=True)
class View:
    """A view: what its row is, and its query."""

    name: str
    comment: str
    sql: str


def _usage(name: str, row: str, dimensions: str, *, source: str = _USAGE) -> View:
    """Usage by some columns."""
    return View(
        name, f"One row for each {row}, with its usage.", f"SELECT {dimensions}, {_MEASURES} {source} GROUP BY ALL"
    )


VIEWS = (
    _usage("usage_by_day", "tenant and UTC day",
           "u.tenant_id, u.usage_date, count(DISTINCT u.user_id) AS users, count(DISTINCT u.session_id) AS sessions"),
    _usage("usage_by_week", "tenant and week, named by its Monday",
           "u.tenant_id, date_trunc('week', u.usage_date)::DATE AS week_date, count(DISTINCT u.user_id) AS users"),
    _usage("usage_by_model", "tenant and model", "u.tenant_id, u.model, pseudonym(u.model) AS model_label"),
    _usage("usage_by_runtime", "tenant and agent runtime", "u.tenant_id, u.agent_runtime"),
    _usage("usage_by_agent_kind", "tenant and kind of agent: sub-agents are workers", "u.tenant_id, u.agent_kind"),
    _usage("usage_by_user", "tenant and user",
           "u.tenant_id, u.user_id, count(DISTINCT u.usage_date) AS days, count(DISTINCT u.session_id) AS sessions"),
    _usage("usage_by_colony", "tenant and colony; without one, work of no colony", "u.tenant_id, u.colony_id"),
    _usage("usage_by_project", "tenant and project; without one, work whose runtime names none",
           "u.tenant_id, s.project_id, pseudonym(s.project_id) AS project_label,"
           " count(DISTINCT u.session_id) AS sessions", source=_SESSIONS),
    _usage("usage_by_agent", "tenant and agent",
           "u.tenant_id, s.agent_id, pseudonym(s.agent_id) AS agent_label, count(DISTINCT u.session_id) AS sessions",
           source=_SESSIONS),
    _usage("usage_by_session", "session",
           "u.tenant_id, u.session_id, u.user_id, s.agent_runtime, s.agent_kind, pseudonym(s.agent_id) AS agent_label,"
           " s.started_at, s.last_turn_at", source=_SESSIONS),
    View("agents_now", "One row for each session that has not ended, as of the last word of its device.",
         "SELECT tenant_id, session_id, agent_kind, status, liveness, blocked_kind, phase, silent_seconds,"
         " open_task_count, status_since, last_event_at, known_as_of FROM mart_status_snapshot"
         " WHERE status <> 'ended'"),
    View("runs", "One row for each run of an agent, with its state as of the last word of its device.",
         "SELECT tenant_id, run_key, session_id, agent_kind, pseudonym(agent_name) AS agent_label, state, outcome,"
         " error_class, turns, input_tokens + output_tokens AS tokens, reported_cost_usd, wall_seconds, active_seconds,"
         " started_at, ended_at FROM mart_agent_executions"),
    View("agent_scores", "One row for each agent of a tenant, over all kinds of its work.",
         "SELECT tenant_id, agent_id, pseudonym(agent_id) AS agent_label, sum(runs)::BIGINT AS runs,"
         " sum(finished_runs)::BIGINT AS finished_runs, sum(successes)::BIGINT AS successes,"
         " sum(failures)::BIGINT AS failures, sum(timeouts)::BIGINT AS timeouts, sum(retries)::BIGINT AS retries,"
         " sum(stall_events)::BIGINT AS stalls, sum(successes) / nullif(sum(finished_runs), 0) AS success_share,"
         " sum(reported_cost_usd) AS reported_cost_usd FROM mart_agent_scorecard GROUP BY ALL"),
    View("tool_use", "One row for each tool of a tenant.",
         "SELECT tenant_id, tool_name, pseudonym(tool_name) AS tool_label, sum(calls)::BIGINT AS calls,"
         " sum(errors)::BIGINT AS errors, sum(errors) / nullif(sum(calls), 0) AS error_share,"
         " sum(seconds) / nullif(sum(timed_calls), 0) AS mean_seconds FROM agg_tools_daily GROUP BY ALL"),
    View("tasks_by_day", "One row for each tenant and UTC day on which tasks changed.",
         "SELECT tenant_id, changed_date, sum(created_tasks)::BIGINT AS created_tasks,"
         " sum(done_tasks)::BIGINT AS done_tasks, sum(failed_tasks)::BIGINT AS failed_tasks,"
         " sum(reopened_tasks)::BIGINT AS reopened_tasks FROM agg_tasks_daily GROUP BY ALL"),
    View("unpriced_models", "One row for each model of a tenant of which tokens have no price in the book.",
         "SELECT tenant_id, model, pseudonym(model) AS model_label, sum(unpriced_tokens)::BIGINT AS unpriced_tokens,"
         " sum(unpriced_turns)::BIGINT AS unpriced_turns FROM agg_usage_session_daily GROUP BY ALL"
         " HAVING sum(unpriced_tokens) > 0"),
)  # fmt: skip


def create(connection: duckdb.DuckDBPyConnection, database: str) -> list[str]:
    """Make the views in a database whose marts are tables already; their names.

    A file may hold the marts of one role only: views whose marts or columns it lacks are left out. Raises duckdb.Error.
    """
    (before,) = connection.execute(
        """SELECT format('"{}"."{}"', current_database(), current_schema())"""
    ).fetchone() or ("",)
    connection.execute(f"USE {database}")  # a view finds its tables by their bare names wherever its file is opened
    made = []
    try:
        connection.execute(_pseudonym_macro())
        for view in VIEWS:
            try:
                connection.execute(f"CREATE VIEW {view.name} AS {view.sql}")
            except (duckdb.CatalogException, duckdb.BinderException):
                continue  # a mart or a column that this file does not hold; the tests ask for every view of a whole one
            connection.execute(f"COMMENT ON VIEW {view.name} IS '{view.comment}'")
            made.append(view.name)
            for column in connection.execute(f"DESCRIBE {view.name}").fetchall():
                if text := _COLUMNS.get(column[0]):
                    connection.execute(f"COMMENT ON COLUMN {view.name}.{column[0]} IS '{text}'")
    finally:
        connection.execute(f"USE {before}")
    return made


def _pseudonym_macro() -> str:
    """`pseudonym(text)`: as contract/pseudonyms.py, with two digits; a text without a keyed hash at its end stays."""
    words = {
        name: "[" + ", ".join(f"'{word}'" for word in words) + "]"
        for name, words in (("adjectives", ADJECTIVES), ("nouns", NOUNS))
    }
    count = f"{len(ADJECTIVES)}::UHUGEINT"
    number = (
        "(('0x' || substr(regexp_extract(text, 'k1_([0-9a-f]{32})$', 1), 1, 16))::UBIGINT::UHUGEINT"
        " * 18446744073709551616::UHUGEINT"
        " + ('0x' || substr(regexp_extract(text, 'k1_([0-9a-f]{32})$', 1), 17, 16))::UBIGINT::UHUGEINT)"
    )
    return (
        "CREATE MACRO pseudonym(text) AS CASE WHEN regexp_matches(text, 'k1_[0-9a-f]{32}$') THEN"
        f" regexp_replace(text, 'k1_[0-9a-f]{{32}}$', {words['adjectives']}[({number} % {count})::BIGINT + 1]"
        f" || '-' || {words['nouns']}[(({number} // {count}) % {count})::BIGINT + 1]"
        f" || '-' || reverse(lpad((({number} // ({count} * {count})) % 100)::VARCHAR, 2, '0'))) ELSE text END"
    )
