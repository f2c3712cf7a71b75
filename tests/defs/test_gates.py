"""How a gate's results become a check: what stops a run, and what only leaves a note."""

import dagster as dg
import duckdb
import pytest

from pipelines.quality.gates import Result, Suite

SUITE = Suite("wire__x", "arrival", "batches", "d", "select 1", ())


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    """The gate's own function. Loading it sets a variable for dbt, which other tests must not see."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path_factory.mktemp("nothing") / "none.duckdb"))
    from pipelines.defs import gates

    return lambda results: gates._result(dg.build_asset_check_context(), SUITE, "arrival", results)


def result(*, passed: bool, critical: bool, column: str = "x") -> Result:
    return Result("expect_x", column, critical, passed, "7", "a note")


NOTE, STOP = dg.AssetCheckSeverity.WARN, dg.AssetCheckSeverity.ERROR


@pytest.mark.parametrize(
    ("results", "passed", "severity"),
    [
        ([], True, None),
        ([result(passed=True, critical=True)], True, None),
        ([result(passed=False, critical=True)], False, STOP),
        ([result(passed=False, critical=False)], False, NOTE),
        ([result(passed=False, critical=False), result(passed=True, critical=True)], False, NOTE),
        ([result(passed=False, critical=False), result(passed=False, critical=True)], False, STOP),
    ],
)
def test_only_a_critical_expectation_stops_a_run(judge, results, passed, severity) -> None:
    found = judge(results)
    assert found.passed is passed
    assert found.asset_key == dg.AssetKey(["wire", "batches"])
    assert found.check_name == "gate_batches"
    if severity:
        assert found.severity is severity


def test_a_failed_expectation_is_told(judge) -> None:
    found = judge([result(passed=False, critical=True, column="a"), result(passed=True, critical=True, column="b")])
    told = {name: value.value for name, value in found.metadata.items()}
    assert told == {"a": 7.0, "b": 7.0, "FAILED a": "7: a note"}, "numbers are drawn over time"


def test_the_engine_s_errors_are_not_swallowed() -> None:
    """A suite whose query does not fit is a failed step, not a passed check."""
    from pipelines.quality import gates

    with duckdb.connect() as connection, pytest.raises(duckdb.Error):
        gates.run(Suite("x", "arrival", "t", "d", "select nothing from nowhere", ()), connection)
