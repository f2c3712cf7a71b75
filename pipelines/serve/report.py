"""One HTML page of the published data, for people: it loads nothing, works offline, and says under each picture the
numbers that it was drawn from.

Does not belong here: sums that have a name (models/metrics.yml), questions that need a person (notebooks/).
"""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import duckdb

from pipelines.contract.numbers import money, plain
from pipelines.errors import UsageError
from pipelines.home import replace_file
from pipelines.warehouse.metrics import describe, metrics
from pipelines.warehouse.reading import connect

OF_TENANT = "($tenant IS NULL OR tenant_id = $tenant)"
SHOWN = 8  # more series than colours one can tell apart
HEADLINES = (
    "turns", "total_tokens", "rated_cost_usd", "unpriced_tokens", "reported_cost_usd", "unreported_turns",
    "wasted_tokens", "wasted_cost_usd", "tool_calls", "sessions",
)  # fmt: skip
PALETTE = ["#4c78a8", "#f58518", "#54a24b", "#b279a2", "#e45756", "#72b7b2", "#eeca3b", "#9d755d", "#8c8c8c"]

Rows = Sequence[tuple[Any, ...]]


class Section(NamedTuple):
    """A question, its picture if there is one, and its numbers."""

    title: str
    text: str
    names: Sequence[str]
    rows: Rows
    chart: alt.Chart | None = None


def write(published: Path, out: Path, *, tenant: str | None = None) -> Path:
    """Write the page; where. Raises NothingPublishedError, UsageError for a tenant without data."""
    with connect(published) as connection:
        page = render(connection, tenant)
    replace_file(out.absolute(), page.encode())
    return out


def render(connection: duckdb.DuckDBPyConnection, tenant: str | None) -> str:
    """The page."""
    tenants = _ask(connection, f"SELECT tenant_id, known_as_of FROM dim_tenants WHERE {OF_TENANT} ORDER BY 1", tenant)
    if tenant is not None and not tenants:
        raise UsageError(f"nothing is published of tenant {tenant!r}")
    formulas = ", ".join(metrics()[name].formula for name in HEADLINES)
    whole = _ask(connection, f"SELECT {formulas} FROM agg_usage_quarter_hourly WHERE {OF_TENANT}", tenant)[0]
    head = "".join(
        f"<div class=card title='{escape(describe(n), quote=True)}'><dt>{n.replace('_', ' ')}</dt>"
        f"<dd data-metric={n}>{_cell(v)}</dd></div>"
        for n, v in zip(HEADLINES, whole, strict=True)
    )
    sections = "".join(map(_section, _sections(connection, tenant)))
    known = max((row[1] for row in tenants if row[1]), default=None)
    of = escape(tenant or ", ".join(row[0] for row in tenants) or "nobody")
    when = f"{known:%Y-%m-%d %H:%M} UTC" if known else "never"
    return _PAGE.format(of=of, when=when, head=head, sections=sections)


