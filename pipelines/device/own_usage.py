"""The usage in the homes of this machine, for its owner: read by the code that ships, with names in clear.

Nothing is sent, and nothing is kept unless its owner says so, so it needs neither an enrolment nor a consent.
Does not belong here: sums and what is kept of them (own_sums.py), prices (pipelines/list_prices), printing
(pipelines/commands).
"""

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.contract.wire import contract_hash
from pipelines.device.collect import Collector, Progress
from pipelines.device.consent import Consent
from pipelines.device.enrolment import Enrolment, local_zone
from pipelines.device.redact import NamingRedactor
from pipelines.device.state import MEMORY, State
from pipelines.errors import UsageError

Row = Mapping[str, Any]
AHEAD = timedelta(minutes=10)  # as macros/is_held.sql: what claims to be of later is held back there
UNKNOWN = "unknown"
TABLES = ("llm_turns", "node_steps", "run_summaries", "fork_ancestors", "sessions")
"""Of the wire, those that tell of turns."""
EVIDENCE = ("folder", "event", "transcript", "worker_meta", "meta", "state")  # the best last
NAMED = {
    "sessions": ("project_id", "colony_name", "agent_name", "agent_type", "queen_name"),
    "llm_turns": ("model", "agent_role"),
    "node_steps": ("model", "agent_role"),
}
"""Columns whose names a turn shows in clear."""


@dataclass(frozen=True)
class Turn:
    """One turn, once. `input_tokens` include the cache; `session_id` and `source_model` are as they would leave this
    machine.

    `turn_source`: `step` is a step of a Hive log that no event of its session states. `occurred_at`: None if nothing
    tells when it was.
    """

    turn_source: Literal["event", "step"]
    agent_runtime: str
    session_id: str
    model: str
    source_model: str
    project: str
    agent: str
    service_tier: str | None
    speed: str | None
    input_tokens: int
    cache_read_input_tokens: int
    cache_write_input_tokens: int
    cache_write_5m_input_tokens: int
    cache_write_1h_input_tokens: int
    output_tokens: int
    reported_cost_usd: Decimal | None
    occurred_at: datetime | None


@dataclass(frozen=True)
class OwnUsage:
    """The turns of some homes, and what was not counted.

    `sessions`: whose turns these are, all of them; None: of all sessions. `held` lie in the future by their own clock:
    how many of which session. `rejected_lines` were torn or unreadable. `names`: what the hashes of shown names were
    made of. `blocks`: parts in which the rows are kept.
    """

    turns: list[Turn]
    sessions: frozenset[str] | None
    held: Mapping[str, int]
    rejected_lines: int
    problems: tuple[str, ...]
    names: Mapping[str, str]
    blocks: int


def zone_of(name: str | None) -> str:
    """The zone that was named, else that of this machine. Raises UsageError if it is no IANA zone."""
    zone = name or local_zone()
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"{zone!r} is no IANA zone: name one such as Europe/Berlin with --timezone") from None
    return zone


def read(homes: Sequence[Path], *, timezone: str, now: datetime, progress: Progress | None = None) -> OwnUsage:
    """Every turn in these homes. `timezone`: the zone of the local times in Hive's logs.

    Copies of open databases are made in a temporary folder, which is removed. Raises UsageError, DeviceError.
    """
    with closing(Reader(homes, timezone=timezone)) as reader:
        return reader.read(now=now, progress=progress)


