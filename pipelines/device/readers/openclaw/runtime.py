"""OpenClaw as an agent runtime: which of its files are read, and by which reader.

A device that was upgraded holds both eras: a response has one identity in both, and counts once.
Does not belong here: where its files lie (layout.py), what they mean (the modules beside).
"""

from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

from pipelines.device import lines
from pipelines.device.readers.base import (
    At,
    BadRow,
    Contents,
    CorruptError,
    Item,
    Json,
    Log,
    Reading,
    Record,
    Setting,
    Snapshot,
    UnknownLayoutError,
)
from pipelines.device.readers.openclaw import databases, layout, runs, sessions, transcripts

HEAD_BYTES = 64 << 10  # the first line of a transcript is short


class OpenClaw:
    """OpenClaw's homes."""

    name = transcripts.RUNTIME
    title = "OpenClaw"
    versions = "2026.7 (files) to 2026.9 (SQLite)"
    usual_homes = staticmethod(layout.usual_homes)
    is_home = staticmethod(layout.is_home)

    def homes_in(self, home: Path) -> list[Path]:
        """The home: it holds no others."""
        return [home]

    def contents(self, home: Path, setting: Setting) -> Contents:
        """Transcripts; then packed transcripts, databases and what the stores say of sessions."""
        agents = layout.agents(home)
        stores = {agent: _store(agent, setting) for agent in agents}
        logs = [
            _log(found, known)
            for agent, known in stores.items()
            for found in layout.transcripts(agent)
            if not found.is_packed
        ]

        def snapshots(reading: Reading) -> Iterator[Snapshot]:
            for agent, known in stores.items():
                yield from _snapshots(agent, known, setting, reading)
            yield from _runs(home, agents, setting, reading)

        return Contents(logs, snapshots)


OPENCLAW = OpenClaw()


def _store(agent: Path, setting: Setting) -> sessions.Known:
    """What the file era's store says of the sessions, if the consent covers it."""
    known = sessions.Known(agent.name)
    if "descriptions" in setting.consented:
        path = layout.session_store(agent)
        try:
            with lines.open_plain(path) as file:
                found = lines.loads(file.read())
        except (FileNotFoundError, lines.UnreadableError, OSError, ValueError, RecursionError):
            return known  # it is read again, and counted, as a snapshot
        if isinstance(found, dict):
            known.store(found)
    return known


def _log(found: layout.Transcript, known: sessions.Known) -> Log:
    context = known.context(found.session_id)

    @cache
    def head() -> transcripts.Head:
        try:
            with lines.open_plain(found.path) as file:
                first = file.readline(HEAD_BYTES)
        except (lines.UnreadableError, OSError):
            return transcripts.Head()
        parsed = lines.parse(first, transcripts.is_event).records
        return transcripts.head(parsed[0][1] if parsed else None)

    known.heads.setdefault(found.session_id, head)
    context.head = head

    def parse(line: Json, _: At) -> list[Record]:
        return list(transcripts.read(line, context))

    def look_back(data: bytes) -> None:
        for _, line in lines.parse(data, transcripts.is_event).records:
            transcripts.remember(line, context)

    return Log(
        path=found.path, kind="transcript", consent="events", is_record=transcripts.is_event, parse=parse,
        may_matter=transcripts.may_matter, is_unknown=transcripts.is_unknown, look_back=look_back,
    )  # fmt: skip


def _snapshots(agent: Path, known: sessions.Known, setting: Setting, reading: Reading) -> Iterator[Snapshot]:
    if "events" in setting.consented:
        for found in layout.transcripts(agent):
            if found.is_packed:
                yield Snapshot(
                    key="transcript", files=(found.path,), kind="transcript", consent="events",
                    read=partial(_packed, found, known),
                )  # fmt: skip
        path = layout.database(agent)
        yield Snapshot(
            key="database", files=(path, path.with_name(path.name + "-wal")), kind="session_store", consent="events",
            read=partial(databases.read, path, reading.scratch, agent.name),
        )  # fmt: skip
    store = layout.session_store(agent)
    yield Snapshot(
        key="sessions", files=(store,), kind="session_store", consent="descriptions",
        read=partial(_items, store, agent, reading),
    )  # fmt: skip


def _runs(home: Path, agents: list[Path], setting: Setting, reading: Reading) -> Iterator[Snapshot]:
    stores = [place for agent in agents for place in (layout.session_store(agent), layout.database(agent))]
    path, earlier = layout.state_database(home), layout.subagent_runs(home)

    def present() -> dict[str, str]:
        found: dict[str, str] = {}
        for agent in agents:
            found |= _store(agent, setting).present
            try:
                found |= databases.present_sessions(layout.database(agent), reading.scratch)
            except (FileNotFoundError, lines.UnreadableError, CorruptError, UnknownLayoutError):
                continue  # it is told where it is read for its transcripts
        return found

    def read_earlier() -> list[Record] | None:
        found = reading.document(earlier, "other")
        return None if found is None else runs.subagents(found, present())

    yield Snapshot(
        key="runs", files=(path, path.with_name(path.name + "-wal"), *stores), kind="other", consent="events",
        read=lambda: runs.read(path, reading.scratch, present()),
    )  # fmt: skip
    yield Snapshot(key="runs", files=(earlier, *stores), kind="other", consent="events", read=read_earlier)


def _packed(found: layout.Transcript, known: sessions.Known) -> list[Record | BadRow]:
    with lines.open_plain(found.path) as file:
        text = databases.unpacked(file.read(databases.MAX_UNPACKED))
    return list(databases.transcript(text, known.context(found.session_id)))


def _items(path: Path, agent: Path, reading: Reading) -> list[Item] | None:
    found = reading.document(path, "session_store")
    if not found:
        return None
    known = sessions.Known(agent.name)
    known.store(found)
    return list(known.items())