def _sections(connection: duckdb.DuckDBPyConnection, tenant: str | None) -> list[Section]:
    def ask(sql: str) -> Rows:
        return _ask(connection, sql, tenant)

    daily = ask(
        "SELECT zone_date, model, sum(turns), sum(input_tokens + output_tokens), sum(rated_cost_usd),"
        " sum(unpriced_tokens), sum(reported_cost_usd)"
        f" FROM agg_usage_quarter_hourly WHERE {OF_TENANT} GROUP BY ALL ORDER BY ALL"
    )
    models = ask(
        "SELECT model, sum(turns), sum(input_tokens + output_tokens) AS tokens, sum(rated_cost_usd),"
        " sum(unpriced_tokens), sum(reported_cost_usd)"
        f" FROM agg_usage_quarter_hourly WHERE {OF_TENANT} GROUP BY ALL ORDER BY tokens DESC, model"
    )
    waste = ask(
        "SELECT waste_kind, sum(turns), sum(input_tokens + output_tokens), sum(reported_cost_usd)"
        f" FROM agg_usage_quarter_hourly WHERE waste_kind <> 'none' AND {OF_TENANT} GROUP BY ALL ORDER BY 3 DESC, 1"
    )
    tools = ask(
        "SELECT tool_name, sum(tool_calls) AS calls, sum(tool_errors) FROM agg_usage_quarter_hourly"
        f" WHERE tool_calls > 0 AND {OF_TENANT} GROUP BY ALL ORDER BY calls DESC, 1 LIMIT 15"
    )
    hours = ask(
        "SELECT hours.hour, coalesce(sum(turns), 0) FROM range(24) AS hours (hour) LEFT JOIN"
        f" (SELECT * FROM agg_usage_quarter_hourly WHERE {OF_TENANT}) ON hour(zone_hour) = hours.hour"
        " GROUP BY ALL ORDER BY ALL"
    )
    days_used = ask(
        "SELECT zone_date, sum(turns), sum(input_tokens + output_tokens), sum(rated_cost_usd), sum(unpriced_tokens),"
        " sum(reported_cost_usd), count(DISTINCT user_id), count(DISTINCT colony_id), count(DISTINCT session_id)"
        f" FROM agg_usage_quarter_hourly WHERE {OF_TENANT} GROUP BY ALL ORDER BY ALL"
    )
    zones = ", ".join(
        row[0] for row in ask(f"SELECT DISTINCT time_zone FROM agg_usage_quarter_hourly WHERE {OF_TENANT} ORDER BY 1")
    )
    users, colonies, agents = (
        ask(
            f"SELECT used.tenant_id, {name}, sum(used.turns), sum(used.input_tokens + used.output_tokens) AS tokens,"
            " sum(used.rated_cost_usd), sum(used.unpriced_tokens), sum(used.reported_cost_usd)"
            " FROM agg_usage_session_daily AS used LEFT JOIN dim_sessions AS sessions USING (tenant_id, session_id)"
            f" WHERE {name} IS NOT NULL AND ($tenant IS NULL OR used.tenant_id = $tenant)"
            " GROUP BY ALL ORDER BY tokens DESC, 1, 2 LIMIT 15"
        )
        for name in ("used.user_id", "used.colony_id", "sessions.agent_id")
    )
    inherited = ask(
        "SELECT inheritance_kind, count(*), sum(input_tokens), sum(inherited_input_tokens),"
        " sum(inherited_cache_read_input_tokens), sum(first_turn_cost_usd)"
        f" FROM mart_session_usage WHERE inheritance_kind IS NOT NULL AND {OF_TENANT} GROUP BY ALL ORDER BY ALL"
    )
    trees = ask(
        "SELECT tenant_id, session_id, subtree_sessions, subtree_turns, subtree_input_tokens + subtree_output_tokens"
        " AS tokens, subtree_rated_cost_usd, subtree_unpriced_tokens, subtree_cost_usd"
        f" FROM mart_session_usage WHERE is_top AND {OF_TENANT}"
        " ORDER BY tokens DESC, 1, 2 LIMIT 10"
    )
    budgets = ask(
        "SELECT budget_id, tenant_id, period, measure, used_amount, limit_amount, forecast_low_amount, forecast_amount,"
        f" forecast_high_amount, runs_out_date, budget_state FROM mart_budget"
        f" WHERE is_current AND {OF_TENANT} ORDER BY 1"
    )
    alerts = ask(
        "SELECT occurred_at, severity, alert_kind, tenant_id, subject_id, found_value, expected_value,"
        f" detected_late_by_seconds FROM mart_alerts WHERE {OF_TENANT} ORDER BY occurred_at DESC, alert_id LIMIT 30"
    )
    status = ask(f"SELECT status, count(*) FROM mart_status_snapshot WHERE {OF_TENANT} GROUP BY ALL ORDER BY 2 DESC, 1")
    names = [row[0] for row in models if row[0] != "unknown"][: SHOWN - 1]
    shown = [
        {"day": str(day), "model": model if model in names else "other or unknown", "tokens": int(tokens),
         "cost": float(cost or 0)}
        for day, model, _, tokens, cost, _, _ in daily
    ]  # fmt: skip
    days = _days([row[0] for row in daily])
    usage = ("turns", "tokens", "rated cost USD", "tokens without a price", "reported cost USD")
    return [
        Section(
            "What is spent per day?",
            "List price of the price book. Tokens without a price are not in it: their cost is unknown, not zero.",
            ("day", "model", *usage), daily, _stacked(shown, days, "cost", "rated cost (USD)"),
        ),
        Section(
            "How many tokens per day?", f"Input, with its cache, and output. Days are those of the zone {zones}.",
            ("day", *usage, "users", "colonies", "sessions"), days_used, _stacked(shown, days, "tokens", "tokens"),
        ),
        Section(
            "Which models are used?", "A name with k1_ is a keyed hash: whoever has the key can resolve it.",
            ("model", *usage), models,
        ),
        *(
            Section(f"Which {many} use most?", "The fifteen with the most tokens.", ("tenant", one, *usage), rows)
            for many, one, rows in (
                ("users", "user", users), ("colonies", "colony", colonies), ("agents", "agent", agents),
            )
        ),
        Section(
            "At which hours of the day?", f"On the clock of the zone {zones}.", ("hour", "turns"), hours,
            _bars([{"hour": f"{h:02}", "turns": int(n)} for h, n in hours], "hour", "turns", across=False),
        ),
        Section(
            "How are the agents?", "By the last that was heard. An upload that stopped says nothing of an agent.",
            ("status", "sessions"), status,
            _bars([{"status": s, "sessions": n} for s, n in status], "status", "sessions") if status else None,
        ),
        Section(
            "What was for nothing?", "Work that was cancelled, failed, was replayed or came of a stall.",
            ("why", "turns", "tokens", "reported cost USD"), waste,
            _bars([{"why": w, "tokens": int(n)} for w, _, n, _ in waste], "why", "tokens") if waste else None,
        ),
        Section(
            "What does inherited context cost?",
            "Forks and workers begin with their parent's conversation and send it again with every turn.",
            ("kind", "sessions", "input tokens", "of them inherited", "of these from a cache", "first turns' cost USD"),
            inherited,
        ),
        Section(
            "Which trees of sessions are the largest?", "A top session with all that stands below it.",
            ("tenant", "session", "sessions", *usage), trees,
        ),
        Section(
            "Which tools are called?", "Finished calls, and how many of them ended in an error.",
            ("tool", "calls", "errors"), tools,
            _bars([{"tool": _short(t), "calls": int(n)} for t, n, _ in tools], "tool", "calls") if tools else None,
        ),
        Section(
            "Will the budgets last?", describe("budget_forecast_amount"),
            ("budget", "tenant", "period", "measure", "used", "limit", "low", "forecast", "high", "runs out", "state"),
            budgets,
        ),
        Section(
            "What should somebody look at?", "The newest thirty; late is how long the data took to show it.",
            ("when", "severity", "what", "tenant", "about", "found", "against", "late by seconds"), alerts,
        ),
    ]  # fmt: skip


