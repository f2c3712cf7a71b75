"""A home in which one text stands in every place where a text can stand.

Does not belong here: which texts (test_privacy.py, test_secrets.py), looking for them (tests/scanner.py).
"""

from __future__ import annotations

import itertools
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from pipelines.device.readers.hive.events import WANTED
from tests.device.driving import LATER, SESSION, append, dump, event, step, tool


def poisoned(value: Any, poison: str) -> Any:
    """The same document with the text in every string and every key that is nobody's field."""
    match value:
        case str():
            return poison
        case dict():
            return {key: poisoned(inner, poison) for key, inner in value.items()} | {poison: poison}
        case list():
            return [poisoned(inner, poison) for inner in value]
    return value


def write(home: Path, poison: str, name: str) -> None:
    """A home in which a text stands everywhere a text can stand, one position at a time and all at once."""
    folder = home / "agents" / "queens" / f"queen_{name}" / "sessions" / SESSION
    data = {
        "model": "x", "stop_reason": "x", "iteration": 1, "input_tokens": 5, "output_tokens": 5, "cost_usd": 0.5,
        "tool_name": "x",
        "tool_use_id": "x", "result": "x", "is_error": True, "phase": "x", "action": "x", "reason": "x", "error": "x",
        "worker_id": "x", "status": "x", "trigger_id": "x", "trigger_type": "x", "trigger_config": {"cron": "x"},
        "queen_session_id": "x", "colony_name": "x",
    }  # fmt: skip
    numbers = itertools.count()

    def at() -> (
        str
    ):  # another instant for each line: of two records with one identity only the first would be looked at
        return f"2026-05-04T10:15:30.{next(numbers):06}"

    for kind in WANTED:
        plain = event(kind, data, run_id="x")
        for key in plain:
            if key not in ("type", "data"):
                append(folder / "events.jsonl", dump({**plain, "timestamp": at(), key: poison}))
        for key in data:
            append(folder / "events.jsonl", dump({**plain, "timestamp": at(), "data": {**data, key: poison}}))
        append(folder / "events.jsonl", dump({**poisoned(plain, poison), "type": kind, "timestamp": at()}))
        append(
            folder / "events.jsonl", dump({**plain, "data": poison}) + json.dumps(poisoned(plain, poison)).encode()[:-9]
        )
    line = step(1, tool_calls=[tool(poison), tool()])
    for place in (
        "sessions/nightly-" + name,
        f"agents/{name}/worker/sessions/{SESSION}",
        f"agents/{name}/graphs/{name}/sessions/{LATER}",
    ):
        logs = home / place / "logs"
        for key in line:
            append(logs / "tool_logs.jsonl", dump({**line, "span_id": f"{next(numbers):016x}", key: poison}))
            append(
                logs / "details.jsonl", dump({**line, "span_id": f"{next(numbers):016x}", "success": True, key: poison})
            )
        append(logs / "tool_logs.jsonl", dump(poisoned(line, poison) | {"step_index": 3, "input_tokens": 1}))
        (logs / "summary.json").write_text(json.dumps(poisoned(
            {"trace_id": "", "started_at": "", "status": "", "agent_id": "", "goal_id": "", "execution_quality": "",
             "attention_reasons": [""], "total_input_tokens": 1}, poison)))  # fmt: skip
        append(
            home / place / "runs.jsonl",
            dump({"run_id": poison, "event": "run_failed", "timestamp": poison, "error": poison}),
        )
        meta = {"queen_id": "", "queen_name": "", "forked_from": "", "profile_name": "", "phase": "", "agent_path": "",
                "queen_session_id": "", "worker_id": "", "colony_id": "", "colony_fork": True, "goal": ""}  # fmt: skip
        (home / place / "meta.json").write_text(json.dumps(poisoned(meta, poison)))
        state = {"status": "", "agent_id": "", "stream_id": "", "progress": {"execution_quality": "", "path": [""]},
                 "timestamps": {"started_at": "", "updated_at": ""}, "data_buffer": {"a": ""}}  # fmt: skip
        (home / place / "state.json").write_text(json.dumps(poisoned(state, poison)))
        task = {
            "id": "",
            "owner": "",
            "status": "",
            "subject": "",
            "blocks": [""],
            "metadata": {"a": ""},
            "created_at": "",
        }
        (home / place / "tasks.json").write_text(
            json.dumps({"tasks": [poisoned(task, poison)], "meta": {"goal": poison}})
        )
    colony = home / "colonies" / name
    (colony / "data").mkdir(parents=True)
    metadata = {"queen_session_id": "", "source_session_id": "", "queen_name": "", "workers": {"worker": {"task": ""}}}
    (colony / "metadata.json").write_text(json.dumps(poisoned(metadata, poison)))
    with closing(sqlite3.connect(colony / "data" / "progress.db")) as database:
        database.execute(
            "CREATE TABLE tasks (id, status, goal, payload, worker_id, last_error, source, parent_task_id, seq)"
        )
        database.execute(f"INSERT INTO tasks VALUES ({', '.join('?' * 9)})", [poison] * 9)
        database.execute("CREATE TABLE steps (id, task_id, status, title, worker_id)")
        database.execute("INSERT INTO steps VALUES (?, ?, ?, ?, ?)", [poison] * 5)
        database.execute("CREATE TABLE sop_checklist (id, task_id, done_by, done_at, note)")
        database.execute("INSERT INTO sop_checklist VALUES (?, ?, ?, ?, ?)", [poison] * 5)
        database.commit()
