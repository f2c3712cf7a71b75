"""Usage at every grain and in every zone against Python's own calendar; trees, inheritance, waste and tools by hand."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from pipelines.billing import books
from pipelines.warehouse.metrics import metrics
from tests.warehouse import Warehouse

# Zone -> days on which something happens to its clocks or to the calendar, with the hours that the zone's day has.
ZONES = {
    "Europe/Berlin": {date(2026, 3, 29): 23, date(2026, 10, 25): 25, date(2026, 12, 31): 24},
    "America/New_York": {date(2026, 3, 8): 23, date(2026, 11, 1): 25, date(2024, 2, 29): 24},
    "Australia/Lord_Howe": {date(2026, 4, 5): 24.5, date(2026, 10, 4): 23.5},
    "Asia/Kathmandu": {date(2024, 2, 29): 24, date(2026, 12, 31): 24},
    "Asia/Kolkata": {date(2027, 1, 1): 24},
    "Pacific/Chatham": {date(2026, 4, 5): 25, date(2026, 9, 27): 23},
    "Pacific/Apia": {date(2026, 2, 28): 24},
    "UTC": {date(2024, 2, 29): 24, date(2026, 12, 31): 24},
}
TENANTS = {zone: f"t{number}" for number, zone in enumerate(ZONES)}
# Zones that a billing account names, with what the seed says of its tenant: the account holds.
SIGNED = {"Europe/Berlin": "Asia/Tokyo", "Asia/Kathmandu": "UTC"}
STEP = timedelta(minutes=30)

Record = tuple[str, dict[str, Any]]
Turn = dict[str, Any]
Query = Callable[[str], list[tuple[Any, ...]]]


def zoned_turns() -> list[Turn]:
    """Turns every half hour of each of those days on the zone's clock, and the hours around it."""
    turns = []
    for zone, days in ZONES.items():
        clock = ZoneInfo(zone)
        for day in days:
            start = datetime(day.year, day.month, day.day, tzinfo=clock).astimezone(UTC) - timedelta(hours=2)
            for step in range(58):
                number = len(turns)
                turns.append(
                    {
                        "record_id": f"z{number}", "tenant_id": TENANTS[zone], "session_id": f"s{number % 3}",
                        "agent_role": ("queen", "worker")[number % 2], "model": ("m", "n", None)[number % 3],
                        "time_basis": "utc", "input_tokens": 100 + number, "output_tokens": 7,
                        "reported_cost_usd": None if number % 5 == 0 else Decimal(number).scaleb(-20),
                        "occurred_at": start + step * STEP + timedelta(minutes=number % 15, seconds=59),
                    }
                )  # fmt: skip
    return turns


MORNING = datetime(2026, 3, 1, 9, tzinfo=UTC)


def at(minute: float) -> datetime:
    return MORNING + timedelta(minutes=minute)


def turn(record: str, session: str, minute: float, tokens: tuple[int, int], cost: str | None, **more: Any) -> Record:
    given = {
        "record_id": record, "tenant_id": "tree", "session_id": session, "agent_role": "queen", "model": "m",
        "time_basis": "utc", "input_tokens": tokens[0], "output_tokens": tokens[1], "occurred_at": at(minute),
        "reported_cost_usd": None if cost is None else Decimal(cost),
    }  # fmt: skip
    return "llm_turns", given | more


def event(record: str, session: str, kind: str, minute: float) -> Record:
    return (
        "status_events",
        {"record_id": record, "tenant_id": "tree", "session_id": session, "kind": kind, "agent_role": "queen",
         "time_basis": "utc", "occurred_at": at(minute)},
    )  # fmt: skip


def call(record: str, session: str, tool: str, minute: float, *, is_error: bool = False) -> Record:
    return (
        "tool_calls",
        {"record_id": record, "tenant_id": "tree", "session_id": session, "tool_name": tool, "origin": "event",
         "agent_role": "worker" if session == "w1" else "queen", "is_error": is_error, "occurred_at": at(minute)},
    )  # fmt: skip


def run(record: str, session: str, kind: str, minute: float, outcome: str | None = None) -> Record:
    return (
        "agent_runs",
        {"record_id": record, "tenant_id": "tree", "session_id": session, "kind": kind, "outcome": outcome,
         "time_basis": "utc", "occurred_at": at(minute)},
    )  # fmt: skip