def _ask(connection: duckdb.DuckDBPyConnection, sql: str, tenant: str | None) -> Rows:
    return connection.execute(sql, {"tenant": tenant}).fetchall()


def _days(days: Sequence[date]) -> list[str]:
    """Every day from the first to the last: one without usage has its place."""
    if not days:
        return []
    first, last = min(days), max(days)
    return [str(date.fromordinal(n)) for n in range(first.toordinal(), last.toordinal() + 1)]


def _stacked(rows: list[dict[str, Any]], days: list[str], field: str, title: str) -> alt.Chart | None:
    if not rows:
        return None
    labels = alt.Axis(labelAngle=-40, labelOverlap=True)
    chart: alt.Chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("day:O", title=None, scale=alt.Scale(domain=days), axis=labels),
            y=alt.Y(f"sum({field}):Q", title=title, axis=alt.Axis(format="~s")),
            color=alt.Color("model:N", title=None, scale=alt.Scale(range=PALETTE), legend=alt.Legend(
                orient="bottom", columns=2, labelLimit=220)),
        )
        .properties(width=560, height=220)
    )  # fmt: skip
    return chart


def _bars(rows: list[dict[str, Any]], name: str, value: str, *, across: bool = True) -> alt.Chart:
    label = alt.Axis(labelLimit=220, labelAngle=0)
    length, place = alt.Axis(format="~s"), f"{name}:N"
    order = [row[name] for row in rows]
    encoded = {
        "y" if across else "x": (alt.Y if across else alt.X)(place, sort=order, title=None, axis=label),
        "x" if across else "y": (alt.X if across else alt.Y)(f"{value}:Q", title=value, axis=length),
    }
    chart: alt.Chart = alt.Chart(alt.InlineData(values=rows)).mark_bar(color=PALETTE[0]).encode(**encoded)
    return chart.properties(width=520, height=180 if not across else alt.Step(18))


