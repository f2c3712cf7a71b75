"""The quota snapshot: what the warehouse tells the devices of a tenant about its budgets, and the key it lies under.

A snapshot is an object like any other: created once, never replaced. A newer one is a new object whose key sorts
before all older ones, so that a device finds the newest in the first entry of one listing, however many there are.
Only one form of its bytes is accepted, the one `to_json` writes.
Does not belong here: what a budget's use is (the warehouse), what a device adds to it and answers (device/quota.py).
"""

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from functools import cached_property
from typing import Any, Literal, cast, get_args

from pipelines.contract.keys import is_slug
from pipelines.contract.numbers import plain

VERSION = 1
MAX_BYTES = 4 << 20  # some ten thousand devices; more is not one of ours and must not fill a device's memory
EXACT_DIGITS = 76  # DECIMAL(38, 20), summed: Python's own 28 digits would round money
MAX_SEQ = 9_999_999_999  # ten digits, as in the keys of batches

Scope = Literal["tenant", "user"]
Period = Literal["day", "month"]
Measure = Literal["tokens", "reported_cost_usd", "turns"]

_AMOUNT = re.compile(r"(0|[1-9]\d{0,17})(\.\d{0,19}[1-9])?", re.ASCII)
_HEX = frozenset("0123456789abcdef")
# Compiled when needed.
_KEY = r"(?P<prefix>quota/v1/[a-z0-9_-]+/[a-z0-9_-]+/)(?P<left>\d{10})-(?P<sha16>[0-9a-f]{16})\.json"
_LAST_SECOND = 9_999_999_999  # in the year 2286; keys count down from here


class SnapshotError(ValueError):
    """These are not the bytes of a snapshot. The text says which field is at fault."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Which batches of one epoch of one device are in the budgets' use.

    `device`, `epoch`: sequence numbers count within an epoch, so a number alone would name another batch after a
    device's state was made anew.
    `ranges`: first and last sequence number of each run of counted batches, ascending and apart. Ranges, because a
    batch may be loaded before an earlier one, be quarantined for ever, or be a tombstone whose rows never came: a
    single highest number would count the gap as counted, or the rest twice. Numbers, not times: the clocks of device,
    store and warehouse never agree.
    """

    device: str
    epoch: str
    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        _check("counted.device", len(self.device) == 32 and _HEX.issuperset(self.device))
        _check("counted.epoch", len(self.epoch) == 16 and _HEX.issuperset(self.epoch))
        before = -1
        for first, last in self.ranges:
            # Neighbours must be one range: two ways to write the same fact would have two hashes.
            _check("counted.ranges", max(before + 2, 1) <= first <= last <= MAX_SEQ)
            before = last


