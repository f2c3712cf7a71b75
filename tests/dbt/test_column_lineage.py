"""Where a column comes from, as the documentation shows it."""

from tests.column_lineage import of_statement, page

COLUMNS = {
    "wire": {
        "turns": {"tenant": "VARCHAR", "input": "BIGINT", "output": "BIGINT"},
        "names": {"tenant": "VARCHAR", "name": "VARCHAR"},
    }
}
SQL = """
with source as (select * from w.wire.turns),
sums as (select source.tenant, sum(source.input + source.output) as tokens from source group by source.tenant)
select sums.tenant, sums.tokens, names.name, 1 as one from sums left join w.wire.names as names using (tenant)
union all
select tenant, input, null, 2 from source where output > 0
"""


def test_a_column_comes_from_what_its_values_are_computed_from() -> None:
    """Through names, stars, joins and unions; not from what rows are chosen by."""
    found = of_statement(SQL, COLUMNS, ["tokens", "name", "one"])
    assert found == {
        "tokens": [("wire", "turns", "input"), ("wire", "turns", "output")],
        "name": [("wire", "names", "name")],
        "one": [],
    }


def test_the_page_leads_from_mart_to_mart() -> None:
    text = page({"a": {"x": [("marts", "b", "y")]}, "b": {"y": [("wire", "turns", "input")]}})
    assert "<a href=#b>b</a>.y" in text
    assert "wire.turns.input" in text
