"""Marts are a function of the rows of the wire: not of how they were split into loads, ordered or sent again."""

import json
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from pipelines.billing import books, closing, ledger, periods, provider_reports
from pipelines.billing.prices import Price, Sheet, Source, decide, propose

pytestmark = pytest.mark.services  # each builds the models again and again

START = datetime(2026, 3, 28, 22, tzinfo=UTC)
TENANTS = ("acme", "bolt")
SESSIONS = [f"session_{n}" for n in range(7)]

Record = tuple[str, dict[str, Any]]


STATUS_KINDS = (
    "phase_changed", "stalled", "doom_loop", "slow_first_token", "judged", "loop_started", "loop_completed",
    "input_requested", "input_received", "context_updated", "task_updated",
)  # fmt: skip

ACTION = "insert into wire.operator_actions values ('a', 'acme', 'queen:unknown', null, 'bob', 'fire', 'dumb', $when)"


def small_fleet(rng: random.Random) -> list[Record]:
    """Rows of a small fleet in which every rule meets every other: two tenants share session ids, sessions are seen by
    events, by L3 or by both, days touch midnight, parents form cycles, users and colonies are learnt late."""
    rows: list[Record] = []

    def add(table: str, tenant: str, **columns: Any) -> None:
        user = rng.choice(("ada", "bob"))
        lineage = {
            "record_id": f"{table}_{len(rows)}", "tenant_id": tenant, "_user_id": user,
            "_device_id": f"device_of_{user}", "_received_at": START + timedelta(hours=rng.randrange(100)),
        }  # fmt: skip
        rows.append((table, lineage | columns))

    def moment() -> datetime:
        return START + timedelta(minutes=rng.randrange(4 * 24 * 60))

    def maybe(value: Any) -> Any:
        return rng.choice((value, None))

    for tenant in TENANTS:
        for worker in ("worker_1", "worker_2"):
            add(
                "sessions", tenant, session_id=worker, parent_session_id=SESSIONS[0], evidence="worker_meta",
                session_kind="worker", started_at=moment(), observed_at=START,
            )  # fmt: skip
        for number, session in enumerate(SESSIONS):
            kind = rng.choice(("events", "steps", "both", "both", "none"))
            parent = maybe(rng.choice([*SESSIONS, "session_unseen"]))
            for _ in range(rng.randrange(1, 4) if kind in ("events", "both") else 0):
                add(
                    "llm_turns", tenant, session_id=session, parent_session_id=parent, model=maybe(rng.choice("mn")),
                    agent_role=rng.choice(("queen", "worker", "graph", "agent", "other")), time_basis="utc",
                    input_tokens=rng.randrange(200, 900), cache_read_input_tokens=maybe(rng.randrange(100)),
                    cache_write_input_tokens=maybe(rng.randrange(100)), output_tokens=rng.randrange(900),
                    reported_cost_usd=maybe(Decimal(rng.randrange(10**12)).scaleb(-18)),
                    occurred_at=rng.choice((moment(), moment(), None)),
                )  # fmt: skip
            for line in range(rng.randrange(1, 5) if kind in ("steps", "both") else 0):
                step = f"step_{tenant}_{session}_{line}"
                add(
                    "node_steps", tenant, record_id=step, session_id=session, trace_id=maybe(rng.choice("ab")),
                    step_index=rng.choice((-1, 0, 1, 2)), source_line=line + 1, input_tokens=rng.randrange(900),
                    output_tokens=rng.randrange(900), latency_ms=maybe(rng.randrange(10**7)),
                    tool_started_at=maybe(moment()), file_modified_at=maybe(moment()),
                )  # fmt: skip
                add(
                    "tool_calls", tenant, session_id=session, step_record_id=maybe(step), origin="step",
                    agent_role="agent", occurred_at=maybe(moment()),
                )  # fmt: skip
            for _ in range(rng.randrange(3)):
                add(
                    "tool_calls", tenant, session_id=session, origin="event", agent_role="queen",
                    occurred_at=moment(), is_error=maybe(True),
                )  # fmt: skip
            if rng.random() < 0.4:
                add("run_summaries", tenant, session_id=session, trace_id=maybe("a"), started_at=maybe(moment()))
            for _ in range(rng.randrange(4)):
                add(
                    "sessions", tenant, session_id=session, user_id=maybe(rng.choice(("ada", "bob", "eve"))),
                    parent_session_id=maybe(parent), forked_from_session_id=maybe(parent),
                    evidence=rng.choice(("folder", "meta", "state", "worker_meta", "event")),
                    session_kind=rng.choice((None, "queen", "worker", "agent_session")), batch_size=maybe(3),
                    colony_name=rng.choice((None, None, "hive_0", "hive_1")), started_at=maybe(moment()),
                    status=maybe(rng.choice(("active", "completed"))), observed_at=rng.choice((START, moment())),
                )  # fmt: skip
            events = STATUS_KINDS if rng.random() < 0.7 else ()
            for kind in rng.choices(events, k=rng.randrange(9)) if events else ():
                add(
                    "status_events", tenant, session_id=session, parent_session_id=parent, kind=kind, time_basis="utc",
                    agent_role=rng.choice(("queen", "worker", "graph")),
                    occurred_at=rng.choice((moment(), moment(), None)),
                    phase=rng.choice(("independent", "working")) if kind == "phase_changed" else None,
                    verdict=rng.choice(("ACCEPT", "RETRY")) if kind == "judged" else None, node_id=maybe("node"),
                    task_id=maybe("1"), task_status=maybe("in_progress"), context_tokens=maybe(rng.randrange(10**5)),
                )  # fmt: skip
            for kind in rng.choices(
                ("started", "paused", "resumed", "report", "completed", "failed"), k=rng.randrange(5)
            ):
                add(
                    "agent_runs", tenant, session_id=session, parent_session_id=parent, kind=kind, run_id=maybe("r"),
                    outcome=rng.choice(("success", "partial", "stopped")) if kind == "report" else None,
                    origin=rng.choice(("event", "runs_file")), occurred_at=rng.choice((moment(), moment(), None)),
                )  # fmt: skip
            for kind in rng.choices(("activated", "fired", "fired", "deactivated"), k=rng.randrange(5)):
                add(
                    "triggers", tenant, session_id=session, kind=kind, trigger_id=rng.choice("tu"),
                    trigger_type="timer", interval_seconds=maybe(7200.0), occurred_at=moment(),
                )  # fmt: skip
            for line in range(rng.randrange(3)):
                add(
                    "node_details", tenant, session_id=session, trace_id=maybe(rng.choice("ab")), node_id="node",
                    source_line=line + 1, latency_ms=maybe(rng.randrange(10**5)), accept_count=1,
                    is_success=maybe(True), exit_status=rng.choice(("success", "failure")),
                    file_modified_at=maybe(moment()),
                )  # fmt: skip
            for tool in rng.sample(("read_file", "web_search", "browser_open", "k1_x"), rng.randrange(5)):
                add(
                    "tool_calls", tenant, session_id=session, origin="event", agent_role="queen", tool_name=tool,
                    occurred_at=moment(), duration_seconds=maybe(rng.randrange(100) / 4), is_error=False,
                )  # fmt: skip
            for _ in range(rng.randrange(2)):
                add(
                    "colonies", tenant, queen_session_id=session, colony_name=f"hive_{number % 2}", observed_at=moment()
                )
                add(
                    "tasks", tenant, list_id=session, task_id="1", item="task", list_kind="session", status="done",
                    observation=rng.randrange(2), observed_at=rng.choice((START, moment())),
                )  # fmt: skip
    return rows


