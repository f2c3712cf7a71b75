"""What Dagster is told, loaded as on a fresh machine: a copy of the checkout, no settings, no network, no database."""

import json
import os
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import TABLES
from pipelines.quality import gates

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED = ("pipelines", "models", "dbt_project", "expectations", "policies")
SCRIPT = """
import json, socket, sys
from datetime import datetime, timezone
from pathlib import Path

def refuse(*_, **__):
    raise AssertionError("the network was asked for")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
import duckdb
opened = []
connect = duckdb.connect
duckdb.connect = lambda *a, **k: opened.append([str(x) for x in a]) or connect(*a, **k)

import dagster as dg
import pipelines
from pipelines.definitions import defs

repository = defs.get_repository_def()
graph = repository.asset_graph
job = defs.resolve_job_def("daily")
ticks = []
for text in ("2026-03-01T01:15", "2026-03-01T01:15", "2024-03-01T01:15"):
    at = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    context = dg.build_schedule_context(scheduled_execution_time=at, repository_def=repository)
    found = repository.get_schedule_def("daily_schedule").evaluate_tick(context)
    ticks.append([[request.run_key, dict(request.tags)] for request in found.run_requests])
schedule, monthly, erasure = (
    repository.get_schedule_def(f"{name}_schedule") for name in ("daily", "monthly", "erasure")
)
print(json.dumps({
    "package": pipelines.__file__,
    "opened": opened,
    "ticks": ticks,
    "monthly": [
        monthly.job_name, monthly.cron_schedule, monthly.execution_timezone,
        [key.to_user_string() for key in defs.resolve_job_def("monthly").asset_layer.executable_asset_keys],
    ],
    "erasure": [
        erasure.job_name, erasure.cron_schedule, erasure.execution_timezone,
        sorted(key.to_user_string() for key in defs.resolve_job_def("erasure").asset_layer.executable_asset_keys),
    ],
    "schedule": [schedule.job_name, schedule.cron_schedule, schedule.execution_timezone],
    "assets": {
        key.to_user_string(): {"group": graph.get(key).group_name, "described": bool(graph.get(key).description)}
        for key in graph.get_all_asset_keys()
    },
    "in_job": [key.to_user_string() for key in job.asset_layer.executable_asset_keys],
    "pools": {node.name: node.definition.pool for node in job.nodes},
    "checks": [
        {"asset": key.asset_key.to_user_string(), "name": key.name, "blocking": graph.get(key).blocking}
        for key in graph.asset_check_keys
    ],
    "behind": {
        key.to_user_string(): [parent.to_user_string() for parent in graph.get(key).parent_keys]
        for key in graph.get_all_asset_keys()
    },
    "partitioned": [key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned],
    "executor": job.executor_def.name,
}))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is needed, without anything that was built."""
    root = tmp_path_factory.mktemp("fresh")
    ignored = shutil.ignore_patterns("target", "logs", "__pycache__", ".user.yml")
    for name in NEEDED:
        shutil.copytree(REPOSITORY / name, root / "copy" / name, symlinks=True, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", root / "copy")
    return root


@pytest.fixture(scope="module")
def loaded(fresh: Path) -> dict[str, Any]:
    """What the definitions say."""
    kept = {"PATH", "LANG", "LC_ALL", "SYSTEMROOT"}
    clean = {name: value for name, value in os.environ.items() if name in kept}
    clean |= {"HOME": str(fresh / "person"), "PYTHONPATH": str(fresh / "copy"), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=fresh, env=clean, capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    assert Path(found["package"]).is_relative_to(fresh / "copy"), "the copy was loaded"
    return found


def test_definitions_load_with_nothing_set_and_touch_nothing(loaded: dict[str, Any], fresh: Path) -> None:
    """No network (the script refuses it), no warehouse, no folder of the person's own."""
    assert [where for where in loaded["opened"] if where not in ([], [":memory:"])] == []
    assert list(fresh.rglob("*.duckdb")) == []
    assert not (fresh / "person").exists()
    assert (fresh / "copy" / "dbt_project" / "target" / "manifest.json").is_file(), "it was made"


def test_every_asset_is_named_by_its_relation(loaded: dict[str, Any]) -> None:
    assets = loaded["assets"]
    assert all(len(key.split("/")) == 2 for key in assets)
    schemas = {key.split("/")[0] for key in assets}
    assert schemas == {"wire", "seeds", "staging", "intermediate", "marts", "published", "billing", "erasure", "quota"}
    assert {key for key in assets if key.startswith("wire/")} == {
        f"wire/{name}" for name in [*(table.name for table in TABLES), *BOOKS, "quarantine"]
    }
    models = {
        f"{path.relative_to(REPOSITORY / 'models').parts[0]}/{path.stem}"
        for path in (REPOSITORY / "models").rglob("*.sql")
    }
    assert models == {key for key in assets if key.split("/")[0] in ("staging", "intermediate", "marts")}
    assert all(asset["group"] == key.split("/")[0] for key, asset in assets.items())
    assert [key for key, asset in assets.items() if not asset["described"]] == []


def test_the_daily_job_has_everything_but_the_months(loaded: dict[str, Any]) -> None:
    of_months = {"billing/monthly_statement", "billing/month_end_step", "billing/month_end_statements"}
    assert set(loaded["assets"]) - set(loaded["in_job"]) == of_months
    assert loaded["monthly"] == ["monthly", "15 3 4 * *", "UTC", ["billing/monthly_statement"]]
    assert loaded["executor"] == "in_process"


def test_the_erasure_needs_neither_models_nor_statements(loaded: dict[str, Any]) -> None:
    """A job of its own, and in the daily job before the load: a build that fails does not stop it."""
    assert loaded["erasure"] == ["erasure", "45 0,12 * * *", "UTC", ["erasure/receipts", "erasure/requests"]]
    behind = loaded["behind"]
    assert behind["erasure/requests"] == []
    assert behind["erasure/receipts"] == ["erasure/requests"]
    assert behind["wire/llm_turns"] == ["erasure/receipts"]


def test_whatever_opens_the_warehouse_shares_one_slot(loaded: dict[str, Any]) -> None:
    pools = dict(loaded["pools"])
    assert pools.pop("billing__statements_exports_complete") is None, "it reads a file of the exports"
    assert set(pools) == {
        "wire", "books", "arrival_gate", "models", "departure_gate", "published__marts", "billing__statements",
        "erasure__requests", "erasure__receipts", "quota__snapshots",
    }  # fmt: skip
    assert set(pools.values()) == {"duckdb"}


def test_the_arrows_of_the_data_go_one_way(loaded: dict[str, Any]) -> None:
    order = ["seeds", "wire", "staging", "intermediate", "marts", "published", "quota", "billing", "erasure"]
    for key, parents in loaded["behind"].items():
        for parent in parents:
            if not loaded["behind"][parent] and parent.startswith("billing/"):
                continue  # a book: people sign it, nothing of ours stands before it
            if parent.startswith("erasure/"):
                continue  # what somebody wants erased comes before everything
            # Days are counted over the facts before them, and lines are booked that were rated before: the places
            # where intermediate stands behind marts.
            behind_facts = (
                "int_usage__session_", "int_usage__turns_judged", "int_billing__rating_days", "int_status__session_",
                "int_agents__session_models", "int_billing__booked_lines", "int_billing__booking_days",
                "int_billing__account_months", "int_billing__account_terms", "int_billing__frozen",
                "int_billing__plan_charges", "int_usage__day_models", "int_billing__models_assumed",
            )  # fmt: skip
            if not key.startswith(tuple(f"intermediate/{name}" for name in behind_facts)):
                assert order.index(parent.split("/")[0]) <= order.index(key.split("/")[0]), (key, parent)
    marts = {key for key in loaded["assets"] if key.startswith("marts/")}
    assert set(loaded["behind"]["published/marts"]) == marts
    assert "published/marts" in loaded["behind"]["billing/statements"], "nothing is billed that was not published"


def test_gates_are_checks_that_block(loaded: dict[str, Any]) -> None:
    found = {(check["asset"], check["name"]) for check in loaded["checks"] if check["name"].startswith("gate_")}
    assert found == {
        (f"{schema}/{suite.table}", f"gate_{suite.table}")
        for edge, schema in (("arrival", "wire"), ("departure", "marts"))
        for suite in gates.suites(edge)  # type: ignore[arg-type]
    }
    assert len(found) == len(list((REPOSITORY / "expectations").glob("*.yml")))
    assert [check for check in loaded["checks"] if check["name"].startswith("gate_") and not check["blocking"]] == []


def test_dbt_tests_are_checks_of_their_models(loaded: dict[str, Any]) -> None:
    tested = {check["asset"] for check in loaded["checks"] if not check["name"].startswith("gate_")}
    assert {key for key in loaded["assets"] if key.startswith("marts/")} <= tested


def test_only_ingestion_is_cut_by_days(loaded: dict[str, Any]) -> None:
    assert {key.split("/")[0] for key in loaded["partitioned"]} == {"wire"}


def test_the_schedule_asks_for_the_last_days_and_always_for_the_same(loaded: dict[str, Any]) -> None:
    """Test 62: there is neither cursor nor run key that a death could leave behind; what is asked for again is loaded
    once, because the ledger knows it."""
    assert loaded["schedule"] == ["daily", "15 1 * * *", "UTC"]
    one, again, long_ago = loaded["ticks"]
    assert one == again != long_ago
    for tick, today in ((one, date(2026, 3, 1)), (long_ago, date(2024, 3, 1))):
        ((run_key, tags),) = tick
        assert run_key is None
        first = date.fromisoformat(tags["dagster/asset_partition_range_start"])
        assert date.fromisoformat(tags["dagster/asset_partition_range_end"]) == today
        assert first == today - timedelta(days=31), "an outage of a month is made good"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "nothing was published or exported, what was published before stays"),
        ([["wire", "batches"]], "nothing was published or exported, what was published before stays"),
        ([["published", "marts"]], "before that, the marts are published"),
        (
            [["wire", "batches"], ["published", "marts"], ["billing", "statements"]],
            "before that, the marts are published, the billing days are exported",
        ),
    ],
)
def test_what_a_failed_run_has_done_is_told_by_what_it_made(made: list[list[str]], said: str) -> None:
    from pipelines.defs.foreground import _what_is_done

    def event(path: list[str]) -> SimpleNamespace:
        return SimpleNamespace(is_step_materialization=True, asset_key=SimpleNamespace(path=path))

    failed = SimpleNamespace(is_step_materialization=False, asset_key=None)
    assert _what_is_done(SimpleNamespace(all_events=[*map(event, made), failed])) == said


def test_a_failed_step_says_what_its_asset_raised() -> None:
    from pipelines.defs.foreground import _cause

    raised = SimpleNamespace(message="pipelines.warehouse.erase.EraseError: still in x\n", cause=None)
    around = SimpleNamespace(message="dagster.Error: occurred while executing\n", cause=raised)
    assert _cause(around) == _cause(raised) == "EraseError: still in x"
    assert _cause(None) == ""
