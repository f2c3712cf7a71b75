"""Budgets and alerts by hand: what was used, what is to be expected, and what somebody should look at and how late."""

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.billing import books
from pipelines.billing.prices import Price, Sheet, Source, decide, propose
from pipelines.warehouse import raised_alerts
from tests.warehouse import Warehouse

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
RECEIVED = NOON + timedelta(hours=6)
Record = tuple[str, dict[str, Any]]
Query = Callable[[str], list[tuple[Any, ...]]]


def turn(number: int, when: datetime, **columns: Any) -> Record:
    given = {
        "record_id": f"t{number}", "session_id": "s", "agent_role": "queen", "model": "m", "time_basis": "utc",
        "input_tokens": 900, "output_tokens": 100, "reported_cost_usd": Decimal("1"), "occurred_at": when,
        "_received_at": when + timedelta(hours=1),
    }  # fmt: skip
    return "llm_turns", given | columns


def day(number: int) -> datetime:
    return datetime(2026, 3, number, 12, tzinfo=UTC)


def use() -> list[Record]:
    """Tenant acme: day n of March costs n USD and 1000 tokens, from the 1st to the 19th; on the 20th 50 USD arrive, and
    400 tokens of a model without a price. Tenant bolt: another tenant with the same ids."""
    rows = [turn(n, day(n), session_id=f"s{n}", reported_cost_usd=Decimal(n)) for n in range(1, 20)]
    rows.append(turn(20, NOON, reported_cost_usd=Decimal(50), _received_at=RECEIVED))
    rows.append(
        turn(21, NOON, session_id="ada", model="new", input_tokens=300, output_tokens=100, reported_cost_usd=None,
             _user_id="ada", _received_at=RECEIVED)
    )  # fmt: skip
    rows.append(turn(22, NOON, tenant_id="bolt", reported_cost_usd=Decimal(7), _received_at=RECEIVED))
    # After the last arrival: a wrong clock, in no period that is known.
    rows.append(turn(23, day(25), tenant_id="bolt", reported_cost_usd=Decimal(900), _received_at=RECEIVED))
    return rows


def budget(name: str, **columns: Any) -> dict[str, Any]:
    given = {
        "budget_id": name, "tenant_id": "acme", "scope": "tenant", "scope_id": None, "period": "month",
        "measure": "reported_cost_usd", "limit_amount": Decimal(400), "warn_at": Decimal("0.8"),
        "unpriced_limit_tokens": None, "valid_from": date(2026, 1, 1), "valid_to": None,
    }  # fmt: skip
    return given | columns


BUDGETS = [
    budget("month_usd"),
    budget("month_tokens", measure="tokens", limit_amount=Decimal(20400)),
    budget("day_usd", period="day", limit_amount=Decimal(100), unpriced_limit_tokens=400),
    budget("eve", scope="user", scope_id="eve", measure="tokens", limit_amount=Decimal(5)),
    budget("begun", valid_from=date(2026, 3, 20), limit_amount=Decimal(1000), warn_at=Decimal(1)),
    budget("over", valid_to=date(2026, 3, 3), limit_amount=Decimal(1000), period="day", measure="turns"),
    budget("bolt", tenant_id="bolt", limit_amount=Decimal(1000)),
    budget("rated", measure="rated_cost_usd", limit_amount=Decimal(1)),
    budget("blind", measure="rated_cost_usd", limit_amount=Decimal(1), unpriced_limit_tokens=400),
]


def runs() -> list[Record]:
    """Twelve workers of tenant crew at once on the 20th, of which one succeeds; each takes an hour where a minute was
    usual on the eleven days before."""
    rows: list[Record] = []

    def run(number: int, kind: str, when: datetime, **columns: Any) -> None:
        rows.append(
            ("agent_runs", {"record_id": f"r{len(rows)}", "tenant_id": "crew", "session_id": f"w{number}", "kind": kind,
                            "time_basis": "utc", "occurred_at": when, "_received_at": when + timedelta(minutes=10)}
             | columns)
        )  # fmt: skip

    for number in range(11):
        run(number, "started", day(number + 1))
        run(number, "report", day(number + 1) + timedelta(minutes=1), outcome="success")
    for number in range(20, 32):
        run(number, "started", NOON)
        run(number, "report", NOON + timedelta(hours=1), outcome="success" if number == 20 else "failed")
    return rows


