"""Lines of Claude Code's transcripts, made by hand, and homes of them.

Does not belong here: asserting anything.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

Json = dict[str, Any]
START = datetime(2026, 10, 6, 7, 30, tzinfo=UTC)


def session_id(number: int) -> str:
    """A session's id."""
    return str(UUID(int=number + 1, version=4))


def stamp(seconds: float) -> str:
    """A time as the program writes it."""
    return (START + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def line(kind: str, session: str, second: float, **other: Any) -> Json:
    """A line with what most lines have."""
    uuid = str(UUID(int=int(second * 1000) + 1, version=4))
    return {
        "parentUuid": None, "isSidechain": False, "cwd": "/home/ada/CANARY-PATH-000001", "sessionId": session,
        "version": "2.1.263", "entrypoint": "cli", "type": kind, "uuid": uuid, "timestamp": stamp(second), **other,
    }  # fmt: skip


def usage(output: int = 212, **other: Any) -> Json:
    """A usage object."""
    return {
        "input_tokens": 6, "output_tokens": output, "cache_read_input_tokens": 18_000,
        "cache_creation_input_tokens": 900,
        "cache_creation": {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 800},
        "server_tool_use": {"web_search_requests": 0}, "service_tier": "standard", **other,
    }  # fmt: skip


def response(
    name: str, session: str, second: float, *, output: int = 212, stop: str | None = "end_turn",
    content: list[Json] | None = None, more: Json | None = None, **other: Any,
) -> Json:  # fmt: skip
    """A line of a response."""
    message = {
        "id": f"msg_{name:0>24}", "model": "claude-opus-5", "role": "assistant", "type": "message", "stop_reason": stop,
        "content": content or [{"type": "text", "text": "CANARY-REPLY-000002"}], "usage": usage(output, **(more or {})),
    }  # fmt: skip
    return line("assistant", session, second, message=message, requestId=f"req_{name}", **other)


def call(name: str, tool: str = "Read") -> Json:
    """A tool call as it stands in a response's content."""
    return {"type": "tool_use", "id": f"toolu_{name}", "name": tool, "input": {"file_path": "CANARY-FILE-000003"}}


def result(name: str, session: str, second: float, *, is_error: bool = False, **other: Any) -> Json:
    """The line of a tool's result."""
    item = {"type": "tool_result", "tool_use_id": f"toolu_{name}", "content": "CANARY-RESULT-000004"}
    message = {"role": "user", "content": [item | ({"is_error": True} if is_error else {})]}
    return line("user", session, second, message=message, **other)


def transcript(home: Path, session: str, project: str = "-home-ada") -> Path:
    """Where a session's transcript lies; its folder is made."""
    path = home / "projects" / project / f"{session}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def agent_transcript(home: Path, session: str, agent: str = "99803ff") -> Path:
    """Where a sub-agent's transcript lies; its folder is made."""
    path = home / "projects" / "-home-ada" / session / "subagents" / f"agent-{agent}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def dump(*lines: Json) -> bytes:
    """The bytes of lines."""
    return b"".join(json.dumps(item).encode() + b"\n" for item in lines)