def _drawn(chart: alt.Chart, title: str) -> str:
    """The picture as SVG, without a background and with the page's ink, so that dark pages stay dark."""
    import vl_convert

    svg: str = vl_convert.vegalite_to_svg(chart.configure(background="transparent").to_dict())
    for ink in ("#000", "black", "#888", "#ddd"):
        svg = svg.replace(f'fill="{ink}"', 'fill="currentColor"').replace(f'stroke="{ink}"', 'stroke="currentColor"')
    return (
        f'<figure role="img" aria-label="{escape(title, quote=True)}: the table below has its numbers">{svg}</figure>'
    )


def _section(section: Section) -> str:
    title = escape(section.title)
    if not section.rows:
        return f"<section><h2>{title}</h2><p>{escape(section.text)}</p><p>Nothing.</p></section>"
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in section.names)
    body = "".join(
        "<tr>" + "".join(f"<td{' class=n' if _is_number(v) else ''}>{_cell(v)}</td>" for v in row) + "</tr>"
        for row in section.rows
    )
    is_drawn = section.chart is not None
    table = f"<div class=wide tabindex=0><table><caption>{title}</caption><tr>{head}</tr>{body}</table></div>"
    if is_drawn:
        table = f"<details><summary>the numbers</summary>{table}</details>"
    picture = _drawn(section.chart, section.title) if section.chart is not None else ""
    return f"<section><h2>{title}</h2><p>{escape(section.text)}</p>{picture}{table}</section>"


def _is_number(value: object) -> bool:
    return isinstance(value, (int, Decimal))


def _cell(value: object) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, Decimal):
        return f'<data value="{plain(value)}" title="{plain(value)}">{escape(money(value))}</data>'
    if isinstance(value, int):
        return f"{value:,}"
    return escape(_short(str(value)))


def _short(name: str) -> str:
    """A name that fits: of a keyed hash its first digits."""
    return f"{name[:11]}…" if name.startswith("k1_") else name


_PAGE = """<!doctype html>
<html lang=en><head><meta charset=utf-8><meta name=viewport content="width=device-width,initial-scale=1">
<meta http-equiv=Content-Security-Policy content="default-src 'none'; style-src 'unsafe-inline'">
<title>Apiary: {of}</title>
<style>
:root {{ color-scheme: light dark; --ink: #1d2433; --soft: #5b6577; --line: #d9dee7; --paper: #fff; --ground: #f3f5f9 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6eaf2; --soft: #9aa5b8; --line: #333c4d; --paper: #1a2130; --ground: #11161f }} }}
* {{ box-sizing: border-box }}
body {{ margin: 0; background: var(--ground); color: var(--ink); font: 16px/1.5 system-ui, sans-serif }}
header, main {{ max-width: 1400px; margin: 0 auto; padding: 1rem }}
h1 {{ margin: .5rem 0 0; font-size: 1.6rem }} h2 {{ margin: 0 0 .25rem; font-size: 1.1rem }}
p {{ margin: 0 0 .75rem; color: var(--soft) }}
dl {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .75rem; margin: 1rem 0 0 }}
.card, section {{ background: var(--paper); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem }}
dt {{ color: var(--soft); font-size: .85rem }}
dd {{ margin: 0; font-size: 1.2rem; font-weight: 600; overflow-wrap: anywhere }}
main {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem }}
section {{ min-width: 0 }}
figure {{ margin: 0 0 .5rem; overflow-x: auto }}
figure svg {{ width: 100%; min-width: 32rem; height: auto; max-height: 26rem }}
.wide, figure {{ scrollbar-width: thin; scrollbar-color: var(--soft) transparent }}
.wide {{ overflow: auto; max-height: 24rem }}
table {{ border-collapse: collapse; width: 100%; font-size: .85rem; font-variant-numeric: tabular-nums }}
caption {{ position: absolute; clip-path: inset(50%) }}
th, td {{ text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid var(--line); white-space: nowrap }}
.n {{ text-align: right }}
summary {{ cursor: pointer; color: var(--soft) }}
:focus-visible {{ outline: 3px solid #4c78a8; outline-offset: 2px }}
</style></head><body>
<header><h1>{of}</h1><p>What arrived until {when}.</p><dl>{head}</dl></header>
<main>{sections}</main></body></html>
"""
