"""OpenClaw's sessions: what a session's key says of its kind, and what the stores say of its state.

A key may hold a person's number or a group's name (`agent:main:whatsapp:group:…`): only its kind leaves.
Does not belong here: reading files and databases (runtime.py, databases.py).
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cache, partial
from typing import Any

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.readers.base import Item, Json, count
from pipelines.device.readers.openclaw.layout import SESSION_ID
from pipelines.device.readers.openclaw.transcripts import RUNTIME, Context, Head, epoch_millis

STATUSES = {"running": "active", "done": "completed", "failed": "failed", "killed": "cancelled", "timeout": "failed"}
ENTRYPOINTS = {"cron": "cron", "hook": "hook", "dashboard": "web"}
_UUID = re.compile(SESSION_ID, re.ASCII)


def is_subagent(key: str | None) -> bool:
    """Whether another session spawned it: `agent:<id>:subagent:<uuid>`."""
    words = _words(key)
    return words[0] == "subagent" or (words[-2:-1] == ["subagent"] and _UUID.fullmatch(words[-1]) is not None)


def entrypoint(key: str | None) -> str | None:
    """What started a session, by its key: `agent:<id>:cron:<id>`, `hook:<uuid>`, `agent:<id>:whatsapp:group:<name>`."""
    words = _words(key)
    return ENTRYPOINTS.get(words[0]) or ("channel" if words[1:2] in (["group"], ["channel"]) else None)


def _words(key: str | None) -> list[str]:
    """The words of a key behind the agent's name. Only their places tell a kind from what somebody is called."""
    words = (key or "").split(":")
    return words[2:] or [""] if words[0] == "agent" else words


class Known:
    """The sessions of one agent, as its store or its database says."""

    def __init__(self, agent: str) -> None:
        self._agent = agent
        self._by_id: dict[str, dict[str, object]] = {}
        self._ids: dict[str, str] = {}
        """The present session of each key."""
        self._keys: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self.heads: dict[str, Callable[[], Head]] = {}
        """The first lines of the transcripts that there are, by session."""

    def nodes(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows of `session_nodes`: one for each key, with its present session."""
        for row in rows:
            key, session_id = str(row["session_key"]), str(row["current_session_id"])
            self._ids[key] = session_id
            self._parents[key] = row.get("spawned_by") or row.get("parent_session_key") or ""
            self._add(
                session_id, key, status=row.get("status"), started_at=row.get("created_at"),
                created_at=row.get("created_at"), forked_from=row.get("fork_source_session_id"),
            )  # fmt: skip

    def windows(self, rows: Iterable[dict[str, Any]]) -> None:
        """Rows of `session_windows`: one for each session."""
        for row in rows:
            self._add(
                str(row["session_id"]), str(row["session_key"]), status=row.get("status"),
                started_at=row.get("started_at") or row.get("created_at"), ended_at=row.get("ended_at"),
                channel=row.get("channel"),
            )  # fmt: skip

    def store(self, found: Json) -> None:
        """The file era's `sessions.json`: an entry for each key."""
        for key, entry in found.items():
            if not isinstance(entry, dict) or not isinstance(entry.get("sessionId"), str):
                continue
            session_id = entry["sessionId"]
            self._ids[key] = session_id
            self._parents[key] = str(entry.get("spawnedBy") or entry.get("parentSessionKey") or "")
            self._add(
                session_id, key, status=entry.get("status"),
                started_at=entry.get("sessionStartedAt") or entry.get("startedAt"), ended_at=entry.get("endedAt"),
                updated_at=entry.get("updatedAt"), channel=entry.get("channel") or entry.get("lastChannel"),
                counters=entry,
            )  # fmt: skip

    @property
    def present(self) -> dict[str, str]:
        """The present session of each key."""
        return self._ids

    def head(self, session_id: str) -> Head:
        """Since when a session is, and whose history it begins with: as its transcript says, or else the store."""
        made = self.heads[session_id]() if session_id in self.heads else Head()
        if made.parent_session_id is not None:
            return made
        known = self._by_id.get(session_id, {})
        forked_from = known.get("forked_from")
        started_at = epoch_millis(known.get("created_at")) or made.started_at
        return Head(started_at, str(forked_from) if forked_from else None)

    def context(self, session_id: str, *, key: str | None = None) -> Context:
        """A transcript of a session while it is read."""
        key = self._keys.get(session_id, key)
        parent = self._ids.get(self._parents.get(key or "", ""))
        is_spawned = is_subagent(key)
        return Context(
            session_id, cache(partial(self.head, session_id)), self.head, is_subagent=is_spawned,
            parent_session_id=parent if is_spawned else None,
        )  # fmt: skip

    def items(self) -> Iterator[Item]:
        """One observation of each session."""
        for session_id, values in self._by_id.items():
            key = self._keys[session_id]
            parent = self._ids.get(self._parents.get(key, ""))
            times = {name: epoch_millis(values.get(name)) for name in ("started_at", "ended_at", "updated_at")}
            yield Item(
                wire.SESSIONS, (Constant("openclaw"), Constant("store"), session_id),
                {
                    "agent_runtime": RUNTIME, "session_id": session_id, "evidence": "meta",
                    "session_kind": "worker" if is_subagent(key) else "agent_session",
                    "agent_name": self._agent, "entrypoint": entrypoint(key), "channel": values.get("channel"),
                    "status": STATUSES.get(str(values.get("status"))),
                    "parent_session_id": parent if parent != session_id else None,
                    "forked_from_session_id": values.get("forked_from"), **times,
                },
                tuple(times.values()),
            )  # fmt: skip
            counters = values.get("counters")
            if isinstance(counters, dict) and count(counters.get("outputTokens")) is not None:
                yield _claim(session_id, counters, times["ended_at"] or times["updated_at"])

    def _add(self, session_id: str, key: str, **values: object) -> None:
        self._keys.setdefault(session_id, key)
        known = self._by_id.setdefault(session_id, {})
        known |= {name: value for name, value in values.items() if value is not None}


def _claim(session_id: str, counters: Json, ended_at: datetime | None) -> Item:
    """What the store counts of a session: its last run only."""
    fresh, read, written = (count(counters.get(name)) or 0 for name in ("inputTokens", "cacheRead", "cacheWrite"))
    started_at = epoch_millis(counters.get("startedAt"))
    values = {
        "session_id": session_id, "claimed_by": "session_counters", "is_cumulative": False,
        "input_tokens": fresh + read + written, "cache_read_input_tokens": read, "cache_write_input_tokens": written,
        "output_tokens": count(counters.get("outputTokens")), "reported_cost_usd": counters.get("estimatedCostUsd"),
        "started_at": started_at, "ended_at": ended_at,
    }  # fmt: skip
    numbers = (*(name for name in values if name.endswith("_tokens")), "reported_cost_usd")
    key = (Constant("session_counters"), session_id)
    return Item(wire.CONTROL_TOTALS, key, values, (started_at or ended_at,), numbers, started_at)
