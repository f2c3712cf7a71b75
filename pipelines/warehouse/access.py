"""Who may read what of the published data, by `policies/access.yml`.

Does not belong here: writing it (publish.py), opening it (reading.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from pipelines.contract.keys import is_slug
from pipelines.errors import UsageError
from pipelines.home import ROOT

POLICY = ROOT / "policies" / "access.yml"


@dataclass(frozen=True)
class Role:
    """A kind of reader: patterns of the marts it reads (`!` takes away), and of the columns it never sees."""

    name: str
    marts: tuple[str, ...]
    without: tuple[str, ...]

    def reads(self, mart: str) -> bool:
        """Whether the role reads a mart."""
        taken_away = any(fnmatchcase(mart, pattern[1:]) for pattern in self.marts if pattern.startswith("!"))
        return not taken_away and any(fnmatchcase(mart, pattern) for pattern in self.marts)

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns that the role sees."""
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.without)]


@dataclass(frozen=True)
class Access:
    """All roles, and the role whose marts each tenant gets of its own rows, if any."""

    roles: tuple[Role, ...]
    tenant_role: Role | None


def load(path: Path = POLICY) -> Access:
    """The policy. Raises UsageError if it is not one: publishing by a policy that was misread would show too much."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        roles = {name: _role(name, text) for name, text in found["roles"].items()}
        chosen = found["tenants"]["role"]
        return Access(tuple(roles.values()), None if chosen is None else roles[chosen])
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        raise UsageError(
            f"{path} is no access policy: roles with why, marts and without; tenants with a role"
        ) from None


def _role(name: str, text: dict[str, Any]) -> Role:
    if not is_slug(name) or not text["why"]:  # the name becomes a folder
        raise ValueError(name)
    lists = text["marts"], text["without"]
    if not all(isinstance(item, list) and all(isinstance(pattern, str) for pattern in item) for item in lists):
        raise TypeError(name)
    return Role(name, tuple(text["marts"]), tuple(text["without"]))
