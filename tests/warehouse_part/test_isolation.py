"""The batches that make a build fail are found among the others, and no honest one is taken for one of them.

Does not belong here: building for real (tests/end_to_end/test_setting_aside.py).
"""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipelines.warehouse import budgets, isolation, landing, load
from tests.warehouse_part.batches import MemoryStore, batch, record, turn

pytestmark = pytest.mark.services

POISON = 666
DEVICES = ("a" * 32, "b" * 32, "c" * 32)


class Fleet:
    """A warehouse of three tenants with three devices of four batches each, some of them with a row that is poison."""

    def __init__(self, folder: Path, poisoned: set[int]) -> None:
        store, number = MemoryStore(), 0
        self.keys: list[str] = []
        for tenant in ("acme", "bolt", "evil"):
            for device in DEVICES:
                for seq in range(1, 5):
                    tokens = POISON + number if number in poisoned else 1
                    rows = [turn(f"{number} {n}", output_tokens=tokens) for n in range(2)]
                    arrival = batch(store, {"llm_turns": rows}, tenant=tenant, device=device, seq=seq, minute=number)
                    self.keys.append(arrival.key)
                    number += 1
        self.file = folder / "apiary.duckdb"
        with duckdb.connect(str(self.file)) as connection:
            load.prepare(connection)
            load.load(connection, store, landing.pending(store, ()))
        self.tries = 0

    def fails_if(self, sql: str) -> Callable[[Path], bool]:
        """A build that fails where a condition holds of the wire."""

        def fails(file: Path) -> bool:
            self.tries += 1
            with duckdb.connect(str(file), read_only=True) as connection:
                # The books agree with the rows, whatever is left out: tests of dbt compare them.
                rows, counted = connection.execute(
                    "SELECT (SELECT count(*) FROM wire.llm_turns), (SELECT coalesce(sum(rows_in), 0) FROM wire.batches)"
                ).fetchall()[0]
                assert rows == counted
                return connection.execute(sql).fetchone() == (True,)

        return fails


ANY_POISON = f"SELECT count(*) > 0 FROM wire.llm_turns WHERE output_tokens >= {POISON}"


LONG = [pytest.param(numbers, marks=pytest.mark.long) for numbers in ({0}, {35}, {13, 30}, {24, 25, 26, 27})]


@pytest.mark.parametrize("poisoned", [{25, 26}, *LONG])
def test_exactly_the_poisoned_batches_are_found(tmp_path: Path, poisoned: set[int]) -> None:
    fleet = Fleet(tmp_path, poisoned)
    found = isolation.culprits(fleet.file, fleet.fails_if(ANY_POISON))
    assert sorted(found) == sorted(fleet.keys[number] for number in poisoned)
    assert fleet.tries <= isolation.MOST_TRIES
    assert not (tmp_path / "trial").exists()


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 9))])
def test_with_few_tries_more_may_be_taken_but_nobody_of_another_tenant(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    poisoned = set(rng.sample(range(24, 36), 5))
    fleet = Fleet(tmp_path, poisoned)
    found = set(isolation.culprits(fleet.file, fleet.fails_if(ANY_POISON), tries=3))
    assert {fleet.keys[number] for number in poisoned} <= found <= set(fleet.keys[24:])
    assert fleet.tries <= 2 + 4 + 3


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 300), st.sampled_from([0, 0.02, 0.3, 1]), st.randoms(use_true_random=False))
@example(300, 1, random.Random(0))  # more than can be found at once
def test_no_honest_tenant_pays_for_another_however_many_are_poisoned(
    count: int, share: float, rng: random.Random
) -> None:
    """The search alone: what would be built is a set of keys."""
    poisoned = {number for number in range(count) if rng.random() < share}
    batches = [
        isolation._Batch(f"{number} {n}", f"t{number}", f"d{n % 2}") for number in range(count) for n in range(3)
    ]
    guilty = {f"{number} {number % 3}" for number in poisoned}
    tried: list[frozenset[str]] = []

    def fails(keys: Any) -> bool:
        tried.append(keys)
        return not guilty.isdisjoint(keys)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(isolation, "_loaded", lambda warehouse: batches)
        patch.setattr(isolation._Trial, "_copy", lambda self, keys: keys)
        found = isolation.culprits(Path("nowhere/apiary.duckdb"), fails)
    assert set(found) <= {f"{number} {n}" for number in poisoned for n in range(3)}
    assert bool(found) == bool(poisoned)
    assert len(tried) <= isolation.MOST_TRIES_IN_ALL
    if len(tried) < isolation.MOST_TRIES_IN_ALL:
        assert set(found) == guilty


