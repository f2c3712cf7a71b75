"""The job on the simulated fleet: a run with nothing new, and a question that a person types.

Does not belong here: how sides are measured (measure.py).
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def _apiary(folder: Path, *arguments: str) -> str:
    program = str(Path(sys.executable).with_name("apiary"))
    settings = os.environ | {"APIARY_HOME": str(folder / "home")}
    done = subprocess.run([program, *arguments], env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"apiary {' '.join(arguments)}: {done.stderr[-2000:]}")
    return done.stdout


def _prepare(folder: Path) -> None:
    if not (folder / "home").exists():  # both benchmarks ask the same home
        _apiary(folder, "demo")


# A run with nothing new ----------------------------------------------------------------------------------------------


def prepare_run(folder: Path, _: float) -> dict[str, int]:
    """A home in which everything is loaded, built and published."""
    _prepare(folder)
    _apiary(folder, "run")
    return _manifests(folder)


def run_again(folder: Path) -> dict[str, int]:
    """`apiary run`."""
    _apiary(folder, "run")
    return _manifests(folder)


def version_and_ledger(folder: Path) -> dict[str, int]:
    """The floor: `apiary --version`, and the ledger of loaded batches is asked how many there are."""
    import duckdb

    _apiary(folder, "--version")
    with duckdb.connect(str(folder / "home" / "warehouse" / "apiary.duckdb"), read_only=True) as connection:
        found = connection.execute("SELECT count(*) FROM wire.batches").fetchone()
    assert found is not None
    return {"batches": found[0]}


def _manifests(folder: Path) -> dict[str, int]:
    return {"batches": sum(1 for _ in (folder / "home" / "store").rglob("m/*.json"))}


# Usage by session ----------------------------------------------------------------------------------------------------


def prepare_usage(folder: Path, _: float) -> dict[str, int]:
    """The same home."""
    _prepare(folder)
    return query(folder)


def usage(folder: Path) -> dict[str, int]:
    """`apiary usage --by session`."""
    rows = json.loads(_apiary(folder, "usage", "--by", "session", "--json"))
    return {"sessions": len(rows), "turns": sum(row["turns"] for row in rows)}


def query(folder: Path) -> dict[str, int]:
    """The floor: DuckDB is asked the same of the published Parquet."""
    import duckdb

    mart = folder / "home" / "published" / "current" / "agg_usage_session_daily.parquet"
    rows = duckdb.sql(
        "SELECT tenant_id, session_id, sum(turns)::BIGINT AS turns, sum(input_tokens), sum(output_tokens),"
        f" sum(rated_cost_usd) FROM read_parquet('{mart}') GROUP BY ALL"
    ).fetchall()
    return {"sessions": len(rows), "turns": sum(row[2] for row in rows)}
