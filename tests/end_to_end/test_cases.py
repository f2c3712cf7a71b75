"""Small homes with a known right value each, shipped by a device of its own and counted in one warehouse.

They are read where `APIARY_CASES` says and are not part of this repository.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.billing import books, prices
from pipelines.commands.warehouse import usage_table
from pipelines.contract.wire import MAX_COST_USD, MAX_TOKENS
from pipelines.warehouse import publish, usage
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.driving import device, send
from tests.samples import CASES, needs
from tests.warehouse import Warehouse

# Tenant -> home and zone of its device.
HOMES = {
    "case-01": ("01-traveller-west/home", "Europe/Berlin"),
    "case-02": ("02-traveller-east/home", "Europe/Berlin"),
    "case-04": ("04-event-log-broke/home", "UTC"),
    "case-05": ("05-two-eras-of-one-session/home", "UTC"),
    "case-06": ("06-fork-snapshot/home", "UTC"),
    "case-07": ("07-parallel-nodes-one-tick/home", "UTC"),
    "case-08": ("08-turn-above-100m/home", "UTC"),
    "case-09": ("09-cache-beside-input/home", "UTC"),
    "case-10": ("10-newest-catalogue/home", "UTC"),
    "case-11": ("11-partial-sum/home", "UTC"),
    "case-12": ("12-alert-unpriced/home", "UTC"),
    "case-13": ("13-backup-folders/home", "UTC"),
    "case-13-steps": ("13-backup-folders/home-l3", "UTC"),
}
UNPRICED = (("anthropic", "claude-opus-4-6-20260205"), ("openai", "gpt-5.5-2026-04-23"), ("google", "gemini-3.5-flash"))
HAIKU = "anthropic/claude-haiku-4-5-20251001"
pytestmark = needs(*(CASES / home for home, _ in HOMES.values()))


@dataclass(frozen=True)
class Counted:
    """What came of the cases: the whole warehouse, and the publication."""

    warehouse: Path
    published: Path
    homes: dict[str, Path]

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the warehouse."""
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            return connection.execute(sql, list(values)).fetchall()

    def used(self, tenant: str, *names: str) -> dict[Any, tuple[int, int, int]]:
        """Turns, input and output tokens of a tenant: in all, or by columns of the daily usage."""
        keys = ", ".join(f"{name}::varchar" for name in names) or "'all'"
        rows = self.rows(
            f"select [{keys}], sum(turns)::bigint, sum(input_tokens)::bigint, sum(output_tokens)::bigint"
            " from marts.agg_usage_session_daily where tenant_id = ? and turns > 0 group by all",
            tenant,
        )
        return {tuple(key) if len(names) > 1 else key[0]: tuple(counts) for key, *counts in rows}

    def rated(self, tenant: str) -> list[Decimal | None]:
        """List prices of a tenant's turns, in the order of time."""
        rows = self.rows(
            "select r.rated_cost_usd from marts.fct_llm_turns as t left join marts.fct_rated_turns as r"
            " using (tenant_id, turn_id) where tenant_id = ? order by t.occurred_at",
            tenant,
        )
        return [cost for (cost,) in rows]


@pytest.fixture(scope="module")
def counted(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Counted]:
    root = tmp_path_factory.mktemp("cases")
    store = (root / "store").as_uri()
    homes = {}
    for tenant, (home, zone) in HOMES.items():
        homes[tenant] = Path(shutil.copytree(CASES / home, root / "homes" / tenant))
        if tenant == "case-02":
            end_ten_minutes_ago(homes[tenant])
        send(device(root / "devices" / tenant, store=store, tenant=tenant, zone=zone), homes[tenant])
    for number, tokens in enumerate([MAX_TOKENS] * 3 + [MAX_TOKENS + 1, -1]):
        counts = {"input_tokens": tokens, "cached_tokens": tokens, "output_tokens": tokens, "cost_usd": MAX_COST_USD}
        append(queen_folder(root / "homes" / "bounds") / "events.jsonl", dump(turn(number, model=HAIKU, **counts)))
    send(device(root / "devices" / "bounds", store=store, tenant="bounds"), root / "homes" / "bounds")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        warehouse = Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target")
        warehouse.ingest(store)
        warehouse.sign(without_prices(root / "books", UNPRICED))
        warehouse.build()
        with warehouse.connect() as connection:
            publish.publish(connection, root / "published")
        yield Counted(warehouse.copy(root / "warehouse.duckdb"), root / "published", homes)