@dataclass(frozen=True, kw_only=True)
class Budget:
    """One limit and what was used of it, in the batches that `counted` names.

    `scope`, `user`: whose use is summed: all of the tenant (`user` is None), or one user, as enrolled.
    `period`, `start`, `end`: the UTC day or calendar month, half-open. Whole days, because devices sum by UTC day.
    Both times travel although one tells the other: a device whose clock is wrong sees which period was meant.
    `measure`: `tokens` are input (cache included) and output; `reported_cost_usd` is what the agents reported; `turns`.
    `limit`: use that reaches it blocks. 0 blocks at once.
    `warn_at`: the share of the limit, above 0 and at most 1, from which a device warns.
    `used`: use so far, exact.
    `unpriced_tokens`: tokens of turns without a reported cost. A cost says nothing about them: without this number a
    cost cap would sleep while an unpriced model burns money.
    `unpriced_limit_tokens`: as many unpriced tokens block a cost budget; None: they only warn.
    """

    scope: Scope
    user: str | None = None
    period: Period
    start: datetime
    end: datetime
    measure: Measure
    limit: Decimal
    warn_at: Decimal
    used: Decimal
    unpriced_tokens: int = 0
    unpriced_limit_tokens: int | None = None

    def __post_init__(self) -> None:
        _check("scope", self.scope in get_args(Scope))
        _check("user", is_slug(self.user or "") if self.scope == "user" else self.user is None)
        _check("period", self.period in get_args(Period))
        _check("measure", self.measure in get_args(Measure))
        _check("start", _is_second(self.start))
        _check("end", (self.start, self.end) == period_of(self.period, self.start))
        for name, amount in (("limit", self.limit), ("used", self.used)):
            _check(name, _AMOUNT.fullmatch(plain(amount)))
            _check(name, self.measure == "reported_cost_usd" or amount == amount.to_integral_value())
        _check("warn_at", _AMOUNT.fullmatch(plain(self.warn_at)) and 0 < self.warn_at <= 1)
        for name, count in (("unpriced_tokens", self.unpriced_tokens), ("limit", self.unpriced_limit_tokens or 0)):
            _check(name, 0 <= count < 10**18)
        is_cost = self.measure == "reported_cost_usd"
        _check("unpriced_limit_tokens", is_cost or self.unpriced_limit_tokens is None)

    @property
    def warning(self) -> Decimal:
        """The use from which a device warns."""
        with localcontext() as context:
            context.prec = EXACT_DIGITS
            return self.limit * self.warn_at


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The budgets of one tenant at one moment.

    `tenant`, `region`: whose it is. They stand in the key too; here they are under the hash, so that an object copied
    to another tenant's folder is seen.
    `as_of`: when the warehouse summed, in whole UTC seconds: the age a device states, and the order of snapshots.
    `counted`: what `used` holds of each device; a device that is not named has everything still to add.
    `budgets`: every limit that is in force, or will be.
    """

    tenant: str
    region: str
    as_of: datetime
    counted: tuple[Counted, ...] = ()
    budgets: tuple[Budget, ...] = ()

    def __post_init__(self) -> None:
        _check("tenant", is_slug(self.tenant))
        _check("region", is_slug(self.region))
        _check("as_of", _is_second(self.as_of) and 0 < self.as_of.timestamp() < _LAST_SECOND)
        epochs = [(counted.device, counted.epoch) for counted in self.counted]
        _check("counted", epochs == sorted(set(epochs)))

    @cached_property
    def sha256(self) -> str:
        """The hash of the content. It shows damage and mixed-up objects; it is no signature."""
        return hashlib.sha256(_canonical(_content(self))).hexdigest()

    @property
    def key(self) -> str:
        """Where the snapshot lies in the store: the newest sorts first, and the name binds the content."""
        return f"{prefix(self.region, self.tenant)}{_LAST_SECOND - int(self.as_of.timestamp()):010}-{self.sha16}.json"

    @property
    def sha16(self) -> str:
        """The part of the hash that stands in the key."""
        return self.sha256[:16]

    def ranges(self, device: str, epoch: str) -> tuple[tuple[int, int], ...]:
        """The counted batches of one device and epoch; none if it is not named."""
        return next((c.ranges for c in self.counted if (c.device, c.epoch) == (device, epoch)), ())

    def for_device(self, device: str, user: str) -> "Snapshot":
        """What one device needs of it. The rest, other people's use among it, is not kept there."""
        return replace(
            self,
            counted=tuple(counted for counted in self.counted if counted.device == device),
            budgets=tuple(budget for budget in self.budgets if budget.user in (None, user)),
        )

    def to_json(self) -> bytes:
        """The bytes of the object."""
        return _canonical({**_content(self), "sha256": self.sha256})


def prefix(region: str, tenant: str) -> str:
    """The folder of a tenant's snapshots. Its end is a slash: else tenant `a` would list those of `a-b`."""
    return f"quota/v1/{region}/{tenant}/"


def sha16_of_key(key: str, *, region: str, tenant: str) -> str | None:
    """The part of the hash in a snapshot's key; None if the key is no snapshot's of this tenant."""
    match = re.fullmatch(_KEY, key, re.ASCII)
    return match["sha16"] if match and match["prefix"] == prefix(region, tenant) else None


def as_of_in_key(key: str, *, region: str, tenant: str) -> datetime | None:
    """The time in a snapshot's key, the order of snapshots; None if the key is no snapshot's of this tenant."""
    match = re.fullmatch(_KEY, key, re.ASCII)
    is_mine = match and match["prefix"] == prefix(region, tenant)
    return datetime.fromtimestamp(_LAST_SECOND - int(match["left"]), UTC) if match and is_mine else None


