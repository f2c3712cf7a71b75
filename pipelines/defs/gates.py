"""The gates as asset checks: a critical expectation that fails stops what lies behind it in the run.

Does not belong here: what is expected (expectations/*.yml), judging (quality/gates.py).
"""

import math
from collections.abc import Iterator

import dagster as dg
import duckdb as engine
from dagster_duckdb import DuckDBResource

from pipelines.defs.resources import WRITER
from pipelines.quality import gates
from pipelines.quality.gates import Edge, Suite

SCHEMAS: dict[Edge, str] = {"arrival": "wire", "billing": "marts", "departure": "marts"}


def gate(edge: Edge) -> dg.AssetChecksDefinition:
    """All suites of one edge as one step: the library takes seconds to import."""
    suites = {suite.name: suite for suite in gates.suites(edge)}
    specs = [
        dg.AssetCheckSpec(
            name=f"gate_{suite.table}",
            asset=dg.AssetKey([SCHEMAS[edge], suite.table]),
            description=suite.description,
            blocking=True,
        )
        for suite in suites.values()
    ]

    @dg.multi_asset_check(name=f"{edge}_gate", specs=specs, pool=WRITER)
    def _gate(context: dg.AssetCheckExecutionContext, duckdb: DuckDBResource) -> Iterator[dg.AssetCheckResult]:
        with duckdb.get_connection() as connection:
            for suite in suites.values():
                yield _result(context, suite, edge, gates.run(suite, connection))

    return _gate


def _result(
    context: dg.AssetCheckExecutionContext, suite: Suite, edge: Edge, results: list[gates.Result]
) -> dg.AssetCheckResult:
    failed = [result for result in results if not result.passed]
    for result in failed:
        context.log.warning(f"gate {suite.name}: {result.column} is {result.found}: {result.notes}")
    # What fails for some accounts only holds back their statements, and nobody else's (billing/exports.py).
    is_critical = any(result.is_critical and result.groups is None for result in failed)
    return dg.AssetCheckResult(
        passed=not failed,
        asset_key=dg.AssetKey([SCHEMAS[edge], suite.table]),
        check_name=f"gate_{suite.table}",
        severity=dg.AssetCheckSeverity.ERROR if is_critical else dg.AssetCheckSeverity.WARN,
        metadata={
            **{result.column: _number(result.found) for result in results},
            **{f"FAILED {result.column}": f"{result.found}: {result.notes}" for result in failed},
        },
    )


def _number(found: str) -> float | str:
    """A number, which Dagster draws over time, where it is one."""
    try:
        number = float(found)
    except ValueError:
        return found
    return number if math.isfinite(number) else found


def is_in_run(context: dg.AssetExecutionContext, definition: dg.AssetsDefinition) -> bool:
    """Whether a run executes a step with all of its assets and checks; a run of some assets may not."""
    layer = context.job_def.asset_layer
    steps = context.run.step_keys_to_execute or [node.name for node in context.job_def.nodes]
    return (
        definition.op.name in steps
        and definition.keys <= set(layer.executable_asset_keys)
        and definition.check_keys <= set(layer.asset_graph.asset_check_keys)
    )


def require(edge: Edge, connection: engine.DuckDBPyConnection) -> None:
    """Judge a gate that is no step of the run. Raises dagster.Failure if a critical expectation is not met."""
    failed = [
        f"gate {suite.name}: {result.column} is {result.found}: {result.notes}"
        for suite in gates.suites(edge)
        for result in gates.run(suite, connection)
        if result.is_critical and not result.passed and result.groups is None
    ]
    if failed:
        raise dg.Failure(f"the {edge} gate does not pass: {'; '.join(failed)}", allow_retries=False)


arrival_gate = gate("arrival")
billing_gate = gate("billing")
departure_gate = gate("departure")
