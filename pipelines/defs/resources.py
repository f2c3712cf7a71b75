"""What assets are given: the warehouse, the store, dbt, the folders. Made from the environment, without secrets.

Does not belong here: opening any of them; definitions load with no network and no database.
"""

import os
import sys
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_duckdb import DuckDBResource

from pipelines.defs.dbt_project import PROJECT
from pipelines.home import Home
from pipelines.store import Store, open_store

WRITER = "duckdb"  # the pool of one slot: a second process that opens the warehouse would fail
HOME = Home.from_environment()
# dbt runs as a process of its own and finds the warehouse by this variable (dbt_project/profiles.yml).
os.environ.setdefault("APIARY_WAREHOUSE", str(HOME.warehouse))


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
        resources={
            "duckdb": DuckDBResource(database=os.environ["APIARY_WAREHOUSE"]),
            "store": StoreResource(url=os.environ.get("APIARY_STORE") or HOME.store_url),
            "dbt": DbtCliResource(project_dir=PROJECT, dbt_executable=str(Path(sys.executable).with_name("dbt"))),
            "folders": FoldersResource(published=str(HOME.published), exports=str(HOME.exports), books=str(HOME.books)),
        }
    )
