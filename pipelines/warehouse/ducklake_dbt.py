"""What dbt-duckdb asks to make a connection ready: it attaches the DuckLake of the settings (dbt_project/profiles.yml).

Does not belong here: the models, how one connects without dbt (ducklake.py).
"""

import duckdb
from dbt.adapters.duckdb.plugins import BasePlugin

from pipelines.warehouse import ducklake


class Plugin(BasePlugin):
    """Named by the output `ducklake` of the profile."""

    def configure_connection(self, conn: duckdb.DuckDBPyConnection) -> None:
        """Attach, before dbt says that it is attached. Raises DuckLakeError."""
        ducklake.attach(conn)