def troubles() -> list[Record]:
    """Tenant loop: six idle turns, then a tool; a person's word after which nothing happened; a session gone wild."""
    rows = [
        turn(100 + n, NOON + timedelta(minutes=n), tenant_id="loop", reported_cost_usd=Decimal("0.5")) for n in range(6)
    ]
    call = {"record_id": "c", "tenant_id": "loop", "session_id": "s", "origin": "event", "agent_role": "queen",
            "tool_name": "t", "occurred_at": NOON + timedelta(minutes=6),
            "_received_at": NOON + timedelta(minutes=66)}  # fmt: skip
    rows += [("tool_calls", call), turn(106, NOON + timedelta(minutes=7), tenant_id="loop")]
    for name, minute in (("answered", -1), ("lost", 30), ("fresh", 350)):
        event = {"record_id": name, "tenant_id": "loop", "session_id": "s", "kind": "input_received",
                 "agent_role": "queen", "time_basis": "utc", "occurred_at": NOON + timedelta(minutes=minute),
                 "_received_at": NOON + timedelta(minutes=minute + 5)}  # fmt: skip
        rows.append(("status_events", event))
    # Tenant gap: the fifth of six idle turns is one that only the steps tell.
    rows += [turn(300 + n, NOON + timedelta(minutes=n), tenant_id="gap") for n in (0, 1, 2, 3, 5)]
    step = {"record_id": "step", "tenant_id": "gap", "session_id": "s", "trace_id": "t", "step_index": 4,
            "source_line": 5, "input_tokens": 1, "output_tokens": 2, "tool_started_at": NOON + timedelta(minutes=4),
            "_received_at": NOON + timedelta(minutes=64)}  # fmt: skip
    rows.append(("node_steps", step))
    rows.append(turn(107, NOON + timedelta(hours=5, minutes=-1), tenant_id="loop", session_id="late"))
    for n in range(20):
        rows.append(turn(200 + n, day(n % 19 + 1), tenant_id="wild", session_id=f"s{n}", reported_cost_usd=None))
    rows.append(turn(220, NOON, tenant_id="wild", session_id="mad", input_tokens=10**6, reported_cost_usd=Decimal(2)))
    return rows


@pytest.fixture(scope="module")
def query(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Query]:
    """The marts, with a book that has a price of model `m` and of no other."""
    folder = tmp_path_factory.mktemp("books")
    prices = tuple(
        Price(component=n, unit_price=p) for n, p in (("input_uncached", Decimal(1)), ("output", Decimal(10)))
    )
    source = Source(name="operator", version="1", sha256="0" * 64)
    sheet = Sheet(
        provider_name="p", model="m", prices=prices, source=source, valid_from=datetime(2026, 1, 1, tzinfo=UTC)
    )
    propose([folder], [sheet], now=NOON)
    decide([folder], [sheet.sheet_id], "approve", by="f", reason="r", now=NOON)
    alias = {"alias_id": "m", "model": "m", "provider_name": "p", "price_model": "m", "note": None}
    books.append(books.ALIASES, folder, [alias | {"recorded_at": NOON}])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        warehouse = Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target")
        warehouse.sign(folder, shipped=False)
        warehouse.enter(books.BUDGETS, BUDGETS)
        warehouse.load([*use(), *runs(), *troubles()])
        with warehouse.connect() as connection:
            raised_alerts.load(connection, noted(folder))
        for number, (tenant, reason) in enumerate(
            [("acme", "bad_key"), ("acme", "bad_key"), ("bolt", "hash_mismatch")]
        ):
            warehouse.execute(
                "insert into wire.batches by name select 'refused' || "
                f"{number} as manifest_key, '{tenant}' as tenant_id, 'quarantined' as status, '{reason}' as reason,"
                f" '{RECEIVED - timedelta(hours=number)}'::timestamptz as received_at"
            )
        warehouse.run("--select", "+mart_alerts")
        file = warehouse.copy(dbt_home / "budgets.duckdb")
    with duckdb.connect(str(file), read_only=True) as connection:
        connection.execute("use marts")
        yield lambda sql: connection.execute(sql).fetchall()


def test_used_and_left(query: Query) -> None:
    """Q2: 20 turns of 900 and 100 tokens at 1 and 10 a million are rated at 0.038; 400 tokens of a model that nobody
    priced warn beside any budget of cost, and block where as many are named."""
    rows = query(
        "select budget_id, budget_state, used_amount, remaining_amount, unpriced_tokens, is_current"
        " from mart_budget where period_start_date in ('2026-03-01', '2026-03-20')"
        " order by budget_id, period_start_date"
    )
    assert rows == [
        ("begun", "warning", 240, 760, 400, True),  # a cost budget never sleeps beside tokens without a price
        ("blind", "exceeded", Decimal("0.038"), Decimal("0.962"), 400, True),
        ("bolt", "within", 7, 993, 0, True),
        ("day_usd", "within", 1, 99, 0, False),
        ("day_usd", "exceeded", 50, 50, 400, True),
        ("eve", "within", 0, 5, 0, True),
        ("month_tokens", "exceeded", 20400, 0, 400, True),
        ("month_usd", "warning", 240, 160, 400, True),
        ("over", "within", 1, 999, 0, False),
        ("rated", "warning", Decimal("0.038"), Decimal("0.962"), 400, True),
    ]
    assert query("select count(*) from mart_budget where budget_id = 'over'") == [(2,)]


