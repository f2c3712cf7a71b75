"""Runs the Great Expectations suites of `expectations/` at the three edges: arrival, billing and departure.

A suite names a query that gives a small frame of aggregates (the engine computes, the library judges) and the
expectations on it. `severity: critical` stops the line, `warning` leaves a note.
Does not belong here: what a suite expects (expectations/*.yml).
"""

import os
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import duckdb
import polars as pl
import yaml
from polars import selectors

from pipelines.home import ROOT

FOLDER = ROOT / "expectations"
Edge = Literal["arrival", "billing", "departure"]


@dataclass(frozen=True)
class Suite:
    """One gate: what it guards, at which edge, the query of its frame, its expectations.

    `group_by`: a column of the frame that says whose each row is; a failure is then told by these names.
    """

    name: str
    edge: Edge
    table: str
    description: str
    query: str
    expectations: tuple[dict[str, Any], ...]
    group_by: str | None = None


@dataclass(frozen=True)
class Result:
    """What became of one expectation. `found` is the value that was seen; `groups`, whose rows did not meet it."""

    expectation: str
    column: str
    is_critical: bool
    passed: bool
    found: str
    notes: str
    groups: tuple[str, ...] | None = None


def suites(edge: Edge, folder: Path = FOLDER) -> list[Suite]:
    """The suites of one edge, by name. Raises FileNotFoundError if there is none: no suite would be a passed gate."""
    found = []
    for path in sorted(folder.glob("*.yml")):
        content = yaml.safe_load(path.read_text("utf-8"))
        if content["edge"] == edge:
            found.append(
                Suite(
                    path.stem, edge, content["table"], content["description"], content["query"],
                    tuple(content["expectations"]), content.get("group_by"),
                )
            )  # fmt: skip
    if not found:
        raise FileNotFoundError(f"{folder} holds no suite of the {edge} gate: install apiary-warehouse again")
    return found


def run(suite: Suite, connection: duckdb.DuckDBPyConnection) -> list[Result]:
    """Judge a suite. Raises duckdb.Error if its query does not fit the warehouse."""
    # The aggregates are decimals and big integers; the library compares floats, and reads pandas frames only.
    frame = connection.sql(suite.query).pl().with_columns(selectors.decimal().cast(pl.Float64)).to_pandas()
    batch = _context().data_sources.pandas_default.read_dataframe(frame)
    validation = batch.validate(_expectation_suite(suite), result_format="COMPLETE")
    return [_result(item, frame, suite.group_by) for item in validation.results]


def _result(item: Any, frame: Any, group_by: str | None) -> Result:
    config = item.expectation_config
    values = frame[config.kwargs["column"]]
    # The library passes over an empty cell, so a query that found nothing would pass every expectation.
    passed = bool(item.success) and len(values) > 0 and not values.isna().any()
    found = ", ".join(map(str, values.head(5)))
    severity, notes = config.meta["severity"], config.meta["notes"]
    groups = None
    if group_by is not None and not passed:
        wrong = frame[values.isna() | frame.index.isin(item.result.get("unexpected_index_list") or [])]
        named = wrong[group_by].dropna()
        # A row of nobody, or a failure that the library puts down to no row, is everybody's.
        groups = tuple(sorted(named)) if len(wrong) and len(named) == len(wrong) else None
        found = ", ".join(f"{who}: {what}" for who, what in zip(named, wrong[config.kwargs["column"]], strict=False))
    return Result(config.type, config.kwargs["column"], severity == "critical", passed, found, notes, groups)


def _expectation_suite(suite: Suite) -> Any:
    import great_expectations as gx

    expectations = [
        {"type": e["type"], "kwargs": e["kwargs"], "meta": {"severity": e["severity"], "notes": e["notes"]}}
        for e in suite.expectations
    ]
    return gx.ExpectationSuite(name=suite.name, expectations=expectations)


@cache
def _context() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the library warns about its own dependencies while it is imported
        import great_expectations as gx

        context = gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    return context
