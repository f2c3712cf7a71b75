"""dbt tests as people read them in Dagster: a short name, and a description in words.

dbt names a test by all its arguments, up to hundreds of characters, and describes it by nothing. The manifest that the
assets are made from gets names and descriptions here; dbt itself goes on by its own names, which are those in the
ledger of batches. Does not belong here: which tests there are (models/, dbt_project/tests).
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

MAX_NAME = 60  # characters
_COMMENT = re.compile(r"\A\s*(?:\{#(?P<jinja>.*?)#\}|(?P<sql>(?:--[^\n]*\n)+))", re.DOTALL)


def with_readable_tests(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of a manifest whose tests have short names, unique within a model, and descriptions."""
    nodes = dict(manifest["nodes"])
    for unique_id, node in manifest["nodes"].items():
        if node["resource_type"] == "test":
            described = {"description": _description(node)}
            nodes[unique_id] = node | {"name": _name(node), "meta": node.get("meta", {}) | described}
    return {**manifest, "nodes": nodes}


def _name(node: Mapping[str, Any]) -> str:
    name: str = node["name"]
    if model := str(node.get("attached_node") or "").rpartition(".")[2]:
        name = re.sub(rf"_{re.escape(model)}(?=_|$)", "", name, count=1)  # the asset says which model
    if len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(node["name"].encode()).hexdigest()[:8]  # others may begin alike
    return f"{name[: MAX_NAME - 9].rstrip('_')}_{digest}"


def _description(node: Mapping[str, Any]) -> str:
    if given := node.get("description"):
        return str(given)
    test = node.get("test_metadata")
    if test is None:
        found = _COMMENT.match(node["raw_code"])
        text = (found["jinja"] or found["sql"].replace("--", " ")) if found else ""
        return " ".join(text.split())
    arguments = {name: value for name, value in test["kwargs"].items() if name != "model"}
    arguments = {**arguments.pop("arguments", {}), **arguments}
    said = {name: _said(value) for name, value in arguments.items()}
    return _SENTENCES[test["name"]].format(**said)


def _said(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return re.sub(r"^ref\(['\"](\w+)['\"]\)$", r"\1", str(value))


_SENTENCES = {
    "not_null": "{column_name} is never NULL.",
    "unique": "No two rows have the same {column_name}.",
    "accepted_values": "{column_name} is one of: {values}.",
    "unique_combination": "No two rows have the same {columns}.",
    "non_negative": "None of these is below zero: {columns}.",
    "sums_equal": "For each {group_by}, the sums of {measures} are those of {to}.",
    "counts_equal": "For each {group_by}, the sum of {measure} is the number of rows of {to}.",
    "exists_in": "Each {columns} is in {to} ({to_columns}).",
    "is_zero": "{column_name} is zero in every row.",
    "is_time_zone": "{column_name} is a time zone that the engine knows.",
    "is_budget": "Each budget says something that a device understands: scope, limits, thresholds and dates agree.",
}
