"""One pass over the agent homes: what is new becomes staged rows, each step of it one transaction.

Does not belong here: what a line means (readers), what a value becomes (redact.py), batches (spool.py).
"""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, get_args

from pipelines import __version__
from pipelines.contract import wire
from pipelines.contract.keys import record_id
from pipelines.contract.table import Keep, Table
from pipelines.device import lines
from pipelines.device.clock import Clock, epoch_time
from pipelines.device.consent import Consent
from pipelines.device.documents import load
from pipelines.device.enrolment import Enrolment
from pipelines.device.errors import DeviceError
from pipelines.device.offsets import Offsets
from pipelines.device.readers import (
    ColonyFolder,
    Record,
    SessionFolder,
    hive_events,
    hive_layout,
    hive_logs,
    hive_state,
    progress_db,
    sqlite_copy,
)
from pipelines.device.redact import Redactor, Row
from pipelines.device.state import Counts, Rejection, State, Unread
from pipelines.errors import UsageError
from pipelines.failpoints import fp

Progress = Callable[[int, int], None]
Parse = Callable[[dict[str, Any], hive_logs.Place], Iterable[Record]]


@dataclass(frozen=True, kw_only=True)
class LogKind:
    """One kind of file that grows by lines."""

    kind: str
    is_record: Callable[[dict[str, Any]], bool]
    parse: Parse
    may_matter: Callable[[bytes], bool] = lambda _: True
    is_unknown: Callable[[dict[str, Any]], bool] = lambda _: False
    """Whether an object of which no record was made is of a type that nobody has looked at yet."""
    is_unknown_line: Callable[[bytes], bool] = lambda _: False
    """The same of a line that cannot matter."""
    look_back: Callable[[bytes], None] | None = None
    """Is shown the lines that stand before a pass, where the meaning of a line depends on those before it."""


