"""Sample homes of the other runtimes, from the files to the marts: totals equal the truth, nothing private is kept.

They are read where `APIARY_SAMPLES` says and are not part of this repository.
"""

import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines.device.ship import ship
from tests.end_to_end.driving import device
from tests.samples import SAMPLES, needs
from tests.scanner import find
from tests.warehouse import Warehouse

RUNTIMES = ("claude", "openclaw", "hyperhive")
MARTS = (
    "agg_usage_session_daily", "agg_tools_daily", "fct_requests", "mart_control_totals", "mart_turn_claims",
    "mart_home_claims", "mart_unknown_records", "mart_dedupe_ledger",
)  # fmt: skip
# What people wrote, their folders, names of their agents.
MARKS = {"CANARY-", "/home/ilse", "hm1nd"}
pytestmark = [pytest.mark.services, needs(*(SAMPLES / f"{runtime}-home.tar.gz" for runtime in RUNTIMES))]


@dataclass(frozen=True)
class Counted:
    """The samples, one tenant each, in one warehouse. `kept`: the folder with all that devices and warehouse keep."""

    warehouse: Path
    kept: Path
    truths: dict[str, dict[str, Any]]

    def rows(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Rows of the marts."""
        with duckdb.connect(str(self.warehouse), read_only=True) as connection:
            connection.execute("USE marts")
            return connection.execute(sql, list(values)).fetchall()


@pytest.fixture(scope="module")
def counted(dbt_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Counted:
    root = tmp_path_factory.mktemp("runtimes")
    kept = root / "kept"
    store = (kept / "store").as_uri()
    truths = {}
    for runtime in RUNTIMES:
        truths[runtime] = json.loads((SAMPLES / f"{runtime}-home.truth.json").read_text("utf-8"))
        mine = device(kept / "devices" / runtime, store=store, tenant=runtime, zone=truths[runtime]["tz"])
        for homes in eras(runtime, truths[runtime], root / "homes" / runtime):
            ship(mine, homes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("APIARY_WAREHOUSE", str(dbt_home / "warehouse.duckdb"))
        warehouse = Warehouse(dbt_home / "warehouse.duckdb", dbt_home / "target")
        warehouse.ingest(store)
        warehouse.run("--select", *(f"+{mart}" for mart in MARTS))
        return Counted(warehouse.copy(kept / "warehouse.duckdb"), kept, truths)


def eras(runtime: str, truth: dict[str, Any], folder: Path) -> Iterator[list[Path]]:
    """The homes of a sample, as they were one time after the other."""
    with tarfile.open(SAMPLES / f"{runtime}-home.tar.gz") as tar:
        tar.extractall(folder, filter="data")
    match runtime:
        case "claude":
            yield [folder / truth["home"] / root.partition(" ")[0] for root in truth["roots"]]
        case "openclaw":  # the same folder before and after the upgrade
            home = folder / "home" / ".openclaw"
            for era in ("files", "sqlite"):
                shutil.rmtree(home, ignore_errors=True)
                shutil.copytree(folder / era / ".openclaw", home)
                yield [home]
        case _:
            yield [folder / truth["home"]]


USED = {
    "turns": "count(*)", "input_tokens": "sum(input_tokens - cache_read_input_tokens - cache_write_input_tokens)",
    "output_tokens": "sum(output_tokens)", "cached_tokens": "sum(cache_read_input_tokens)",
    "cache_creation_tokens": "sum(cache_write_input_tokens)",
    "cache_write_5m_tokens": "sum(cache_write_5m_input_tokens)",
    "cache_write_1h_tokens": "sum(cache_write_1h_input_tokens)",
    "cache_write_unknown_tokens": "sum(cache_write_input_tokens - cache_write_5m_input_tokens"
    " - cache_write_1h_input_tokens)",
    "reasoning_tokens": "sum(coalesce(reasoning_output_tokens, 0))",
    "web_search_requests": "sum(coalesce(web_search_requests, 0))",
}  # fmt: skip
MODEL = "CASE WHEN agent_runtime = 'hyperhive' AND turn_grain = 'turn' THEN 'alias:' || model ELSE model END"
KIND = "CASE WHEN request_kind = 'advisor' THEN 'advisor' WHEN agent_kind = 'worker' THEN 'subagent' ELSE 'main' END"


def used(counted: Counted, runtime: str, by_what: str) -> dict[str, dict[str, int]]:
    """Usage of a sample in the words of the truths, by an expression over turns; zeros are left out."""
    rows = counted.rows(
        f"SELECT ({by_what})::varchar, {', '.join(f'({sum_})::bigint' for sum_ in USED.values())} FROM fct_llm_turns"
        " WHERE tenant_id = ? GROUP BY ALL",
        runtime,
    )
    return {name: told(dict(zip(USED, numbers, strict=True))) for name, *numbers in rows}


def told(truth: dict[str, Any]) -> dict[str, int]:
    """What a truth or a sum says of tokens."""
    return {name: truth[name] for name in USED if truth.get(name)}


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_totals_of_a_runtime_equal_the_truth(counted: Counted, runtime: str) -> None:
    truth = counted.truths[runtime]
    total = used(counted, runtime, "'all'")["all"]
    assert total == told(truth["totals"]["unique_usage"])
    assert total not in [told(wrong) for wrong in truth["wrong_totals"].values() if isinstance(wrong, dict)]
    ((calls, rollup),) = counted.rows(
        "SELECT (SELECT count(*) FROM fct_tool_calls WHERE tenant_id = $1),"
        " (SELECT sum(output_tokens) FROM agg_usage_session_daily WHERE tenant_id = $1)",
        runtime,
    )
    assert calls == truth["totals"]["unique_usage"]["tool_calls"]
    assert rollup == truth["totals"]["unique_usage"]["output_tokens"]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize(("name", "by_what"), [("by_model", MODEL), ("by_utc_day", "usage_date"), ("by_kind", KIND)])
def test_parts_of_a_runtime_equal_the_truth(counted: Counted, runtime: str, name: str, by_what: str) -> None:
    truth = counted.truths[runtime]["totals"].get(name)
    if truth is None:  # OpenClaw's truth has kinds of sessions instead
        return
    found = used(counted, runtime, by_what)
    keyed = {part: usage for part, usage in found.items() if part.startswith("k1_")}
    public = {part: told(usage) for part, usage in truth.items() if part in found}
    assert {part: usage for part, usage in found.items() if part not in keyed} == public
    private = [told(usage) for part, usage in truth.items() if part not in found]
    assert sorted(map(str, keyed.values())) == sorted(map(str, private))


@pytest.mark.parametrize("runtime", ["claude", "openclaw"])
def test_sessions_of_a_runtime_equal_the_truth(counted: Counted, runtime: str) -> None:
    truth = counted.truths[runtime]
    sessions = truth["sessions"] if runtime == "claude" else truth["homes_truth"]["sqlite"]["sessions"]
    found = used(counted, runtime, f"CASE WHEN {KIND} = 'advisor' THEN 'advisor' ELSE session_id END")
    for session in sessions:
        assert found.get(session["session_id"], {}) == told(session["usage_own"]), session["session_id"]


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tools_of_a_runtime_equal_the_truth(counted: Counted, runtime: str) -> None:
    totals = counted.truths[runtime]
    calls = dict(
        counted.rows(
            "SELECT tool_name, sum(calls)::bigint FROM agg_tools_daily WHERE tenant_id = ? GROUP BY 1", runtime
        )
    )
    private = sum(calls.pop(name) for name in list(calls) if name.startswith("k1_"))
    truth = totals["turn_facts"]["by_tool"] if runtime == "hyperhive" else totals["totals"]["by_tool"]
    assert calls == {name: count(usage) for name, usage in truth.items() if name in calls}
    assert private == sum(count(usage) for name, usage in truth.items() if name not in calls)


def count(usage: Any) -> int:
    """How many calls of a tool a truth has."""
    return int(usage.get("calls", usage.get("tool_calls", 0))) if isinstance(usage, dict) else int(usage)


def test_requests_of_agents_have_states_and_ages(counted: Counted) -> None:
    truth = counted.truths["hyperhive"]["broker"]
    rows = counted.rows(
        "SELECT kind, count(*), sum((status = 'open')::int), sum(wait_seconds) FROM fct_requests GROUP BY 1"
    )
    found = {kind: numbers for kind, *numbers in rows}
    assert found["message"][:2] == [truth["messages"], truth["messages_undelivered"]]
    assert found["reminder"][:2] == [truth["reminders"], truth["reminders_pending"]]
    assert found["question"] == [truth["questions"], truth["questions_open"], truth["question_wait_s_sum"]]
    assert found["approval"][2] == truth["approval_wait_s_sum"]


def test_claims_of_turns_differ_for_a_reason(counted: Counted) -> None:
    columns = "claimed_input_tokens, claimed_output_tokens, counted_input_tokens, counted_output_tokens"
    rows = counted.rows(f"SELECT difference_reason, is_counted_by_claim, {columns} FROM mart_turn_claims")
    truth = counted.truths["hyperhive"]
    assert len(rows) == truth["totals"]["turn_rows"]
    assert sum(row[1] for row in rows) == truth["totals"]["by_grain"]["turn"]["turns"]
    reasons = {"exact": "none", "turn_stats leaves sub-agents out": "sub_agents"}
    expected: Counter[tuple[str, int, int]] = Counter()
    for turn in truth["control_totals"]["per_turn"]:
        off = turn["transcripts_minus_turn_stats"]
        whole = off["input_tokens"] + off["cached_tokens"] + off["cache_creation_tokens"]
        expected[reasons.get(turn["why"], "failed_turn"), whole, off["output_tokens"]] += 1
    found = Counter((row[0], row[4] - row[2], row[5] - row[3]) for row in rows if not row[1])
    assert found == expected


def test_claims_of_sessions_differ_for_a_reason(counted: Counted) -> None:
    rows = counted.rows(
        "SELECT claimed_by, difference_reason, input_tokens_off, output_tokens_off FROM mart_control_totals"
    )
    reasons: dict[str, set[str]] = {}
    for claimed_by, reason, *off in rows:
        reasons.setdefault(claimed_by, set()).add(reason)
        assert (reason == "none") == (off == [0, 0])
    assert reasons.keys() == {"cost_state", "session_counters", "turn_stats"}
    assert "unexplained" not in set.union(*reasons.values())
    assert reasons["turn_stats"] == {"none", "failed_turn", "sub_agents"}


def test_a_claim_of_a_whole_home_stands_beside_what_was_counted(counted: Counted) -> None:
    columns = "model, difference_reason, claimed_output_tokens, counted_output_tokens, counted_input_tokens"
    rows = counted.rows(f"SELECT {columns} FROM mart_home_claims WHERE tenant_id = 'claude'")
    (whole,) = (row for row in rows if row[0] is None)
    usage = counted.truths["claude"]["totals"]["unique_usage"]
    assert whole[3] == usage["output_tokens"]
    assert whole[4] == usage["input_tokens"] + usage["cached_tokens"] + usage["cache_creation_tokens"]
    # More of one model is claimed than its lines say; the claim of the whole home differs by the same.
    assert {row[0] for row in rows if row[1] != "none"} == {None, "claude-opus-5"}
    assert all(row[1] == ("none" if row[2] == row[3] else "deleted_history") for row in rows)
    assert len({row[2] - row[3] for row in rows if row[1] != "none"}) == 1


def test_no_type_of_line_and_no_field_is_unknown(counted: Counted) -> None:
    assert counted.rows("SELECT tenant_id FROM mart_unknown_records WHERE lines_unknown + fields_unknown > 0") == []


@pytest.mark.parametrize("runtime", ["openclaw", "hyperhive"])
def test_every_raw_turn_is_kept_or_accounted_for(counted: Counted, runtime: str) -> None:
    columns = "raw_turn_lines, kept_turns + collapsed_on_device + collapsed_in_warehouse + retracted_steps"
    ((raw, told),) = counted.rows(f"SELECT {columns} FROM mart_dedupe_ledger WHERE tenant_id = ?", runtime)
    assert raw == told


def test_nothing_private_is_kept(counted: Counted) -> None:
    tokens = {canary["token"] for truth in counted.truths.values() for canary in truth["canaries"]}
    others = {token for token in tokens if "CANARY-" not in token}  # numbers of telephones and groups in keys
    assert find(counted.kept, [*MARKS, *others]) == []