def _split(rows: list[Record], rng: random.Random, loads: int) -> list[list[Record]]:
    """Every row in some load, in any order; a quarter of them in another load too."""
    parts: list[list[Record]] = [[] for _ in range(loads)]
    for row in rng.sample(rows, len(rows)):
        for part in rng.sample(parts, 2 if rng.random() < 0.25 else 1):
            part.append(row)
    return parts


def _differences(left: dict[str, list], right: dict[str, list]) -> dict[str, tuple[list, list]]:
    """For each mart that differs the first rows that only one side has."""
    return {
        mart: (
            [row for row in left[mart] if row not in right[mart]][:3],
            [row for row in right[mart] if row not in left[mart]][:3],
        )
        for mart in left
        if left[mart] != right[mart]
    }


# Nothing here is copied, budgeted, erased, exported or reported by a device: other tests have that.
UNFED = {
    "mart_dedupe_ledger", "mart_budget", "rpt_restatement", "mart_coverage", "mart_delivery_balance",
    "mart_manifest_chain", "mart_queen_usage", "mart_unknown_records", "mart_control_totals", "mart_turn_claims",
    "mart_home_claims", "fct_requests", "agg_erased_usage_daily",
}  # fmt: skip


# Turns alone on days of an open month: one that a provider reports later, and one whose price was wrong.
MATCHED, REPRICED = date(2026, 4, 20), date(2026, 4, 21)
ALONE = [
    (
        "llm_turns",
        {
            "record_id": model, "session_id": f"alone_{model}", "agent_role": "queen", "model": model,
            "input_tokens": 0, "output_tokens": 1_000_000, "time_basis": "utc", "_user_id": "ada",
            "occurred_at": datetime(day.year, day.month, day.day, 12, tzinfo=UTC),
        },
    )
    for model, day in (("p", MATCHED), ("q", REPRICED))
]  # fmt: skip