def check_homes(homes: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """The homes to read, accounts' homes included, and why others cannot be.

    Raises UsageError, DeviceError if none can be.
    """
    good: list[Path] = []
    problems: list[UsageError | DeviceError] = []
    for home in homes:
        if not home.exists():
            problems.append(UsageError(f"{home} does not exist: name an agent's home folder with --home"))
        elif not home.is_dir():
            problems.append(UsageError(f"{home} is a file: name an agent's home folder with --home"))
        elif not os.access(home, os.R_OK | os.X_OK):
            problems.append(DeviceError(f"{home} cannot be read: its permissions do not let this user in"))
        else:
            good += hive_layout.homes_in(home)
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
        progress: Progress | None = None, scratch: Path,
    ) -> None:  # fmt: skip
        self._state = state
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
        self._home_key = ""
        self._kinds = consent.scope.sources
        self._offsets = Offsets(self._clock, (), self._kinds)
        self._tool_starts: dict[str, dict[str, datetime]] = {}
        self.problems: list[str] = []
        """Homes that could not be read in the last pass."""

    def run(self, homes: Sequence[Path]) -> None:
        """Read what is new in all homes and leave the run's report. Raises UsageError, DeviceError."""
        inner, self.problems = check_homes(self._covered(homes))
        self.problems += self._outside
        if self._since is not None:
            # A home that nobody named at the grant: what has no time there may be of before it.
            self._add_baseline([home for home in inner if not self._state.has_baseline(self._source(home))])
        sqlite_copy.remove(self._scratch)
        self._run = self._state.begin_run(self._now)
        fp("collect.begun")
        self._sources = 0
        self._missing, self._fresh = self._state.unread(), set()
        with self._state.together():
            for home in inner:
                self._home_key = self._source(home)
                self._home(home)
        self._count_lost(inner)
        self._report(len(inner))

    def watch(self, homes: Sequence[Path]) -> None:
        """Look how long the logs are while nothing may be read: what is deleted meanwhile is lost, and is counted."""
        inner, self.problems = check_homes(self._covered(homes))
        self._run = self._state.begin_run(self._now)
        self._missing, self._fresh = self._state.unread(), set()
        with self._state.together():
            for home in inner:
                self._home_key = self._source(home)
                for folder in hive_layout.session_folders(home):
                    for path, kind in self._log_files(folder):
                        self._watch(path, kind.kind)
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

    def _count_lost(self, homes: Sequence[Path]) -> None:
        """What was seen unread and is gone. A file that was moved is read at its new place and is not lost."""
        keys = {self._source(home) for home in homes}
        with self._state.step():
            for source, unread in self._missing.items():
                if unread.home not in keys:
                    continue
                if (unread.device, unread.inode) not in self._fresh:
                    self._state.count(self._run, source, unread.kind, Counts(lost_bytes=unread.bytes))
                self._state.set_unread(source, None)

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

    def _home(self, home: Path) -> None:
        folders = hive_layout.session_folders(home)
        self._offsets = Offsets(self._clock, folders, self._kinds)
        self._tool_starts = {}
        colonies = hive_layout.colony_folders(home)
        total = len(folders) + len(colonies)
        for done, folder in enumerate(folders):
            self._progress(done, total)
            self._logs(folder)
        # Logs first: they say which sessions are alive, and without history only those may be described.
        for folder in folders:
            if folder.logs is not None and "logs" in self._kinds:
                self._summary(
                    folder.logs / "summary.json", folder
                )  # never the one beside meta.json: a cache of the chat
            if "descriptions" in self._kinds:
                self._session(folder)
            if "tasks" in self._kinds:
                self._session_tasks(folder)
        if self._kinds & {"descriptions", "tasks"}:
            for colony in colonies:
                self._colony(colony)
        self._progress(total, total)

    def baseline(self, homes: Sequence[Path]) -> None:
        """Write down what is there now: a consent without history begins after it. Raises UsageError, DeviceError."""
        self._add_baseline(check_homes(self._covered(homes))[0], is_first=True)

    def _add_baseline(self, homes: Sequence[Path], *, is_first: bool = False) -> None:
        sizes: list[tuple[str, int]] = []
        history: list[str] = []
        for home in homes:
            sizes.append((self._source(home), 0))
            for folder in hive_layout.session_folders(home):
                for path, kind in self._log_files(folder):
                    sizes.append((self._source(path), _size(path)))
                    history += self._untimed_ids(path, folder, kind)
                if folder.logs is not None and "logs" in self._kinds:
                    found, _ = load(folder.logs / "summary.json")
                    history += self._untimed([hive_logs.summary(found, folder)] if found else [])
        with self._state.step():
            if is_first:
                self._state.clear_baseline()
            self._state.add_baseline(sizes, history)

    def _untimed(self, records: Iterable[Record]) -> list[str]:
        """The ids of the records that a copy must not bring back: nothing but their identity tells their age."""
        return [self._record_id(record) for record in records if record.at is None]

    def _untimed_ids(self, path: Path, folder: SessionFolder, kind: LogKind) -> list[str]:
        found: list[str] = []
        try:
            for chunk in lines.read_new(path, lines.Checkpoint()):
                for line in chunk.lines:
                    if line.data is None or not kind.may_matter(line.data):
                        continue
                    place = hive_logs.Place(folder, line.number, self._now)
                    for _, parsed in lines.parse(line.data, kind.is_record).records:
                        found += self._untimed(kind.parse(parsed, place))
        except (FileNotFoundError, lines.UnreadableError):
            return found  # it is not read now and, should it become readable, its offset keeps its history out
        return found

    # logs --------------------------------------------------------------------------------------------------------

    def _log_files(self, folder: SessionFolder) -> list[tuple[Path, LogKind]]:
        tenant = self._enrolment.tenant
        path = folder.path / "events.jsonl"
        tool_starts = self._tool_starts.setdefault(folder.session_id, {})

        @cache
        def context() -> hive_events.Context:  # made when the first line is read: most logs are unchanged
            return hive_events.Context(folder, self._offsets.log_clock(folder), tool_starts)

        def event(found: dict[str, Any], place: hive_logs.Place) -> Iterable[Record]:
            record = hive_events.read(found, context(), place.position)
            return (record,) if record else ()

        def step(found: dict[str, Any], place: hive_logs.Place) -> Iterable[Record]:
            if len(tool_starts) < hive_events.MAX_RUNNING:
                tool_starts.update(hive_logs.tool_starts(found))
            return hive_logs.steps(found, place, tenant)

        def run(found: dict[str, Any], place: hive_logs.Place) -> Iterable[Record]:
            record = hive_logs.run(found, place, self._clock)
            return (record,) if record else ()

        events = LogKind(
            kind="worker_events" if folder.kind == "worker" else "events", is_record=hive_events.is_event, parse=event,
            may_matter=lambda data: context().may_matter(data), look_back=lambda data: context().look_back(data),
            is_unknown=hive_events.is_unknown, is_unknown_line=hive_events.is_unknown_line,
        )  # fmt: skip
        l3 = LogKind(kind="l3", is_record=hive_logs.is_step, parse=step)
        l2 = LogKind(kind="l2", is_record=hive_logs.is_detail, parse=lambda found, at: (hive_logs.detail(found, at),))
        runs = LogKind(kind="runs", is_record=hive_logs.is_run, parse=run, is_unknown=lambda _: True)
        files = []
        if folder.logs is not None and "logs" in self._kinds:
            files += [(folder.logs / "tool_logs.jsonl", l3), (folder.logs / "details.jsonl", l2)]
        if folder.kind != "legacy_run":
            files += [(path, events)] if "events" in self._kinds else []
            files += [(folder.path / "runs.jsonl", runs)] if "logs" in self._kinds else []
        return files

    def _logs(self, folder: SessionFolder) -> None:
        for path, kind in self._log_files(folder):
            self._log(path, folder, kind)

    def _log(self, path: Path, folder: SessionFolder, kind: LogKind) -> None:
        try:
            status = path.lstat()
        except FileNotFoundError:
            return
        except OSError:
            self._note(path, kind.kind, Counts(outcome="unreadable"))
            return
        self._sources += 1
        source = self._source(path)
        checkpoint = self._state.checkpoint(source)
        if lines.is_unchanged(status, checkpoint, now=self._now.timestamp()):
            self._missing.pop(source, None)
            return
        modified_at = epoch_time(Decimal(status.st_mtime_ns) / 1_000_000_000)
        try:
            if kind.look_back is not None:
                for data in lines.before(path, checkpoint):
                    kind.look_back(data)
            for chunk in lines.read_new(path, checkpoint, now=self._now.timestamp()):
                fp("read.chunk")
                generation = chunk.checkpoint.generation
                counts = Counts(bytes=status.st_size, generation=generation, layout=folder.layout)
                with self._state.step():
                    for line in chunk.lines:
                        self._line(
                            line, source, kind, hive_logs.Place(folder, line.number, modified_at, line.offset), counts
                        )
                    fp("stage.rows")
                    self._state.set_checkpoint(source, chunk.checkpoint)
                    self._state.count(self._run, source, kind.kind, counts)
                    fp("stage.checkpoint")
        except FileNotFoundError:
            return
        except lines.UnreadableError:
            self._note(path, kind.kind, Counts(bytes=status.st_size, outcome="unreadable"))
        if not checkpoint.inode:
            self._fresh.add((status.st_dev, status.st_ino))
        self._note_unread(source, kind.kind, status, self._state.checkpoint(source))

    def _line(
        self, line: lines.Line, source: str, kind: LogKind, place: hive_logs.Place, counts: Counts
    ) -> None:  # fmt: skip
        if line.data is None:
            counts.seen += 1
            counts.reject("too_long")
            return
        if not line.data.strip():
            return
        if not kind.may_matter(line.data):
            counts.seen += 1
            counts.skipped += 1
            counts.unknown += kind.is_unknown_line(line.data)
            return
        parsed = lines.parse(line.data, kind.is_record)
        if not parsed.records:
            counts.seen += 1
            counts.reject("tail_abandoned" if line.is_abandoned else lines.fault(line.data))
            return
        counts.salvaged += parsed.is_salvaged
        for start, found in parsed.records:
            offset = line.offset + start
            counts.seen += 1
            records = list(kind.parse(found, place))
            if not records:
                counts.skipped += 1
                counts.unknown += kind.is_unknown(found)
                continue
            first, *rest = records
            outcome = self._stage(first, source, offset)
            _count(counts, outcome)
            counts.fields_dropped += sum(record.fields_dropped for record in records)
            counts.fields_unknown += sum(record.fields_unknown for record in records)
            if outcome in ("staged", "duplicate"):
                counts.turns_seen += first.is_turn
                counts.turns_duplicate += first.is_turn and outcome == "duplicate"
                for record in rest:
                    self._stage(record, source, offset)

    def _stage(self, record: Record, source: str, offset: int) -> str:
        """Stage one record; what became of it, by the name of its counter."""
        row = self._redactor.row(record.table, {**record.values, "record_id": self._record_id(record)})
        if row is None:
            return "rejected"
        if not self._may_leave(record, row, source, offset):
            return "before_consent"
        session_id = row["session_id"]
        self._state.bind_session(session_id, self._enrolment.user, is_live=True)
        owner = session_id if record.belongs_to_folder else None
        return "staged" if self._state.stage(record.table.name, self._dated(row), owner=owner) else "duplicate"

    def _may_leave(self, record: Record, row: Row, source: str, offset: int) -> bool:
        if self._since is None:
            return True
        if record.at is not None:
            return record.at >= self._since
        return offset >= self._state.baseline_size(source) and not self._state.is_history(row["record_id"])

    def _dated(self, row: Row) -> Row:
        """Without history no time before the consent leaves, not even as an attribute."""
        since = self._since
        if since is None:
            return row
        return {k: None if isinstance(v, datetime) and v < since else v for k, v in row.items()}

    # small files -------------------------------------------------------------------------------------------------

    def _session(self, folder: SessionFolder) -> None:
        files = {"meta": folder.path / "meta.json", "state": folder.path / "state.json"}
        if folder.kind == "legacy_run":
            files = {}
        travelling = self._redactor.identifier(folder.session_id)
        is_live = self._state.is_live(travelling)
        # Its runs tell the writer's UTC offset, and another zone tells its local times anew.
        seen = [*files.values(), folder.path / "runs.jsonl"]
        told = [is_live, str(self._since), self._enrolment.timezone]
        signature = json.dumps([*map(_signature, seen), *told])
        item_key = self._redactor.keyed(f"session:{folder.path}")
        if self._state.snapshot(item_key)[0] == signature:
            return
        found = {name: self._document(path, name) for name, path in files.items()}
        if None in found.values():
            return  # torn or being written: what was seen before holds until it can be read
        readings = self._offsets.of_session(folder)
        item = hive_state.session(folder, found.get("meta") or {}, found.get("state") or {}, self._clock, readings)
        with self._state.step():
            if self._since is None or is_live or any(time and time >= self._since for time in item.times):
                user = self._state.bind_session(travelling, self._enrolment.user, is_live=self._since is None)
                values = item.values | {"user_id": user}
                started = item.values["started_at"]
                if self._since and isinstance(started, datetime) and started < self._since:
                    values |= {"total_tokens": None, "steps_executed": None, "total_retries": None}
                self._observe(replace(item, values=values))
            self._state.set_snapshot(item_key, signature, 0)

    def _summary(self, path: Path, folder: SessionFolder) -> None:
        source = self._source(path)
        signature = json.dumps(_signature(path))
        if signature == json.dumps(None) or self._state.snapshot(source)[0] == signature:
            return
        found = self._document(path, "l1")
        counts = Counts(seen=1, layout=folder.layout)
        with self._state.step():
            if found:
                record = hive_logs.summary(found, folder)
                counts.fields_unknown = record.fields_unknown
                if self._since is not None:
                    record = replace(record, values={**record.values, **dict.fromkeys(hive_logs.TOTALS)})
                _count(counts, self._stage(record, source, 0))
            else:
                counts.reject("bad_type")
            fp("stage.summary")
            self._state.set_snapshot(source, signature, 0)
            self._state.count(self._run, source, "l1", counts)

    def _session_tasks(self, folder: SessionFolder) -> None:
        self._task_list(folder.path / "tasks.json", list_id=folder.session_id, list_kind="session", colony=None)

    def _colony(self, folder: ColonyFolder) -> None:
        metadata = self._document(folder.path / "metadata.json", "colony")
        worker = self._document(folder.path / "worker.json", "colony") if metadata else None
        databases = [path for path in hive_layout.progress_dbs(folder) if os.path.lexists(path)]
        item = hive_state.colony(folder, metadata or {}, worker or {}, has_progress_db=bool(databases))
        if item is None:
            return
        list_id = str(item.values["queen_session_id"])
        is_live = any(
            self._state.is_live(self._redactor.identifier(str(session)))
            for session in (list_id, item.values["source_session_id"])
            if session
        )
        is_new = self._since is None or is_live or any(time and time >= self._since for time in item.times)
        if is_new and "descriptions" in self._kinds:
            with self._state.step():
                self._observe(item)
        if "tasks" not in self._kinds:
            return
        for path in databases:
            self._progress_db(path, list_id, folder.colony_name)
        self._task_list(
            folder.path / "tasks.json", list_id=list_id, list_kind="colony_template", colony=folder.colony_name
        )  # fmt: skip

    def _task_list(self, path: Path, *, list_id: str, list_kind: str, colony: str | None) -> None:
        source = self._source(path)
        signature = json.dumps(_signature(path))
        if signature == json.dumps(None) or self._state.snapshot(source)[0] == signature:
            return
        found = self._document(path, "task_list")
        if found is None:
            return
        items = list(hive_state.task_list(found, list_id=list_id, list_kind=list_kind, colony_name=colony))
        self._observe_all(items, source, signature, "task_list")

    def _progress_db(self, path: Path, list_id: str, colony: str) -> None:
        self._sources += 1
        source = self._source(path)
        # The log beside the database changes before the database does.
        signature = json.dumps([_signature(path), _signature(path.with_name(path.name + "-wal"))])
        if self._state.snapshot(source)[0] == signature:
            return
        try:
            items = progress_db.read(path, list_id=list_id, colony_name=colony, scratch=self._scratch)
        except FileNotFoundError:
            return
        except lines.UnreadableError:
            self._note(path, "progress_db", Counts(bytes=_size(path), outcome="unreadable"))
            return
        except progress_db.CorruptError:
            self._note(path, "progress_db", Counts(bytes=_size(path), outcome="corrupt"))
            return
        except progress_db.UnknownLayoutError:
            self._note(path, "progress_db", Counts(bytes=_size(path), outcome="unknown_layout"))
            return
        self._observe_all(items, source, signature, "progress_db")

    def _observe_all(self, items: list[hive_state.Item], source: str, signature: str, kind: str) -> None:
        counts = Counts(seen=len(items))
        with self._state.step():
            for item in items:
                if self._since is not None and not any(time and time >= self._since for time in item.times):
                    counts.before_consent += 1
                    continue
                _count(counts, self._observe(item))
            fp("stage.observations")
            self._state.set_snapshot(source, signature, 0)
            self._state.count(self._run, source, kind, counts)

    def _observe(self, item: hive_state.Item) -> str:
        """Stage an observation if it differs from the last one of the same thing."""
        tenant, table = self._enrolment.tenant, item.table
        thing = record_id(tenant, f"{table.name}:thing", *item.key)
        row = self._redactor.row(table, {**item.values, "record_id": thing})
        if row is None:
            return "rejected"
        # Of identifiers the source's value: devices of a tenant may hold different keys, and a keyed value would give
        # the same observation another identity on each.
        facts = [item.values.get(c.name) if c.keep is Keep.ID else row[c.name] for c in table.columns if c.fact]
        content = json.dumps(facts, default=str)
        signature = hashlib.sha256(content.encode()).hexdigest()
        last, observation = self._state.snapshot(thing)
        if last == signature:
            return "duplicate"
        row["record_id"] = record_id(tenant, table.name, *item.key, observation, signature)
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
                        "turn_lines_duplicate": counts.turns_duplicate, "outcome": counts.outcome,
                        "source_layout": counts.layout, "lines_unknown": counts.unknown,
                        "fields_unknown": counts.fields_unknown,
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

    # names -------------------------------------------------------------------------------------------------------

    def _record_id(self, record: Record) -> str:
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
