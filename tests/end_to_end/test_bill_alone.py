"""The job of an arrival day with analytics that cannot be built: it is billed, nothing is published, the run says so.

Does not belong here: which models a bill is made from (tests/defs/test_definitions.py, tests/dbt/test_project.py).
"""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.billing import books
from pipelines.home import Home
from pipelines.store import open_store
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.driving import device, send
from tests.warehouse import REPOSITORY

pytestmark = pytest.mark.services
NEEDED = ("pipelines", "models", "dbt_project", "expectations", "policies")


def checkout(root: Path) -> Path:
    """A copy of the project in which every model of analytics is a syntax error."""
    ignored = shutil.ignore_patterns("logs", "__pycache__", ".user.yml")
    for name in NEEDED:
        shutil.copytree(REPOSITORY / name, root / name, symlinks=True, ignore=ignored)
    shutil.copy(REPOSITORY / "pyproject.toml", root)
    broken = list((root / "models" / "analytics").rglob("*.sql"))
    assert len(broken) > 30
    for path in broken:
        path.write_text(f"{path.read_text('utf-8')}\nselect broken from nowhere\n", "utf-8")
    return root


def agents(root: Path) -> Path:
    """A home in which a million tokens were read and a hundred thousand written on one day."""
    session = "session_20260504_100000_0a1b2c3d"
    usage = {"input_tokens": 1_000_000, "output_tokens": 100_000, "cached_tokens": 0, "cache_creation_tokens": 0}
    line = turn(0, session=session, at="2026-05-04T10:00:00.5", **usage, cost_usd=0)
    append(queen_folder(root, session) / "events.jsonl", dump(line))
    return root


def test_an_error_in_analytics_does_not_stop_the_bill_of_the_day(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    send(device(home.root, store=home.store_url), agents(tmp_path / "hive"))
    account = {
        "billing_account_id": "A", "tenant_id": "acme", "name": "Acme", "currency": "USD", "reporting_timezone": "UTC",
        "charged_by": "tokens", "recorded_at": datetime(2026, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    books.append(books.ACCOUNTS, home.books, [account])
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
    code = checkout(tmp_path / "checkout")
    (arrived,) = {entry.received_at.date() for entry in open_store(home.store_url).list("landing/")}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", "run", "--date", arrived.isoformat()],
        capture_output=True, text=True, check=False, timeout=3_000,
        cwd=code, env=clean | {"APIARY_HOME": str(home.root), "PYTHONPATH": str(code)},
    )  # fmt: skip

    assert done.returncode == 1, done.stderr
    assert "it comes from no batch: the models or the books are at fault" in done.stderr
    assert "before that, the billing days are exported; what was published before stays" in done.stderr
    assert not (home.published / "current").exists(), "half of the marts would be mixed with older ones"
    (manifest,) = (home.exports / "daily").rglob("manifest.json")
    rows = pq.read_table(manifest.parent / "focus_cost_and_usage.parquet").to_pylist()
    assert sum(row["ConsumedQuantity"] for row in rows) == 1_100_000
    assert sum(row["BilledCost"] for row in rows) == 5 + Decimal("0.1") * 25, "list prices in USD per million tokens"
    told = json.loads(manifest.read_bytes())
    assert (told["usage_date"], told["rows"]) == ("2026-05-04", len(rows))
    assert told["checks"], "and each was judged"
    assert [check for check in told["checks"] if not check["passed"]] == []
    log = done.stderr.splitlines()
    (exported, analysed) = (
        next(n for n, line in enumerate(log) if line.strip().startswith(text))
        for text in ("ok      export the billing days", "…       build and test the analytics")
    )
    assert exported < analysed, "whatever analytics do to a run, its bill is there"