def without_prices(folder: Path, offers: Iterable[tuple[str, str]]) -> Path:
    """A site's book that takes back the prices of some models, which the cases know as models without one."""
    book = prices.entries([books.SHIPPED])
    ids = [entry.sheet.sheet_id for entry in book if entry.sheet.offer[:2] in offers]
    signed = [books.SHIPPED, folder]
    prices.decide(signed, ids, "reject", by="ada", reason="as the cases have it", now=datetime.now(UTC))
    return folder


def end_ten_minutes_ago(home: Path) -> None:
    """Shift a session in time (name of the folder, lines, epochs) until its last line is ten minutes old."""
    (meta,) = home.rglob("meta.json")
    log = meta.with_name("events.jsonl")
    told = json.loads(meta.read_text("utf-8"))
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    stamps = [datetime.fromisoformat(line["timestamp"]) for line in lines]  # the wall clock of Tokyo
    wall_clock = datetime.now(UTC).replace(tzinfo=None) + timedelta(hours=9)
    shift = wall_clock - timedelta(minutes=10) - max(stamps)
    session = meta.parent.name
    begun = datetime.strptime(session[8:23], "%Y%m%d_%H%M%S") + shift  # noqa: DTZ007 - local time, as in the name
    renamed = f"session_{begun:%Y%m%d_%H%M%S}_{session[-8:]}"
    for line, stamp in zip(lines, stamps, strict=True):
        line |= {"timestamp": (stamp + shift).isoformat(), "execution_id": renamed}
    told["created_at"] += shift.total_seconds()
    meta.write_text(json.dumps(told), "utf-8")
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    meta.parent.rename(meta.parent.with_name(renamed))


def test_a_traveller_to_the_west_is_on_the_day_of_her_clock(counted: Counted) -> None:
    assert counted.used("case-01", "usage_date") == {"2026-11-16": (2, 21_000, 20)}


def test_a_traveller_to_the_east_is_not_in_the_future(counted: Counted) -> None:
    days: dict[str, list[int]] = {}
    (log,) = counted.homes["case-02"].rglob("events.jsonl")
    for line in map(json.loads, log.read_text("utf-8").splitlines()):
        at = datetime.fromisoformat(line["timestamp"]) - timedelta(hours=9)
        day = days.setdefault(at.date().isoformat(), [0, 0, 0])
        for place, count in enumerate((1, line["data"]["input_tokens"], line["data"]["output_tokens"])):
            day[place] += count
    assert counted.used("case-02", "usage_date") == {day: tuple(counts) for day, counts in days.items()}
    assert counted.used("case-02") == {"all": (3, 111_000, 30)}


def test_steps_after_the_event_log_broke_count(counted: Counted) -> None:
    assert counted.used("case-04", "model") == {HAIKU: (2, 3_000, 300), "unknown": (3, 12_000, 1_200)}


def test_a_run_before_events_existed_counts_beside_one_after(counted: Counted) -> None:
    assert counted.used("case-05", "usage_date", "model") == {
        ("2026-03-01", "unknown"): (2, 3_000, 300),
        ("2026-03-20", HAIKU): (1, 50_000, 500),
    }


def test_turns_of_a_fork_snapshot_count(counted: Counted) -> None:
    session = "session_20260501_120000_0d0d0d0d"
    assert counted.used("case-06", "session_id") == {session: (3, 43_000, 4_300)}


def test_two_nodes_in_one_tick_are_two_turns(counted: Counted) -> None:
    assert counted.used("case-07") == {"all": (2, 4_000, 400)}


def test_a_turn_above_100_million_tokens_counts(counted: Counted) -> None:
    assert counted.used("case-08") == {"all": (2, 120_001_000, 900_010)}
    assert counted.rated("case-08") == [Decimal("19.2"), Decimal("0.00105")]
    kinds = "select exception_kind, turns, contracted_cost from marts.exc_billing_exceptions where tenant_id = ?"
    assert ("implausible", 1, Decimal("19.2")) in counted.rows(kinds, "case-08")


