"""The whole way, on homes that Hive's own code wrote: totals equal the truth, and nothing private leaves.

They are read where `APIARY_SAMPLES` says and are not part of this repository.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from pipelines.commands import me
from pipelines.device import own_usage
from pipelines.home import Home
from pipelines.warehouse import publish, reading
from tests.end_to_end.driving import apiary, by, device, send, unpack
from tests.samples import SAMPLES, needs
from tests.scanner import find
from tests.warehouse import Warehouse

LAYOUTS = ("v2", "v3", "doc")
CREDENTIAL = "a-credential-that-only-the-environment-holds"
MEASURES = {
    "turns": "turns", "input_tokens": "input_tokens", "output_tokens": "output_tokens", "tool_calls": "tool_calls",
    "cached_tokens": "cache_read_input_tokens", "cache_creation_tokens": "cache_write_input_tokens",
    "unpriced_turns": "unreported_turns",
}  # fmt: skip
pytestmark = [pytest.mark.services, needs(*(SAMPLES / f"hive-home-{layout}.tar.gz" for layout in LAYOUTS))]


@dataclass(frozen=True)
class Shipped:
    """The samples, one tenant each, in one warehouse."""

    home: Home
    root: Path
    truths: dict[str, dict[str, Any]]
    homes: dict[str, Path]

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the published marts."""
        with reading.connect(self.home.published) as connection:
            return connection.execute(sql, list(values)).fetchall()

    def usage(self, layout: str, by_name: str) -> dict[Any, dict[str, Any]]:
        """Usage of one sample by one column of the published daily usage."""
        sums = ", ".join(f"sum({measure})" for measure in (*MEASURES.values(), "reported_cost_usd"))
        found = self.rows(
            f"SELECT {by_name}, {sums} FROM agg_usage_session_daily WHERE tenant_id = ? GROUP BY ALL", layout
        )
        names = ("name", *MEASURES.values(), "reported_cost_usd")
        return by([dict(zip(names, row, strict=True)) for row in found], "name")


