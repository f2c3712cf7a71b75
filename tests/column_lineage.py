"""Which columns each column of a mart is computed from, by the SQL that dbt compiled. `make docs` writes the page.

An empty warehouse is built for it: only there are the columns of every table known. Does not belong here: what a column
means (models/), how models depend on each other (dbt's own pages).
"""

import html
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import duckdb
from sqlglot import exp, parse_one
from sqlglot.lineage import lineage
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import build_scope
from sqlglot.schema import MappingSchema

from tests.warehouse import Warehouse

Columns = Mapping[str, Mapping[str, Mapping[str, str]]]
"""Schema, table, column: its type."""
Source = tuple[str, str, str]
"""Schema, table and column that something is computed from."""


def of_statement(sql: str, columns: Columns, wanted: list[str]) -> dict[str, list[Source]]:
    """For each column of a statement's result the columns of tables that its values come from.

    A column that a join or a filter goes by alone is none of them. Raises sqlglot.errors.SqlglotError.
    """
    schema = MappingSchema(columns, dialect="duckdb")
    statement = qualify(
        parse_one(sql, dialect="duckdb"), schema=schema, dialect="duckdb", quote_identifiers=False, identify=False,
        validate_qualify_columns=False,
    )  # fmt: skip
    scope = build_scope(statement)
    return {
        column: sorted(
            {
                (node.source.db, node.source.name, node.name.rpartition(".")[2].strip('"'))
                for node in lineage(column, statement, schema, scope=scope, dialect="duckdb").walk()
                if isinstance(node.source, exp.Table) and not node.downstream
            }
        )
        for column in wanted
    }


def columns_of(warehouse: Path) -> dict[str, dict[str, dict[str, str]]]:
    """The columns of every table of a warehouse. Raises duckdb.Error."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    with duckdb.connect(str(warehouse)) as connection:
        for schema, table, column, kind in connection.execute(
            "SELECT schema_name, table_name, column_name, data_type FROM duckdb_columns() WHERE NOT internal"
        ).fetchall():
            found.setdefault(schema, {}).setdefault(table, {})[column] = kind
    return found


def page(marts: Mapping[str, Mapping[str, list[Source]]]) -> str:
    """The page: a table for each mart, in which a column of a mart leads to that mart's table."""
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8><title>Where columns come from</title>",
        "<style>body{font:15px sans-serif;max-width:70em;margin:2em auto}td{vertical-align:top;padding:.1em 1em .1em 0}"
        "</style><h1>Where columns come from</h1><p>What each column is computed from, one step back; joins and filters"
        " apart. <a href=index.html>Documentation</a>, <a href=dbt/index.html>models</a></p>",
    ]
    for mart, columns in sorted(marts.items()):
        parts.append(f"<h2 id={mart}>{mart}</h2><table>")
        for column, sources in columns.items():
            told = ", ".join(
                f"<a href=#{table}>{table}</a>.{html.escape(name)}"
                if table in marts
                else html.escape(f"{schema}.{table}.{name}")
                for schema, table, name in sources
            )
            parts.append(f"<tr><td>{html.escape(column)}<td>{told}")
        parts.append("</table>")
    return "\n".join(parts) + "\n"


def main(target: Path) -> None:
    """Build an empty warehouse and write the page."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "apiary.duckdb"
        os.environ["APIARY_WAREHOUSE"] = str(path)
        warehouse = Warehouse(path, Path(folder) / "target")
        warehouse.run()
        columns = columns_of(path)
        compiled = {file.stem: file for file in (warehouse.target / "compiled").rglob("models/**/*.sql")}
        marts = {
            name: of_statement(
                compiled[name].read_text("utf-8"), columns, [each for each in of if not each.startswith("_")]
            )
            for name, of in columns["marts"].items()
        }
    target.write_text(page(marts), "utf-8")
    sys.stdout.write(f"wrote {target}: {len(marts)} marts\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