def test_sums_hold_turns_of_the_most_tokens(counted: Counted) -> None:
    """And what is no number is told: three turns at the contract's bound, one above it, one negative.

    All input was read from the cache and one token more was written to it: that one was beside the input.
    """
    assert counted.used("bounds") == {"all": (3, 3 * (MAX_TOKENS + 1), 3 * MAX_TOKENS)}
    kinds = "select exception_kind, sum(turns) from marts.exc_billing_exceptions where tenant_id = 'bounds' group by 1"
    found = dict(counted.rows(kinds))
    assert (found["implausible"], found["refused"]) == (3, 2)
    refused = "select sum(turn_lines_rejected) from marts.mart_coverage where tenant_id = 'bounds'"
    assert counted.rows(refused) == [(2,)]


def test_cache_beside_the_input_is_billed(counted: Counted) -> None:
    """The third turn may be counted in three ways: the least is charged, and somebody has to say it."""
    assert counted.rated("case-09") == [Decimal("0.0043677"), Decimal("0.0195765"), Decimal("0.005")]
    assert counted.used("case-09", "model") == {HAIKU: (3, 17_903 + 15_182 + 12_000, 740)}
    questions = "select turns, low_cost, high_cost from marts.exc_billing_exceptions where tenant_id = ?"
    found = counted.rows(f"{questions} and exception_kind = 'cache_convention_unknown'", "case-09")
    assert found == [(1, Decimal("0.001"), Decimal("0.01"))]


def test_models_of_the_newest_catalog_are_public_and_priced(counted: Counted) -> None:
    (log,) = counted.homes["case-10"].rglob("events.jsonl")
    names = {json.loads(line)["data"]["model"] for line in log.read_text("utf-8").splitlines()}
    assert counted.used("case-10", "model") == dict.fromkeys(names, (1, 1_000_000, 100_000))
    rated = dict(counted.rows("select model, rated_cost_usd from marts.fct_rated_turns where tenant_id = 'case-10'"))
    for name in ("anthropic/mimo-v2.5", "anthropic/mimo-v2.5-pro", "anthropic/hive-2.1"):
        assert rated[name] == Decimal("1.84"), name


def test_a_sum_over_priced_and_unpriced_models_says_so(counted: Counted, capsys: pytest.CaptureFixture[str]) -> None:
    (row,) = [row for row in usage.usage(counted.published, "tenant") if row["tenant"] == "case-11"]
    assert row["rated_cost_usd"] == "9.8"
    assert row["input_tokens"] + row["output_tokens"] == 5_500_000
    assert row["unpriced_tokens"] == 2_200_000
    assert row["unpriced_turns"] == 2, "a turn whose agent reported no cost may have a price"
    assert row["unreported_turns"] == 5
    assert row["unpriced_models"] == ["anthropic/claude-opus-4-6-20260205", "openai/gpt-5.5-2026-04-23"]
    usage_table([row])
    said = capsys.readouterr().out
    assert (
        "the rated cost is of 3,300,000 of 5,500,000 tokens; 2,200,000 tokens have no price: anthropic/claude" in said
    )


def test_the_alert_of_an_unpriced_model_looks_at_the_price_book(counted: Counted) -> None:
    alerts = counted.rows(
        "select tenant_id, subject_id from marts.mart_alerts where alert_kind = 'new_unpriced_model'"
        " and tenant_id in ('case-11', 'case-12') order by all"
    )
    assert alerts == [
        ("case-11", "anthropic/claude-opus-4-6-20260205"),
        ("case-11", "openai/gpt-5.5-2026-04-23"),
        ("case-12", "gemini/gemini-3.5-flash"),
    ]


@pytest.mark.parametrize(
    ("tenant", "session", "tokens"),
    [
        ("case-13", "session_20261120_070000_3f3f3f3f", (1, 1_000, 100)),
        ("case-13-steps", "session_20261118_090000_4f4f4f4f", (1, 900, 90)),
    ],
)
def test_copies_of_a_session_folder_are_no_sessions(
    counted: Counted, tenant: str, session: str, tokens: tuple[int, int, int]
) -> None:
    assert counted.used(tenant, "session_id") == {session: tokens}
    assert counted.rows("select session_id from marts.dim_sessions where tenant_id = ?", tenant) == [(session,)]
