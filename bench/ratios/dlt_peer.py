"""B1 and B5 beside dlt, in an environment of its own: `python dlt_peer.py load|read FOLDER` prints the sums found.

dlt is a peer and no floor: as ours it keeps state, infers or checks a schema, and loads a record once.
Does not belong here: how sides are measured (measure.py), our side (device.py, landing.py).
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".cache" / "dlt" / "bin" / "python"
"""Made by `make bench`."""
EVENTS = (b'"llm_turn_complete"', b'"tool_call_completed"', b'"judge_verdict"', b'"context_usage_updated"')


def load(folder: Path) -> dict[str, int]:
    """dlt's side of B5."""
    return _run("load", folder)


def read(folder: Path) -> dict[str, int]:
    """dlt's side of B1."""
    return _run("read", folder)


def _run(what: str, folder: Path) -> dict[str, int]:
    settings = os.environ | {
        "RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR", "DLT_DATA_DIR": str(folder / "dlt"),
    }  # fmt: skip
    done = subprocess.run(
        [PYTHON, __file__, what, folder], env=settings, capture_output=True, text=True, check=False, cwd=folder
    )
    if done.returncode:
        raise SystemExit(f"dlt {what}: {done.stderr[-2000:]}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def _load(folder: Path) -> dict[str, int]:
    """The landing's Parquet into DuckDB, one row for each record."""
    import dlt
    import duckdb
    from dlt.sources.filesystem import filesystem, read_parquet

    path = folder / "dlt.duckdb"
    path.unlink(missing_ok=True)
    files = filesystem(bucket_url=(folder / "store").as_uri(), file_glob="landing/**/*.parquet")
    rows = (files | read_parquet(use_pyarrow=True)).with_name("llm_turns")
    rows.apply_hints(write_disposition="merge", primary_key="record_id")
    pipeline = dlt.pipeline("load", destination=dlt.destinations.duckdb(str(path)), dataset_name="raw", dev_mode=True)
    pipeline.run(rows)
    with duckdb.connect(str(path)) as connection:
        found = connection.execute(
            f"SELECT count(*), sum(input_tokens)::BIGINT FROM {pipeline.dataset_name}.llm_turns"
        ).fetchone()
    return dict(zip(("rows", "input_tokens"), found, strict=True))


def _read(folder: Path) -> dict[str, int]:
    """The home's lines that matter, each table's into Parquet."""
    import dlt
    import duckdb

    target = folder / "dlt-parquet"
    pipeline = dlt.pipeline(
        "read", destination=dlt.destinations.filesystem(target.as_uri()), dataset_name="raw", dev_mode=True
    )
    resources = [
        dlt.resource(_lines(folder, name, words), name=table, max_table_nesting=0)
        for table, name, words in (("events", "events.jsonl", EVENTS), ("steps", "tool_logs.jsonl", (b"step_index",)))
    ]
    pipeline.run(resources, loader_file_format="parquet")
    at = target / pipeline.dataset_name
    found = duckdb.sql(
        "SELECT count(*) FILTER (type = 'llm_turn_complete'), (SELECT count(*) FROM steps),"
        " count(*) FILTER (type = 'tool_call_completed') + (SELECT sum(json_array_length(tool_calls)) FROM steps),"
        " sum((data->>'input_tokens')::BIGINT) + (SELECT sum(input_tokens) FROM steps),"
        " sum((data->>'output_tokens')::BIGINT) + (SELECT sum(output_tokens) FROM steps)"
        f" FROM read_parquet('{at}/events/*.parquet') AS events".replace(
            "FROM steps", f"FROM read_parquet('{at}/steps/*.parquet')"
        )
    ).fetchone()
    names = ("turns", "steps", "tool_calls", "input_tokens", "output_tokens")
    return dict(zip(names, map(int, found), strict=True))


def _lines(folder: Path, name: str, words: tuple[bytes, ...]) -> Iterator[dict[str, Any]]:
    import orjson

    for path in sorted((folder / "hive").rglob(name)):
        with path.open("rb") as file:
            for line in file:
                if any(word in line for word in words):
                    yield orjson.loads(line)


if __name__ == "__main__":
    print(json.dumps({"load": _load, "read": _read}[sys.argv[1]](Path(sys.argv[2]))))