@pytest.fixture(scope="module")
def shipped(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Shipped:
    root = tmp_path_factory.mktemp("samples")
    apiary_home = root / "apiary"
    truths, homes = {}, {}
    for layout in LAYOUTS:
        truths[layout] = json.loads((SAMPLES / f"hive-home-{layout}.truth.json").read_text("utf-8"))
        agents = homes[layout] = unpack(SAMPLES / f"hive-home-{layout}.tar.gz", root / layout)
        mine = device(
            apiary_home / "devices" / layout,
            store=Home(apiary_home).store_url,
            tenant=layout,
            zone=truths[layout]["tz"],
        )
        send(mine, agents)
    home = Home(apiary_home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        warehouse = Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target")
        warehouse.ingest(home.store_url)
        warehouse.run()
        with warehouse.connect() as connection:
            publish.publish(connection, home.published)
        warehouse.copy(root / "warehouse.duckdb")
    return Shipped(home, root, truths, homes)


def same(found: dict[str, Any], truth: dict[str, Any]) -> None:
    assert {name: found[column] for name, column in MEASURES.items()} == {name: truth[name] for name in MEASURES}
    # The truth's sum of binary floats is exact; ours adds the digits that stand in the file.
    assert (found["reported_cost_usd"] or Decimal(0)) == Decimal(truth["cost_usd_exact"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_totals_equal_the_truth(shipped: Shipped, layout: str) -> None:
    same(shipped.usage(layout, "tenant_id")[layout], shipped.truths[layout]["totals"]["unique_usage"])


def test_nothing_of_a_known_runtime_is_unknown(shipped: Shipped) -> None:
    sums = "sum(lines_unknown), sum(fields_unknown), count(DISTINCT source_layout)"
    assert shipped.rows(f"SELECT {sums} FROM mart_unknown_records") == [(0, 0, 4)]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_totals_are_not_the_naive_sums(shipped: Shipped, layout: str) -> None:
    found = shipped.usage(layout, "tenant_id")[layout]
    for naive in shipped.truths[layout]["wrong_totals"].values():
        assert found["input_tokens"] != naive["input_tokens"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_models_equal_the_truth(shipped: Shipped, layout: str) -> None:
    found = shipped.usage(layout, "model")
    truth = shipped.truths[layout]["totals"]["by_model"]
    keyed = [model for model in found if model.startswith("k1_")]
    assert len(found) == len(truth)
    for model, expected in truth.items():
        name = "unknown" if model.startswith("(unknown") else keyed[0] if "CANARY" in model else model
        same(found[name], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agent_kinds_equal_the_truth(shipped: Shipped, layout: str) -> None:
    found = shipped.usage(layout, "agent_kind")
    truth = shipped.truths[layout]["totals"]["by_agent_kind"]
    assert found.keys() == truth.keys()
    for kind, expected in truth.items():
        same(found[kind], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_an_owner_reads_equals_the_marts(shipped: Shipped, layout: str) -> None:
    """`apiary me`, which has no warehouse: tokens, costs and what has no price, in all and by UTC day."""
    found = own_usage.read([shipped.homes[layout]], timezone=shipped.truths[layout]["tz"], now=datetime.now(UTC))
    days = me.grouped(map(me.summing(ZoneInfo("UTC"))[0], found.turns), "day")
    names = (
        "turns", "input_tokens", "cache_read_input_tokens", "cache_write_input_tokens", "output_tokens",
        "unpriced_tokens", "rated_cost_usd",
    )  # fmt: skip
    sums = ", ".join(f"sum({name})" for name in names)
    marts = shipped.rows(
        f"SELECT usage_date, {sums} FROM agg_usage_session_daily WHERE tenant_id = ? GROUP BY 1 HAVING sum(turns) > 0",
        layout,
    )
    read = {day: {name: me.exact(sums)[name] for name in names} for day, sums in days.items()}
    for row in read.values():
        row["rated_cost_usd"] = None if row["rated_cost_usd"] is None else Decimal(row["rated_cost_usd"])
    assert read == {str(day): dict(zip(names, values, strict=True)) for day, *values in marts}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_days_equal_the_truth(shipped: Shipped, layout: str) -> None:
    truth = shipped.truths[layout]["totals"]["by_utc_day"]
    found = {day.isoformat(): row for day, row in shipped.usage(layout, "usage_date").items()}
    moved = (
        sum(abs(found.get(day, {}).get("turns", 0) - truth.get(day, {}).get("turns", 0)) for day in found | truth) / 2
    )
    assert moved <= 0.02 * shipped.truths[layout]["totals"]["unique_usage"]["turns"]
    if not moved:
        for day, expected in truth.items():
            same(found[day], expected)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_days_of_events_are_exact(shipped: Shipped, layout: str) -> None:
    priced = {
        day.isoformat(): row["reported_cost_usd"]
        for day, row in shipped.usage(layout, "usage_date").items()
        if row["reported_cost_usd"]
    }
    truth = shipped.truths[layout]["totals"]["by_utc_day"]
    assert priced == {
        day: Decimal(row["cost_usd_exact"]) for day, row in truth.items() if Decimal(row["cost_usd_exact"])
    }


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sessions_equal_the_truth(shipped: Shipped, layout: str) -> None:
    found = shipped.usage(layout, "session_id")
    generated = re.compile(r"session_\d{8}_\d{6}_[0-9a-f]{8}|\d{8}T\d{6}_[0-9a-f]{8}")
    for session in shipped.truths[layout]["sessions"]:
        own = session["usage_own"]
        if generated.fullmatch(session["session_id"]) and own["turns"]:
            same(found[session["session_id"]], own)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tree_equals_the_truth(shipped: Shipped, layout: str) -> None:
    found = dict(shipped.rows("SELECT session_id, parent_session_id FROM dim_sessions WHERE tenant_id = ?", layout))
    for session in shipped.truths[layout]["sessions"]:
        if session["session_id"] in found:
            assert found[session["session_id"]] == session["parent_session_id"], session


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tasks_equal_the_truth(shipped: Shipped, layout: str) -> None:
    for colony in shipped.truths[layout]["colonies"]:
        if "tasks_by_status" not in colony:
            continue
        rows = shipped.rows(
            "SELECT item, status, count(*), sum(coalesce(retry_count, 0)) FROM fct_tasks"
            " WHERE tenant_id = ? AND list_id = ? AND list_kind = 'progress_db' GROUP BY ALL",
            layout,
            colony["queen_session_id"],
        )
        found: dict[str, Counter[str]] = {"task": Counter(), "step": Counter(), "checklist": Counter()}
        for item, status, count, _ in rows:
            found[item][status] += count
        assert found["task"] == colony["tasks_by_status"]
        assert found["step"] == colony["steps_by_status"]
        assert found["checklist"]["done"] == colony["sop_items"]["done"]
        assert sum(found["checklist"].values()) == colony["sop_items"]["total"]
        assert sum(retries for item, _, _, retries in rows if item == "task") == colony["retry_count_sum"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_worker_outcomes_equal_the_truth(shipped: Shipped, layout: str) -> None:
    """Each worker ran once, ended as its truth says, and its own total is what its turns add up to."""
    columns = "outcome, run_kind, reported_tokens, input_tokens + output_tokens, reported_seconds, wall_seconds, turns"
    rows = shipped.rows(f"SELECT session_id, {columns} FROM fct_agent_runs WHERE tenant_id = ?", layout)
    found = {row[0]: row[1:] for row in rows if row[2] == "worker"}
    truth = {session["session_id"]: session for session in shipped.truths[layout]["sessions"]}
    workers = {session: told for session, told in truth.items() if told["kind"] == "worker"}
    assert found.keys() == workers.keys()
    for session, (outcome, _, reported, measured, claimed, wall, turns) in found.items():
        told = workers[session]
        assert outcome == (None if told["status"] == "crashed" else told["status"]), told
        assert turns == told["usage_own"]["turns"]
        if reported and turns:
            assert reported == measured, told
        if claimed and turns:
            assert wall == pytest.approx(claimed, abs=0.01), told


@pytest.mark.parametrize("layout", LAYOUTS)
def test_agent_sessions_end_as_the_truth_says(shipped: Shipped, layout: str) -> None:
    """By the last run of each session: what no log and no file tells stays unknown."""
    ends = {"completed": "success", "failed": "failed", "cancelled": "stopped", "paused": None, "crashed": None}
    last = dict(
        shipped.rows(
            "SELECT session_id, max_by(outcome, started_at) FROM fct_agent_runs WHERE tenant_id = ? GROUP BY 1", layout
        )
    )
    told = [s for s in shipped.truths[layout]["sessions"] if s["kind"].startswith("agent_session:")]
    compared = [s for s in told if s["session_id"] in last and s["status"] in ends]
    assert len(compared) >= 8
    for session in compared:
        assert last[session["session_id"]] == ends[session["status"]], session


@pytest.mark.parametrize("layout", LAYOUTS)
def test_subtrees_equal_the_truth(shipped: Shipped, layout: str) -> None:
    """What a session and its workers used, by the tree; forks are trees of their own there."""
    truth = shipped.truths[layout]["sessions"]
    rows = shipped.rows(
        "SELECT session_id, own_turns, own_tool_calls, subtree_turns, edge_kind, parent_session_id"
        " FROM mart_session_tree WHERE tenant_id = ?",
        layout,
    )
    tree = {row[0]: row[1:] for row in rows}
    for session in truth:
        if session["session_id"] not in tree:
            continue
        own, calls, subtree, _, _ = tree[session["session_id"]]
        assert (own, calls) == (session["usage_own"]["turns"], session["usage_own"]["tool_calls"])
        forks = [row[2] for row in tree.values() if row[3] == "fork" and row[4] == session["session_id"]]
        if session.get("usage_with_workers"):
            assert subtree - sum(forks) == session["usage_with_workers"]["turns"], session


@pytest.mark.parametrize("layout", LAYOUTS)
def test_queens_equal_the_truth(shipped: Shipped, layout: str) -> None:
    queens = {s["session_id"]: s["queen_id"] for s in shipped.truths[layout]["sessions"] if "queen" in s["kind"]}
    found = dict(
        shipped.rows(
            "SELECT session_id, queen_name FROM dim_sessions WHERE tenant_id = ? AND session_kind LIKE '%queen'", layout
        )
    )
    assert found == queens


@pytest.mark.parametrize("layout", LAYOUTS)
def test_task_lists_equal_the_truth(shipped: Shipped, layout: str) -> None:
    """Lists of sessions, copies in forks left out, by state; every task has a history that ends in its state."""
    rows = shipped.rows(
        "SELECT tasks.list_id, tasks.task_id, tasks.state, history.state FROM fct_tasks AS tasks"
        " LEFT JOIN fct_task_changes AS history ON tasks.tenant_id = history.tenant_id"
        " AND tasks.list_id = history.list_id AND tasks.list_kind = history.list_kind AND tasks.item = history.item"
        " AND tasks.task_id = history.task_id AND history.is_current AND history.item_id IS NULL"
        " WHERE tasks.tenant_id = ? AND tasks.list_kind = 'session'",
        layout,
    )
    assert all(state == last for _, _, state, last in rows)
    states = {"pending": "open", "in_progress": "working", "completed": "done"}
    for listed in shipped.truths[layout]["task_lists"]:
        session = listed["path"].rstrip("/").split("/")[-2]
        mine = Counter(state for list_id, _, state, _ in rows if list_id == session)
        told: Counter[str] = Counter()
        for status, count in listed["by_status"].items():
            told[states.get(status, "other")] += count
        if listed["role"] == "session" and mine:
            assert mine == told, listed


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tools_equal_the_truth(shipped: Shipped, layout: str) -> None:
    found = shipped.rows(
        "SELECT sum(calls), sum(timed_calls), min(min_seconds) FROM agg_tools_daily WHERE tenant_id = ?", layout
    )
    calls, timed, least = found[0]
    assert calls == shipped.truths[layout]["totals"]["unique_usage"]["tool_calls"]
    assert timed == calls, "events of their starts and L3 lines tell the durations of all of them"
    assert least >= 0


MARKS = ("CANARY-", "_canary_", "/Users/alice", "/home/alice", "example.invalid", "sk-ant-")


def test_every_canary_bears_a_mark(shipped: Shipped) -> None:
    """So looking for the marks looks for all of them."""
    for truth in shipped.truths.values():
        for canary in truth["canaries"]:
            assert any(mark in canary["token"] for mark in MARKS), canary


def test_nothing_private_left(shipped: Shipped) -> None:
    assert find(shipped.home.root, MARKS) == []
    assert find(shipped.root / "warehouse.duckdb", MARKS) == []


@pytest.mark.long
def test_nothing_private_left_by_the_whole_job(shipped: Shipped) -> None:
    """Looked into: all that the job keeps, dbt's artifacts and logs and Dagster's runs with their logs too. Neither
    content nor the credential that the job was given. The short form, of a simulated home: test_job.py."""
    done = apiary(shipped.home.root, "run", environment={"AWS_SECRET_ACCESS_KEY": CREDENTIAL})
    kept = {path.relative_to(shipped.home.root).as_posix() for path in shipped.home.root.rglob("*")}
    for pattern in (r"dbt/.*manifest\.json", r"dbt/.*dbt\.log", r"dbt/.*\.sql", r"dagster/history/runs/.*\.db",
                    r"dagster/storage/.*\.err"):  # fmt: skip
        assert any(re.fullmatch(pattern, name) for name in kept), pattern
    assert find(shipped.home.root, [*MARKS, CREDENTIAL]) == []
    assert not [mark for mark in (*MARKS, CREDENTIAL) if mark in done.stdout + done.stderr]


def test_a_planted_leak_is_found(tmp_path: Path) -> None:
    leak = "so he said CANARY-PROMPT-000001."
    with duckdb.connect(str(tmp_path / "leak.duckdb")) as connection:
        connection.execute("CREATE TABLE t AS SELECT ? AS note", [leak])
        connection.execute("COPY t TO '" + str(tmp_path / "leak.parquet") + "' (FORMAT parquet, COMPRESSION zstd)")
    (tmp_path / "leak.log").write_text(f"error: {leak}")
    assert {hit.path.name for hit in find(tmp_path, MARKS)} == {"leak.duckdb", "leak.parquet", "leak.log"}
