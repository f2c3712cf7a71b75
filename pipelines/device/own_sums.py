"""Sums of one's own usage, by session, and what is kept of them between calls where the owner asks for it.

A turn may stand in logs of several sessions, so sums of files cannot be added up. What is kept is the state of the
reader (identities, numbers and hashes of the rows that tell of turns), the key of its hashes, the names in clear that
are shown, and the sums of each session; only sessions with something new, and their kin, are summed again.
Does not belong here: reading and counting (own_usage.py), prices (pipelines/list_prices).
"""

import json
import secrets
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import astuple, dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal, localcontext
from hashlib import sha256
from pathlib import Path

from pipelines import __version__
from pipelines.contract.wire import contract_hash
from pipelines.device.collect import Progress
from pipelines.device.errors import DeviceError
from pipelines.device.own_usage import Reader, Turn
from pipelines.device.state import MEMORY
from pipelines.home import Home, exclusive, private_folder, replace_file

VERSION = 1
MOST_BLOCKS = 2_000  # each call with something new adds some: beyond this, opening them takes longer than a second
SUMS, ASIDE, LOCK = "sums.json", "sums.json.aside", "lock"
Key = tuple[date | None, str, str, str, bool]


@dataclass(frozen=True)
class Sum:
    """The sum of some turns of a day, model, project and agent. Costs are exact, in USD; a turn has the book's price,
    else its reported cost, else none.

    `unpriced`: tokens of turns without the book's price, as in the warehouse; `uncosted`: those without any cost.
    `rated`: by the book; `reported`: of the turns without its price. `source_reported`: what the sources reported of
    all turns. `is_step`: of turns that stand in step logs only.
    """

    day: date | None
    model: str = ""
    project: str = ""
    agent: str = ""
    is_step: bool = False
    turns: int = 0
    input: int = 0
    read: int = 0
    written: int = 0
    output: int = 0
    unpriced: int = 0
    uncosted: int = 0
    rated: Decimal | None = None
    reported: Decimal | None = None
    source_reported: Decimal = Decimal(0)

    @property
    def key(self) -> Key:
        """What it is the sum of."""
        return (self.day, self.model, self.project, self.agent, self.is_step)


def sum_of(turn: Turn, day: date | None, cost: Decimal | None) -> Sum:
    """One turn. `cost`: by the price book, if it has one."""
    tokens = turn.input_tokens + turn.output_tokens
    reported, is_rated = turn.reported_cost_usd, cost is not None
    return Sum(
        day, turn.model, turn.project, turn.agent, turn.turn_source == "step", 1, turn.input_tokens,
        turn.cache_read_input_tokens, turn.cache_write_input_tokens, turn.output_tokens, 0 if is_rated else tokens,
        0 if is_rated or reported is not None else tokens, cost, None if is_rated else reported,
        reported or Decimal(0),
    )  # fmt: skip


def total(sums: Iterable[Sum]) -> Sum:
    """Their sum, of no day, model, project and agent."""
    turns = into = read = written = output = unpriced = uncosted = 0
    rated: Decimal | None = None
    reported: Decimal | None = None
    source_reported = Decimal(0)
    with localcontext(prec=80):
        for each in sums:
            turns += each.turns
            into += each.input
            read += each.read
            written += each.written
            output += each.output
            unpriced += each.unpriced
            uncosted += each.uncosted
            if each.rated is not None:
                rated = (rated or Decimal(0)) + each.rated
            if each.reported is not None:
                reported = (reported or Decimal(0)) + each.reported
            source_reported += each.source_reported
    return Sum(
        None, turns=turns, input=into, read=read, written=written, output=output, unpriced=unpriced,
        uncosted=uncosted, rated=rated, reported=reported, source_reported=source_reported,
    )  # fmt: skip


def merged(sums: Iterable[Sum]) -> list[Sum]:
    """One for each day, model, project and agent."""
    groups: dict[Key, list[Sum]] = {}
    for each in sums:
        groups.setdefault(each.key, []).append(each)
    return [
        replace(total(group), day=day, model=model, project=project, agent=agent, is_step=is_step)
        for (day, model, project, agent, is_step), group in groups.items()
    ]


@dataclass(frozen=True)
class Found:
    """The usage of some homes, and what was not counted.

    `held_turns` lie in the future by their own clock. `rejected_lines` were torn or unreadable.
    """

    sums: list[Sum]
    held_turns: int
    rejected_lines: int
    problems: tuple[str, ...]


@dataclass
class _Kept:
    """What is known from earlier readings. `made_with`: of which prices, rules and program; of others, it is summed
    anew. `is_whole`: whether every session is in it."""

    made_with: str = ""
    key: str = field(default_factory=lambda: secrets.token_hex(32))
    names: dict[str, str] = field(default_factory=dict)
    sessions: dict[str, list[Sum]] = field(default_factory=dict)
    held: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    blocks: int = 0
    is_whole: bool = False

    def as_json(self) -> str:
        """Exact; amounts and days as text."""
        sessions = {name: [astuple(each) for each in sums] for name, sums in self.sessions.items()}
        return json.dumps({**vars(self), "sessions": sessions}, default=str)

    @classmethod
    def read(cls, text: str) -> "_Kept":
        """Raises ValueError, TypeError, KeyError if it is damaged."""
        told = json.loads(text)
        sessions = {name: [_sum(*values) for values in rows] for name, rows in told.pop("sessions").items()}
        return cls(**told, sessions=sessions)


