"""What Dagster is told, loaded as on a fresh machine: a copy of the checkout, no settings, no network, no database."""

import inspect
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.billing import closing
from pipelines.contract.ddl import BOOKS
from pipelines.contract.wire import TABLES
from pipelines.quality import gates
from pipelines.warehouse.schemas import BUILT
from tests.warehouse import schema_of

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = list((REPOSITORY / "models").rglob("*.sql"))
NEEDED = ("pipelines", "models", "dbt_project", "expectations", "policies")
SCRIPT = """
import json, socket, sys
from datetime import datetime, timedelta, timezone
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
from pipelines.defs.partitions import ARRIVAL_DAYS
from pipelines.defs.billing import READ
from pipelines.defs.transform import STEPS

repository = defs.get_repository_def()
graph = repository.asset_graph
job = defs.resolve_job_def("daily")
opened_instance = dg.instance_for_test()
instance = opened_instance.__enter__()
ticks = []
now = datetime.now(timezone.utc)
for days in (0, 0, 400):
    at = now + timedelta(days=days)
    context = dg.build_schedule_context(instance, scheduled_execution_time=at, repository_def=repository)
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
        key.to_user_string(): {
            "group": graph.get(key).group_name, "described": bool(graph.get(key).description),
            "owners": graph.get(key).owners, "tags": dict(graph.get(key).tags),
            "is_kept_fresh": graph.get(key).freshness_policy is not None,
        }
        for key in graph.get_all_asset_keys()
    },
    "in_job": [key.to_user_string() for key in job.asset_layer.executable_asset_keys],
    "pools": {node.name: node.definition.pool for node in job.nodes},
    "checks": [
        {
            "asset": key.asset_key.to_user_string(), "name": key.name, "blocking": graph.get(key).blocking,
            "description": graph.get(key).description,
        }
        for key in graph.asset_check_keys
    ],
    "behind": {
        key.to_user_string(): [parent.to_user_string() for parent in graph.get(key).parent_keys]
        for key in graph.get_all_asset_keys()
    },
    "partitioned": [key.to_user_string() for key in graph.get_all_asset_keys() if graph.get(key).is_partitioned],
    "cut": sorted({
        f"{str(graph.get(key).partitions_def).split(',')[0]} {graph.get(key).backfill_policy.policy_type.name}"
        for key in job.asset_layer.executable_asset_keys
    }),
    "executor": job.executor_def.name,
    "first_day": ARRIVAL_DAYS.get_first_partition_key(),
    "today": f"{now:%Y-%m-%d}",
    "starts_by_itself": {
        definition.name: definition.default_status.value
        for definition in [*repository.schedule_defs, *repository.sensor_defs]
    },
    "undescribed": [
        definition.name
        for definition in [*repository.schedule_defs, *repository.sensor_defs, *repository.get_all_jobs()]
        if not definition.description and not definition.name.startswith("__")
    ],
    "resolved_from_dbt": {
        models.op.name: sorted(
            spec.metadata["dagster_dbt/unique_id"] for spec in models.check_specs_by_output_name.values()
        )
        for models in STEPS.values()
    },
    "built_by": {key.to_user_string(): models.op.name for models in STEPS.values() for key in models.keys},
    "read_by_statements": READ,
    "priorities": {node.name: node.definition.tags.get("dagster/priority", "0") for node in job.nodes},
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
    assert schemas == {"wire", "seeds", *BUILT, "published", "billing", "operation", "erasure", "quota"}
    assert {key for key in assets if key.startswith("wire/")} == {
        f"wire/{name}" for name in [*(table.name for table in TABLES), *BOOKS, "quarantine"]
    }
    layers = {path.stem: path.relative_to(REPOSITORY / "models").parts[0] for path in MODELS}
    models = {f"{schema_of(name)}/{name}" for name in layers}
    assert models == {key for key in assets if key.split("/")[0] in BUILT}
    assert {key: assets[key]["group"] for key in models} == {key: layers[key.split("/")[1]] for key in models}
    own_group = {key for key, asset in assets.items() if asset["group"] != key.split("/")[0]} - models
    assert {assets[key]["group"] for key in own_group} == {"books"}
    assert {key.split("/")[0] for key in own_group} == {"billing", "operation"}, "books stand apart from statements"
    assert [key for key, asset in assets.items() if not asset["described"]] == []


def test_every_asset_says_who_answers_for_it_and_what_people_read_is_kept_fresh(loaded: dict[str, Any]) -> None:
    assets = loaded["assets"]
    assert {owner for asset in assets.values() for owner in asset["owners"]} == {
        "team:data-platform", "team:finance-data", "team:privacy",
    }  # fmt: skip
    assert [key for key, asset in assets.items() if not asset["owners"] or "layer" not in asset["tags"]] == []
    assert {key for key, asset in assets.items() if asset["is_kept_fresh"]} == {
        key for key in assets if key.split("/")[0] in ("marts", "published")
    }


def test_no_billing_statement_stands_before_a_book_in_the_graph_of_groups(loaded: dict[str, Any]) -> None:
    """No two groups stand behind one another: the groups of models are their layers."""
    group = {key: asset["group"] for key, asset in loaded["assets"].items()}
    arrows = {(group[parent], group[key]) for key, parents in loaded["behind"].items() for parent in parents}
    arrows = {(a, b) for a, b in arrows if a != b}
    left = set(group.values())
    while ends := {name for name in left if not any(a == name and b in left for a, b in arrows)}:
        left -= ends
    assert left == set()
    assert "books" not in {b for _, b in arrows}


def test_checks_are_described_and_have_names_that_fit_a_screen(loaded: dict[str, Any]) -> None:
    assert [check["name"] for check in loaded["checks"] if not check["description"]] == []
    assert [check["name"] for check in loaded["checks"] if len(check["name"]) > 60] == []
    names = [(check["asset"], check["name"]) for check in loaded["checks"]]
    assert len(set(names)) == len(names)


def test_every_test_of_dbt_is_a_check(loaded: dict[str, Any], fresh: Path) -> None:
    """One over several models names its asset: otherwise it stops a build and is no check of anything."""
    manifest = json.loads((fresh / "copy" / "dbt_project" / "target" / "manifest.json").read_text("utf-8"))
    tests = [node["unique_id"] for node in manifest["nodes"].values() if node["resource_type"] == "test"]
    assert sorted(check for checks in loaded["resolved_from_dbt"].values() for check in checks) == sorted(tests)


def test_every_test_is_run_by_the_step_of_its_check(loaded: dict[str, Any], fresh: Path) -> None:
    """dbt runs it there because the step builds each model that it looks at, or builds from it."""
    nodes = json.loads((fresh / "copy" / "dbt_project" / "target" / "manifest.json").read_text("utf-8"))["nodes"]
    built = {key: node["name"] for key, node in nodes.items() if node["resource_type"] in ("model", "seed")}
    by_name = {key.split("/")[1]: step for key, step in loaded["built_by"].items()}
    step = {key: by_name[name] for key, name in built.items()}
    for name, checks in loaded["resolved_from_dbt"].items():
        here = [key for key in step if step[key] == name]
        seen: set[str] = set()
        while here:
            key = here.pop()
            if key not in seen and key in step:
                seen.add(key)
                here += nodes[key]["depends_on"].get("nodes", [])
        for check in checks:
            looked_at = {key for key in nodes[check]["depends_on"]["nodes"] if key in step}
            assert looked_at <= seen, check
            assert name in {step[key] for key in looked_at}, check


def test_nothing_starts_by_itself_unless_the_setting_says_so(loaded: dict[str, Any], fresh: Path) -> None:
    """What frees the slots of dead runs does, always."""
    by_itself = loaded["starts_by_itself"]
    assert set(by_itself) == {
        "daily_schedule", "monthly_schedule", "erasure_schedule", "retention", "arrivals", "orphaned_runs",
        "operation_alerts",
    }  # fmt: skip
    assert {name for name, status in by_itself.items() if status == "RUNNING"} == {"orphaned_runs", "operation_alerts"}
    script = (
        "from pipelines.defs import schedules as s; print(s.daily_schedule.default_status.value,"
        " s.monthly_schedule.default_status.value, s.erasure_schedule.default_status.value, s.SENSOR_STATUS.value)"
    )
    environment = os.environ | {"APIARY_SCHEDULES": "on", "APIARY_HOME": str(fresh / "on")}
    result = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["RUNNING"] * 4


def test_a_setting_of_schedules_that_is_none_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.defs import schedules

    monkeypatch.setenv("APIARY_SCHEDULES", "yes")
    with pytest.raises(ValueError, match="APIARY_SCHEDULES is 'yes': say on or off"):
        schedules._are_on()


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
        "wire", "books", "arrival_gate", "billing_models", "billing_gate", "billing__statements", "analytics_models",
        "departure_gate", "published__marts", "erasure__requests", "erasure__receipts", "quota__snapshots",
    }  # fmt: skip
    assert set(pools.values()) == {"duckdb"}


def test_the_arrows_of_the_data_go_one_way(loaded: dict[str, Any]) -> None:
    order = [
        "seeds", "wire", "staging", "core", "rating", "statements", "billing", "analytics", "published", "quota",
        "erasure",
    ]  # fmt: skip
    group = {key: asset["group"] for key, asset in loaded["assets"].items()}
    for key, parents in loaded["behind"].items():
        for parent in parents:
            if not loaded["behind"][parent] and group[parent] == "books":
                continue  # people sign it, or a run noted it: nothing of ours stands before it
            if parent.startswith("erasure/"):
                continue  # what somebody wants erased comes before everything
            assert order.index(group[parent]) <= order.index(group[key]), (key, parent)
    marts = {key for key in loaded["assets"] if key.startswith("marts/")}
    assert set(loaded["behind"]["published/marts"]) == marts


def test_statements_stand_behind_what_they_bill_and_nothing_else(loaded: dict[str, Any]) -> None:
    """Step by step: one that fails takes everything with it that it makes."""
    group = {key: asset["group"] for key, asset in loaded["assets"].items()}
    behind, built_by = loaded["behind"], loaded["built_by"]

    def before(start: set[str], *, with_its_step: bool) -> set[str]:
        found: set[str] = set()
        left = set(start)
        while left:
            key = left.pop()
            found.add(key)
            together = {other for other in built_by if built_by[other] == built_by[key]} if key in built_by else set()
            left |= ({*behind[key]} | (together if with_its_step else set())) - found
        return found

    needed = before({key for key in group if group[key] == "statements"}, with_its_step=False)
    assert {key for key, step in built_by.items() if step == "billing_models"} == needed & set(built_by)
    steps_before = before({"billing/statements"}, with_its_step=True)
    assert {group[key] for key in steps_before} == {
        "billing", "books", "core", "erasure", "rating", "staging", "statements", "wire",
    }  # fmt: skip
    assert "analytics_models" not in {built_by.get(key) for key in steps_before}
    priorities = {name: int(priority) for name, priority in loaded["priorities"].items()}
    assert {name for name, priority in priorities.items() if priority > priorities["analytics_models"]} == {
        "billing__statements",
        "billing__statements_exports_complete",
    }


def test_statements_name_the_marts_that_they_read(loaded: dict[str, Any]) -> None:
    """By the queries themselves; the gate is judged once more by the step."""
    billing = (REPOSITORY / "pipelines" / "billing" / f"{name}.py" for name in ("exports", "export_alerts"))
    queries = [
        *(path.read_text("utf-8") for path in billing),
        *(inspect.getsource(query) for query in (closing.accounts_of,)),
        *(suite.query for suite in gates.suites("billing")),
    ]
    named = {name for text in queries for name in re.findall(r"\bmarts\.([a-z_]+)", text)}
    assert named == set(loaded["read_by_statements"])
    assert {f"marts/{name}" for name in named} == set(loaded["behind"]["billing/statements"])


def test_gates_are_checks_that_block(loaded: dict[str, Any]) -> None:
    found = {(check["asset"], check["name"]) for check in loaded["checks"] if check["name"].startswith("gate_")}
    assert found == {
        (f"{schema}/{suite.table}", f"gate_{suite.table}")
        for edge, schema in (("arrival", "wire"), ("billing", "marts"), ("departure", "marts"))
        for suite in gates.suites(edge)
    }
    assert len(found) == len(list((REPOSITORY / "expectations").glob("*.yml")))
    assert [check for check in loaded["checks"] if check["name"].startswith("gate_") and not check["blocking"]] == []


def test_dbt_tests_are_checks_of_their_models(loaded: dict[str, Any]) -> None:
    tested = {check["asset"] for check in loaded["checks"] if not check["name"].startswith("gate_")}
    assert {key for key in loaded["assets"] if key.startswith("marts/")} <= tested


def test_all_of_the_daily_job_is_cut_alike_so_that_a_backfill_is_one_run(loaded: dict[str, Any]) -> None:
    assert set(loaded["partitioned"]) == set(loaded["in_job"])
    assert loaded["cut"] == ["Daily SINGLE_RUN"]


def test_each_schedule_sensor_and_job_says_what_it_is_for(loaded: dict[str, Any]) -> None:
    assert loaded["undescribed"] == []


def test_the_schedule_asks_for_the_last_days_and_always_for_the_same(loaded: dict[str, Any]) -> None:
    """Test 62: there is neither cursor nor run key that a death could leave behind; what is asked for again is loaded
    once, because the ledger knows it."""
    assert loaded["schedule"] == ["daily", "15 1 * * *", "UTC"]
    one, again, later = loaded["ticks"]
    assert one == again != later
    now = date.fromisoformat(loaded["today"])
    assert loaded["first_day"] == loaded["today"], "of an empty landing there is no day before"
    for tick, today, first_day in ((one, now, now), (later, now + timedelta(400), now + timedelta(400 - 32))):
        ((run_key, tags),) = tick
        assert run_key is None
        first = date.fromisoformat(tags["dagster/asset_partition_range_start"])
        assert date.fromisoformat(tags["dagster/asset_partition_range_end"]) == today
        assert first == first_day, "an outage of a month is made good, from the first partition on"
        assert tags["apiary/and_before"] == "true", "what arrived before is loaded all the same"


@pytest.mark.parametrize(
    ("made", "said"),
    [
        ([], "nothing was published or exported; what was published before stays"),
        ([["wire", "batches"]], "nothing was published or exported; what was published before stays"),
        (
            [["wire", "batches"], ["billing", "statements"]],
            "before that, the billing days are exported; what was published before stays",
        ),
        ([["published", "marts"]], "before that, the marts are published"),
        (
            [["wire", "batches"], ["billing", "statements"], ["published", "marts"]],
            "before that, the billing days are exported, the marts are published",
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
