"""What the YAML beside the models promises of each mart: columns, their types, texts and tests, and who reads it.

Does not belong here: rows (tests/warehouse.py).
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from pipelines.warehouse.publish import Description

MODELS = Path(__file__).resolve().parents[1] / "models"
FILES = sorted(
    path
    for path in MODELS.rglob("_*__models.yml")
    if path.parent.name != "internal" and path.relative_to(MODELS).parts[0] != "staging"
)


@cache
def models() -> list[dict[str, Any]]:
    """Every mart as its YAML has it."""
    return [model for path in FILES for model in yaml.safe_load(path.read_text("utf-8"))["models"]]


@cache
def columns() -> dict[str, list[dict[str, Any]]]:
    """The columns of every mart as its contract lists them, by the mart's name."""
    return {model["name"]: model["columns"] for model in models()}


@cache
def descriptions() -> dict[str, Description]:
    """What a publication has to know of every mart: who reads it. Texts of columns take time to write."""
    return {
        model["name"]: Description(model["description"], audience=model["config"]["meta"]["audience"])
        for model in models()
    }


@cache
def types() -> dict[str, dict[str, str]]:
    """The types of every mart's columns."""
    return {
        mart: {column["name"]: column["data_type"] for column in described} for mart, described in columns().items()
    }
