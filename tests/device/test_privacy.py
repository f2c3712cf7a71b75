"""Privacy end to end: whatever a person wrote anywhere in a home, no byte of it is in what Apiary keeps or sends."""

from __future__ import annotations

import itertools
import json
import random
import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.device.errors import DeviceError
from pipelines.device.readers.hive_events import WANTED
from pipelines.simulate.homes import Layout
from tests import scanner
from tests.device.driving import (
    LATER,
    LAYOUTS,
    SESSION,
    Device,
    append,
    device,
    dump,
    event,
    granted,
    simulated,
    step,
    tool,
)

WORDS = ("pears", "ferry", "crates", "board", "june", "orchard", "ledger", "linnet", "quarry", "saffron")


def needles(rng: random.Random) -> list[str]:
    """Sentences, addresses, paths and keys that stand nowhere but in the home of this test."""
    mark = f"{rng.choice(WORDS)}-{secrets.token_hex(5)}"
    return [
        f"the {rng.choice(WORDS)} of {mark} go out on friday", f"{rng.choice(WORDS)}.{mark}@example.com",
        f"/Users/{mark}/Clients/list.csv", "sk" + f"-ant-api03-{mark}{secrets.token_hex(20)}", f"{mark}_internal",
        "gh" + f"p_{secrets.token_hex(18)}", f"Grüße-{mark}-収穫", f"queen_{mark}",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_private_of_a_simulated_home_is_kept_or_sent(tmp_path: Path, layout: Layout) -> None:
    home, canary = tmp_path / "hive", f"canary-{secrets.token_hex(8)}"
    truth = simulated(home, layout, secrets=[canary, f"{secrets.token_hex(6)}_name"])
    assert canary in truth.private
    made = granted(tmp_path / "apiary", home)
    made.preview(home)
    with made.state():  # opened, so that its log is looked into as well
        made.ship(home)
        assert scanner.find(tmp_path / "apiary", truth.private) == []
    assert scanner.find(home, [canary]), "the scanner must find in the home what it must not find elsewhere"


def test_nothing_private_is_kept_when_a_shipping_does_not_end(tmp_path: Path) -> None:
    """Staged, sealed and waiting: the spool and the state hold what never reached a store."""
    home, store = tmp_path / "hive", tmp_path / "store"
    truth = simulated(home, "v2", secrets=[f"canary-{secrets.token_hex(8)}"])
    made = granted(tmp_path / "apiary", home, store=store)
    store.write_text("")
    with pytest.raises(DeviceError):
        made.ship(home)
    assert list((tmp_path / "apiary" / "device" / "spool" / "ready").iterdir())
    assert scanner.find(tmp_path / "apiary", truth.private) == []


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


@pytest.mark.parametrize("number", range(8))
def test_a_text_in_every_position_of_a_home_is_nowhere_afterwards(tmp_path: Path, number: int) -> None:
    home = tmp_path / "hive"
    poison = needles(random.Random())[number]
    name = f"acme{secrets.token_hex(6)}"
    write(home, poison, name)
    made = granted(tmp_path / "apiary", home)
    made.preview(home)
    with made.state():
        made.ship(home)
        found = scanner.find(tmp_path / "apiary", [poison, name, poison.encode().hex()])
    assert found == []
    assert len(made.delivered("llm_turns", "tool_calls", "node_steps", "sessions", "tasks")) > 150, (
        "the lines were read"
    )


def test_an_error_that_a_person_sees_holds_no_words_of_the_home(tmp_path: Path) -> None:
    home, name = tmp_path / "hive", f"acme{secrets.token_hex(6)}"
    write(home, needles(random.Random())[0], name)
    store = tmp_path / "store"
    made = granted(tmp_path / "apiary", home, store=store)
    store.write_text("")
    with pytest.raises(DeviceError) as raised:
        made.ship(home)
    assert name not in str(raised.value)


# The scanner must find what it must never find -----------------------------------------------------------------------


def leak_into_parquet(made: Device, leak: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [leak] * 100}), made.home.root / "x.parquet", compression="zstd", use_dictionary=True)


def leak_into_state(made: Device, leak: str) -> None:
    with closing(sqlite3.connect(made.state_file)) as database:
        database.execute("INSERT INTO device VALUES ('x', ?)", (leak,))
        database.commit()


def leak_into_spool(made: Device, leak: str) -> None:
    append(made.home.device / "spool" / "ready" / "x.json", json.dumps({"a": leak}).encode())


def leak_into_a_name(made: Device, leak: str) -> None:
    append(made.home.root / "store" / f"{leak}.bin", b"")


@pytest.mark.parametrize("plant", [leak_into_parquet, leak_into_state, leak_into_spool, leak_into_a_name])
def test_a_planted_leak_is_found(tmp_path: Path, plant: Any) -> None:
    leak = f"the pears of {secrets.token_hex(6)} Grüße"
    made = device(tmp_path / "apiary")
    made.grant([])
    made.ship()
    assert scanner.find(tmp_path, [leak]) == []
    plant(made, leak)
    assert {hit.needle for hit in scanner.find(tmp_path, [leak])} == {leak}


def test_a_clone_of_a_home_leaks_no_more_than_the_home(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    truth = simulated(home, "doc")
    shutil.copytree(home, tmp_path / "clone")
    made = granted(tmp_path / "apiary", home)
    made.ship(home, tmp_path / "clone")
    assert scanner.find(tmp_path / "apiary", truth.private) == []
