"""Writes one Claude Code home and gives back its exact usage: streamed responses, sub-agents, a fork, tools, limits.

Ours, after public descriptions. Does not belong here: homes of other runtimes, reading any.
"""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any, ClassVar

from pipelines.simulate.counts import Usage

Json = dict[str, Any]
MODELS = ("claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5-20251001")
TOOLS = ("Read", "Edit", "Bash", "Grep", "mcp__orchard__lookup")
AGENTS = ("Explore", "general-purpose", "harvest-planner")
VERSION = "2.1.260"
LETTERS = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz123456789"


@dataclass(frozen=True, kw_only=True)
class ClaudeCodeSpec:
    """What to write: sessions of each day, and responses of each session."""

    folder: ClassVar[str] = ".claude"

    seed: int
    first_day: date
    days: int = 3
    sessions_per_day: int = 2
    responses: int = 6
    words: str = "the pears of the orchard"
    """What stands in every free text."""

    def write(self, root: Path) -> Usage:
        """Write the home into `root`; its usage, each response once."""
        return write_claude_home(root, self)


def write_claude_home(root: Path, spec: ClaudeCodeSpec) -> Usage:
    """Write the home into `root` (the folder that plays ~/.claude); its usage, each response once."""
    home = _Home(root, spec)
    for day in range(spec.days):
        for number in range(spec.sessions_per_day):
            apart = timedelta(seconds=min(10_800, 54_000 // spec.sessions_per_day))
            start = datetime.combine(spec.first_day + timedelta(days=day), time(8, 5), UTC) + number * apart
            home.session(start, has_fork=number == 0)
    (root / "history.jsonl").write_text(json.dumps({"display": spec.words}) + "\n", "utf-8")
    return home.usage


class _Home:
    def __init__(self, root: Path, spec: ClaudeCodeSpec) -> None:
        self.usage = Usage()
        self._rng = random.Random(f"claude-code|{spec.seed}|{spec.first_day}")
        self._spec = spec
        self._project = root / "projects" / f"-home-{spec.seed}-orchard"
        self._project.mkdir(parents=True, exist_ok=True)

    def session(self, start: datetime, *, has_fork: bool) -> None:
        """A session with a sub-agent; and one that was forked from it and went on."""
        name = self._id()
        lines = self._work(name, start, self._spec.responses)
        agent = f"{self._rng.getrandbits(28):07x}"
        helper = self._work(name, start + timedelta(minutes=20), 2, agentId=agent, isSidechain=True)
        folder = self._project / name / "subagents"
        self._write(folder / f"agent-{agent}.jsonl", helper)
        meta = {"agentType": self._rng.choice(AGENTS), "description": self._spec.words}
        (folder / f"agent-{agent}.meta.json").write_text(json.dumps(meta), "utf-8")
        self._write(self._project / f"{name}.jsonl", lines)
        if has_fork:
            fork = self._id()
            copies = [line | {"sessionId": fork, "forkedFrom": {"sessionId": name}} for line in lines]
            self._write(self._project / f"{fork}.jsonl", [*copies, *self._work(fork, start + timedelta(hours=1), 2)])

    def _work(self, session: str, start: datetime, responses: int, **marks: Any) -> list[Json]:
        """The lines of some responses: a prompt, then for each its first words, its end, a tool call and its result."""
        at = start
        model = self._rng.choice(MODELS)
        lines = [self._line("user", session, at, message={"role": "user", "content": self._spec.words}, **marks)]
        for number in range(responses):
            at += timedelta(seconds=self._rng.randint(2, 40))
            is_last = number == responses - 1
            message, first = self._response(model, is_last=is_last)
            call = f"toolu_{self._letters(24)}"
            tool = self._rng.choice(TOOLS)
            block = {"type": "tool_use", "id": call, "name": tool, "input": {"path": self._spec.words}}
            text = {"type": "text", "text": self._spec.words}
            begun = message | {"stop_reason": None, "content": [text], "usage": message["usage"] | first}
            lines.append(self._line("assistant", session, at, message=begun, **marks))
            at += timedelta(seconds=self._rng.randint(1, 9))
            ended = message | {"content": [text if is_last else block]}
            lines.append(self._line("assistant", session, at, message=ended, **marks))
            if not is_last:
                at += timedelta(seconds=self._rng.randint(1, 20))
                result: Json = {"type": "tool_result", "tool_use_id": call, "content": self._spec.words}
                result |= {"is_error": True} if self._rng.random() < 0.1 else {}
                lines.append(self._line("user", session, at, message={"role": "user", "content": [result]}, **marks))
                self.usage = replace(self.usage, tool_calls=self.usage.tool_calls + 1)
        took = int((at - start).total_seconds() * 1000)
        lines.append(self._line("system", session, at, subtype="turn_duration", durationMs=took, **marks))
        return lines

    def _response(self, model: str, *, is_last: bool) -> tuple[Json, Json]:
        """A response with its last usage, which is counted, and what its first line said instead."""
        five, hour = self._rng.choice([(0, 0), (self._rng.randint(200, 9_000), 0), (0, self._rng.randint(200, 9_000))])
        usage: Json = {
            "input_tokens": self._rng.randint(2, 60), "output_tokens": self._rng.randint(40, 2_500),
            "cache_read_input_tokens": self._rng.randint(2_000, 90_000), "cache_creation_input_tokens": five + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
            "service_tier": "standard", "server_tool_use": {"web_search_requests": 0},
        }  # fmt: skip
        self.usage += Usage(
            turns=1,
            input_tokens=usage["input_tokens"] + usage["cache_read_input_tokens"] + five + hour,
            output_tokens=usage["output_tokens"],
            cache_read_input_tokens=usage["cache_read_input_tokens"],
            cache_write_input_tokens=five + hour,
            unreported_turns=1,
        )
        message = {
            "id": f"msg_01{self._letters(22)}", "type": "message", "role": "assistant", "model": model,
            "stop_reason": "end_turn" if is_last else "tool_use", "usage": usage,
        }  # fmt: skip
        return message, {"output_tokens": self._rng.randint(1, 8)}

    def _line(self, kind: str, session: str, at: datetime, **other: Any) -> Json:
        return {
            "parentUuid": None, "isSidechain": False, "userType": "external", "cwd": f"/home/{self._spec.words}",
            "sessionId": session, "version": VERSION, "gitBranch": self._spec.words, "entrypoint": "cli", "type": kind,
            "uuid": self._id(), "timestamp": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"), **other,
        }  # fmt: skip

    def _write(self, path: Path, lines: list[Json]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")

    def _id(self) -> str:
        return str(uuid.UUID(int=self._rng.getrandbits(128), version=4))

    def _letters(self, count: int) -> str:
        return "".join(self._rng.choices(LETTERS, k=count))
