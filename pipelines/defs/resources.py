"""What assets are given: the warehouse, the store, dbt, the folders. Made from the environment, without secrets.

Does not belong here: opening any of them; definitions load with no network and no database.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection

from pipelines.defs.dbt_project import PROJECT
from pipelines.defs.orphaned_runs import end_orphaned_children, fail_orphaned_runs, process_tags
from pipelines.home import Home
from pipelines.store import Store, open_store
from pipelines.warehouse import database, lock

WRITER = "duckdb"  # the pool of one slot: a second process that opens the warehouse would fail
HOME = Home.from_environment()
# dbt runs as a process of its own and finds the warehouse by this variable (dbt_project/profiles.yml).
os.environ.setdefault("APIARY_WAREHOUSE", str(HOME.warehouse))
os.environ.setdefault(database.MEMORY_LIMIT, database.memory_limit())


class WarehouseResource(DuckDBResource):
    """The warehouse, for a run that has it to itself: the lock is held from the run's first step to its last.

    Runs are one process (the default executor), so a resource lives as long as its run.
    """

    @contextmanager
    def get_connection(self) -> Iterator[DuckDBPyConnection]:
        """The warehouse, open; a file that another process is about to let go of is waited for."""
        if not database.is_ducklake():
            # The library closes it only where nothing failed: left open, it is in the way of whatever comes next.
            with super().get_connection() as connection, connection:
                database.limit(connection)
                yield connection
            return
        with database.connect(Path(self.database)) as connection:
            yield connection

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["WarehouseResource"]:
        """Wait for the lock, and say who has it."""
        run, log = context.run, context.log
        if run is None or context.instance is None or log is None:  # a resource outside of any run
            yield self
            return
        run_id = run.run_id
        context.instance.add_run_tags(run_id, process_tags())
        name = f"run {run_id[:8]} of Dagster"
        with lock.hold(lock.path_of(Path(self.database)), name, waiting=log.warning):
            fail_orphaned_runs(context.instance)
            end_orphaned_children()
            yield self


class StoreResource(dg.ConfigurableResource[None]):
    """The object store by its address."""

    url: str

    def open(self) -> Store:
        """The store. Raises ValueError for an address that is none."""
        return open_store(self.url)


class FoldersResource(dg.ConfigurableResource[None]):
    """Where results go."""

    published: str
    exports: str
    books: str


@dg.definitions
def resources() -> dg.Definitions:
    """The resources of every asset."""
    return dg.Definitions(
        executor=dg.in_process_executor,  # the lock of the warehouse is a process's
        resources={
            "duckdb": WarehouseResource(database=os.environ["APIARY_WAREHOUSE"]),
            "store": StoreResource(url=os.environ.get("APIARY_STORE") or HOME.store_url),
            "dbt": DbtCliResource(project_dir=PROJECT, dbt_executable=str(Path(sys.executable).with_name("dbt"))),
            "folders": FoldersResource(published=str(HOME.published), exports=str(HOME.exports), books=str(HOME.books)),
        },
    )
