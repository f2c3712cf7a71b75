"""How programs that run unattended say what they do: lines for people, or where `APIARY_LOG_FORMAT=json` for programs.

Each JSON object is one line of standard error: `time` (ISO 8601, UTC), `level`, `message`, and what the line is about.
Does not belong here: results of commands (standard output), Dagster's own logs (its servers are started with the same
format: commands/orchestration.py).
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime

SETTING = "APIARY_LOG_FORMAT"


def is_json() -> bool:
    """Whether lines are JSON. Raises ValueError for a format that is none."""
    named = os.environ.get(SETTING) or "text"
    if named not in ("text", "json"):
        raise ValueError(f"{SETTING} is {named!r}: say text or json")
    return named == "json"


def as_json(message: str, *, level: str = "info", **fields: object) -> str:
    """One object; fields that are None are left out."""
    said = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "level": level, "message": message}
    return json.dumps(said | {name: value for name, value in fields.items() if value is not None}, default=str)


def write(text: str, *, level: str = "info", **fields: object) -> None:
    """A line on standard error; `fields` are for programs only."""
    line = as_json(text.strip(), level=level, **fields) if is_json() else text
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class JsonFormatter(logging.Formatter):
    """A record of Python's logging as one object."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, with the exception if there is one."""
        error = self.formatException(record.exc_info) if record.exc_info else None
        return as_json(record.getMessage(), level=record.levelname.lower(), logger=record.name, exception=error)
