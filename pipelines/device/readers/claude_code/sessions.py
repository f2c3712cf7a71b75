"""What a transcript says of its session as a whole: project, type of sub-agent, start, the session it was forked from.

Does not belong here: single lines (transcripts.py).
"""

from collections.abc import Iterator

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import Clock
from pipelines.device.lines import UnreadableError, open_plain, parse
from pipelines.device.readers.base import Item, Json
from pipelines.device.readers.claude_code.layout import Transcript
from pipelines.device.readers.claude_code.transcripts import is_record, origin_of

HEAD = 1 << 18
ENTRYPOINTS = {"cli": "cli", "vscode": "ide", "claude-vscode": "ide", "jetbrains": "ide", "remote": "web", "web": "web"}


def read(transcript: Transcript, meta: Json, clock: Clock) -> list[Item]:
    """One observation of a session. Raises FileNotFoundError, UnreadableError."""
    lines = list(_head(transcript))
    if not lines:
        return []
    own = next((line for line in lines if "forkedFrom" not in line and isinstance(line.get("sessionId"), str)), {})
    origin = origin_of(own, transcript)
    times = [when.at for line in lines if (when := clock.event_time(line.get("timestamp")))]
    # Lines that were copied keep their times: the session began with its own.
    began = clock.event_time(own.get("timestamp"))
    started_at = began.at if began else min(times, default=None)
    copied: Json = next((line["forkedFrom"] for line in lines if isinstance(line.get("forkedFrom"), dict)), {})
    values: dict[str, object] = {
        "session_id": origin.session_id,
        "parent_session_id": origin.parent_session_id,
        "forked_from_session_id": copied.get("sessionId") if transcript.agent is None else None,
        "agent_type": _agent_type(transcript, meta, lines),
        "project_id": _first(lines, "cwd"),
        "entrypoint": _entrypoint(_first(lines, "entrypoint")),
        "evidence": "transcript",
        "session_kind": "worker" if transcript.agent is not None else "agent_session",
        "started_at": started_at,
    }
    return [Item(wire.SESSIONS, (Constant("transcript"), origin.session_id), values, (started_at,))]


def _agent_type(transcript: Transcript, meta: Json, lines: list[Json]) -> object:
    if transcript.agent is None:
        return None
    named = meta.get("agentType") or _first(lines, "attributionAgent")
    return named or ("btw" if transcript.agent.startswith("aside-") else None)


def _entrypoint(name: str | None) -> str | None:
    return "sdk" if name is not None and name.startswith("sdk") else ENTRYPOINTS.get(name, "other") if name else None


def _first(lines: list[Json], name: str) -> str | None:
    return next((line[name] for line in lines if isinstance(line.get(name), str)), None)


def _head(transcript: Transcript) -> Iterator[Json]:
    with open_plain(transcript.path) as file:
        try:
            data = file.read(HEAD)
        except OSError as error:
            raise UnreadableError(error.strerror) from None
    for line in data.split(b"\n")[:-1]:
        for _, found in parse(line, is_record).records:
            yield found
