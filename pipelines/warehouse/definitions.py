"""Which definitions of the incremental models a warehouse was built with.

An incremental model that was built by an older definition holds rows of it, or lacks columns: it is built anew, once.
Does not belong here: building (defs/transform.py), changing the wire's tables (load.py).
"""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import duckdb

from pipelines.errors import ExpectedError
from pipelines.warehouse import database, schemas

TABLE = "core.model_definitions"  # beside what it tells of: a warehouse that is written anew has neither


def fingerprints(manifest: Mapping[str, Any]) -> dict[str, str]:
    """A hash of what decides the rows of each incremental model, by `schema.name`, from dbt's manifest.

    Its SQL and that of all its ancestors, its columns, its configuration, and the macros it depends on.
    """
    nodes, macros = manifest["nodes"], manifest["macros"]
    hashes: dict[str, str] = {}

    def of(unique_id: str) -> str:
        if unique_id not in hashes:
            node = nodes.get(unique_id)
            if node is None or node["resource_type"] != "model":
                return unique_id
            # Who reads a mart decides nothing about its rows.
            meta = {key: value for key, value in node["config"]["meta"].items() if key != "audience"}
            parts = [
                node["raw_code"], node["config"].get("materialized"), meta,
                [[name, column.get("data_type")] for name, column in node["columns"].items()],
                sorted(macros[macro]["macro_sql"] for macro in _macros(macros, node["depends_on"]["macros"])),
                [of(parent) for parent in sorted(node["depends_on"]["nodes"])],
            ]  # fmt: skip
            hashes[unique_id] = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        return hashes[unique_id]

    return {
        f"{node['schema']}.{node['name']}": of(unique_id)
        for unique_id, node in nodes.items()
        if node["resource_type"] == "model" and node["config"].get("materialized") == "incremental"
    }


class OutdatedError(ExpectedError):
    """Models were built by another release."""


def require_built(warehouse: Path, manifest: Mapping[str, Any], layer: str) -> None:
    """Raise OutdatedError if a model that a layer needs was built by another definition; duckdb.Error.

    What another release built may lack charges that this one makes: it would be sealed without them.
    """
    if not needed_by(layer, manifest).isdisjoint(changed(warehouse, manifest)):
        raise OutdatedError(f"the models of {layer} were built by another release: `apiary run` builds them anew")


def needed_by(layer: str, manifest: Mapping[str, Any]) -> set[str]:
    """The models (`schema.name`) of a layer, which is a folder of models/, and all that they are built from."""
    nodes = manifest["nodes"]
    models = {key for key, node in nodes.items() if node["resource_type"] == "model"}
    left, needed = {key for key in models if nodes[key]["fqn"][1] == layer}, set[str]()
    while left:
        needed |= left
        left = {parent for key in left for parent in nodes[key]["depends_on"]["nodes"]} & models - needed
    return {f"{nodes[key]['schema']}.{nodes[key]['name']}" for key in needed}


def changed(warehouse: Path, manifest: Mapping[str, Any]) -> list[str]:
    """Incremental models whose tables were built by another definition, in the order of their names.

    Of a warehouse of before definitions were written down all that are there. Raises duckdb.Error.
    """
    if not database.exists(warehouse):
        return []
    with database.connect(warehouse) as connection:
        known = (
            dict(connection.execute(f"SELECT model, definition FROM {TABLE}").fetchall())
            if _is_there(connection)
            else {}
        )
        built = {
            f"{schema}.{name}"
            for schema, name in connection.execute("SELECT schema_name, table_name FROM duckdb_tables()").fetchall()
        }
    return sorted(
        model
        for model, definition in fingerprints(manifest).items()
        if model in built and known.get(model) != definition
    )


def record(warehouse: Path, manifest: Mapping[str, Any], *, built: Collection[str]) -> None:
    """Write down that these models (`schema.name`) were built by the definitions of this manifest.

    Of models that were not built it stays what is written. Schemas of an older release are dropped, and so are tables
    that no model makes any more: a mart would be published for ever as it was. Raises duckdb.Error.
    """
    rows = {model: definition for model, definition in fingerprints(manifest).items() if model in built}
    with database.connect(warehouse) as connection:
        for schema in schemas.OUTDATED:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        for kind, relation in _removed(connection, manifest):
            connection.execute(f"DROP {kind} {relation}")
        connection.execute(f"CREATE SCHEMA IF NOT EXISTS {TABLE.split('.', maxsplit=1)[0]}")
        connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (model VARCHAR NOT NULL, definition VARCHAR NOT NULL)")
        connection.execute(
            f"""
            MERGE INTO {TABLE} USING (
                SELECT unnest($models::VARCHAR[]) AS model, unnest($definitions::VARCHAR[]) AS definition
            ) AS new USING (model)
            WHEN MATCHED THEN UPDATE SET definition = new.definition
            WHEN NOT MATCHED THEN INSERT BY NAME
            """,
            {"models": list(rows), "definitions": list(rows.values())},
        )


def _removed(connection: duckdb.DuckDBPyConnection, manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Tables and views (`kind`, `schema.name`) in the schemas of the models that no model of this manifest makes."""
    made = {f"{node['schema']}.{node['name']}" for node in manifest["nodes"].values()} | {TABLE}
    found = connection.execute(
        "SELECT 'TABLE', schema_name, table_name FROM duckdb_tables() WHERE database_name = current_database()"
        " UNION ALL"
        " SELECT 'VIEW', schema_name, view_name FROM duckdb_views() WHERE database_name = current_database()"
        " ORDER BY ALL"
    ).fetchall()
    return [
        (kind, f'{schema}."{name}"')
        for kind, schema, name in found
        if schema in schemas.BUILT and f"{schema}.{name}" not in made
    ]


def _is_there(connection: duckdb.DuckDBPyConnection) -> bool:
    schema, name = TABLE.split(".")
    return bool(
        connection.execute(
            "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?", [schema, name]
        ).fetchall()
    )


def _macros(macros: Mapping[str, Any], names: list[str]) -> set[str]:
    """The project's own macros among these, and those they depend on."""
    found: set[str] = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in found or name not in macros or not name.startswith("macro.apiary."):
            continue
        found.add(name)
        waiting += macros[name]["depends_on"]["macros"]
    return found