def _price(folder, model, amount, day):
    """A sheet of one price for everything, approved at once; `day` orders the decisions."""
    prices = tuple(
        Price(component=name, unit_price=Decimal(amount)) for name in ("input_uncached", "cache_read", "output")
    )
    sheet = Sheet(
        provider_name="anthropic", model=model, prices=prices, valid_from=datetime(2026, 1, 1, tzinfo=UTC),
        source=Source(name="operator", version="1", sha256="0" * 64),
    )  # fmt: skip
    now = datetime(2026, 5, day, tzinfo=UTC)
    propose([folder], [sheet], now=now)
    decide([folder], [sheet.sheet_id], "approve", by="finance", reason="announced", now=now)


def _sign_at_first(folder):
    for number, model in enumerate("mpq", 1):
        _price(folder, model, "3", number)
    known = {"recorded_at": datetime(2026, 5, 1, tzinfo=UTC)}
    alias = {"provider_name": "anthropic", "note": None} | known
    books.append(books.ALIASES, folder, [alias | {"alias_id": m, "model": m, "price_model": m} for m in "mnpq"])
    books.append(books.ACCOUNTS, folder, [ACCOUNT | known])


def _sign_later(folder):
    """A price that was missing, a price that was wrong, a plan with credit, another name, a provider's report."""
    _price(folder, "n", "5", 10)
    _price(folder, "q", "2", 11)
    known = {"recorded_at": datetime(2026, 5, 12, tzinfo=UTC)}
    books.append(books.ACCOUNTS, folder, [ACCOUNT | known | {"name": "Acme & Sons"}])
    books.append(
        books.PLAN_ITEMS, folder,
        [
            {
                "plan_item_id": "seats", "billing_account_id": "A", "item": "seat", "pricing": "per_unit", "note": None,
                "included_units": 0, "package_size": None, "unit_price": Decimal(20), "commit_amount": Decimal(50),
                "valid_from": date(2026, 3, 1), "valid_to": None,
            }
            | known
        ],
    )  # fmt: skip
    seat = {"seat_id": "1", "billing_account_id": "A", "user_id": "ada", "valid_from": date(2026, 3, 10)}
    books.append(books.SEATS, folder, [seat | {"valid_to": None} | known])
    grant = {"credit_grant_id": "1", "billing_account_id": "A", "reason": "prepaid", "granted_by": "finance"}
    books.append(
        books.CREDIT_GRANTS, folder, [grant | {"amount": Decimal(100), "granted_on": date(2026, 3, 1)} | known]
    )
    result = {"model": "p", "output_tokens": 1_000_000, "uncached_input_tokens": 0}
    cost = {"currency": "USD", "amount": "300", "model": "p", "token_type": "output_tokens", "cost_type": "tokens"}
    for kind, found in (("anthropic-usage", result), ("anthropic-costs", cost)):
        bucket = {"starting_at": f"{MATCHED}T00:00:00Z", "ending_at": f"{REPRICED}T00:00:00Z", "results": [found]}
        page = json.dumps({"data": [bucket], "has_more": False, "next_page": None})
        report = provider_reports.parse_pages(kind, [page], pulled_at=datetime(2026, 5, 12, tzinfo=UTC))
        provider_reports.keep(folder / "provider", report)


