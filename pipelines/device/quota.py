"""Budgets at home: keep the newest snapshot of the warehouse, and answer allow, warn or block without any network.

What a budget says = what the snapshot had counted + what this device used and the snapshot had not counted. Whoever
asks waits for the answer, so this module loads nothing heavy, and an answer is never an error: what cannot be known
allows, and is said.
Does not belong here: what was used locally (usage.py), the form of a snapshot (contract/quota.py).
"""

import sqlite3
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from pipelines.contract.numbers import plain, pluralize
from pipelines.contract.quota import (
    EXACT_DIGITS,
    MAX_BYTES,
    Budget,
    Snapshot,
    SnapshotError,
    parse,
    period_of,
    prefix,
    sha16_of_key,
)
from pipelines.device import usage
from pipelines.home import Home, replace_file

if TYPE_CHECKING:  # these load the contract's tables, for which a check has no time
    from pipelines.device.consent import Consent
    from pipelines.device.enrolment import Enrolment
    from pipelines.store import Store

Decision = Literal["allow", "warn", "block"]
EXIT_CODES: dict[Decision, int] = {"allow": 0, "warn": 0, "block": 3}
CANDIDATES = 3  # newest objects to try: a damaged one must not hide the good one before it
BUSY_SECONDS = 0.02  # a writer holds the whole database only for a moment; an answer may not wait longer
_STRICTNESS: tuple[Decision, ...] = ("allow", "warn", "block")
_UNITS = {"tokens": "tokens", "reported_cost_usd": "USD", "turns": "turns"}


class Standing(NamedTuple):
    """Where one budget stands. `used` = `counted` by the warehouse + `local`, not counted there yet."""

    decision: Decision
    reason: str
    budget: Budget
    start: datetime
    end: datetime
    counted: Decimal
    local: Decimal
    unpriced_tokens: int

    @property
    def used(self) -> Decimal:
        """All that is known to be used in the period."""
        return _exact_sum(self.counted, self.local)

    def to_dict(self) -> dict[str, object]:
        """For JSON; amounts as text, since a float would round them."""
        budget = self.budget
        return {
            "decision": self.decision, "reason": self.reason, "scope": budget.scope, "user": budget.user,
            "period": budget.period, "start": self.start.isoformat(), "end": self.end.isoformat(),
            "measure": budget.measure, "limit": plain(budget.limit), "warn_at": plain(budget.warn_at),
            "used": plain(self.used), "counted": plain(self.counted), "local": plain(self.local),
            "unpriced_tokens": str(self.unpriced_tokens),
        }  # fmt: skip


