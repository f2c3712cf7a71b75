"""Claude Code as an agent runtime: which of its files are read, and by which reader.

Does not belong here: where its files lie (layout.py), what they mean (the modules beside).
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from pipelines.device.readers.base import Contents, Item, Log, Reading, Setting, Snapshot
from pipelines.device.readers.claude_code import claims, layout, sessions, transcripts
from pipelines.device.readers.claude_code.layout import Transcript


class ClaudeCode:
    """Claude Code's configuration folders."""

    name = "claude-code"
    title = "Claude Code"
    versions = "transcripts of 0.2 to 2.1"
    usual_homes = staticmethod(layout.usual_homes)
    is_home = staticmethod(layout.is_home)

    def homes_in(self, home: Path) -> list[Path]:
        """The home itself."""
        return [home]

    def contents(self, home: Path, setting: Setting) -> Contents:
        """Transcripts, then what they say of their sessions, and the cache of statistics."""
        found = list(layout.transcripts(home))

        def snapshots(reading: Reading) -> Iterator[Snapshot]:
            for transcript in found:
                yield _session(transcript, setting, reading)
            path = layout.statistics(home)
            yield Snapshot(
                key="statistics", files=(path,), kind="stats_cache", consent="events",
                read=partial(_read_statistics, path, reading),
            )  # fmt: skip

        return Contents([_log(transcript, setting) for transcript in found], snapshots)


CLAUDE_CODE = ClaudeCode()


def _log(transcript: Transcript, setting: Setting) -> Log:
    return Log(
        path=transcript.path, kind="transcript" if transcript.agent is None else "subagent_transcript",
        consent="events", is_record=transcripts.is_record, parse=transcripts.Reader(transcript, setting.clock).parse,
        may_matter=transcripts.may_matter, is_unknown=transcripts.is_unknown,
        is_unknown_line=transcripts.is_unknown_line, errors="replace",
    )  # fmt: skip


def _session(transcript: Transcript, setting: Setting, reading: Reading) -> Snapshot:
    files = (transcript.path,) if transcript.agent is None else (transcript.path, transcript.meta)
    alive = [layout.agent_session(transcript.session, transcript.agent)] if transcript.agent else [transcript.session]
    return Snapshot(
        key="session", files=files, kind="transcript", consent="descriptions", is_counted=False,
        lives_with=tuple(alive), read=partial(_read_session, transcript, setting, reading),
    )  # fmt: skip


def _read_session(transcript: Transcript, setting: Setting, reading: Reading) -> list[Item] | None:
    meta = reading.document(transcript.meta, "agent_meta") if transcript.agent is not None else {}
    return None if meta is None else sessions.read(transcript, meta, setting.clock)


def _read_statistics(path: Path, reading: Reading) -> list[Item] | None:
    found = reading.document(path, "stats_cache")
    return None if found is None else list(claims.statistics(path, found))
