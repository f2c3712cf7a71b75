"""Devices of any number: their homes and their landing hold what was said to be written.

Does not belong here: what a home looks like (test_homes.py).
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import duckdb
import pytest

from pipelines.cli import main
from pipelines.commands.simulate import write_landing
from pipelines.home import Home
from pipelines.simulate import scale
from pipelines.store import FolderStore
from pipelines.warehouse import landing, load
from tests.device.driving import granted

pytestmark = pytest.mark.services
LAST_DAY = date(2026, 5, 31)


def test_each_home_holds_what_was_said(tmp_path: Path) -> None:
    made = scale.devices(3, days=2, turns_per_day=40, last_day=LAST_DAY)
    assert {type(device.other).__name__ for device in made} == {"ClaudeCodeSpec", "OpenClawSpec", "HyperhiveSpec"}
    assert {device.home.layout for device in made} == set(scale.LAYOUTS)
    for device in made:
        folder = tmp_path / device.name
        written = scale.write_homes(folder, device)
        homes = [path for path in folder.iterdir() if path.is_dir()]
        assert len(homes) == 2
        reader = granted(tmp_path / f"{device.name}-apiary", *homes, timezone=device.home.timezone)
        reader.ship(*homes)
        rows = [row for row in reader.delivered("llm_turns", "node_steps") if not row.get("is_covered")]
        tokens = sum(row["input_tokens"] for row in rows if row["_table"] == "llm_turns")
        assert written.turns >= 2 * 40
        assert 0 < tokens <= written.input_tokens


def test_a_landing_is_loaded_and_goes_on(tmp_path: Path) -> None:
    store, wanted = tmp_path / "store", scale.Written()
    for last_day, days, is_first in ((LAST_DAY, 3, True), (LAST_DAY + timedelta(days=1), 1, False)):
        for device in scale.devices(2, days=days, turns_per_day=250, last_day=last_day, only_hive=True):
            place = Home(tmp_path / device.name)
            wanted += write_landing(place, device, store.as_uri(), is_first=is_first)
    with duckdb.connect() as connection:
        load.prepare(connection)
        found = FolderStore(store)
        load.load(connection, found, landing.pending(found, load.known_manifests(connection)))
        turns = "SELECT count(*), sum(input_tokens)::BIGINT, sum(output_tokens)::BIGINT FROM wire.llm_turns"
        assert connection.execute(turns).fetchone() == (wanted.turns, wanted.input_tokens, wanted.output_tokens)
        assert wanted.turns == 2 * 4 * 252, "in three sessions of equal length"
        for table in ("tool_calls", "status_events"):
            assert connection.execute(f"SELECT count(*) FROM wire.{table}").fetchone() == (wanted.turns,)
        assert connection.execute("SELECT count(*) FROM wire.sessions").fetchone() == (2 * 4 * 3,)


def test_the_command_writes_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    few = ["--devices", "2", "--days", "1", "--turns-per-day", "8", "--last-day", "2026-05-31"]
    assert main(["simulate", *few, "--landing"]) == 0
    assert "16 turns of 2 devices" in capsys.readouterr().out
    assert len(list((tmp_path / "store").rglob("m/*.json"))) == 2
    assert main(["simulate", *few]) == 2, "nothing is written over"
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "other"))
    assert main(["simulate", *few]) == 0
    assert len(list((tmp_path / "other").rglob("events.jsonl"))) > 2
