"""Who may read what of the published data. A mart names the roles that read it (`meta: {audience: [...]}` in the YAML
beside its model) and is nobody's where it names none; `policies/access.yml` says what roles there are.

Does not belong here: writing it (publish.py), opening it (reading.py).
"""

from collections.abc import Collection, Sequence
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
    """A kind of reader, and patterns of the columns that it never sees."""

    name: str
    without: tuple[str, ...]

    def columns(self, names: Sequence[str]) -> list[str]:
        """The columns that the role sees."""
        return [name for name in names if not any(fnmatchcase(name, pattern) for pattern in self.without)]


@dataclass(frozen=True)
class Access:
    """All roles, and the role whose marts each tenant gets of its own rows, if any."""

    roles: tuple[Role, ...]
    tenant_role: Role | None

    def readers(self, mart: str, audience: Collection[str]) -> tuple[Role, ...]:
        """The roles that a mart names. Raises UsageError if it names another: a misspelt role would hide the mart."""
        known = [role.name for role in self.roles]
        if isinstance(audience, str) or not all(name in known for name in audience):
            raise UsageError(f"{mart}: audience {audience!r} is not a list of roles: {', '.join(known)}")
        return tuple(role for role in self.roles if role.name in audience)


def load(path: Path = POLICY) -> Access:
    """The policy. Raises UsageError if it is not one: publishing by a policy that was misread would show too much."""
    try:
        found = yaml.safe_load(path.read_text("utf-8"))
        roles = {name: _role(path, name, text) for name, text in found["roles"].items()}
        chosen = found["tenants"]["role"]
        return Access(tuple(roles.values()), None if chosen is None else roles[chosen])
    except (KeyError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        raise UsageError(f"{path} is no access policy: roles with why and without; tenants with a role") from None


def _role(path: Path, name: str, text: dict[str, Any]) -> Role:
    if "marts" in text:  # a policy of 0.1.0
        raise UsageError(
            f"{path}: `marts` of {name} is not read any more: remove it, and name {name} in `meta: {{audience: [...]}}`"
            " of each mart that it reads"
        )
    if not is_slug(name) or not text["why"]:  # the name becomes a folder
        raise ValueError(name)
    if not isinstance(text["without"], list) or not all(isinstance(pattern, str) for pattern in text["without"]):
        raise TypeError(name)
    return Role(name, tuple(text["without"]))
