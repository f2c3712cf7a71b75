"""The finance gate: no statement is written while a blocking check fails, unless somebody signs for it by name.

Does not belong here: what is checked (the billing gate: expectations/), writing statements (statements.py).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pipelines.errors import ExpectedError, UsageError


class GateError(ExpectedError):
    """A blocking check failed; the text names each one and what was found. Nothing was written."""


@dataclass(frozen=True)
class Check:
    """One check as it was judged: its name, whether it stops the line, whether it was met, and what was found.

    `accounts`: the billing accounts it failed for; None if it says nothing of accounts, and so stops all of them.
    """

    name: str
    is_blocking: bool
    passed: bool
    found: str
    accounts: tuple[str, ...] | None = None

    def stops(self, account: str) -> bool:
        """Whether an account's statement is held back by it."""
        return self.is_blocking and not self.passed and (self.accounts is None or account in self.accounts)

    @property
    def told(self) -> dict[str, Any]:
        """As a manifest tells it."""
        return {"name": self.name, "blocking": self.is_blocking, "passed": self.passed, "found": self.found}


@dataclass(frozen=True)
class Override:
    """Somebody's signature under a statement whose checks failed. Raises UsageError without a name or a reason."""

    actor: str
    reason: str

    def __post_init__(self) -> None:
        if not self.actor.strip() or not self.reason.strip():
            raise UsageError("an override needs a name and a reason: --override-by, --override-reason")

    def told(self, checks: Sequence[Check]) -> dict[str, Any]:
        """As a manifest tells it, with the checks it passes over."""
        return {"actor": self.actor, "reason": self.reason, "checks": [check.name for check in failed(checks)]}


class Judged(Protocol):
    """What a judge says of one expectation."""

    @property
    def column(self) -> str: ...  # noqa: D102 - as the judge names them
    @property
    def is_critical(self) -> bool: ...  # noqa: D102
    @property
    def passed(self) -> bool: ...  # noqa: D102
    @property
    def found(self) -> str: ...  # noqa: D102
    @property
    def groups(self) -> tuple[str, ...] | None: ...  # noqa: D102


def judged(suite: str, results: Iterable[Judged]) -> list[Check]:
    """A suite's results as checks."""
    return [Check(f"{suite}.{r.column}", r.is_critical, r.passed, r.found, r.groups) for r in results]


def failed(checks: Sequence[Check], account: str | None = None) -> list[Check]:
    """The blocking checks that were not met; of one account, those that hold back its statement."""
    return [
        check
        for check in checks
        if check.is_blocking and not check.passed and (account is None or check.stops(account))
    ]


def held_back(checks: Sequence[Check]) -> tuple[str, ...]:
    """The accounts whose statements are held back by a check of their own."""
    return tuple(sorted({account for check in failed(checks) for account in check.accounts or ()}))


def admit(checks: Sequence[Check], override: Override | None, account: str | None = None) -> None:
    """Let a statement be written: of one account, or of all that no check of their own holds back.

    Raises GateError: also when nothing was checked at all.
    """
    if not checks:
        raise GateError("nothing was checked: no statement is written without the finance gate")
    stopping = failed(checks, account) if account else [check for check in failed(checks) if check.accounts is None]
    if stopping and override is None:
        reasons = "; ".join(f"{check.name} is {check.found}" for check in stopping)
        whose = f" of account {account}" if account else ""
        raise GateError(f"no statement{whose} is written while checks fail: {reasons}")
