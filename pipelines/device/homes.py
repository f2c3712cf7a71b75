"""Which folders are agents' homes, and which of them a command is about: those that are named, else those that the
consent names, else those in the usual places.

Does not belong here: the files of a home (readers/), reading them (collect.py).
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from pipelines.device import consent
from pipelines.device.errors import DeviceError
from pipelines.device.readers import registry
from pipelines.errors import UsageError
from pipelines.home import Home, replace_file


def usual() -> list[Path]:
    """Agents' homes in the usual places of this machine."""
    return [home.path for home in registry.usual_homes()]


def keep(home: Home, consent_id: str, homes: Sequence[Path]) -> None:
    """Write down the homes that a grant names. Beside the state: that one never holds a path."""
    said = {"consent_id": consent_id, "homes": [str(path.absolute()) for path in homes]}
    replace_file(_path(home), (json.dumps(said, indent=1) + "\n").encode())


def forget(home: Home) -> None:
    """Forget them: consent was withdrawn."""
    _path(home).unlink(missing_ok=True)


def granted(home: Home) -> list[Path]:
    """The homes that the grant in force names; none if it names none, or is older than this file.

    Raises DeviceError.
    """
    if not _path(home).exists():
        return []
    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
    try:
        said = json.loads(_path(home).read_text("utf-8"))
        is_of_grant = current is not None and said["consent_id"] == current.consent_id
        return [Path(path) for path in said["homes"]] if is_of_grant else []
    except (ValueError, TypeError, KeyError):
        raise DeviceError(f"{_path(home)} is damaged: grant consent again, with --home for each home") from None


def _path(home: Home) -> Path:
    return home.device / "homes.json"


def chosen(home: Home, named: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The homes that a command is about, and why others that were named are none.

    A home that the consent names is not asked again what it is: it may have been emptied since. Raises UsageError if
    all that were named are no homes, DeviceError if the state cannot be read.
    """
    if not named:
        return granted(home) or usual(), []
    try:
        known = granted(home)
    except DeviceError:
        known = []  # a new grant with --home mends it
    return named_homes(named, known=known)


def named_homes(named: Sequence[Path], *, known: Sequence[Path] = ()) -> tuple[list[Path], list[str]]:
    """Of the folders that were named those that are homes, and why others are none. A home in `known` is not asked.

    Raises UsageError if none is.
    """
    found, problems = [], []
    for folder in (path.expanduser() for path in named):
        # What is no folder at all is told by whoever reads it.
        is_readable = folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)
        if is_readable and folder.absolute() not in known and registry.recognised(folder) is None:
            inside = _inside(folder)
            problems.append(
                f"{folder} is no agent's home but holds {' and '.join(map(str, inside))}: name those with --home"
                if inside
                else f"{folder} is no agent's home: it holds nothing that {registry.titles()} writes; name the right"
                " one with --home"
            )
        else:
            found.append(folder)
    if problems and not found:
        raise UsageError(problems[0])
    return found, problems


def _inside(folder: Path) -> list[Path]:
    """Homes right in a folder, as in a person's own."""
    children = (path for path in sorted(folder.iterdir()) if path.is_dir() and os.access(path, os.R_OK | os.X_OK))
    return [path for path in children if registry.recognised(path)]
