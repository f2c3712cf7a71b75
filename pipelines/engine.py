"""Which engine the warehouse is on: `APIARY_ENGINE`, and DuckDB where it is unset.

Does not belong here: how one connects to it (warehouse/ducklake.py, dbt_project/profiles.yml).
"""

import os
from collections.abc import Mapping
from enum import StrEnum

from pipelines.errors import UsageError

SETTING = "APIARY_ENGINE"


class Engine(StrEnum):
    """The engines that models are built on. Their names are those of the outputs in dbt_project/profiles.yml."""

    DUCKDB = "duckdb"
    DUCKLAKE = "ducklake"
    SPARK = "spark"


class EngineError(UsageError):
    """The setting names no engine, or one that this command does not run on."""


def selected(environment: Mapping[str, str] = os.environ) -> Engine:
    """The engine that is set. Raises EngineError if the setting names none."""
    named = environment.get(SETTING) or Engine.DUCKDB
    try:
        return Engine(named)
    except ValueError:
        raise EngineError(f"{SETTING} is {named!r}: it is one of {', '.join(Engine)}") from None


def require(*engines: Engine, environment: Mapping[str, str] = os.environ) -> None:
    """Refuse what has been made for these engines alone. Raises EngineError."""
    found = selected(environment)
    if found not in engines:
        raise EngineError(f"{SETTING} is {found}: this runs on {' and '.join(engines)} alone; see docs/growing.md")
