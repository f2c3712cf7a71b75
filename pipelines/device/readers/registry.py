"""The agent runtimes that this device can read, and whose home a folder is.

Does not belong here: what a runtime is (base.py), how one is read (its package).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pipelines.device.readers.base import Runtime
from pipelines.device.readers.claude_code.runtime import CLAUDE_CODE
from pipelines.device.readers.hive.runtime import HIVE
from pipelines.device.readers.hyperhive.runtime import HYPERHIVE
from pipelines.device.readers.openclaw.runtime import OPENCLAW

RUNTIMES: tuple[Runtime, ...] = (CLAUDE_CODE, OPENCLAW, HYPERHIVE, HIVE)
"""In the order in which a folder is asked whose it is: those whose files cannot be anybody else's come first."""


@dataclass(frozen=True)
class AgentHome:
    """A folder and the runtime whose home it is. None: there is nothing of any in it, yet or any more."""

    path: Path
    runtime: Runtime | None


def names() -> tuple[str, ...]:
    """The names of all runtimes, as consents and the contract write them."""
    return tuple(runtime.name for runtime in RUNTIMES)


def titles() -> str:
    """All runtimes as their vendors write them, for people."""
    return ", ".join(runtime.title for runtime in RUNTIMES)


def usual_homes(wanted: Iterable[str] | None = None) -> list[AgentHome]:
    """The homes in the usual places of this machine, of the wanted runtimes or of all."""
    chosen = names() if wanted is None else frozenset(wanted)
    return [
        AgentHome(path, runtime)
        for runtime in RUNTIMES
        if runtime.name in chosen
        for path in runtime.usual_homes()
        if runtime.is_home(path)
    ]


def recognised(path: Path) -> Runtime | None:
    """Whose home a folder is; None if it is nobody's. Only names in it are looked at."""
    return next((runtime for runtime in RUNTIMES if runtime.is_home(path)), None)
