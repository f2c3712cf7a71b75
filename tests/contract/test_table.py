"""What a column must be before it may exist."""

from __future__ import annotations

import pytest

from pipelines.contract.table import ARROW, DUCKDB, Column, Keep, Table


def test_a_column_that_nobody_can_justify_has_no_way_in() -> None:
    with pytest.raises(ValueError, match="justify"):
        Column(name="x", type="int64", why="")


@pytest.mark.parametrize("keep", [Keep.VERBATIM, Keep.CLASS])
def test_a_string_in_clear_needs_a_list_or_a_pattern(keep: Keep) -> None:
    with pytest.raises(ValueError, match="closed list"):
        Column(name="x", type="string", keep=keep, why="w")
    Column(name="x", type="string", keep=keep, why="w", values=("a",))


def test_a_pattern_knows_the_digits_of_one_script_only() -> None:
    column = Column(name="x", type="string", why="w", pattern=r"\d+")
    assert column.regex.fullmatch("17")
    assert not column.regex.fullmatch("\u0661\u0667")


def test_the_arrow_schema_says_what_is_required() -> None:
    columns = (Column(name="a", type="int64", why="w", required=True), Column(name="b", type="decimal", why="w"))
    schema = Table(name="t", grain="g", source="s", identity="i", columns=columns).arrow
    assert [(field.name, field.nullable) for field in schema] == [("a", False), ("b", True)]
    assert schema.field("b").type == ARROW["decimal"]


def test_every_type_has_both_forms() -> None:
    assert ARROW.keys() == DUCKDB.keys()
