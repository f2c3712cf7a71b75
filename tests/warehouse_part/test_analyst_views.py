"""Views for analysts: they say what the marts say, at every grain, wherever their file is opened."""

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.pseudonyms import pseudonym
from pipelines.home import Home
from pipelines.warehouse import analyst_views

MEASURES = (
    "sum(turns), sum(input_tokens), sum(cache_read_input_tokens), sum(output_tokens), sum(rated_cost_usd),"
    " sum(reported_cost_usd), sum(unpriced_tokens)"
)
USAGE = [view.name for view in analyst_views.VIEWS if view.name.startswith("usage_by_")]


@pytest.fixture
def marts(published_home: Home) -> Iterator[duckdb.DuckDBPyConnection]:
    """The published file, opened under a name of its reader's own."""
    with duckdb.connect() as connection:
        file = published_home.published / "current" / "marts.duckdb"
        connection.execute(f"ATTACH '{file}' AS mine (READ_ONLY)")
        connection.execute("USE mine")
        yield connection


@pytest.mark.parametrize("name", USAGE)
def test_usage_is_the_same_at_every_grain(marts: duckdb.DuckDBPyConnection, name: str) -> None:
    whole = marts.execute(f"SELECT {MEASURES} FROM agg_usage_session_daily").fetchone()
    assert whole is not None
    assert whole[0] > 0
    assert marts.execute(f"SELECT {MEASURES} FROM {name}").fetchone() == whole


@pytest.mark.parametrize("view", analyst_views.VIEWS, ids=lambda view: view.name)
def test_a_view_has_rows_and_says_what_they_are(marts: duckdb.DuckDBPyConnection, view: analyst_views.View) -> None:
    assert marts.execute(f"SELECT * FROM {view.name} LIMIT 1").description
    (comment,) = marts.execute("SELECT comment FROM duckdb_views() WHERE view_name = ?", [view.name]).fetchone() or (
        "",
    )
    assert comment == view.comment


def test_a_role_has_the_views_of_its_marts(published_home: Home) -> None:
    found = {}
    for role in ("analyst", "finance", "operator"):
        file = published_home.published / "current" / "roles" / role / "marts.duckdb"
        with duckdb.connect(str(file), read_only=True) as connection:
            found[role] = [
                name
                for (name,) in connection.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
            ]
            for name in found[role]:
                connection.execute(f"SELECT * FROM {name}").fetchall()
    assert sorted(found["analyst"]) == sorted(view.name for view in analyst_views.VIEWS)
    assert (found["finance"], found["operator"]) == ([], [])


@pytest.fixture(scope="module")
def macro(tmp_path_factory: pytest.TempPathFactory) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    path: Path = tmp_path_factory.mktemp("views") / "marts.duckdb"
    connection.execute(f"ATTACH '{path}' AS published")
    assert analyst_views.create(connection, "published") == []
    connection.execute("USE published")
    return connection


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**128 - 1), st.sampled_from(["", "queen:", "worker:k:"]))
def test_a_pseudonym_in_sql_is_the_one_of_the_screens(
    macro: duckdb.DuckDBPyConnection, number: int, before: str
) -> None:
    keyed = f"k1_{number:032x}"
    assert macro.execute("SELECT pseudonym(?)", [before + keyed]).fetchone() == (before + pseudonym(keyed),)


@pytest.mark.parametrize("text", [None, "", "claude-opus-5", "k1_", "k1_" + "0" * 31, "k1_" + "G" * 32])
def test_what_is_no_hash_keeps_its_name(macro: duckdb.DuckDBPyConnection, text: str | None) -> None:
    assert macro.execute("SELECT pseudonym(?)", [text]).fetchone() == (text,)