def parse(data: bytes) -> Snapshot:
    """A snapshot from its bytes. Raises SnapshotError if they are not exactly what `to_json` would write.

    Unknown fields are refused: one may change what a budget means. What adds a field writes `quota/v2` beside this.
    """
    if len(data) > MAX_BYTES:
        raise SnapshotError(f"it is longer than {MAX_BYTES} bytes")
    try:
        found = json.loads(data)
        _check("version", found["version"] == VERSION)
        snapshot = Snapshot(
            tenant=_text(found["tenant"]),
            region=_text(found["region"]),
            as_of=_time(found["as_of"]),
            counted=tuple(_counted(item) for item in found["counted"]),
            budgets=tuple(_budget(item) for item in found["budgets"]),
        )
        sha256 = _text(found["sha256"])
    except SnapshotError:
        raise
    except KeyError as error:
        raise SnapshotError(f"{error} is missing") from None
    except (ValueError, TypeError, ArithmeticError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"it cannot be read: {type(error).__name__}") from None
    _check("sha256", sha256 == snapshot.sha256)
    _check("form", data == snapshot.to_json())
    return snapshot


def period_of(period: Period, moment: datetime) -> tuple[datetime, datetime]:
    """The UTC day or calendar month that holds a moment: its start, and the start of the next."""
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return day, day + timedelta(days=1)
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1)


def _content(snapshot: Snapshot) -> dict[str, Any]:
    return {
        "version": VERSION,
        "tenant": snapshot.tenant,
        "region": snapshot.region,
        "as_of": _written(snapshot.as_of),
        "counted": [
            {"device": counted.device, "epoch": counted.epoch, "ranges": [list(run) for run in counted.ranges]}
            for counted in snapshot.counted
        ],
        "budgets": [
            {
                "scope": budget.scope, "user": budget.user, "period": budget.period, "start": _written(budget.start),
                "end": _written(budget.end), "measure": budget.measure, "limit": plain(budget.limit),
                "warn_at": plain(budget.warn_at), "used": plain(budget.used),
                "unpriced_tokens": str(budget.unpriced_tokens),
                "unpriced_limit_tokens": _optional(budget.unpriced_limit_tokens),
            }
            for budget in snapshot.budgets
        ],
    }  # fmt: skip


def _canonical(value: dict[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _counted(found: dict[str, Any]) -> Counted:
    ranges = tuple((_integer(first), _integer(last)) for first, last in found["ranges"])
    return Counted(device=_text(found["device"]), epoch=_text(found["epoch"]), ranges=ranges)


def _budget(found: dict[str, Any]) -> Budget:
    user, ceiling = found["user"], found["unpriced_limit_tokens"]
    return Budget(
        scope=cast("Scope", _text(found["scope"])),
        user=None if user is None else _text(user),
        period=cast("Period", _text(found["period"])),
        start=_time(found["start"]),
        end=_time(found["end"]),
        measure=cast("Measure", _text(found["measure"])),
        limit=_amount(found["limit"]),
        warn_at=_amount(found["warn_at"]),
        used=_amount(found["used"]),
        unpriced_tokens=int(_amount(found["unpriced_tokens"])),
        unpriced_limit_tokens=None if ceiling is None else int(_amount(ceiling)),
    )


def _optional(number: int | None) -> str | None:
    return None if number is None else str(number)


def _written(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _is_second(moment: datetime) -> bool:
    return moment.tzinfo is not None and moment.microsecond == 0


def _time(value: object) -> datetime:
    return datetime.fromisoformat(_text(value))  # any other form fails at the comparison with `to_json`


def _text(value: object) -> str:
    _check("text", isinstance(value, str))
    return cast("str", value)


def _integer(value: object) -> int:
    _check("number", isinstance(value, int) and not isinstance(value, bool))
    return cast("int", value)


def _amount(value: object) -> Decimal:
    text = _text(value)
    _check("amount", _AMOUNT.fullmatch(text))
    return Decimal(text)


def _check(name: str, is_right: object) -> None:
    if not is_right:
        raise SnapshotError(f"its {name} is wrong")