# queen ─┬─ fork ── deep        A fork of the queen has a worker of its own; two more workers report to the queen, and
#        ├─ w1 (failed)         one session hangs below a parent that no device has shown.
#        └─ w2 (stopped)
TREE: list[Record] = [
    turn("q1", "queen", 0, (1000, 100), "0.1"),
    call("c1", "queen", "web_search", 4),
    turn("q2", "queen", 5, (2000, 200), "0.2"),
    ("sessions", {"record_id": "o1", "tenant_id": "tree", "session_id": "fork", "evidence": "meta",
                  "parent_session_id": "queen", "forked_from_session_id": "queen", "session_kind": "colony_queen",
                  "observed_at": at(60)}),
    ("colonies", {"record_id": "o2", "tenant_id": "tree", "queen_session_id": "fork", "colony_name": "k1_hive",
                  "observed_at": at(60)}),
    turn("f1", "fork", 10, (2100, 50), "0.3", cache_read_input_tokens=1500),
    turn("f2", "fork", 11, (2600, 50), None, cache_read_input_tokens=2500),
    turn("d1", "deep", 12, (900, 10), "0.05", agent_role="worker", parent_session_id="fork"),
    # w1 begins before the queen's second turn: it takes over the first one's context, 1000 + 100.
    turn("w1a", "w1", 3, (1500, 10), "0.4", agent_role="worker", parent_session_id="queen"),
    call("c2", "w1", "read_file", 5, is_error=True),
    call("c3", "w1", "web_search", 6),
    turn("w1b", "w1", 6, (1700, 10), None, agent_role="worker", parent_session_id="queen"),
    run("r1", "w1", "report", 7, "failed"),
    turn("w2a", "w2", 20, (3000, 30), "0.6", agent_role="worker", parent_session_id="queen"),
    run("r2", "w2", "report", 21, "stopped"),
    # A session without an end, with trouble before two of its turns and a person's word before one.
    turn("x1", "stray", 30, (10, 1), "1", parent_session_id="unseen"),
    event("e1", "stray", "tool_replayed", 31),
    event("e2", "stray", "stalled", 31.5),
    turn("x2", "stray", 32, (20, 2), "2", parent_session_id="unseen"),
    event("e3", "stray", "doom_loop", 33),
    turn("x3", "stray", 34, (40, 4), "4", parent_session_id="unseen"),
    event("e4", "stray", "input_received", 35),
    turn("x4", "stray", 36, (80, 8), "8", parent_session_id="unseen", stop_reason="cancelled"),
]  # fmt: skip


def level(table: str, session: str, tokens: tuple[int, int]) -> Record:
    names = (
        ("total_input_tokens", "total_output_tokens") if table == "run_summaries" else ("input_tokens", "output_tokens")
    )
    row = {"record_id": f"{table} {session}", "tenant_id": "tree", "session_id": session}
    return table, row | dict(zip(names, tokens, strict=True))


# What the other logs say of three of the tree's sessions: two agree with the events, an L2 line has a token more.
OTHER_LEVELS = [
    level("node_details", "deep", (900, 10)), level("run_summaries", "deep", (900, 10)),
    level("node_details", "w2", (3000, 31)), level("run_summaries", "w2", (3000, 30)),
    level("run_summaries", "w1", (3200, 20)),
]  # fmt: skip


@pytest.fixture(scope="module")
def zoned() -> list[Turn]:
    return zoned_turns()


