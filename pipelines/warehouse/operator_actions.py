"""What people decided about agents: a book of lines that only grows but for erasures, and its way into the warehouse.

An action is written down here and carried out by people: nothing here stops an agent. It holds no text: a reason is
one of five words, everything else an identifier.
Does not belong here: what the numbers say of an agent (models/analytics/agents), printing (pipelines/commands).
"""

import json
import os
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

import duckdb

from pipelines.contract.keys import is_slug
from pipelines.errors import UsageError
from pipelines.home import exclusive, private_folder, replace_file

Kind = Literal["fire", "note"]
REASONS = ("derailed", "obstinate", "dumb", "unresponsive", "corrupted")
_AGENT = re.compile(r"(queen|worker|agent|other):[A-Za-z0-9_.-]{1,128}")
_SESSION = re.compile(r"[A-Za-z0-9_:-]{1,80}")


@dataclass(frozen=True, kw_only=True)
class Action:
    """One line of the book. `acted_at` is UTC."""

    action_id: str
    tenant_id: str
    agent_id: str
    session_id: str | None
    actor_id: str
    action: Kind
    reason: str
    acted_at: datetime


def record(
    book: Path, *, action: Kind, tenant: str, agent: str, reason: str, actor: str, session: str | None = None,
    now: datetime | None = None,
) -> Action:  # fmt: skip
    """Append an action to the book. Raises UsageError if a part has not the form it must have."""
    if not _AGENT.fullmatch(agent):
        raise UsageError(f"{agent!r} names no agent: `apiary agent list` shows their names, such as queen:queen_growth")
    if not is_slug(tenant) or not is_slug(actor):
        raise UsageError("a tenant and an actor are names of lower-case letters, digits, - and _")
    if reason not in REASONS:
        raise UsageError(f"a reason is one of {', '.join(REASONS)}")
    if session is not None and not _SESSION.fullmatch(session):
        raise UsageError(f"{session!r} is no id of a session")
    made = Action(
        action_id=uuid4().hex, tenant_id=tenant, agent_id=agent, session_id=session, actor_id=actor, action=action,
        reason=reason, acted_at=now or datetime.now(UTC),
    )  # fmt: skip
    line = _line(made)
    private_folder(book.parent)
    with exclusive(book.with_suffix(".lock")):
        descriptor = os.open(book, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with open(descriptor, "ab") as file:  # noqa: PTH123
            # A line that was cut off by a full disk must not swallow this one.
            torn = book.stat().st_size and not book.read_bytes().endswith(b"\n")
            file.write((b"\n" if torn else b"") + line.encode())
            file.flush()
            os.fsync(file.fileno())
    return made


def actions(book: Path) -> list[Action]:
    """Every whole line of the book, in its order. A torn line is no action: nobody was told that it was written."""
    found = []
    for line in book.read_bytes().splitlines() if book.exists() else ():
        try:
            values: dict[str, Any] = json.loads(line)
            found.append(Action(**(values | {"acted_at": datetime.fromisoformat(values["acted_at"])})))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _line(action: Action) -> str:
    return json.dumps(asdict(action) | {"acted_at": action.acted_at.isoformat()}) + "\n"


def redact(book: Path, *, tenants: Collection[str], erased: Collection[str]) -> None:
    """Take out the tenants' actions, and of the others the sessions that were erased (`erased`: identifiers).

    What was decided about an agent stays, unless its own name is one of them. May be killed and called again.
    Raises OSError.
    """
    if not book.exists():
        return
    with exclusive(book.with_suffix(".lock")):
        before = actions(book)
        kept = [
            replace(action, session_id=None) if action.session_id in erased else action
            for action in before
            if action.tenant_id not in tenants and action.agent_id.partition(":")[2] not in erased
        ]
        if kept != before:
            replace_file(book, "".join(map(_line, kept)).encode())


def actors(book: Path) -> set[str]:
    """The people who wrote into the book."""
    return {action.actor_id for action in actions(book)}


def load(connection: duckdb.DuckDBPyConnection, book: Path) -> int:
    """Put the book into the warehouse: the lines it lacks, each once. How many there are in it now."""
    connection.execute("BEGIN")
    for action in actions(book):
        connection.execute(
            """
            INSERT INTO wire.operator_actions BY NAME
            SELECT $action_id AS action_id, $tenant_id AS tenant_id, $agent_id AS agent_id, $session_id AS session_id,
                $actor_id AS actor_id, $action AS action, $reason AS reason, $acted_at AS acted_at
            WHERE NOT EXISTS (SELECT 1 FROM wire.operator_actions WHERE action_id = $action_id)
            """,
            asdict(action),
        )
    connection.execute("COMMIT")
    found = connection.execute("SELECT count(*) FROM wire.operator_actions").fetchone()
    return int(found[0]) if found else 0


def agents(connection: duckdb.DuckDBPyConnection, *, tenant: str | None = None) -> list[dict[str, Any]]:
    """The registry's agents as they are now, from published marts: with their card over all kinds of work."""
    cursor = connection.execute(
        """
        SELECT agents.tenant_id AS tenant, agents.agent_id AS agent, agents.model, agents.version, agents.sessions,
            cards.runs, cards.open_runs, cards.successes, cards.failures + cards.timeouts AS failures,
            agents.fires, agents.last_seen_at
        FROM dim_agents AS agents
        LEFT JOIN mart_agent_scorecard AS cards
            ON agents.tenant_id = cards.tenant_id AND agents.agent_id = cards.agent_id AND cards.task_class = 'all'
        WHERE agents.is_current AND ($tenant IS NULL OR agents.tenant_id = $tenant)
        ORDER BY agents.tenant_id, agents.agent_id
        """,
        {"tenant": tenant},
    )
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