def test_what_fails_only_together_costs_the_one_that_came_last(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {25, 30})
    together = f"SELECT count(DISTINCT output_tokens) > 1 FROM wire.llm_turns WHERE output_tokens >= {POISON}"
    found = isolation.culprits(fleet.file, fleet.fails_if(together))
    assert found
    assert fleet.keys[30] in found
    assert fleet.keys[25] not in found


@pytest.mark.parametrize(("condition", "tries"), [("SELECT true", 1), ("SELECT false", 2)])
def test_what_is_no_batch_s_doing_costs_nobody(tmp_path: Path, condition: str, tries: int) -> None:
    fleet = Fleet(tmp_path, set())
    assert isolation.culprits(fleet.file, fleet.fails_if(condition)) == []
    assert fleet.tries == tries


def test_a_model_may_make_so_many_rows_of_one_and_no_more(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, set())
    with duckdb.connect(str(fleet.file)) as connection:
        connection.execute("CREATE SCHEMA marts")
        allowed = budgets.STANDING + 24 * 20  # a tenant has 24 rows in the wire
        for name, rows in (("good", allowed), ("bad", allowed + 1)):
            tenants = "(VALUES ('acme'), ('evil')) v(t)"
            connection.execute(f"CREATE TABLE marts.{name} AS SELECT t AS tenant_id FROM range({rows}), {tenants}")
        # What knows no tenant is made of books: no batch is to go because a price book is large.
        connection.execute("CREATE TABLE marts.prices AS FROM range(1000000)")
        names = ("good", "bad", "prices", "not_there")
        assert budgets.exceeded(connection, {f"marts.{name}": 20 for name in names}) == ["marts.bad"]


def test_a_trial_holds_what_people_decided_and_nothing_that_is_built(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, {3})
    with duckdb.connect(str(fleet.file)) as connection:
        for schema in ("billing", "marts", "seeds"):
            connection.execute(f"CREATE SCHEMA {schema}")
            connection.execute(f"CREATE TABLE {schema}.t AS SELECT 1 AS n")
        connection.execute("INSERT INTO wire.released VALUES ('acme', 'x', now(), 1), ('bolt', 'y', now(), 1)")
        connection.execute("INSERT INTO wire.touched_sessions VALUES ('bolt', ?, 1)", [record("elsewhere")])
    seen = []

    def fails(file: Path) -> bool:
        with duckdb.connect(str(file), read_only=True) as connection:
            schemas = {row for (row,) in connection.execute("SELECT schema_name FROM duckdb_tables()").fetchall()}
            tenants = connection.execute("SELECT DISTINCT tenant_id FROM wire.released ORDER BY 1").fetchall()
            seen.append((schemas, [tenant for (tenant,) in tenants]))
            return connection.execute(ANY_POISON).fetchone() == (True,)

    assert isolation.culprits(fleet.file, fails) == [fleet.keys[3]]
    assert {frozenset(schemas) for schemas, _ in seen} == {frozenset({"wire", "billing"})}
    assert seen[0][1] == []
    assert seen[1][1] == ["acme", "bolt"]
    assert seen[-1][1] == ["acme"]
