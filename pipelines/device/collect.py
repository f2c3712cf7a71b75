"""One pass over the agent homes: what is new becomes staged rows, each step of it one transaction.

Does not belong here: what a line means (readers), what a value becomes (redact.py), batches (spool.py).
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

from pipelines import __version__
from pipelines.contract import wire
from pipelines.contract.keys import Constant, is_fixed_form, record_id
from pipelines.contract.table import Keep, Table
from pipelines.device import lines, migrations
from pipelines.device.clock import Clock, epoch_time
from pipelines.device.consent import Consent
from pipelines.device.documents import load
from pipelines.device.enrolment import Enrolment
from pipelines.device.errors import DeviceError
from pipelines.device.readers import registry, sqlite_copy
from pipelines.device.readers.base import (
    At,
    BadRow,
    Contents,
    CorruptError,
    FileSet,
    Group,
    Item,
    Log,
    Part,
    Reading,
    Record,
    Setting,
    Snapshot,
    UnknownLayoutError,
)
from pipelines.device.readers.registry import AgentHome
from pipelines.device.redact import Redactor, Row
from pipelines.device.state import PASSED_OVER, Counts, Rejection, State, Unread
from pipelines.device.unchanged import Unchanged
from pipelines.errors import UsageError
from pipelines.failpoints import fp

SESSION = wire.LLM_TURNS.by_name["session_id"]
IDENTITY_VERSION = 2
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Identity:
    """The identity of a record. `version`: the rule that made it, where the first release's would give another one.
    `variant`: for the state, which of several records with the same key it is."""

    record_id: str
    version: int | None = None
    variant: bytes | None = None


def check_homes(homes: Sequence[Path]) -> tuple[list[AgentHome], list[str]]:
    """The homes to read, accounts' homes included, and why others cannot be.

    Raises UsageError, DeviceError if none can be.
    """
    good: list[AgentHome] = []
    problems: list[UsageError | DeviceError] = []
    for home in homes:
        if not home.exists():
            problems.append(UsageError(f"{home} does not exist: name an agent's home folder with --home"))
        elif not home.is_dir():
            problems.append(UsageError(f"{home} is a file: name an agent's home folder with --home"))
        elif not os.access(home, os.R_OK | os.X_OK):
            problems.append(DeviceError(f"{home} cannot be read: its permissions do not let this user in"))
        else:
            runtime = registry.recognised(home)
            good += [AgentHome(path, runtime) for path in (runtime.homes_in(home) if runtime else [home])]
    if problems and not good:
        raise problems[0]
    return good, [str(problem) for problem in problems]


def home_key(redactor: Redactor, home: Path) -> str:
    """How a home is known to the state and to a consent's scope."""
    return redactor.keyed(f"path:{home.absolute()}")


