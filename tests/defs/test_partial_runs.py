"""A run of some assets is as safe as a whole one: what stands behind a gate judges it itself where the run does not.

Does not belong here: which tests dbt runs for some models (test_dbt_checks.py), whole runs (tests/end_to_end).
"""

from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from pipelines.quality.gates import Result, Suite

SUITE = Suite("wire__batches", "arrival", "batches", "Batches add up.", "SELECT 1 AS rows", ())


@pytest.fixture(autouse=True)
def _own_warehouse(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Loading the definitions sets a variable for dbt, which other tests must not see."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))


@dg.asset
def loaded() -> None:
    pass


@dg.asset_check(asset=loaded, blocking=True)
def gate() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


def judged_in_run(**chosen: Any) -> bool:
    """Whether the gate is seen in a run of what is chosen."""
    from pipelines.defs.gates import is_in_run

    seen = []

    @dg.asset(deps=[loaded])
    def built(context: dg.AssetExecutionContext) -> None:
        seen.append(is_in_run(context, gate))

    job = dg.define_asset_job("everything", executor_def=dg.in_process_executor)
    defs = dg.Definitions(assets=[loaded, built], asset_checks=[gate], jobs=[job])
    with dg.DagsterInstance.ephemeral() as instance:
        assert defs.resolve_job_def("everything").execute_in_process(instance=instance, **chosen).success
    return seen[0]


def test_a_gate_is_seen_where_the_run_has_it() -> None:
    assert judged_in_run()
    assert judged_in_run(asset_selection=[dg.AssetKey("loaded"), dg.AssetKey("built")])
    assert not judged_in_run(asset_selection=[dg.AssetKey("built")])
    assert not judged_in_run(op_selection=["built"])


@pytest.mark.parametrize(
    ("is_critical", "groups", "stops"), [(True, None, True), (False, None, False), (True, ("A",), False)]
)
def test_a_gate_that_fails_stops_what_was_chosen_behind_it(
    monkeypatch: pytest.MonkeyPatch, is_critical: bool, groups: tuple[str, ...] | None, stops: bool
) -> None:
    from pipelines.defs import gates

    failed = Result("expect", "rows", is_critical, passed=False, found="-6", notes="they add up", groups=groups)
    monkeypatch.setattr(gates.gates, "suites", lambda _: [SUITE])
    monkeypatch.setattr(gates.gates, "run", lambda *_: [failed])
    with duckdb.connect() as connection:
        if not stops:
            gates.require("arrival", connection)
            return
        with pytest.raises(dg.Failure, match="the arrival gate does not pass: gate wire__batches: rows is -6"):
            gates.require("arrival", connection)


@pytest.mark.parametrize("key", [["published", "marts"], ["billing", "statements"]], ids="/".join)
def test_what_is_published_or_billed_alone_is_tested_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, key: list[str]
) -> None:
    from pipelines.definitions import defs
    from pipelines.defs import billing, publish

    def fail(*_: object) -> None:
        raise dg.Failure("failed_test:unique_x: nothing is published")

    for module in (publish, billing):
        monkeypatch.setattr(module, "require_tested", fail)
    monkeypatch.setattr(publish.publish, "publish", lambda *_, **__: pytest.fail("it was published"))
    monkeypatch.setattr(billing.exports, "export_days", lambda *_: pytest.fail("it was exported"))
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as instance:
        done = defs.resolve_job_def("daily").execute_in_process(
            instance=instance,
            asset_selection=[dg.AssetKey(key)],
            raise_on_error=False,
        )
    assert not done.success
    (failure,) = done.get_step_failure_events()
    assert "failed_test:unique_x" in str(failure.step_failure_data.error)