ACCOUNT = {
    "billing_account_id": "A", "tenant_id": "acme", "name": "Acme", "currency": "USD", "reporting_timezone": "UTC",
    "charged_by": "tokens",
}  # fmt: skip


def _close_march(warehouse, folder):
    """Freeze what is booked in March as it stands, whatever is open: the conditions are not what is looked at here."""
    march, now = date(2026, 3, 1), datetime(2026, 5, 9, tzinfo=UTC)
    path = ledger.book_path(folder)
    with warehouse.connect() as connection:
        digest = ledger.seal(folder, closing.pending(connection, march, ["A"]))
    signed = {"actor": "ada", "reason": "month end", "as_of": now}
    periods.write(path, periods.start_closing(periods.read(path), march, watermark_at=now, accounts=["A"], **signed))
    closed = {"conditions": (), "waived": {}, "totals_sha256": "0" * 64, "seal": digest, "accounts": ["A"]}
    periods.write(path, periods.close(periods.read(path), march, **signed, **closed))


def _assert_same_marts_in_any_order(warehouse, folder, seed):
    """I2, also for what people sign meanwhile: prices, plans and reports that come late, a month that closes."""
    rng = random.Random(seed)
    rows = small_fleet(rng)
    action = ACTION.replace("$when", f"'{START + timedelta(days=2)}'")
    warehouse.execute(action)
    _sign_at_first(folder)
    first, second, third = _split(rows, rng, 3)
    graded = (
        'select usage_date, "BilledCost", "x_TrustGrade" from marts.export_focus_daily'
        f" where usage_date in ('{MATCHED}', '{REPRICED}') and \"ChargeCategory\" = 'Usage' order by 1"
    )
    for part, found in (
        ([*first, *ALONE], [(MATCHED, 3, "self_reported"), (REPRICED, 3, "self_reported")]),
        (second, [(MATCHED, 3, "self_reported"), (REPRICED, 3, "self_reported")]),
        (third, [(MATCHED, 3, "provider_matched"), (REPRICED, 2, "self_reported")]),
    ):
        if part is third:
            _sign_later(folder)
        warehouse.sign(folder, shipped=False)
        warehouse.load(part)
        warehouse.run()
        assert warehouse.query(graded) == found
        if part is second:
            _close_march(warehouse, folder)
    step_by_step = warehouse.marts()
    assert warehouse.query("select count(*) > 5 from marts.fct_adjustments") == [(True,)]
    assert {mart for mart, found in step_by_step.items() if not found} <= UNFED

    warehouse.run("--full-refresh")
    assert _differences(step_by_step, warehouse.marts()) == {}

    warehouse.reset()
    warehouse.sign(folder, shipped=False)
    warehouse.execute(action)
    warehouse.load(rng.sample([*rows, *ALONE], len(rows) + len(ALONE)))
    warehouse.run("--exclude", "mart_dedupe_ledger")  # counts the copies, which one load does not have
    at_once = warehouse.marts()
    assert _differences({mart: step_by_step[mart] for mart in at_once}, at_once) == {}


@pytest.mark.parametrize("seed", [1])
def test_marts_do_not_depend_on_how_rows_arrive(warehouse, tmp_path, seed):
    """I2: any order, any split, copies, and books that are signed in between."""
    _assert_same_marts_in_any_order(warehouse, tmp_path, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(100, 120))
def test_marts_do_not_depend_on_how_rows_arrive_at_length(warehouse, tmp_path, seed):
    _assert_same_marts_in_any_order(warehouse, tmp_path, seed)