@pytest.fixture(scope="module")
def query(dbt_home: Path, zoned: list[Turn]) -> Iterator[Query]:
    """The marts of both, built once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        warehouse = Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target")
        warehouse.seed(
            "tenant_zones",
            [{"tenant_id": TENANTS[zone], "time_zone": SIGNED.get(zone, zone)} for zone in ZONES if zone != "UTC"],
        )
        accounts = [
            {
                "billing_account_id": TENANTS[zone], "tenant_id": TENANTS[zone], "name": zone, "currency": "USD",
                "reporting_timezone": zone, "charged_by": "tokens", "recorded_at": datetime(2026, 3, 1, tzinfo=UTC),
            }
            for zone in SIGNED
        ]  # fmt: skip
        books.append(books.ACCOUNTS, dbt_home / "accounts", accounts)
        warehouse.sign(dbt_home / "accounts")
        warehouse.load([("llm_turns", row) for row in zoned])
        warehouse.load(TREE)
        warehouse.load(OTHER_LEVELS)
        marts = ("agg_usage_quarter_hourly", "mart_session_usage", "mart_colony_usage", "mart_usage_crosscheck")
        warehouse.run("--select", *(f"+{mart}" for mart in marts))
        file = warehouse.copy(dbt_home / "usage.duckdb")
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute("use marts")
        yield lambda sql: connection.execute(sql).fetchall()


# The period of an instant on a clock, by Python's calendar.
GRAINS: dict[str, Callable[[datetime], Any]] = {
    "hour": lambda local: (local.replace(minute=0, second=0, microsecond=0, tzinfo=None), local.utcoffset()),
    "date": lambda local: local.date(),
    "week_date": lambda local: local.date() - timedelta(days=local.weekday()),
    "month_date": lambda local: local.date().replace(day=1),
}
PERIODS = [(prefix, grain) for prefix in ("usage", "zone") for grain in GRAINS]
FORMULAS = {
    name: metrics()[name].formula for name in ("turns", "total_tokens", "unreported_turns", "reported_cost_usd")
}


def counted(turns: list[Turn]) -> tuple[Any, ...]:
    costs = [row["reported_cost_usd"] for row in turns if row["reported_cost_usd"] is not None]
    tokens = sum(row["input_tokens"] + row["output_tokens"] for row in turns)
    return len(turns), tokens, len(turns) - len(costs), sum(costs, Decimal(0)) if costs else None


@pytest.mark.parametrize(("prefix", "grain"), PERIODS)
def test_every_grain_of_every_zone_is_what_the_calendar_says(
    query: Query, zoned: list[Turn], prefix: str, grain: str
) -> None:
    """Test 53: every half hour around both changes of the clocks in six zones, a leap day, the end of a year."""
    expected: dict[Any, list[Turn]] = defaultdict(list)
    for zone, tenant in TENANTS.items():
        clock = ZoneInfo(zone if prefix == "zone" else "UTC")
        for row in zoned:
            if row["tenant_id"] == tenant:
                expected[tenant, GRAINS[grain](row["occurred_at"].astimezone(clock))].append(row)
    offset = "zone_offset_minutes" if prefix == "zone" else "0"
    found = query(
        f"select tenant_id, {prefix}_{grain}, {offset if grain == 'hour' else 'null'}, {', '.join(FORMULAS.values())}"
        " from agg_usage_quarter_hourly where tenant_id <> 'tree' group by 1, 2, 3"
    )
    assert {
        (tenant, (period, timedelta(minutes=minutes)) if grain == "hour" else period): tuple(measures)
        for tenant, period, minutes, *measures in found
    } == {key: counted(turns) for key, turns in expected.items()}


@pytest.mark.parametrize(("prefix", "grain"), PERIODS)
@pytest.mark.parametrize(
    "dimension", ["tenant_id", "session_id", "user_id", "colony_id", "agent_kind", "model", "tool_name", "waste_kind"]
)
def test_parts_add_up_to_the_whole(query: Query, dimension: str, prefix: str, grain: str) -> None:
    measures = ", ".join(f"{formula} as {name}" for name, formula in FORMULAS.items())
    whole = query(
        "select count(*), sum(input_tokens + output_tokens), count(*) - count(reported_cost_usd),"
        " sum(reported_cost_usd) from fct_llm_turns"
    )
    parts = query(
        f"select {', '.join(f'sum({name})' for name in FORMULAS)} from (select {measures}"
        f" from agg_usage_quarter_hourly group by tenant_id, {dimension}, {prefix}_{grain})"
    )
    assert parts == whole


def test_days_have_as_many_hours_as_the_clocks_gave_them(query: Query) -> None:
    for zone, days in ZONES.items():
        for day, hours in days.items():
            ((turns, quarters),) = query(
                "select sum(turns), count(distinct quarter_at) from agg_usage_quarter_hourly"
                f" where tenant_id = '{TENANTS[zone]}' and zone_date = '{day}'"
            )
            assert (turns, quarters) == (hours * 2, hours * 2), (zone, day)


def test_a_tenant_without_a_zone_reports_in_utc(query: Query) -> None:
    assert query(
        "select distinct time_zone, zone_offset_minutes, zone_date = usage_date, zone_hour = usage_hour"
        " from agg_usage_quarter_hourly where tenant_id = 'tree'"
    ) == [("UTC", 0, True, True)]


def test_one_token_too_many_in_one_log_is_flagged(query: Query) -> None:
    """Test 56: a session's tokens in its events, its L2 lines and its summary; cached ones are within the input."""
    rows = query(
        "select session_id, event_tokens, detail_tokens, summary_tokens, difference_tokens, is_corroborated"
        " from mart_usage_crosscheck where tenant_id = 'tree' and levels > 1 order by session_id"
    )
    assert rows == [
        ("deep", 910, 910, 910, 0, True),
        ("w1", 3220, None, 3220, 0, True),
        ("w2", 3030, 3031, 3030, 1, False),
    ]