class Answer(NamedTuple):
    """What a check says: the strictest of all budgets, why, and how old the snapshot behind it is.

    `notes`: what weakens the answer, such as a snapshot of an earlier period.
    """

    decision: Decision
    reason: str
    as_of: datetime | None = None
    age_seconds: int | None = None
    standings: tuple[Standing, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 to go on, 3 to stop."""
        return EXIT_CODES[self.decision]

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "decision": self.decision, "reason": self.reason, "as_of": self.as_of.isoformat() if self.as_of else None,
            "age_seconds": self.age_seconds, "notes": list(self.notes),
            "budgets": [standing.to_dict() for standing in self.standings],
        }  # fmt: skip


def path_of(home: Home) -> Path:
    """Where the newest snapshot is kept."""
    return home.device / "quota.json"


# fetching ------------------------------------------------------------------------------------------------------------


def fetch(home: Home, enrolment: "Enrolment", consent: "Consent", store: "Store") -> str:
    """Keep the tenant's newest snapshot, cut down to what this device needs; what came of it, in one line.

    Never an error: a store that does not answer or refuses leaves what was kept, and a shipping goes on. Raises
    ValueError without an open grant: no store may be asked anything then.
    """
    from pipelines.store import StoreRefusedError, StoreUnavailableError

    if consent.state != "granted":
        raise ValueError("no store is asked for a quota without consent")
    kept, _ = load(home, tenant=enrolment.tenant, region=enrolment.region)
    trouble = ""
    try:
        folder = prefix(enrolment.region, enrolment.tenant)
        keys = [entry.key for entry in islice(store.list(folder), CANDIDATES) if entry.size <= MAX_BYTES]
        for key in keys:
            found = _read(store, key, tenant=enrolment.tenant, region=enrolment.region)
            if isinstance(found, str):
                trouble = trouble or f"; the newest was passed over: {found}"
                continue
            mine = found.for_device(enrolment.device_id, enrolment.user)
            if kept is not None and kept.as_of > mine.as_of:
                return f"quota: the one kept here is newer than the store's{trouble}"
            if mine != kept:
                replace_file(path_of(home), mine.to_json())
            return f"quota as of {mine.as_of:%Y-%m-%d %H:%M:%S} UTC{trouble}"
    except (StoreUnavailableError, StoreRefusedError) as error:
        return f"quota: {error}; the one kept here stays"
    except OSError as error:
        return f"quota: it cannot be kept: {error.strerror}"
    return f"quota: none is published for tenant {enrolment.tenant}{trouble}"


def _read(store: "Store", key: str, *, tenant: str, region: str) -> Snapshot | str:
    """The snapshot under a key, or why it is none."""
    sha16 = sha16_of_key(key, region=region, tenant=tenant)
    if sha16 is None:
        return "its name is no snapshot's"
    try:
        found = parse(store.get(key))
    except KeyError:
        return "it is gone"
    except SnapshotError as error:
        return str(error)
    if found.sha16 != sha16:
        return "its content is not what its name says"
    if (found.tenant, found.region) != (tenant, region):
        return "it is another tenant's"
    return found


def oldest_day(now: datetime) -> date:
    """The first day whose local use a budget may still ask for: older sums may go (`usage.prune`).

    A month back, because a device whose clock was set back must not lose the days it is put back to.
    """
    this_month, _ = period_of("month", now)
    return (this_month - timedelta(days=1)).replace(day=1).date()


# checking ------------------------------------------------------------------------------------------------------------


def load(home: Home, *, tenant: str, region: str) -> tuple[Snapshot | None, str]:
    """The snapshot kept here, or None and why there is none that can be used."""
    try:
        found = parse(path_of(home).read_bytes())
    except FileNotFoundError:
        return None, "there is no quota snapshot yet: `apiary device ship` fetches it"
    except SnapshotError as error:
        return None, f"the quota snapshot kept here was ignored: {error}"
    except OSError as error:
        return None, f"the quota snapshot kept here cannot be read: {error.strerror}"
    if (found.tenant, found.region) != (tenant, region):
        return None, f"the quota snapshot kept here was ignored: it is of tenant {found.tenant} in {found.region}"
    return found, ""


def check(home: Home, enrolment: "Enrolment", *, now: datetime) -> Answer:
    """Whether the enrolled user may go on, from what is on this device alone. `now`: an aware time."""
    snapshot, reason = load(home, tenant=enrolment.tenant, region=enrolment.region)
    if snapshot is None:
        return Answer("allow", reason)
    notes: list[str] = []
    # Time does not run backwards: setting the clock back must not bring back a budget that is used up.
    moment = max(now, snapshot.as_of)
    if moment > now:
        notes.append("this device's clock is behind the snapshot's time, which was taken instead")
    mine = [budget for budget in snapshot.budgets if budget.user in (None, enrolment.user)]
    known: Sequence[usage.Line] = ()
    try:
        known = _local(home, moment, snapshot, enrolment.device_id)
    except sqlite3.Error as error:
        notes.append(f"what this device used itself could not be read and is missing: {error}")
    standings = []
    for budget in mine:
        if moment < budget.start:
            continue  # published ahead of its period
        if moment >= budget.end:
            notes.append(
                f"the {budget.period} of the snapshot has ended: of the present one only this device's own use is known"
            )
        standings.append(_standing(budget, moment, known))
    age = max(0, int((now - snapshot.as_of).total_seconds()))
    facts = (snapshot.as_of, age, tuple(standings), tuple(dict.fromkeys(notes)))
    if not standings:
        return Answer("allow", "no budget applies to this user", *facts)
    strictest = max(standings, key=lambda standing: _STRICTNESS.index(standing.decision))
    return Answer(strictest.decision, strictest.reason, *facts)


def _standing(budget: Budget, moment: datetime, known: Sequence[usage.Line]) -> Standing:
    is_over = moment >= budget.end
    start, end = period_of(budget.period, moment) if is_over else (budget.start, budget.end)
    first, last = start.date().isoformat(), end.date().isoformat()
    local = usage.total(
        line.used
        for line in known
        if budget.user in (None, line.user)
        and (first <= line.day < last or line.day == usage.ANY_DAY)
        # `used` is of the period that the snapshot names. In a later one nothing was counted, whatever was loaded;
        # but what has no day was counted somewhere, once it was loaded.
        and ((is_over and line.day != usage.ANY_DAY) or not line.is_counted)
    )
    amount = {
        "tokens": Decimal(local.tokens), "turns": Decimal(local.turns), "reported_cost_usd": local.reported_cost_usd,
    }[budget.measure]  # fmt: skip
    before = Decimal(0) if is_over else budget.used
    unpriced = local.unpriced_tokens + (0 if is_over else budget.unpriced_tokens)
    decision, reason = _judged(budget, _exact_sum(before, amount), unpriced)
    return Standing(decision, reason, budget, start, end, before, amount, unpriced)


def _judged(budget: Budget, used: Decimal, unpriced: int) -> tuple[Decision, str]:
    whose = f"user {budget.user}" if budget.user else "the tenant"
    said = f"{whose} used {plain(used)} of {plain(budget.limit)} {_UNITS[budget.measure]} this {budget.period}"
    is_cost = budget.measure == "reported_cost_usd"
    if used >= budget.limit:
        return "block", f"{said}: the limit is reached"
    ceiling = budget.unpriced_limit_tokens
    if is_cost and ceiling is not None and unpriced > 0 and unpriced >= ceiling:
        return "block", f"{said}, and {pluralize(unpriced, 'token')} without a price: their limit is {ceiling}"
    if used >= budget.warning:
        return "warn", f"{said}: the warning begins at {plain(budget.warning)}"
    if is_cost and unpriced > 0:
        return (
            "warn",
            f"{said}, but {pluralize(unpriced, 'token has', 'tokens have')} no price: what they cost is not in it",
        )
    return "allow", said


def _local(home: Home, moment: datetime, snapshot: Snapshot, device: str) -> Sequence[usage.Line]:
    """This device's own use in the month of a moment. Raises sqlite3.Error."""
    path = home.device / "state.db"
    if not path.exists():
        return ()
    # Read-only: a check must never make, lock or change the state of a shipping that runs at the same time.
    db = sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        db.execute("BEGIN")  # one view: a sealing in between would move sums from one line to another
        row = db.execute("SELECT value FROM device WHERE name = 'epoch'").fetchone()
        first, end = period_of("month", moment)  # no period reaches beyond the month of its day
        counted = snapshot.ranges(device, str(row[0]) if row else "")
        return usage.lines(db, first=first.date(), end=end.date(), counted=counted)
    finally:
        db.close()


def _exact_sum(one: Decimal, other: Decimal) -> Decimal:
    with localcontext() as context:
        context.prec = EXACT_DIGITS
        return one + other