def _turn(number: int, session: str, day: int, **columns: Any) -> Record:
    return (
        "llm_turns",
        {
            "record_id": f"turn_{number}", "session_id": session, "agent_role": "queen", "model": "m",
            "time_basis": "utc", "input_tokens": 10, "output_tokens": 5,
            "occurred_at": datetime(2026, 3, day, 12, tzinfo=UTC),
        }
        | columns,
    )  # fmt: skip


def _call(number: int, session: str, day: int) -> Record:
    return (
        "tool_calls",
        {
            "record_id": f"call_{number}", "session_id": session, "agent_role": "queen", "origin": "event",
            "tool_name": "t", "duration_seconds": 1.0, "occurred_at": datetime(2026, 3, day, 12, tzinfo=UTC),
        },
    )  # fmt: skip


def _activity(number: int, session: str, day: int) -> list[Record]:
    """A run, a verdict and the exit of a node on a day."""
    lineage = {"session_id": session, "time_basis": "utc"}
    run = {"run_id": f"run_{number}", "origin": "event"} | lineage
    moments = [datetime(2026, 3, day, hour, tzinfo=UTC) for hour in (9, 10)]
    return [
        ("agent_runs", run | {"record_id": f"start_{number}", "kind": "started", "occurred_at": moments[0]}),
        ("agent_runs", run | {"record_id": f"end_{number}", "kind": "completed", "occurred_at": moments[1]}),
        ("status_events", lineage | {"record_id": f"verdict_{number}", "kind": "judged", "verdict": "RETRY",
                                     "agent_role": "graph", "node_id": "n", "occurred_at": moments[0]}),
    ]  # fmt: skip


DAILY = (
    "agg_usage_quarter_hourly", "agg_usage_session_daily", "agg_usage_colony_daily", "agg_usage_model_daily",
    "agg_usage_tenant_daily", "agg_models_daily", "agg_tools_daily",
)  # fmt: skip


def _days_of_load(warehouse, mart: str, load: int, day: str = "usage_date") -> set[int]:
    """The days whose rows that load (or a later one) wrote."""
    return {found for (found,) in warehouse.query(f"select day({day}) from marts.{mart} where _ingest_seq >= {load}")}


def test_a_load_rewrites_the_days_it_changes_and_no_others(warehouse):
    daily = ("--select", *(f"+{mart}" for mart in (*DAILY, "agg_concurrency_hourly", "agg_nodes_daily")))
    # Session `long` has turns, calls and runs on every day: a new one must not reopen its old days.
    warehouse.load(
        [_turn(day, "long", day) for day in range(1, 10)]
        + [_turn(20 + day, "b", day) for day in range(1, 10)]
        + [_call(day, "long", day) for day in range(1, 10)]
        + [row for day in range(1, 10) for row in _activity(day, "long", day)]
    )
    warehouse.run(*daily)
    added = [_turn(100, "long", 4), _turn(101, "long", 12), _call(100, "long", 4), _call(101, "long", 12)]
    warehouse.load([*added, *_activity(100, "long", 4), *_activity(101, "long", 12)])
    warehouse.run(*daily)
    assert {mart: _days_of_load(warehouse, mart, 2) for mart in DAILY} == {mart: {4, 12} for mart in DAILY}
    activity = ("agg_concurrency_hourly", "agg_nodes_daily")
    assert [_days_of_load(warehouse, mart, 2, "activity_date") for mart in activity] == [{4, 12}, {4, 12}]
    written = warehouse.query("select session_id, count(*) from marts.fct_llm_turns where _ingest_seq = 2 group by all")
    assert written == [("long", 11)]

    before = warehouse.query("select * from marts.agg_usage_session_daily order by all")
    warehouse.run(*daily)
    assert warehouse.query("select * from marts.agg_usage_session_daily order by all") == before