class Collector:
    """Reads homes into the state of one device under one consent."""

    def __init__(
        self, state: State, enrolment: Enrolment, redactor: Redactor, consent: Consent, *, now: datetime,
        progress: Progress | None = None, scratch: Path, names_tell: bool = False,
    ) -> None:  # fmt: skip
        """`names_tell`: whether a thing of which only names have changed is observed anew. Not where rows leave: their
        identities are those that earlier releases gave them."""
        self._state = state
        self._names_tell = names_tell
        self._scratch = scratch
        self._enrolment = enrolment
        self._redactor = redactor
        self._consent = consent
        self._since = consent.history_starts_at
        self._now = now
        self._clock = Clock(enrolment.timezone)
        self._progress = progress or (lambda done, total: None)
        self._run = 0
        self._sources = 0
        self.counted: list[Counts] = []
        """What the last pass did with each source."""
        self._outside: list[str] = []
        self._missing: dict[str, Unread] = {}
        self._fresh: set[tuple[int, int]] = set()
        self._home_key = self._runtime = ""
        self._kinds = consent.scope.sources
        self.problems: list[str] = []
        """Homes that could not be read in the last pass."""
        self.passed_over: list[Path] = []
        """Folders that look like a session's and were not read in the last pass."""

    def run(self, homes: Sequence[Path]) -> None:
        """Read what is new in all homes and leave the run's report. Raises UsageError, DeviceError."""
        inner, self.problems = self._open(homes)
        if self._since is not None:
            # A home that nobody named at the grant: what has no time there may be of before it.
            self._add_baseline([home for home in inner if not self._state.has_baseline(self._source(home.path))])
        sqlite_copy.remove(self._scratch)
        self._run = self._state.begin_run(self._now)
        fp("collect.begun")
        self._sources = 0
        self._missing, self._fresh = self._state.unread(), set()
        self.passed_over = []
        with self._state.together():
            for home in inner:
                self._home(home)
            self._state.set_value(PASSED_OVER, str(len(self.passed_over)))
        self._count_lost(inner)
        self._report(len(inner))

    def watch(self, homes: Sequence[Path]) -> None:
        """Look how long the logs are while nothing may be read: what is deleted meanwhile is lost, and is counted."""
        inner, self.problems = self._open(homes)
        self._run = self._state.begin_run(self._now)
        self._missing, self._fresh = self._state.unread(), set()
        with self._state.together():
            for home in inner:
                for log in self._logs(self._enter(home)):
                    self._watch(log.path, log.kind)
        self._count_lost(inner)

    def _watch(self, path: Path, kind: str) -> None:
        try:
            status = path.lstat()
        except OSError:
            return
        source = self._source(path)
        checkpoint = self._state.checkpoint(source)
        if not checkpoint.inode:
            self._fresh.add((status.st_dev, status.st_ino))
        self._note_unread(source, kind, status, checkpoint)

    def _note_unread(self, source: str, kind: str, status: os.stat_result, checkpoint: lines.Checkpoint) -> None:
        """Keep how much of a log waits to be read; count what was cut off it before it was."""
        before = self._missing.pop(source, None)
        is_same = (checkpoint.device, checkpoint.inode) == (status.st_dev, status.st_ino)
        read = max(checkpoint.offset if is_same else 0, self._state.baseline_size(source) if self._since else 0)
        is_given_up = is_same and checkpoint.given_up == status.st_size  # a torn end that was counted already
        waiting = 0 if is_given_up else max(0, status.st_size - read)
        if before is None and not waiting:
            return
        with self._state.step():
            if before is not None and before.inode == status.st_ino and status.st_size < before.size:
                gone = min(before.bytes, before.size - status.st_size)
                self._state.count(self._run, source, kind, Counts(lost_bytes=gone))
            unread = Unread(self._home_key, kind, status.st_dev, status.st_ino, status.st_size, waiting)
            self._state.set_unread(source, unread if waiting else None)

    def _count_lost(self, homes: Sequence[AgentHome]) -> None:
        """What was seen unread and is gone. A file that was moved is read at its new place and is not lost."""
        keys = {self._source(home.path) for home in homes}
        with self._state.step():
            for source, unread in self._missing.items():
                if unread.home not in keys:
                    continue
                if (unread.device, unread.inode) not in self._fresh:
                    self._state.count(self._run, source, unread.kind, Counts(lost_bytes=unread.bytes))
                self._state.set_unread(source, None)

    def _open(self, homes: Sequence[Path]) -> tuple[list[AgentHome], list[str]]:
        """The homes to read, and why others are not. Raises UsageError, DeviceError if none can be."""
        found, problems = check_homes(self._covered(homes))
        runtimes = self._consent.scope.runtimes
        outside = [
            f"{home.path} was not read: the consent does not cover {home.runtime.title}; grant it again with --sources"
            for home in found
            if home.runtime is not None and home.runtime.name not in runtimes
        ]
        inner = [home for home in found if home.runtime is None or home.runtime.name in runtimes]
        return inner, [*problems, *self._outside, *outside]

    def _covered(self, homes: Sequence[Path]) -> list[Path]:
        """The homes that the consent covers; the others are not even looked at. Raises UsageError if none is."""
        scope = self._consent.scope.homes
        # What is no folder goes on to be told as what it is.
        covered = [
            home for home in homes if scope is None or home_key(self._redactor, home) in scope or not home.is_dir()
        ]
        self._outside = [
            f"{home} was not read: the consent does not cover it; grant it again with --home for each home"
            for home in homes
            if home not in covered
        ]
        if self._outside and not covered:
            raise UsageError(self._outside[0])
        return covered

    def _enter(self, home: AgentHome) -> Contents:
        """What there is to read of a home; from here on records are its runtime's."""
        self._home_key = self._source(home.path)
        if home.runtime is None:
            return Contents([], lambda _: iter(()))
        self._runtime = home.runtime.name
        return home.runtime.contents(home.path, Setting(self._clock, self._kinds))

    def _logs(self, contents: Contents) -> list[Log]:
        return [log for log in contents.all_logs() if log.consent in self._kinds]

    def _home(self, home: AgentHome) -> None:
        unchanged = Unchanged(self._state, self._source(home.path), self._decided_by(home))
        contents = self._enter(home)
        sets, logs = contents.file_sets, [log for log in contents.logs if log.consent in self._kinds]
        total = len(sets) + len(logs)
        live = frozenset() if self._since is None else self._state.live_sessions()
        to_do: list[tuple[FileSet, bytes, int | None]] = []
        for done, files in enumerate(sets):
            self._progress(done, total)
            digest = unchanged.digest(files, is_live=self._is_live(files, live))
            sources = unchanged.sources(digest)
            if sources is None:
                to_do.append((files, digest, self._logs_of(files)))
            else:
                self._sources += sources
        for done, log in enumerate(logs, len(sets)):
            self._progress(done, total)
            self._log(log)
        # Logs first: they say which sessions are alive, and without history only those may be described.
        reading = Reading(self._scratch, self._document)
        for files, digest, sources in to_do:
            if self._snapshots(files.snapshots(reading)) and sources is not None:
                unchanged.keep(files, digest, sources)
        self._snapshots(contents.snapshots(reading))
        for path in contents.passed_over():
            self.passed_over.append(path)
            self._note(path, "other", Counts(outcome="unknown_layout"))
        with self._state.step():
            unchanged.save()
        self._progress(total, total)

    def _decided_by(self, home: AgentHome) -> str:
        """Another text if there may be something to do for files that have not changed."""
        consent, enrolment = self._consent, self._enrolment
        runtime = home.runtime.name if home.runtime else ""
        facts = (
            __version__, migrations.NEWEST, consent.consent_id, self._since, sorted(self._kinds), runtime,
            enrolment.tenant, enrolment.user, enrolment.timezone,
        )  # fmt: skip
        return self._redactor.keyed(f"unchanged:{facts}")

    def _is_live(self, files: FileSet, live: frozenset[str]) -> bool:
        """Whether snapshots of a file set may leave without history."""
        if self._since is None:
            return True
        return any(self._redactor.identifier(SESSION, session) in live for session in files.lives_with)

    def _logs_of(self, files: FileSet) -> int | None:
        """Read what is new in the logs of a file set. How many there are, None if there was something to do."""
        before = self._sources
        idle = [self._log(log) for log in files.logs() if log.consent in self._kinds]
        return self._sources - before if all(idle) else None

    def _snapshots(self, snapshots: Iterable[Snapshot]) -> bool:
        """Read those that have changed. Whether there was nothing to do."""
        idle = [self._snapshot(snapshot) for snapshot in snapshots if snapshot.consent in self._kinds]
        return all(idle)

    def baseline(self, homes: Sequence[Path]) -> None:
        """Write down what is there now: a consent without history begins after it. Raises UsageError, DeviceError."""
        self._add_baseline(self._open(homes)[0], is_first=True)

    def _add_baseline(self, homes: Sequence[AgentHome], *, is_first: bool = False) -> None:
        sizes: list[tuple[str, int]] = []
        history: list[str] = []
        reading = Reading(self._scratch, lambda path, _: load(path)[0])  # nothing is counted yet
        for home in homes:
            contents = self._enter(home)
            sizes.append((self._source(home.path), 0))
            for log in self._logs(contents):
                sizes.append((self._source(log.path), _size(log.path)))
                history += self._untimed_ids(log)
            for snapshot in contents.all_snapshots(reading):
                if snapshot.is_line and snapshot.consent in self._kinds:
                    history += self._untimed(found for found in snapshot.read() or () if isinstance(found, Record))
        with self._state.step():
            if is_first:
                self._state.clear_baseline()
            self._state.add_baseline(sizes, history)

    def _untimed(self, records: Iterable[Record]) -> list[str]:
        """The ids of the records that a copy must not bring back: nothing but their identity tells their age."""
        return [self._key_id(record) for record in records if record.at is None]

    def _untimed_ids(self, log: Log) -> list[str]:
        found: list[str] = []
        try:
            for chunk in lines.read_new(log.path, lines.Checkpoint()):
                for line in chunk.lines:
                    if line.data is None or not log.may_matter(line.data):
                        continue
                    at = At(line.number, self._now)
                    for _, parsed in lines.parse(line.data, log.is_record, errors=log.errors).records:
                        found += self._untimed(log.parse(parsed, at))
        except (FileNotFoundError, lines.UnreadableError):
            return found  # it is not read now and, should it become readable, its offset keeps its history out
        return found

    # logs --------------------------------------------------------------------------------------------------------

    def _read_copy_again(self, path: Path) -> None:
        """Once: a release before this one took a copy's name for a session's, which may own turns of the original."""
        marker = self._redactor.keyed(f"copy:{path}")
        if self._state.snapshot(marker)[0]:
            return
        with self._state.step():
            self._state.forget_checkpoint(self._source(path))
            self._state.set_snapshot(marker, "known", 0)

    def _log(self, log: Log) -> bool:
        """Read what is new in a log. Whether there was nothing to do, and will not be until it changes."""
        path = log.path
        if log.is_copy and self._since is None:
            self._read_copy_again(path)
        try:
            status = path.lstat()
        except FileNotFoundError:
            return True
        except OSError:
            self._note(path, log.kind, Counts(outcome="unreadable"))
            return False
        self._sources += 1
        source = self._source(path)
        checkpoint = self._state.checkpoint(source)
        if lines.is_unchanged(status, checkpoint, now=self._now.timestamp()):
            self._missing.pop(source, None)
            return lines.is_finished(checkpoint)
        modified_at = epoch_time(Decimal(status.st_mtime_ns) / 1_000_000_000)
        try:
            if log.look_back is not None:
                for data in lines.before(path, checkpoint):
                    log.look_back(data)
            for chunk in lines.read_new(path, checkpoint, now=self._now.timestamp()):
                fp("read.chunk")
                generation = chunk.checkpoint.generation
                counts = Counts(bytes=status.st_size, generation=generation, layout=log.layout, runtime=self._runtime)
                with self._state.step():
                    for line in chunk.lines:
                        self._line(line, source, log, modified_at, counts)
                    fp("stage.rows")
                    self._state.set_checkpoint(source, chunk.checkpoint)
                    self._state.count(self._run, source, log.kind, counts)
                    fp("stage.checkpoint")
        except FileNotFoundError:
            return False
        except lines.UnreadableError:
            self._note(path, log.kind, Counts(bytes=status.st_size, outcome="unreadable"))
        if not checkpoint.inode:
            self._fresh.add((status.st_dev, status.st_ino))
        self._note_unread(source, log.kind, status, self._state.checkpoint(source))
        return False

    def _line(self, line: lines.Line, source: str, log: Log, modified_at: datetime | None, counts: Counts) -> None:
        data = line.data
        if data is None:
            counts.seen += 1
            counts.reject("too_long")
            return
        if not data or data.isspace():
            return
        if not log.may_matter(data):
            counts.seen += 1
            counts.skipped += 1
            counts.unknown += log.is_unknown_line(data)
            return
        parsed = lines.parse(data, log.is_record, errors=log.errors)
        if not parsed.records:
            counts.seen += 1
            counts.reject("tail_abandoned" if line.is_abandoned else lines.fault(data))
            return
        counts.salvaged += parsed.is_salvaged
        at = At(line.number, modified_at, line.offset)
        for start, found in parsed.records:
            offset = line.offset + start
            counts.seen += 1
            records = list(log.parse(found, at))
            if not records:
                counts.skipped += 1
                counts.unknown += log.is_unknown(found)
                continue
            first, *rest = records
            left_out = self._redactor.left_out
            outcome, identity = self._stage(first, source, offset)
            _count(counts, outcome)
            for record in records:
                counts.fields_dropped += record.fields_dropped
                counts.fields_unknown += record.fields_unknown
            counts.turns_rejected += first.is_turn and outcome == "rejected"
            if outcome in ("staged", "duplicate"):
                counts.turns_seen += first.is_turn
                counts.turns_duplicate += first.is_turn and outcome == "duplicate"
            named = {"step_record_id": identity} if first.table is wire.NODE_STEPS else {}
            # The calls of a step that was refused would name none; all else on the line stands for itself.
            is_left_out = outcome == "before_consent" or (outcome == "rejected" and named)
            for other in rest if not is_left_out else ():
                self._stage(other, source, offset, named)
            counts.fields_dropped += self._redactor.left_out - left_out

    def _stage(
        self, record: Record, source: str, offset: int, named: Mapping[str, object] | None = None
    ) -> tuple[str, str]:
        """Stage one record; what became of it, by the name of its counter, and its identity. `named`: values beside its
        own, identities of other records."""
        if record.parts:
            return self._stage_part(record, source, offset)
        first_rule = self._first_rule_id(record)
        values = {**record.values, "record_id": first_rule, "agent_runtime": self._runtime}
        if named:
            values |= named
        if self._is_before_consent(record.totals_since):
            values |= dict.fromkeys(record.totals)
        row = self._redactor.row(record.table, values)
        if row is None:
            return "rejected", ""
        if not self._may_leave(record, source, offset):
            return "before_consent", ""
        identity = self._identify(record, first_rule)
        row["record_id"] = identity.record_id
        if "identity_version" in row:
            row["identity_version"] = identity.version
        session_id = row["session_id"]
        self._state.bind_session(session_id, self._enrolment.user, is_live=True)
        owner = session_id if record.belongs_to_folder else None
        is_new = self._state.stage(record.table.name, self._dated(row), owner=owner, variant=identity.variant)
        return "staged" if is_new else "duplicate", identity.record_id

    def _stage_part(self, record: Record, source: str, offset: int) -> tuple[str, str]:
        """Keep the best part of each name of a record that stands on several lines, and stage what they make."""
        table = record.table
        if not self._may_leave(record, source, offset):
            return "before_consent", ""
        identity = self._identify(record, self._first_rule_id(record))
        record_id = identity.record_id
        if identity.variant is not None:
            self._state.set_ordinal(record_id, identity.variant, 0)
        parts = self._state.parts(record_id)
        found = {
            self._part_name(name): Part(part.rank, self._redactor.values(table, part.values))
            for name, part in record.parts.items()
        }
        values = [value for part in found.values() for value in part.values.items()]
        if any(value is None and table.by_name[name].required for name, value in values):
            return "rejected", ""
        better = {name: part for name, part in found.items() if name not in parts or part.rank < parts[name].rank}
        if not better:
            return "duplicate", record_id
        parts |= better
        self._state.set_parts(record_id, parts)
        if not record.needed <= parts.keys():
            return "skipped", ""
        made = record.finish(parts)
        kept = {name for part in parts.values() for name in part.values}
        derived = {name: value for name, value in made.items() if name not in kept}
        row: Row = dict.fromkeys(table.names) | made | self._redactor.values(table, derived)
        row |= {"agent_runtime": self._runtime, "record_id": record_id}
        if any(row[column.name] is None for column in table.columns if column.required):
            return "rejected", ""
        if isinstance(row.get("session_id"), str):
            self._state.bind_session(row["session_id"], self._enrolment.user, is_live=True)
        return "staged" if self._state.stage_again(table.name, self._dated(row)) else "duplicate", record_id

    def _part_name(self, name: str) -> str:
        """A part's name as it is kept: of a session that it names after a slash the identifier that leaves."""
        kind, slash, session = name.partition("/")
        return f"{kind}/{self._redactor.identifier(SESSION, session)}" if slash else name

    def _row(self, table: Table, values: Mapping[str, object]) -> Row | None:
        """A row of the runtime that is being read."""
        return self._redactor.row(table, {**values, "agent_runtime": self._runtime})

    def _may_leave(self, record: Record, source: str, offset: int) -> bool:
        if self._since is None:
            return True
        if record.at is not None:
            return record.at >= self._since
        ids = {self._key_id(record), self._first_rule_id(record)}
        return offset >= self._state.baseline_size(source) and not any(map(self._state.is_history, ids))

    def _is_before_consent(self, since: datetime | None) -> bool:
        """Whether what was summed up since then, or since nobody knows when, holds what no consent covers."""
        return self._since is not None and (since is None or since < self._since)

    def _dated(self, row: Row) -> Row:
        """Without history no time before the consent leaves, not even as an attribute."""
        since = self._since
        if since is None:
            return row
        return {k: None if isinstance(v, datetime) and v < since else v for k, v in row.items()}

    # snapshots ----------------------------------------------------------------------------------------------------

    def _snapshot(self, snapshot: Snapshot) -> bool:
        """Read a snapshot if it has changed. Whether there was nothing to do, and will not be until it does."""
        first = snapshot.files[0]
        source = self._source(first)
        item_key = source if snapshot.is_counted else self._redactor.keyed(f"{snapshot.key}:{first}")
        is_live = any(
            self._state.is_live(self._redactor.identifier(SESSION, session)) for session in snapshot.lives_with
        )
        seen = [_signature(path) for path in snapshot.files]
        if snapshot.is_counted and seen[0] is None:
            return True
        # Another zone tells local times anew.
        signature = json.dumps([*seen, is_live, str(self._since), self._enrolment.timezone])
        if self._state.snapshot(item_key)[0] == signature:
            return True
        try:
            found = snapshot.read()
        except FileNotFoundError:
            return False
        except lines.UnreadableError:
            self._note(first, snapshot.kind, Counts(bytes=_size(first), outcome="unreadable"))
            return False
        except CorruptError:
            self._note(first, snapshot.kind, Counts(bytes=_size(first), outcome="corrupt"))
            return False
        except UnknownLayoutError:
            self._note(first, snapshot.kind, Counts(bytes=_size(first), outcome="unknown_layout"))
            return False
        if found is None and not snapshot.is_line:
            return False  # torn or being written: what was seen before holds until it can be read
        items = list(found or ())
        counts = Counts(layout=snapshot.layout, runtime=self._runtime)
        left_out = self._redactor.left_out
        with self._state.step():
            for item in items:
                self._take(item, source, counts, is_live=is_live)
            counts.fields_dropped += self._redactor.left_out - left_out
            if found is None:
                counts.seen += 1
                counts.reject("bad_type")
            if snapshot.is_line:
                fp("stage.summary")
            else:
                fp("stage.observations")
            self._state.set_snapshot(item_key, signature, 0)
            if snapshot.is_counted:
                self._sources += not snapshot.is_line
                self._state.count(self._run, source, snapshot.kind, counts)
        return False

    def _take_group(self, group: Group, source: str, counts: Counts) -> None:
        """Stage the records of a group, unless nothing of it has changed."""
        key = self._redactor.keyed(f"group:{source}:{group.key}")
        content = self._redactor.keyed(f"{self._since}:{self._enrolment.timezone}:{group.content}")
        if self._state.snapshot(key)[0] == content:
            counts.seen += group.number
            counts.duplicate += group.number
            return
        for record in group.records():
            self._take(record, source, counts, is_live=False)
        self._state.set_snapshot(key, content, 0)

    def _take(self, item: Item | Record | Group | BadRow, source: str, counts: Counts, *, is_live: bool) -> None:
        """Stage what a snapshot says, and count what became of it."""
        if isinstance(item, Group):
            self._take_group(item, source, counts)
            return
        counts.seen += 1
        if isinstance(item, BadRow):
            counts.reject(item.reason)
        elif isinstance(item, Record):
            counts.fields_unknown += item.fields_unknown
            outcome = self._stage(item, source, 0)[0]
            _count(counts, outcome)
            if item.is_turn and outcome in ("staged", "duplicate"):
                counts.turns_seen += 1
                counts.turns_duplicate += outcome == "duplicate"
        else:
            _count(counts, self._take_item(item, is_live=is_live))

    def _take_item(self, item: Item, *, is_live: bool) -> str:
        """Stage an observation; what became of it, by the name of its counter."""
        since = self._since
        if since is not None and not is_live and not any(time and time >= since for time in item.times):
            return "before_consent"
        values = item.values
        if self._is_before_consent(item.totals_since):
            values = values | dict.fromkeys(item.totals)
        if item.table is wire.SESSIONS:
            session = self._redactor.identifier(SESSION, str(values["session_id"]))
            user = self._state.bind_session(session, self._enrolment.user, is_live=since is None)
            values = values | {"user_id": user}
        return self._observe(replace(item, values=values))

    def _observe(self, item: Item) -> str:
        """Stage an observation if it differs from the last one of the same thing."""
        tenant, table = self._enrolment.tenant, item.table
        # Stays in the state: what leaves is the identity of the observation, below.
        thing = record_id(tenant, f"{table.name}:thing", *item.key)
        row = self._row(table, {**item.values, "record_id": thing})
        if row is None:
            return "rejected"
        # Of identifiers the source's value: devices of a tenant may hold different keys, and a keyed value would give
        # the same observation another identity on each.
        facts = [item.values.get(c.name) if c.keep is Keep.ID else row[c.name] for c in table.columns if c.fact]
        if "user_id" in table.by_name:
            facts.append(row["user_id"])  # two users who have one session say two things: the warehouse decides
        if self._names_tell:
            facts += [item.values.get(column.name) for column in table.columns if column.keep is Keep.KEYED_HASH]
        content = json.dumps(facts, default=str)
        signature = hashlib.sha256(content.encode()).hexdigest()
        last, observation = self._state.snapshot(thing)
        if last == signature:
            return "duplicate"
        # A hash of what was observed is as good as what was observed: without a key only if all of it leaves in clear.
        ids = [c.name for c in table.columns if c.fact and c.keep is Keep.ID]
        is_clear = all(row[name] is None or row[name] == item.values.get(name) for name in ids)
        content_part = Constant(signature) if is_clear else signature
        row["record_id"] = self._redactor.record_id(tenant, table.name, *item.key, observation, content_part)
        if "observation" in table.by_name:
            row["observation"] = observation
        row["observed_at"] = self._now
        self._state.set_snapshot(thing, signature, observation + 1)
        return "staged" if self._state.stage(table.name, self._dated(row)) else "duplicate"

    def _document(self, path: Path, kind: str) -> dict[str, Any] | None:
        """A small JSON file: empty if it is absent, None if it could not be read (which is counted)."""
        found, outcome = load(path)
        if outcome == "absent":
            return {}
        self._sources += 1
        if outcome != "read":
            self._note(path, kind, Counts(bytes=_size(path), outcome=outcome))
            return None
        return found

    # the report --------------------------------------------------------------------------------------------------

    def _note(self, path: Path, kind: str, counts: Counts) -> None:
        counts.runtime = self._runtime
        with self._state.step():
            self._state.count(self._run, self._source(path), kind, counts)

    def _report(self, homes: int) -> None:
        """Stage what each run did; runs that died before this point are reported by the next one."""
        epoch = self._state.value("epoch")
        for run, started_at in self._state.unreported_runs():
            total = Counts()
            # A restored or cloned state counts its runs from the same number: the time tells two reports apart.
            identity = (self._enrolment.device_id, epoch, run, started_at)
            with self._state.step():
                found = self._state.run_sources(run)
                for source, kind, counts in found:
                    total.add(counts)
                    self.counted.append(counts)
                    self._stage_report(wire.SOURCE_FILES, (*identity, source), {
                        "source_key": source, "source_kind": kind, "run": run,
                        "generation": counts.generation,
                        "bytes_seen": counts.bytes, "turn_lines_seen": counts.turns_seen,
                        "turn_lines_duplicate": counts.turns_duplicate,
                        "turn_lines_rejected": counts.turns_rejected, "outcome": counts.outcome,
                        "source_layout": counts.layout, "agent_runtime": counts.runtime,
                        "lines_unknown": counts.unknown, "fields_unknown": counts.fields_unknown,
                        "observed_at": datetime.fromisoformat(started_at), **_coverage(counts),
                    })  # fmt: skip
                self._stage_report(wire.DEVICE_REPORTS, identity, {
                    "user_id": self._enrolment.user, "consent_id": self._consent.consent_id,
                    "uploader_version": __version__, "timezone": self._enrolment.timezone,
                    "platform": sys.platform, "history": self._consent.history, "run": run, "homes": homes,
                    "store_verdict": self._state.value("store_verdict"),
                    # Of a run that died only what it counted is known, and every report of it must say the same.
                    "sources": self._sources if run == self._run else len(found),
                    "fields_dropped": total.fields_dropped,
                    "started_at": datetime.fromisoformat(started_at), **_coverage(total),
                })  # fmt: skip
                fp("stage.report")
                counters = _coverage(total) | {"fields_dropped": total.fields_dropped}
                self._state.end_run(run, {name: number for name, number in counters.items() if number})

    def _stage_report(self, table: Table, key: tuple[object, ...], values: dict[str, object]) -> None:
        row = self._redactor.row(table, {**values, "record_id": record_id(self._enrolment.tenant, table.name, *key)})
        if row is None:
            raise DeviceError(
                f"the run's own report does not fit {table.name}: this is a fault of Apiary, please report it"
            )
        self._state.stage(table.name, row)

    # identity ----------------------------------------------------------------------------------------------------

    def _identify(self, record: Record, first_rule: str) -> Identity:
        """The identity of a record, which the caller stages. What the first release sent keeps the identity it gave,
        which is `first_rule`."""
        is_plain = all(map(is_fixed_form, record.key))
        identity = first_rule if is_plain else self._key_id(record)
        is_renamed = identity != first_rule
        if not record.told_apart_by and not (record.table.is_keyless and is_renamed):
            return Identity(first_rule if is_renamed and self._state.is_seen(first_rule) else identity)
        names = (None if is_plain or is_fixed_form(part) else part for part in record.key)
        variant = self._state.variant_of((*names, *record.told_apart_by))
        ordinal = self._state.ordinal(identity, variant)
        if is_renamed and self._state.is_seen(first_rule, variant):
            self._state.set_ordinal(identity, variant, ordinal)
            return Identity(first_rule, variant=variant)
        version = IDENTITY_VERSION if is_renamed else None
        if ordinal == 0:
            return Identity(identity, version, variant)
        return Identity(self._key_id(record, Constant("ordinal"), ordinal), version)

    def _key_id(self, record: Record, *more: object) -> str:
        """The identity that a record's natural key gives: the one it has unless another record shares the key."""
        key = self._plain_key(record) if record.table.is_keyless else record.key
        return self._redactor.record_id(self._enrolment.tenant, record.table.name, *key, *more)

    def _plain_key(self, record: Record) -> tuple[object, ...]:
        """A natural key without the names in it. Figures stand in for them, or turns of many runs would be one."""
        if all(map(is_fixed_form, record.key)):
            return record.key
        return tuple(part if is_fixed_form(part) else None for part in (*record.key, *record.fallback_key))

    def _first_rule_id(self, record: Record) -> str:
        """The identity that the first release gave a record: a plain hash, whatever its natural key holds. It is looked
        for in the state, and leaves only where it has left already."""
        return record_id(self._enrolment.tenant, record.table.name, *record.key)

    def _source(self, path: Path) -> str:
        return self._redactor.keyed(f"path:{path.absolute()}")


def _count(counts: Counts, outcome: str) -> None:
    """Count a record by what became of it."""
    if outcome == "rejected":
        counts.reject("bad_type")  # whole, but a value that it needs is missing or out of its bounds
    else:
        setattr(counts, outcome, getattr(counts, outcome) + 1)


def _coverage(counts: Counts) -> dict[str, int]:
    return {
        "lines_seen": counts.seen,
        "lines_staged": counts.staged,
        "lines_duplicate": counts.duplicate,
        "lines_before_consent": counts.before_consent,
        "lines_skipped": counts.skipped,
        "lines_rejected": counts.rejected,
        **{f"lines_rejected_{reason}": getattr(counts, f"rejected_{reason}") for reason in get_args(Rejection)},
        "lines_salvaged": counts.salvaged,
        "source_lost_bytes": counts.lost_bytes,
    }


def _signature(path: Path) -> list[int] | None:
    """What changes when a file is written to: enough to leave a quiet file unopened."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]


def _size(path: Path) -> int:
    signature = _signature(path)
    return signature[2] if signature else 0
