"""What the YAML beside the models promises of each mart: columns, their types, texts and tests.

Does not belong here: rows (tests/warehouse.py).
"""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

MODELS = Path(__file__).resolve().parents[1] / "models"
FILES = sorted(
    path
    for path in MODELS.rglob("_*__models.yml")
    if path.parent.name != "internal" and path.relative_to(MODELS).parts[0] != "staging"
)


@cache
def columns() -> dict[str, list[dict[str, Any]]]:
    """The columns of every mart as its contract lists them, by the mart's name."""
    models = [model for path in FILES for model in yaml.safe_load(path.read_text("utf-8"))["models"]]
    return {model["name"]: model["columns"] for model in models}


@cache
def types() -> dict[str, dict[str, str]]:
    """The types of every mart's columns."""
    return {
        mart: {column["name"]: column["data_type"] for column in described} for mart, described in columns().items()
    }