def _sum(day: str | None, *rest: object) -> Sum:
    *values, rated, reported, source_reported = rest
    costs = (None if cost is None else Decimal(str(cost)) for cost in (rated, reported, source_reported))
    return Sum(date.fromisoformat(day) if day else None, *values, *costs)  # type: ignore[arg-type]


class Summed:
    """The usage of some homes in sums: read again, only what is new is read and summed.

    `folder`: where what was read is kept, else it is forgotten. `made_with`: see `_Kept`.
    """

    def __init__(
        self, homes: Sequence[Path], *, timezone: str, summed: Callable[[Turn], Sum], made_with: str,
        folder: Path | None = None,
    ) -> None:  # fmt: skip
        self._summed = summed
        self._folder = folder
        self._kept = _Kept() if folder is None else _load(folder)
        made_with = f"{VERSION} {__version__} {contract_hash()} {made_with}"
        if self._kept.made_with != made_with:
            self._kept.made_with, self._kept.is_whole = made_with, False
        self._reader = Reader(
            homes, timezone=timezone, state=MEMORY if folder is None else folder / "state.db",
            key=bytes.fromhex(self._kept.key), names=self._kept.names,
        )  # fmt: skip

    def close(self) -> None:
        """Forget it all, unless it is in a folder."""
        self._reader.close()

    def read(self, *, now: datetime, progress: Progress | None = None) -> Found:
        """Every turn as of now. Raises UsageError, DeviceError."""
        kept = self._kept
        known = kept.held.keys() if kept.is_whole else None
        if self._folder is not None:
            _set_aside(self._folder)
        usage = self._reader.read(now=now, progress=progress, known=known)
        for session in list(kept.sessions) if usage.sessions is None else usage.sessions:
            kept.sessions.pop(session, None)
            kept.held.pop(session, None)
        new: dict[str, list[Sum]] = {}
        for turn in usage.turns:
            new.setdefault(turn.session_id, []).append(self._summed(turn))
        kept.sessions |= {session: merged(sums) for session, sums in new.items()}
        kept.held |= usage.held
        kept.names |= usage.names
        kept.rejected += usage.rejected_lines
        is_changed = not kept.is_whole or bool(usage.sessions) or usage.rejected_lines > 0
        kept.blocks, kept.is_whole = usage.blocks, True
        if self._folder is not None:
            _save(self._folder, kept if is_changed else None)
        sums = [each for found in kept.sessions.values() for each in found]
        return Found(sums, sum(kept.held.values()), kept.rejected, usage.problems)


@contextmanager
def opened(
    homes: Sequence[Path], *, timezone: str, summed: Callable[[Turn], Sum], made_with: str, folder: Path | None
) -> Iterator[Summed]:
    """The sums, held alone. Raises BusyError; DeviceError if what is kept is damaged."""
    try:
        with (
            exclusive(folder / LOCK) if folder is not None else nullcontext(),
            closing(Summed(homes, timezone=timezone, summed=summed, made_with=made_with, folder=folder)) as sums,
        ):
            yield sums
    except sqlite3.DatabaseError as error:
        raise DeviceError(
            f"what is kept in {folder} cannot be used: {error}; `apiary me --forget` removes it"
        ) from error


def place(home: Home, homes: Sequence[Path], timezone: str) -> Path:
    """Where what is kept of these homes is: days are those of the zone, and homes may hold copies of each other."""
    named = "\0".join([timezone, *sorted(str(path.absolute()) for path in homes)])
    return _root(home) / sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def is_kept(home: Home) -> bool:
    """Whether the owner asked that sums be kept."""
    return _root(home).is_dir()


def forget(home: Home) -> bool:
    """Remove all that is kept; whether there was something."""
    if not is_kept(home):
        return False
    shutil.rmtree(_root(home))
    return True


def _root(home: Home) -> Path:
    return home.device / "own-usage"


def _load(folder: Path) -> _Kept:
    """What is kept; nothing if a reading was cut off, if it is damaged, or if it lies in too many blocks."""
    private_folder(folder)
    try:
        kept = _Kept.read((folder / SUMS).read_text("utf-8"))
    except (OSError, ValueError, TypeError, KeyError):
        kept = None
    if kept is None or kept.blocks > MOST_BLOCKS:
        for file in folder.iterdir():
            if file.name != LOCK:
                file.unlink()
        return _Kept()
    return kept


def _set_aside(folder: Path) -> None:
    """While the state may hold rows that are not in the sums there are none: cut off now, both begin anew."""
    if (folder / SUMS).exists():
        (folder / SUMS).replace(folder / ASIDE)


def _save(folder: Path, kept: _Kept | None) -> None:
    """The sums, or None for those that were set aside."""
    if kept is None:
        (folder / ASIDE).replace(folder / SUMS)
        return
    replace_file(folder / SUMS, kept.as_json().encode())
    (folder / ASIDE).unlink(missing_ok=True)
