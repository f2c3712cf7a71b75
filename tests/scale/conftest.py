"""The PostgreSQL of a DuckLake, for each file of tests. Does not belong here: starting it (bench/scale/postgres.py)."""

from collections.abc import Iterator

import pytest

from bench.scale import postgres


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where it listens, without the name of a database."""
    if reason := postgres.missing():
        pytest.skip(reason)
    with postgres.running(tmp_path_factory.mktemp("postgres")) as found:
        yield found
