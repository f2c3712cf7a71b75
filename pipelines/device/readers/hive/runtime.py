"""Hive as an agent runtime: which of its files are read, and by which reader.

Does not belong here: where its folders lie (layout.py), what a file means (the modules beside).
"""

import os
from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import cache, partial
from pathlib import Path

from pipelines.device.readers.base import At, Contents, FileSet, Item, Json, Log, Reading, Record, Setting, Snapshot
from pipelines.device.readers.hive import events, layout, logs, progress_db, state
from pipelines.device.readers.hive.layout import ColonyFolder, SessionFolder
from pipelines.device.readers.hive.offsets import Offsets

ToolStarts = dict[str, dict[str, datetime]]
"""When tools started in UTC, as step logs say, by session and by the id of the call."""


class Hive:
    """Hive's homes."""

    name = "hive"
    title = "Hive"
    versions = "layouts v1, v2 and v3"
    usual_homes = staticmethod(layout.usual_homes)
    is_home = staticmethod(layout.is_home)
    homes_in = staticmethod(layout.homes_in)

    def contents(self, home: Path, setting: Setting) -> Contents:
        """Of each session its logs, then what it says of itself; what colonies say."""
        folders = layout.session_folders(home, setting.consented)
        offsets = Offsets(setting.clock, folders, setting.consented)
        tool_starts: ToolStarts = {}
        described: set[str] = set()
        file_sets = []
        for folder in folders:
            # A copy says what a session is only where no original is left.
            is_spoken_for = folder.is_copy and folder.session_id in described
            described.add(folder.session_id)
            file_sets.append(FileSet(
                path=str(folder.path), state=folder.files, lives_with=(folder.session_id,),
                said=f"{folder.session_id}/{folder.parent_session_id}/{folder.is_copy}/{is_spoken_for}",
                logs=partial(_logs, folder, setting, offsets, tool_starts),
                snapshots=partial(_of_session, folder, setting, offsets, is_spoken_for),
            ))  # fmt: skip

        def snapshots(reading: Reading) -> Iterator[Snapshot]:
            if setting.consented & {"descriptions", "tasks"}:  # tasks: whose list it is stands in the metadata
                for colony in layout.colony_folders(home):
                    yield from _of_colony(colony, reading)

        return Contents([], snapshots, partial(layout.passed_over, home, folders), file_sets)


HIVE = Hive()


def _logs(folder: SessionFolder, setting: Setting, offsets: Offsets, tool_starts: ToolStarts) -> Iterator[Log]:
    started = tool_starts.setdefault(folder.session_id, {})

    @cache
    def context() -> events.Context:  # made when the first line is read: most logs are unchanged
        return events.Context(folder, offsets.log_clock(folder), started)

    def place(at: At) -> logs.Place:
        return logs.Place(folder, at.number, at.modified_at, at.position)

    def event(found: Json, at: At) -> Iterable[Record]:
        record = events.read(found, context(), at.position)
        return (record,) if record else ()

    def step(found: Json, at: At) -> Iterable[Record]:
        if len(started) < events.MAX_RUNNING:
            started.update(logs.tool_starts(found))
        return logs.steps(found, place(at))

    def run(found: Json, at: At) -> Iterable[Record]:
        record = logs.run(found, place(at), setting.clock)
        return (record,) if record else ()

    if folder.logs is not None:
        yield Log(
            path=folder.logs / "tool_logs.jsonl", kind="l3", consent="logs", layout=folder.layout,
            is_copy=folder.is_copy, is_record=logs.is_step, parse=step,
        )  # fmt: skip
        yield Log(
            path=folder.logs / "details.jsonl", kind="l2", consent="logs", layout=folder.layout, is_copy=folder.is_copy,
            is_record=logs.is_detail, parse=lambda found, at: (logs.detail(found, place(at)),),
        )  # fmt: skip
    if folder.kind != "legacy_run":
        yield Log(
            path=folder.path / "events.jsonl", kind="worker_events" if folder.kind == "worker" else "events",
            consent="events", layout=folder.layout, is_copy=folder.is_copy, is_record=events.is_event, parse=event,
            may_matter=lambda data: context().may_matter(data), look_back=lambda data: context().look_back(data),
            is_unknown=events.is_unknown, is_unknown_line=events.is_unknown_line,
        )  # fmt: skip
        yield Log(
            path=folder.path / "runs.jsonl", kind="runs", consent="logs", layout=folder.layout, is_copy=folder.is_copy,
            is_record=logs.is_run, parse=run, is_unknown=lambda _: True,
        )  # fmt: skip


