"""B1: a device reads a backlog of logs, seals it in batches and delivers them to a folder.

Does not belong here: how sides are measured (measure.py).
"""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bench.ratios import home as homes
from pipelines.device import enrolment, grant
from pipelines.device.ship import ship
from pipelines.home import Home

NOW = datetime(2026, 6, 1, tzinfo=UTC)
BATCH = 20_000
Columns = dict[str, list[Any]]


def enrol(folder: Path) -> None:
    """Enrol a device whose owner lets it read `folder/hive`."""
    made = Home(folder / "apiary")
    enrolment.enroll(
        made, tenant="acme", user="ada", region="eu", timezone="Europe/Berlin", store=(folder / "store").as_uri(),
        tenant_key=None, now=NOW,
    )  # fmt: skip
    grant.grant(made, [folder / "hive"], history="include", now=NOW)


# B1 ------------------------------------------------------------------------------------------------------------------


def prepare_backlog(folder: Path, megabytes: float) -> dict[str, int]:
    """A home with so many megabytes of logs, none of them read; its sums."""
    sums = homes.write(folder / "hive", megabytes=megabytes)
    enrol(folder)
    return sums.told()


def ship_backlog(folder: Path) -> dict[str, int]:
    """Ship everything to a folder, with a copy of the device that has read nothing yet."""
    made = folder / "run"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(folder / "apiary", made)
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    ship(Home(made), [folder / "hive"], store_url=store.as_uri())
    return sums_of(sorted(store.rglob("*.parquet")))


def read_backlog(folder: Path) -> dict[str, int]:
    """The floor: each line that matters parsed by orjson, the same columns written as Parquet; no state, no rules."""
    out = folder / "floor"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    tables: dict[str, Columns] = {"llm_turns": {}, "tool_calls": {}, "status_events": {}, "node_steps": {}}
    written = 0
    for path in sorted((folder / "hive").rglob("*.jsonl")):
        is_events = path.name == "events.jsonl"
        with path.open("rb") as file:
            for line in file:
                make = _EVENTS.get(line[10 : line.index(b'"', 10)]) if is_events else _step
                if make is None:
                    continue
                for table, row in make(orjson.loads(line)):
                    columns = tables[table]
                    for name, value in row.items():
                        columns.setdefault(name, []).append(value)
        for table, columns in tables.items():
            if columns and len(columns["record_id"]) >= BATCH:
                written += 1
                _write(out / f"{written}-{table}.parquet", columns)
                columns.clear()
    for table, columns in tables.items():
        if columns:
            _write(out / f"last-{table}.parquet", columns)
    return sums_of(sorted(out.glob("*.parquet")))


def read_json(folder: Path) -> dict[str, int]:
    """The peer: DuckDB reads every line with `read_json` on one thread and writes what matters of it as Parquet."""
    import duckdb

    out = folder / "peer"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    logs = {name: str(folder / "hive" / "**" / name) for name in ("events.jsonl", "tool_logs.jsonl")}
    tokens = "input_tokens BIGINT, output_tokens BIGINT"
    with duckdb.connect() as connection:
        connection.execute("SET threads = 1")
        connection.execute(
            'CREATE TABLE events AS SELECT type, stream_id, node_id, execution_id, "timestamp", data FROM read_json('
            f"'{logs['events.jsonl']}', format = 'newline_delimited', columns = {{type: 'VARCHAR',"
            " stream_id: 'VARCHAR', node_id: 'VARCHAR', execution_id: 'VARCHAR', \"timestamp\": 'VARCHAR', data:"
            " 'STRUCT(model VARCHAR,"
            f" stop_reason VARCHAR, iteration BIGINT, {tokens}, cached_tokens BIGINT, cache_creation_tokens BIGINT,"
            " cost_usd DOUBLE, tool_name VARCHAR, tool_use_id VARCHAR, is_error BOOLEAN, action VARCHAR)'})"
            " WHERE type IN ('llm_turn_complete', 'tool_call_completed', 'judge_verdict', 'context_usage_updated')"
        )
        connection.execute(
            "CREATE TABLE steps AS SELECT span_id, trace_id, step_index, input_tokens, output_tokens, latency_ms,"
            f" verdict, len(tool_calls) AS tool_calls FROM read_json("
            f"'{logs['tool_logs.jsonl']}', format = 'newline_delimited',"
            " columns = {span_id: 'VARCHAR', trace_id: 'VARCHAR', step_index: 'BIGINT', input_tokens: 'BIGINT',"
            " output_tokens: 'BIGINT', latency_ms: 'BIGINT', verdict: 'VARCHAR', tool_calls: 'JSON[]'})"
        )
        for table in ("events", "steps"):
            connection.execute(f"COPY {table} TO '{out / table}.parquet' (COMPRESSION zstd)")
        found = connection.execute(
            "SELECT count(*) FILTER (type = 'llm_turn_complete'), (SELECT count(*) FROM steps),"
            " count(*) FILTER (type = 'tool_call_completed') + (SELECT sum(tool_calls) FROM steps),"
            " sum(data.input_tokens) + (SELECT sum(input_tokens) FROM steps),"
            " sum(data.output_tokens) + (SELECT sum(output_tokens) FROM steps) FROM events"
        ).fetchone()
    assert found is not None
    return dict(zip(("turns", "steps", "tool_calls", "input_tokens", "output_tokens"), map(int, found), strict=True))