def test_forecast_is_made_of_typical_days(query: Query) -> None:
    """Days of 1 to 19 USD: the median is the 10th, the tenth and ninetieth percentile the 2nd and the 18th. 190 before
    today, 50 today, eleven days left."""
    ((burn, past, low, forecast, high, runs_out),) = query(
        "select burn_rate_amount, past_days, forecast_low_amount, forecast_amount, forecast_high_amount, runs_out_date"
        " from mart_budget where budget_id = 'month_usd' and is_current"
    )
    assert (burn, past) == (10, 19)
    assert (low, forecast, high) == (190 + 50 + 11 * 2, 190 + 50 + 11 * 10, 190 + 50 + 11 * 18)
    assert runs_out is None
    # Tokens are at their limit today; of a day's budget no day is left.
    assert query("select runs_out_date from mart_budget where budget_id = 'month_tokens' and is_current") == [
        (date(2026, 3, 20),)
    ]
    assert query(
        "select forecast_amount, runs_out_date from mart_budget where budget_id = 'day_usd' and is_current"
    ) == [(50, None)]
    assert query("select count(forecast_amount) from mart_budget where not is_current") == [(0,)]


def alerts(query: Query, tenant: str) -> list[tuple[Any, ...]]:
    return query(
        "select alert_kind, subject_id, found_value, expected_value, reported_cost_usd, occurred_at,"
        f" detected_late_by_seconds from mart_alerts where tenant_id = '{tenant}' order by 1, 2, 6"
    )


def noted(folder: Path) -> Path:
    """What the pipeline wrote down of itself: a failed run."""
    raised_alerts.record(folder / "raised.jsonl", [raised_alerts.Raised("run_failed", "daily", "r1", NOON)])
    return folder / "raised.jsonl"


def test_alerts_of_the_pipeline_itself_stand_beside_those_of_usage(query: Query) -> None:
    """Refused batches by tenant and reason; a failed run is nobody's. Each says what to do."""
    found = query(
        "select alert_kind, severity, tenant_id, subject_id, found_value, occurred_at, what_to_do, docs_page"
        " from mart_alerts where alert_kind in ('quarantine', 'run_failed') order by 1, 3"
    )
    page = "docs/runbook.md#a-batch-was-quarantined"
    refused = ("apiary quarantine list", page)
    assert found == [
        ("quarantine", "warning", "acme", "bad_key", 2, RECEIVED, *refused),
        ("quarantine", "warning", "bolt", "hash_mismatch", 1, RECEIVED - timedelta(hours=2), *refused),
        ("run_failed", "critical", None, "daily", 1, NOON, "apiary run goes on where it stopped",
         "docs/runbook.md#a-run-failed"),
    ]  # fmt: skip
    assert query("select distinct what_to_do is null or docs_page is null from mart_alerts") == [(False,)]


def test_alerts_of_spending(query: Query) -> None:
    found = alerts(query, "acme")
    assert [row[:4] for row in found if row[0] != "quarantine"] == [
        ("budget_exceeded", "month_tokens", 20400, 20400),
        ("budget_warning", "month_tokens", 17000, 16320),
        ("new_unpriced_model", "new", 400, 0),
        ("spend_spike", None, 50, 30),  # the median of 19 days is 10
    ]
    at = {row[0]: row[5:] for row in found}
    assert at["budget_warning"] == (day(17), 3600)
    assert at["spend_spike"] == at["new_unpriced_model"] == (NOON, 6 * 3600)


def test_alerts_of_runs(query: Query) -> None:
    found = alerts(query, "crew")
    ended = NOON + timedelta(hours=1)
    assert found == [
        ("low_success", None, 1, 12, None, ended, 600),
        ("slow_runs", None, 12 * 3600, 60 * 12 * 2, None, ended, 600),
        ("too_many_agents", None, 12, 10, None, NOON, 3600 + 600),
    ]


def test_alerts_of_agents(query: Query) -> None:
    found = alerts(query, "loop")
    assert found == [
        ("lost_wake", "s", 0, 1, None, NOON + timedelta(minutes=30), 300),
        # From the fifth idle turn; the sixth adds to its cost. It was known when the fifth had arrived.
        ("stuck_loop", "s", 6, 5, Decimal(3), NOON + timedelta(minutes=4), 3600),
    ]
    stuck = [(row[2], *row[5:]) for row in alerts(query, "gap") if row[0] == "stuck_loop"]
    assert stuck == [(6, NOON + timedelta(minutes=5), 58 * 60)]
    wild = alerts(query, "wild")
    assert [row[:5] for row in wild if row[0] == "runaway_agent"] == [
        ("runaway_agent", "mad", 10**6 + 100, 10000, Decimal(2))
    ]


def test_alerts_have_ids_of_their_own(query: Query) -> None:
    assert query("select count(*) - count(distinct alert_id), min(detected_late_by_seconds) >= 0 from mart_alerts") == [
        (0, True)
    ]
