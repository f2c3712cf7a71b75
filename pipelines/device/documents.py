"""Small JSON files that a source rewrites in place: read whole, and only plain files of a sane size.

Does not belong here: files that grow by lines (lines.py), what a document says (readers).
"""

from pathlib import Path
from typing import Any

from pipelines.device.lines import UnreadableError, loads, open_plain

MAX_DOCUMENT = 16 << 20  # a task list or a state file beyond this is not one of ours


def load(path: Path) -> tuple[dict[str, Any], str]:
    """A small JSON file and what became of it: `absent`, `read`, or why it could not be read."""
    try:
        with open_plain(path) as file:
            data = file.read(MAX_DOCUMENT + 1)
    except FileNotFoundError:
        return {}, "absent"
    except (UnreadableError, OSError):
        return {}, "unreadable"
    if len(data) > MAX_DOCUMENT:
        return {}, "too_large"
    try:
        found = loads(data)
    except (ValueError, RecursionError):
        found = None
    return (found, "read") if isinstance(found, dict) else ({}, "corrupt")