def _of_session(
    folder: SessionFolder,
    setting: Setting,
    offsets: Offsets,
    is_spoken_for: bool,
    reading: Reading,
) -> Iterator[Snapshot]:
    if folder.logs is not None:
        # Never the one beside meta.json: a cache of the chat.
        path = folder.logs / "summary.json"
        yield Snapshot(
            key="summary", files=(path,), kind="l1", consent="logs", layout=folder.layout, is_line=True,
            read=partial(_summary, path, folder, reading),
        )  # fmt: skip
    if is_spoken_for:
        return
    files = (folder.path / "meta.json", folder.path / "state.json") if folder.kind != "legacy_run" else ()
    yield Snapshot(
        # Its runs tell the writer's UTC offset.
        key="session", files=(*files, folder.path / "runs.jsonl"), kind="meta", consent="descriptions",
        layout=folder.layout, lives_with=(folder.session_id,), is_counted=False,
        read=partial(_session, files, folder, setting, reading, offsets),
    )  # fmt: skip
    yield _tasks(folder.path / "tasks.json", reading, list_id=folder.session_id, list_kind="session", colony=None)


def _summary(path: Path, folder: SessionFolder, reading: Reading) -> list[Record] | None:
    found = reading.document(path, "l1")
    return [logs.summary(found, folder)] if found else None


def _session(
    files: tuple[Path, ...], folder: SessionFolder, setting: Setting, reading: Reading, offsets: Offsets
) -> list[Item] | None:
    found = [reading.document(path, path.stem) for path in files]
    if None in found:
        return None  # torn or being written
    meta, session_state = found or ({}, {})
    readings = offsets.of_session(folder)
    return [state.session(folder, meta or {}, session_state or {}, setting.clock, readings)]


def _of_colony(folder: ColonyFolder, reading: Reading) -> Iterator[Snapshot]:
    files = (folder.path / "metadata.json", folder.path / "worker.json")
    metadata = reading.document(files[0], "colony")
    worker = reading.document(files[1], "colony") if metadata else None
    databases = [path for path in layout.progress_dbs(folder) if os.path.lexists(path)]
    item = state.colony(folder, metadata or {}, worker or {}, has_progress_db=bool(databases))
    if item is None:
        return
    list_id = str(item.values["queen_session_id"])
    sessions = (list_id, item.values["source_session_id"])
    yield Snapshot(
        key="colony", files=(*files, *databases[:1]), kind="colony", consent="descriptions", is_counted=False,
        lives_with=tuple(str(session) for session in sessions if session), read=lambda: [item],
    )  # fmt: skip
    for path in databases:
        # The log beside the database changes before the database does.
        yield Snapshot(
            key="progress", files=(path, path.with_name(path.name + "-wal")), kind="progress_db", consent="tasks",
            read=partial(
                progress_db.read, path, list_id=list_id, colony_name=folder.colony_name, scratch=reading.scratch
            ),
        )  # fmt: skip
    yield _tasks(
        folder.path / "tasks.json", reading, list_id=list_id, list_kind="colony_template", colony=folder.colony_name
    )


def _tasks(path: Path, reading: Reading, *, list_id: str, list_kind: str, colony: str | None) -> Snapshot:
    def read() -> list[Item] | None:
        found = reading.document(path, "task_list")
        if not found:
            return None
        return list(state.task_list(found, list_id=list_id, list_kind=list_kind, colony_name=colony))

    return Snapshot(key="tasks", files=(path,), kind="task_list", consent="tasks", read=read)