def _write(path: Path, columns: Columns) -> None:
    pq.write_table(pa.table(columns), path, compression="zstd", store_schema=False)


def _id(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode()).hexdigest()[:32]


def _common(event: dict[str, Any], *key: object) -> dict[str, Any]:
    session = event["execution_id"] or ""
    return {
        "record_id": _id(event["type"], session, event["stream_id"], event["timestamp"], *key), "agent_runtime": "hive",
        "session_id": session, "agent_role": event["stream_id"],
        "occurred_at": datetime.fromisoformat(event["timestamp"]), "time_basis": "local_resolved",
        "is_time_ambiguous": False, "utc_offset_seconds": 7_200, "offset_basis": "device_zone",
    }  # fmt: skip


def _turn(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    data = event["data"]
    yield "llm_turns", {
        **_common(event, data["iteration"]), "stream_id": event["stream_id"], "node_id": event["node_id"],
        "model": data["model"], "stop_reason": data["stop_reason"], "iteration": data["iteration"],
        "input_tokens": data["input_tokens"], "output_tokens": data["output_tokens"],
        "cache_read_input_tokens": data["cached_tokens"], "cache_write_input_tokens": data["cache_creation_tokens"],
        "reported_cost_usd": data["cost_usd"], "is_copy": False,
    }  # fmt: skip


def _tool(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    data = event["data"]
    yield "tool_calls", {
        **_common(event, data["tool_use_id"]), "tool_name": data["tool_name"], "origin": "event",
        "is_error": data["is_error"], "duration_seconds": 0.1, "step_record_id": None, "is_copy": False,
    }  # fmt: skip


def _status(event: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    data = event["data"]
    yield "status_events", {
        **_common(event, data.get("iteration")), "node_id": event["node_id"], "kind": event["type"],
        "verdict": data.get("action"), "iteration": data.get("iteration"),
        "context_tokens": data.get("estimated_tokens"), "context_limit_tokens": data.get("max_context_tokens"),
    }  # fmt: skip


def _step(line: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    record_id = _id("step", line["span_id"])
    calls = line["tool_calls"]
    yield "node_steps", {
        "record_id": record_id, "agent_runtime": "hive", "session_id": line["execution_id"],
        "trace_id": line["trace_id"], "span_id": line["span_id"], "node_id": line["node_id"],
        "verdict": line["verdict"], "step_index": line["step_index"], "input_tokens": line["input_tokens"],
        "output_tokens": line["output_tokens"], "latency_ms": line["latency_ms"], "tool_call_count": len(calls),
        "is_partial": line["is_partial"], "is_copy": False,
    }  # fmt: skip
    for number, call in enumerate(calls):
        yield "tool_calls", {
            "record_id": _id("step", line["span_id"], number), "agent_runtime": "hive",
            "session_id": line["execution_id"], "agent_role": "agent",
            "occurred_at": datetime.fromisoformat(call["start_timestamp"]).replace(tzinfo=None), "time_basis": "utc",
            "is_time_ambiguous": False, "utc_offset_seconds": None, "offset_basis": None,
            "tool_name": call["tool_name"], "origin": "step", "is_error": call["is_error"],
            "duration_seconds": call["duration_s"], "step_record_id": record_id, "is_copy": False,
        }  # fmt: skip


_EVENTS: dict[bytes, Callable[[dict[str, Any]], Iterator[tuple[str, dict[str, Any]]]]] = {
    b"llm_turn_complete": _turn, b"tool_call_completed": _tool, b"context_usage_updated": _status,
    b"judge_verdict": _status,
}  # fmt: skip


def sums_of(files: list[Path]) -> dict[str, int]:
    """What Parquet files of batches hold, by the names that they have in a store or in a floor."""
    sums = homes.Sums()
    for path in files:
        table = next(
            name for name in ("llm_turns", "node_steps", "tool_calls", "other") if name in path.name or name == "other"
        )
        rows = pq.ParquetFile(path).metadata.num_rows
        if table == "tool_calls":
            sums.tool_calls += rows
        elif table != "other":
            sums.turns += rows * (table == "llm_turns")
            sums.steps += rows * (table == "node_steps")
            tokens = pq.read_table(path, columns=["input_tokens", "output_tokens"])
            sums.input_tokens += sum(tokens["input_tokens"].to_pylist())
            sums.output_tokens += sum(tokens["output_tokens"].to_pylist())
    return sums.told()