def test_an_event_retracts_its_step_from_the_day_it_was_on(warehouse):
    step = {"session_id": "s", "trace_id": "t", "output_tokens": 3, "latency_ms": 20_000}
    first = step | {"record_id": "x", "step_index": 0, "source_line": 1, "input_tokens": 7}
    other = step | {"record_id": "y", "step_index": 1, "source_line": 2, "input_tokens": 8}
    warehouse.load(
        [
            ("node_steps", first | {"tool_started_at": datetime(2026, 3, 1, 23, 59, 55, tzinfo=UTC)}),
            ("node_steps", other | {"tool_started_at": datetime(2026, 3, 2, 0, 5, tzinfo=UTC)}),
            ("tool_calls", {"record_id": "z", "session_id": "s", "origin": "step", "step_record_id": "x",
                            "agent_role": "agent", "occurred_at": datetime(2026, 3, 1, 23, 59, 55, tzinfo=UTC)}),
        ]
    )  # fmt: skip
    warehouse.run_counts()
    warehouse.run("--select", "+fct_rated_lines")
    daily = "select day(usage_date), model, turns, tool_calls from marts.agg_usage_model_daily order by all"
    assert warehouse.query(daily) == [(1, "unknown", 1, 1), (2, "unknown", 1, 0)]
    table, turn = _turn(1, "s", 2)
    event = {"input_tokens": 7, "output_tokens": 3, "occurred_at": datetime(2026, 3, 2, 0, 0, 10, tzinfo=UTC)}
    warehouse.load([(table, turn | event)])
    warehouse.run_counts()
    warehouse.run("--select", "+fct_rated_lines")
    assert warehouse.query(daily) == [(2, "m", 1, 0), (2, "unknown", 1, 0)]
    assert warehouse.query("select distinct day(usage_date) from marts.fct_rated_lines") == [(2,)]
    counts = "kept_turns, retracted_steps, retracted_steps_same_turn, kept_steps_without_event"
    assert warehouse.query(f"select {counts} from marts.mart_dedupe_ledger") == [(2, 1, 1, 1)]


def test_an_event_of_the_parent_retracts_the_step_that_its_fork_copied(warehouse):
    step = {"record_id": "x", "session_id": "fork", "trace_id": "t", "source_line": 1, "input_tokens": 7,
            "output_tokens": 3, "tool_started_at": datetime(2026, 3, 1, tzinfo=UTC)}  # fmt: skip
    meta = {"record_id": "f", "session_id": "fork", "forked_from_session_id": "parent", "evidence": "meta",
            "observed_at": datetime(2026, 3, 2, tzinfo=UTC)}  # fmt: skip
    warehouse.load([("node_steps", step), ("sessions", meta)])
    warehouse.run_counts()
    table, turn = _turn(1, "parent", 1)
    warehouse.load([(table, turn | {"input_tokens": 7, "output_tokens": 3, "occurred_at": step["tool_started_at"]})])
    warehouse.run_counts()
    turns = "select session_id, turn_source from marts.fct_llm_turns"
    assert warehouse.query(turns) == [("parent", "event")]


def test_a_colony_learnt_late_moves_the_usage_of_the_whole_tree(warehouse):
    warehouse.load([_turn(1, "queen", 1), _turn(2, "worker", 2, parent_session_id="queen"), _turn(3, "other", 3)])
    warehouse.run_counts()
    warehouse.load([("colonies", {"record_id": "c", "queen_session_id": "queen", "colony_name": "k1"})])
    warehouse.run_counts()
    found = warehouse.query("select day(usage_date), colony_id, turns from marts.agg_usage_colony_daily order by all")
    assert found == [(1, "queen", 1), (2, "queen", 1), (3, None, 1)]
    assert _days_of_load(warehouse, "agg_usage_colony_daily", 2) == {1, 2}


def test_erased_rows_leave_the_marts_when_their_session_is_named(warehouse):
    warehouse.load([_turn(1, "s", 1), _turn(2, "s", 2), _turn(3, "r", 1)])
    warehouse.run_counts()
    warehouse.execute("delete from wire.llm_turns where session_id = 's'")
    warehouse.execute("insert into wire.touched_sessions values ('acme', 's', 2)")
    warehouse.run_counts()
    step_by_step = warehouse.marts()
    assert warehouse.query("select day(usage_date), turns from marts.agg_usage_tenant_daily") == [(1, 1)]
    warehouse.run_counts("--full-refresh")
    assert _differences(step_by_step, warehouse.marts()) == {}
