"""A warehouse to build marts in: the wire's tables filled as the loader fills them, and dbt in this process.

Does not belong here: what the marts should hold (test_*.py).
"""

import shutil
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from dbt.cli.main import dbtRunner, dbtRunnerResult
from dbt.contracts.graph.manifest import Manifest
from dbt_common.events.base_types import BaseEvent, EventLevel
from dbt_common.events.event_manager import EventManager
from dbt_common.events.event_manager_client import ctx_set_event_manager

from pipelines.billing import books, ledger
from pipelines.contract.ddl import create_wire
from pipelines.contract.wire import BY_NAME
from pipelines.defs import dbt_project
from pipelines.store import open_store
from pipelines.warehouse import raised_alerts
from pipelines.warehouse.landing import pending
from pipelines.warehouse.load import Loaded, known_manifests, load, prepare
from pipelines.warehouse.schemas import BUILT, MARTS

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT = REPOSITORY / "dbt_project"
RECEIVED = datetime(2026, 5, 1, tzinfo=UTC)
# What names a session in a row; the loader may name more, never fewer.
SESSION_COLUMNS = ("session_id", "list_id", "queen_session_id")

# The marts that say how much was used: whatever else is built is built on them.
COUNTS = (
    "agg_usage_colony_daily", "agg_usage_model_daily", "agg_usage_session_daily", "agg_usage_tenant_daily",
    "dim_colonies", "dim_tenants", "fct_tasks", "fct_tool_calls", "mart_dedupe_ledger",
)  # fmt: skip

Row = Mapping[str, Any]
Marts = dict[str, list[tuple[Any, ...]]]


class _Warnings(EventManager):
    """dbt's events without those that nobody reads: to compose them takes a tenth of a build."""

    def fire_event(
        self,
        e: BaseEvent,
        level: EventLevel | None = None,
        node: Any = None,
        force_warn_or_error_handling: bool = False,
    ) -> None:
        if (level or e.level_tag()) in (EventLevel.WARN, EventLevel.ERROR):
            super().fire_event(e, level, node, force_warn_or_error_handling)


ctx_set_event_manager(_Warnings())


def schema_of(model: str) -> str:
    """The schema of a model, by its place among the layers."""
    (path,) = (REPOSITORY / "models").rglob(f"{model}.sql")
    layer, *folders = path.relative_to(REPOSITORY / "models").parts
    return layer if layer == "staging" or folders[0] == "internal" else MARTS


@cache
def parsed(database: str) -> Manifest:
    """The project as `make setup` had it parsed, for a database of another name: to parse it again takes longer than
    most builds here, and finds the same."""
    manifest = Manifest.from_msgpack(dbt_project.manifest().with_name("partial_parse.msgpack").read_bytes())
    for node in (*manifest.nodes.values(), *manifest.sources.values()):
        if node.relation_name:
            node.relation_name = node.relation_name.replace(f'"{node.database}".', f'"{database}".', 1)
        node.database = database
    return manifest


