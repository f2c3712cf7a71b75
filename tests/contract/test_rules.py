"""Rules between the columns of a row: an honest device keeps to what the gate refuses, by the same declaration.

Does not belong here: rules of one column (test_wire.py, tests/warehouse_part/test_landing.py).
"""

from typing import Any

import pytest

from pipelines.contract.table import SMALLEST_DOUBLE, Column, Rule, Table
from pipelines.contract.wire import TABLES, TASKS
from pipelines.device.redact import Redactor
from pipelines.warehouse import decode
from tests.warehouse_part.batches import frame, row

RULES = [pytest.param(table, rule, id=f"{table.name}.{rule.column}") for table in TABLES for rule in table.rules]
DOUBLES = [pytest.param(t, c, id=f"{t.name}.{c.name}") for t in TABLES for c in t.columns if c.type == "double"]


def reason(table: Table, *rows: dict[str, Any]) -> str | None:
    """Why the gate refuses rows."""
    schema = decode._read_schema(table)
    try:
        decode.check(frame(table, rows).cast(schema), table)
    except decode.RejectedError as error:
        return str(error)
    return None


def others(table: Table, rule: Rule) -> list[str | None]:
    """Values beside which the rule allows none."""
    column = table.by_name[rule.other]
    return [value for value in column.values if value not in rule.values] + ([] if column.required else [None])


@pytest.mark.parametrize(("table", "rule"), RULES)
def test_the_gate_refuses_what_does_not_go_together(table: Table, rule: Rule) -> None:
    assert rule.column in table.by_name
    assert set(rule.values) <= set(table.by_name[rule.other].values)
    assert rule.why
    assert others(table, rule)
    for value in others(table, rule):
        good, bad = row(table.name, 1), row(table.name, 2) | {rule.other: value}
        good[rule.other] = rule.values[0]
        assert good[rule.column] is not None
        assert reason(table, good) is None
        assert reason(table, good, bad) == f"inconsistent:{rule.column}"
        assert reason(table, good, bad | {rule.column: None}) is None


@pytest.mark.parametrize(("table", "rule"), RULES)
def test_a_device_sends_the_row_without_the_value(table: Table, rule: Rule) -> None:
    for value in others(table, rule):
        redactor = Redactor(b"k" * 32)
        sent = redactor.row(table, row(table.name) | {rule.other: value})
        assert sent is not None
        assert sent[rule.column] is None
        assert redactor.left_out == 1, "it is counted as a dropped field"
        assert reason(table, sent) is None
    sent = Redactor(b"k" * 32).row(table, row(table.name) | {rule.other: rule.values[0]})
    assert sent is not None
    assert sent[rule.column] is not None


@pytest.mark.parametrize(("table", "column"), DOUBLES)
@pytest.mark.parametrize("value", [5e-324, 1e-300, SMALLEST_DOUBLE / 2, float("nan"), float("inf"), -1.0, 1e308])
def test_no_double_is_beyond_measure(table: Table, column: Column, value: float) -> None:
    assert reason(table, row(table.name) | {column.name: value}) == f"out_of_range:{column.name}"
    sent = Redactor(b"k" * 32).row(table, row(table.name) | {column.name: value})
    assert sent is not None
    assert sent[column.name] is None
    for good in (0.0, SMALLEST_DOUBLE, None):
        assert reason(table, row(table.name) | {column.name: good}) is None


def test_a_rule_tells_whether_it_was_broken() -> None:
    (rule,) = TASKS.rules
    broken = {"item": "task", "item_id": "x"}
    assert rule.mend(broken)
    assert broken == {"item": "task", "item_id": None}
    assert not rule.mend(broken)
