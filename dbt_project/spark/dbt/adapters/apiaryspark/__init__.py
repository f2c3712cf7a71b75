"""dbt's adapter of Spark with one thing more: models and tests are DuckDB SQL, and are translated when they are run.

Found by dbt as `type: apiaryspark` when dbt_project/spark is on the PYTHONPATH (bench/scale). Does not belong here:
the rules of the translation (pipelines/spark/dialect.py), materializations (../../include/apiaryspark).
"""

from pathlib import Path

from dbt.adapters.base import AdapterPlugin
from dbt.adapters.base.meta import available
from dbt.adapters.spark import SparkAdapter, SparkCredentials
from dbt.adapters.spark.connections import SparkConnectionManager

from pipelines.spark import dialect

TYPE = "apiaryspark"


class ApiarySparkCredentials(SparkCredentials):
    """Those of dbt-spark, under this adapter's name, and with ANSI rules."""

    def __post_init__(self) -> None:
        """dbt-spark turns them off: overflows and bad casts would be NULL, and a decimal of zero the text `0E-15`."""
        super().__post_init__()
        self.server_side_parameters["spark.sql.ansi.enabled"] = "true"

    @property
    def type(self) -> str:
        """The name in profiles.yml."""
        return TYPE


class ApiarySparkConnectionManager(SparkConnectionManager):
    """That of dbt-spark."""

    TYPE = TYPE


class ApiarySparkAdapter(SparkAdapter):
    """That of dbt-spark, and the translation for materializations and tests."""

    ConnectionManager = ApiarySparkConnectionManager

    @available
    def translated(self, sql: str) -> str:
        """A query of DuckDB as one of Spark. Raises sqlglot.errors.SqlglotError."""
        return dialect.to_spark(sql)

    @available
    def parts(self, sql: str, relation: object, model: dict) -> list:
        """A model's queries, one after the other; the last has the contract's types."""
        *tables, whole = dialect.in_parts(sql, f"{relation}__")
        if model["config"]["contract"]["enforced"]:
            types = {name: column["data_type"] for name, column in model["columns"].items()}
            whole = dialect.Part("", dialect.with_types(whole.query, types))
        return [*tables, whole]


Plugin = AdapterPlugin(
    adapter=ApiarySparkAdapter,
    credentials=ApiarySparkCredentials,
    include_path=str(Path(__file__).resolve().parents[2] / "include" / "apiaryspark"),
    dependencies=["spark"],
)