class Warehouse:
    """One DuckDB file, emptied for each test: dbt keeps it open, and a deleted file would live on behind its path."""

    def __init__(self, path: Path, target: Path) -> None:
        self.path = path
        self.target = target
        self._kept_open = duckdb.connect(str(path))  # dbt would close it after each command
        self.reset()

    def reset(self) -> None:
        """Make it empty: the wire's tables and nothing else."""
        self.loads = 0
        with duckdb.connect(str(self.path)) as connection:
            for schema in (*BUILT, "wire", "billing", "operation"):
                connection.execute(f"drop schema if exists {schema} cascade")
            for statement in create_wire():
                connection.execute(statement)
            raised_alerts.prepare(connection)
            seeded = connection.execute("select count(*) from duckdb_schemas() where schema_name = 'seeds'").fetchone()
        if not seeded or not seeded[0] or self._reseed.exists():
            result = self.dbt("seed", "--full-refresh")
            assert result.success, _failures(result)
            self._reseed.unlink(missing_ok=True)
        self.sign()

    @property
    def _reseed(self) -> Path:
        """Its presence says that a test replaced a seed: the next one gets the repository's again."""
        return self.target.with_name("reseed")

    def seed(self, name: str, rows: Iterable[Row]) -> None:
        """Replace the rows of a seed until the end of the test. `build` would put the repository's back: use `run`."""
        self._reseed.parent.mkdir(parents=True, exist_ok=True)
        self._reseed.touch()
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(f"delete from seeds.{name}")
            for row in rows:
                marks = ", ".join("?" * len(row))
                connection.execute(f"insert into seeds.{name} ({', '.join(row)}) values ({marks})", [*row.values()])

    def enter(self, book: books.Book, rows: Iterable[Row]) -> None:
        """Replace the rows of a book until the books are read anew."""
        blank: dict[str, Any] = dict.fromkeys(book.columns) | {"recorded_at": datetime(1970, 1, 1, tzinfo=UTC)}
        table = pa.Table.from_pylist([blank | row for row in rows], schema=book.schema)
        with duckdb.connect(str(self.path)) as connection:
            connection.register("book_rows", table)
            connection.execute(f"create or replace table billing.{book.name} as select * from book_rows")

    def sign(self, *folders: Path, shipped: bool = True) -> None:
        """Read the books anew: the shipped ones, then those of the folders."""
        with duckdb.connect(str(self.path)) as connection:
            books.load(connection, [books.SHIPPED, *folders] if shipped else folders)
            ledger.load(connection, folders[-1] if folders else self.path.parent / "nothing")

    def load(self, rows: Iterable[tuple[str, Row]]) -> None:
        """Load rows (table, columns) as one batch: known record ids are counted, not kept."""
        self.loads += 1
        manifest = f"m/{self.loads:010d}"
        touched: set[tuple[str, str]] = set()
        with duckdb.connect(str(self.path)) as connection:
            for table, given in rows:
                required = {c.name: 0 for c in BY_NAME[table].columns if c.required and c.type == "int64"}
                row = required | {
                    "tenant_id": "acme", "region": "eu", "_user_id": "ada", "_device_id": "d1",
                    "_received_at": RECEIVED, "_manifest_key": manifest, "_ingest_seq": self.loads, **given,
                }  # fmt: skip
                # Received no earlier than it says, unless a test says otherwise: a turn of the future is held.
                if "_received_at" not in given and given.get("occurred_at"):
                    row["_received_at"] = max(RECEIVED, given["occurred_at"])
                touched |= {(row["tenant_id"], row[c]) for c in SESSION_COLUMNS if row.get(c)}
                known = connection.execute(
                    f"select 1 from wire.{table} where tenant_id = ? and record_id = ?",
                    [row["tenant_id"], row["record_id"]],
                ).fetchone()
                if not known:
                    _insert(connection, table, row)
                is_turn = table == "llm_turns" or (table == "node_steps" and row["step_index"] >= 0)
                counts = {
                    "manifest_key": manifest, "table_name": table, "rows_in": 1, "rows_new": int(not known),
                    "rows_duplicate": int(bool(known)), "rows_conflict": 0, "turn_rows_conflict": 0,
                    "turn_rows_duplicate": int(bool(known) and is_turn), "tenant_id": row["tenant_id"],
                    "_ingest_seq": self.loads,
                }  # fmt: skip
                _insert(connection, "row_counts", counts)
            for tenant, session in sorted(touched):
                connection.execute("insert into wire.touched_sessions values (?, ?, ?)", [tenant, session, self.loads])

    def ingest(self, store_url: str) -> Loaded:
        """Load everything that arrived in a store, as the pipeline does."""
        store = open_store(store_url)
        with self.connect() as connection:
            prepare(connection)
            return load(connection, store, pending(store, known_manifests(connection)))

    def connect(self) -> duckdb.DuckDBPyConnection:
        """The warehouse, opened."""
        return duckdb.connect(str(self.path))

    def dbt(self, *arguments: str) -> dbtRunnerResult:
        """Run one dbt command."""
        paths = {"project": PROJECT, "profiles": PROJECT, "target": self.target, "log": self.target / "logs"}
        options = [f"--{name}-{'dir' if path == PROJECT else 'path'}={path}" for name, path in paths.items()]
        options.append("--threads=1")
        # Nobody reads what is printed and the files.
        quiet = ["--log-level=none", "--log-level-file=none", "--no-version-check", "--no-write-json"]
        return dbtRunner(parsed(self.path.stem)).invoke([*quiet, *arguments, *options])

    def run(self, *arguments: str) -> None:
        """Build all models, or those selected; no tests."""
        result = self.dbt("run", *arguments)
        assert result.success, _failures(result)

    def run_counts(self, *arguments: str) -> None:
        """Build what counts usage and nothing on top of it: a third of the time, and where a loss or a double shows."""
        self.run(*arguments, "--select", *(f"+{mart}" for mart in COUNTS))

    def build(self, *arguments: str) -> None:
        """Build all models and run all their tests."""
        result = self.dbt("build", *arguments)
        assert result.success, _failures(result)

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(sql).fetchall()

    def copy(self, path: Path) -> Path:
        """What was built, kept for several tests: the next one empties the warehouse itself."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("checkpoint")
        return Path(shutil.copyfile(self.path, path))

    def execute(self, sql: str) -> None:
        """Change something behind the loader's back."""
        with duckdb.connect(str(self.path)) as connection:
            connection.execute(sql)

    def columns(self, table: str) -> list[str]:
        """The columns of a mart that carry meaning: lineage begins with `_`."""
        found = self.query(
            "select column_name from information_schema.columns"
            f" where table_schema = 'marts' and table_name = '{table}' order by ordinal_position"
        )
        return [name for (name,) in found if not name.startswith("_")]

    def marts(self) -> Marts:
        """Every row of every mart, in an order that does not depend on how it was written."""
        tables = self.query("select table_name from information_schema.tables where table_schema = 'marts' order by 1")
        return {
            table: self.query(f"select {', '.join(self.columns(table))} from marts.{table} order by all")
            for (table,) in tables
        }


def _insert(connection: duckdb.DuckDBPyConnection, table: str, row: Row) -> None:
    marks = ", ".join("?" * len(row))
    connection.execute(f"insert into wire.{table} ({', '.join(row)}) values ({marks})", [*row.values()])


def _failures(result: dbtRunnerResult) -> str:
    if result.exception:
        return str(result.exception)
    return "\n".join(f"{r.node.name}: {r.message}" for r in result.result or [] if r.status not in ("success", "pass"))