class Reader:
    """Reads some homes, and what was added to them since: what was read before stays in its state."""

    def __init__(
        self, homes: Sequence[Path], *, timezone: str, state: Path = MEMORY, key: bytes | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """`state`: where what was read stays, made under `key`; `names`: those that were found then."""
        self._homes = homes
        self._timezone = timezone
        self._redactor = NamingRedactor(key or secrets.token_bytes(32))
        self._redactor.names.update(names or {})
        self._state = State(state)

    def close(self) -> None:
        """Forget what was read, unless it is in a file."""
        self._state.close()

    def read(
        self, *, now: datetime, progress: Progress | None = None, known: Collection[str] | None = None
    ) -> OwnUsage:
        """Read what is new: every turn as of now, or, if the others are `known`, those of the sessions in which it may
        have changed and in their kin. `known`: the sessions to look at in any case. Raises UsageError, DeviceError."""
        nobody = Enrolment("0" * 32, "me", "me", "local", self._timezone, "", now.isoformat())
        everything = Consent("0" * 32, "granted", now, "include", contract_hash())
        with TemporaryDirectory(prefix="apiary-me-") as scratch:
            collector = Collector(
                self._state, nobody, self._redactor, everything, now=now, progress=progress,
                scratch=Path(scratch) / "copy", names_tell=True,
            )  # fmt: skip
            collector.run(self._homes)
        with self._state.step():
            blocks = self._state.drop_waiting(but=TABLES)
        changed = self._state.changed_sessions
        sessions = None if known is None else self._with_kin({*known, *changed})
        rows = self._state.waiting_rows(TABLES, sessions) if sessions is None or sessions else {}
        changed.clear()
        turns = self._turns(rows)
        due = [turn for turn in turns if turn.occurred_at is None or turn.occurred_at <= now + AHEAD]
        held = Counter(turn.session_id for turn in turns)
        held.subtract(turn.session_id for turn in due)
        rejected = sum(counts.rejected for counts in collector.counted)
        return OwnUsage(due, sessions, +held, rejected, tuple(collector.problems), self._names_in(rows), blocks)

    def _turns(self, rows: Mapping[str, list[dict[str, Any]]]) -> list[Turn]:
        events = [row for row in rows.get("llm_turns", ()) if row.get("is_covered") is not True]
        logged = dated_steps(rows.get("node_steps", ()), rows.get("run_summaries", ()))
        steps = unmatched_steps(logged, events, rows.get("fork_ancestors", ()))
        named = _Sessions(rows.get("sessions", ()), events, self._redactor.names)
        return [*(named.turn("event", row) for row in events), *(named.turn("step", row) for row in steps)]

    def _names_in(self, rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, str]:
        values = {
            row.get(column) for table, columns in NAMED.items() for row in rows.get(table, ()) for column in columns
        }
        return {value: self._redactor.names[value] for value in values if value in self._redactor.names}

    def _with_kin(self, sessions: set[str]) -> frozenset[str]:
        """The sessions, and all that are tied to one by a chain of parents and forks: whose a turn is, and whether it
        counts, is told by them."""
        if not sessions:
            return frozenset()
        ties: dict[str, set[str]] = {}
        for table, column in (("sessions", "parent_session_id"), ("fork_ancestors", "ancestor_id")):
            for row in self._state.waiting_columns(table, ("session_id", column)):
                if other := row.get(column):
                    ties.setdefault(row["session_id"], set()).add(other)
                    ties.setdefault(other, set()).add(row["session_id"])
        found, open_ = set(sessions), list(sessions)
        while open_:
            new = ties.get(open_.pop(), set()) - found
            found |= new
            open_ += new
        return frozenset(found)


def unmatched_steps(steps: Iterable[Row], events: Iterable[Row], ancestors: Iterable[Row]) -> list[Row]:
    """The steps of Hive's logs that are turns of their own: those without an event of the same tokens in their session,
    or in one that it was forked from. Each event stands for one step.

    The warehouse asks for node, iteration and time as well (models/core/internal/int_usage__steps_matched.sql).
    """
    free = Counter((str(row["session_id"]), row["input_tokens"], row["output_tokens"]) for row in events)
    scopes: dict[str, list[str]] = {}
    for row in ancestors:
        scopes.setdefault(str(row["session_id"]), []).append(str(row["ancestor_id"]))
    left: list[Row] = []
    runs_with_events: set[tuple[str, object]] = set()
    for step in steps:
        if step["step_index"] < 0:  # a compaction is no turn
            continue
        session = str(step["session_id"])
        keys = ((scope, step["input_tokens"], step["output_tokens"]) for scope in (session, *scopes.get(session, ())))
        if (match := next((key for key in keys if free[key]), None)) is None:
            left.append(step)
            continue
        free[match] -= 1
        runs_with_events.add((session, step.get("trace_id")))
    # A step that died is tried again; where events are written, one that was billed has an event.
    return [
        step
        for step in left
        if not (
            step.get("is_partial")
            and not step["input_tokens"] + step["output_tokens"]
            and (str(step["session_id"]), step.get("trace_id")) in runs_with_events
        )
    ]


def dated_steps(steps: Iterable[Row], summaries: Iterable[Row]) -> list[Row]:
    """The steps with the `occurred_at` that their run tells: the start of a tool, else the time since another step of
    the run whose tool has one, the one before first, else since the start of the run."""
    started: dict[object, datetime] = {}
    for row in summaries:
        if (at := _time(row.get("started_at"))) is not None:
            key = _run(row)
            started[key] = min(at, started.get(key, at))
    runs: dict[object, list[Row]] = {}
    for step in sorted(steps, key=lambda row: (row.get("source_line") or 0, row["step_index"], row["record_id"])):
        runs.setdefault(_run(step), []).append(step)
    dated: list[Row] = []
    for run, lines in runs.items():
        elapsed, since_start = timedelta(0), []
        for line in lines:
            since_start.append(elapsed)
            elapsed += timedelta(milliseconds=line.get("latency_ms") or 0)
        own = [_time(line.get("tool_started_at")) for line in lines]
        origins = [at - since if at else None for at, since in zip(own, since_start, strict=True)]
        origin = next((each for each in origins if each), started.get(run))  # for steps before the first dated one
        for line, since, mine in zip(lines, since_start, origins, strict=True):
            origin = mine or origin
            dated.append({**line, "occurred_at": origin + since if origin else None})
    return dated


def _run(row: Row) -> tuple[object, object]:
    return row["session_id"], row.get("trace_id")


def input_with_cache(given: int, read: int, written: int) -> int:
    """Input tokens that include the cache, as macros/cache_convention.sql counts where nobody said how."""
    if max(read, written) > given:
        return given + read + written
    return given + min(read, written) if read + written > given else given


class _Sessions:
    """What the homes say of sessions: whose a turn was, and when it was if it has no clock of its own."""

    def __init__(self, sessions: Iterable[Row], events: Iterable[Row], names: Mapping[str, str]) -> None:
        self._names = names
        self._facts: dict[str, dict[str, Any]] = {}
        for row in sorted(sessions, key=_testimony):
            known = self._facts.setdefault(str(row["session_id"]), {})
            known.update({name: value for name, value in row.items() if value is not None})
        self._began: dict[str, datetime] = {}
        for row in events:
            if (at := _time(row.get("occurred_at"))) is not None:
                session = str(row["session_id"])
                self._began[session] = min(at, self._began.get(session, at))

    def turn(self, turn_source: Literal["event", "step"], row: Row) -> Turn:
        """A turn as its owner knows it."""
        session = str(row["session_id"])
        parts = {
            name: int(row.get(name) or 0)
            for name in (
                "cache_read_input_tokens",
                "cache_write_input_tokens",
                "cache_write_5m_input_tokens",
                "cache_write_1h_input_tokens",
            )
        }
        read, written = parts["cache_read_input_tokens"], parts["cache_write_input_tokens"]
        if parts["cache_write_5m_input_tokens"] + parts["cache_write_1h_input_tokens"] > written:
            parts |= {"cache_write_5m_input_tokens": 0, "cache_write_1h_input_tokens": 0}
        cost, model = row.get("reported_cost_usd"), str(row.get("model") or UNKNOWN)
        role = "graph" if turn_source == "step" else str(row.get("agent_role") or UNKNOWN)
        return Turn(
            turn_source=turn_source, agent_runtime=str(row.get("agent_runtime") or "hive"),
            session_id=session, model=self._clear(model), source_model=model,
            project=self._first(session, "project_id", "colony_name") or "none",
            agent=self._first(session, "agent_name", "agent_type", "queen_name") or role,
            service_tier=row.get("service_tier"), speed=row.get("speed"),
            input_tokens=input_with_cache(int(row["input_tokens"]), read, written),
            output_tokens=int(row["output_tokens"]), reported_cost_usd=None if cost is None else Decimal(str(cost)),
            occurred_at=self._at(session, row), **parts,
        )  # fmt: skip

    def _clear(self, value: str) -> str:
        return self._names.get(value, value)

    def _first(self, session: str, *columns: str) -> str | None:
        """The first of these facts that is known of a session, else of the session it was started by."""
        seen: set[str] = set()
        while session and session not in seen:
            seen.add(session)
            facts = self._facts.get(session, {})
            for column in columns:
                if column in facts:
                    return self._clear(str(facts[column]))
            session = str(facts.get("parent_session_id") or "")
        return None

    def _at(self, session: str, row: Row) -> datetime | None:
        own = _time(row.get("occurred_at"))
        started = _time(self._facts.get(session, {}).get("started_at"))
        return own or self._began.get(session) or started or _time(row.get("file_modified_at"))


def _testimony(row: Row) -> tuple[int, str, list[int]]:
    """The order in which rows of a session are believed, the best last: by the kind of evidence, then by when it was
    seen. A fork copies the folders of its parent's workers: of several the one under the oldest session is last."""
    evidence = str(row.get("evidence") or "")
    seen_at = "" if evidence == "folder" else str(row.get("observed_at") or "")
    parent = [-ord(letter) for letter in str(row.get("parent_session_id") or "")]
    return EVIDENCE.index(evidence) if evidence in EVIDENCE else 0, seen_at, [*parent, 1]


def _time(value: object) -> datetime | None:
    """A time as it is staged, as text, or as it was worked out."""
    if value is None or isinstance(value, datetime):
        return value
    return datetime.fromisoformat(str(value)).astimezone(UTC)