def test_own_and_subtree(query: Query) -> None:
    rows = query(
        "select session_id, turns, subtree_sessions, subtree_turns, subtree_input_tokens, subtree_cost_usd, is_top"
        " from mart_session_usage where tenant_id = 'tree' order by session_id"
    )
    assert rows == [
        ("deep", 1, 1, 1, 900, Decimal("0.05"), False),
        ("fork", 2, 2, 3, 5600, Decimal("0.35"), False),
        ("queen", 2, 5, 8, 14800, Decimal("1.65"), True),
        ("stray", 4, 1, 4, 150, Decimal(15), True),
        ("w1", 2, 1, 2, 3200, Decimal("0.4"), False),
        ("w2", 1, 1, 1, 3000, Decimal("0.6"), False),
    ]
    assert query(
        f"select {metrics()['subtree_cost_usd'].formula}, sum(reported_cost_usd) from mart_session_usage"
        " where tenant_id = 'tree'"
    ) == [(Decimal("16.65"), Decimal("16.65"))]


def test_price_of_inheritance(query: Query) -> None:
    """The fork sends min(2100, 2000 + 200) = 2100 again with both turns; w1 min(1500, 1100), w2 min(3000, 2200)."""
    rows = query(
        "select session_id, inheritance_kind, inherited_context_tokens, inherited_input_tokens,"
        " inherited_cache_read_input_tokens, first_turn_cost_usd"
        " from mart_session_usage where inheritance_kind is not null and tenant_id = 'tree' order by session_id"
    )
    assert rows == [
        ("deep", "worker", 900, 900, 0, Decimal("0.05")),
        ("fork", "fork", 2100, 4200, 3600, Decimal("0.3")),
        ("w1", "worker", 1100, 2200, 0, Decimal("0.4")),
        ("w2", "worker", 2200, 2200, 0, Decimal("0.6")),
    ]
    formulas = [metrics()[f"inherited_{name}"].formula for name in ("context_tokens", "input_tokens")]
    assert query(f"select {', '.join(formulas)} from mart_session_usage where tenant_id = 'tree'") == [(6300, 9500)]


def test_a_colony_is_its_queen_and_what_is_below_her(query: Query) -> None:
    assert query(
        "select colony_id, sessions, turns, input_tokens, own_input_tokens, reported_cost_usd, own_cost_usd,"
        " unreported_turns, inherited_input_tokens from mart_colony_usage where tenant_id = 'tree'"
    ) == [("fork", 2, 3, 5600, 4700, Decimal("0.35"), Decimal("0.3"), 1, 5100)]


def test_waste_has_one_kind_and_its_cost(query: Query) -> None:
    rows = query(
        "select waste_kind, sum(turns), sum(input_tokens + output_tokens), sum(reported_cost_usd),"
        " sum(unreported_turns) from agg_usage_quarter_hourly"
        " where tenant_id = 'tree' and turns > 0 group by 1 order by 1"
    )
    assert rows == [
        ("cancelled", 2, 3118, Decimal("8.6"), 0),
        ("failed", 2, 3220, Decimal("0.4"), 1),
        ("none", 6, 9021, Decimal("1.65"), 1),
        ("replayed", 1, 22, Decimal(2), 0),
        ("stalled", 1, 44, Decimal(4), 0),
    ]
    formulas = [metrics()[f"wasted_{name}"].formula for name in ("turns", "tokens", "cost_usd")]
    assert query(f"select {', '.join(formulas)} from agg_usage_quarter_hourly where tenant_id = 'tree'") == [
        (6, 6404, Decimal(15))
    ]


def test_tokens_and_calls_by_tool(query: Query) -> None:
    rows = query(
        "select tool_name, sum(turns), sum(tool_calls), sum(tool_errors), sum(reported_cost_usd)"
        " from agg_usage_quarter_hourly where tenant_id = 'tree' group by 1 order by 1"
    )
    assert rows == [
        ("none", 10, 0, 0, Decimal("16.45")),
        ("read_file", 0, 1, 1, None),
        ("several", 1, 0, 0, None),
        ("web_search", 1, 2, 0, Decimal("0.2")),
    ]
