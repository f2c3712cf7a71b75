"""What another version would make of the landing: run from its checkout and compared; nothing of ours is touched."""

import json
import shutil
from pathlib import Path

import duckdb
import pytest

from pipelines import cli
from pipelines.home import ROOT
from pipelines.store import FolderStore
from pipelines.warehouse import landing, load, registry
from tests.warehouse_part.batches import CLONE, LAPTOP, SERVER, MemoryStore, batch, row, turn

SECRETIVE = """
LLM_TURNS = replace(LLM_TURNS, columns=tuple(replace(c, maximum=500) if c.name == "input_tokens" else c
                                             for c in LLM_TURNS.columns))
TABLES: tuple"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A warehouse that has loaded three batches, one of them refused."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    monkeypatch.delenv("APIARY_STORE", raising=False)
    memory, store = MemoryStore(), FolderStore(tmp_path / "apiary" / "store")
    batch(memory, {"llm_turns": [turn(1, input_tokens=400), turn(2, input_tokens=400)]}, device=LAPTOP)
    batch(memory, {"llm_turns": [turn(2, input_tokens=400), turn(3, input_tokens=600)]}, device=CLONE)
    batch(memory, {"tool_calls": [row("tool_calls", 1)]}, device=SERVER, change=lambda m: m.update(user="A B"))
    for key, body in memory.objects.items():
        store.put(key, body)
    folder = tmp_path / "apiary" / "warehouse"
    folder.mkdir()
    registry.close(folder, is_closed=False)
    with duckdb.connect(str(folder / "apiary.duckdb")) as connection:
        load.prepare(connection)
        assert load.load(connection, store, landing.pending(store, ())).loaded == 2
    return tmp_path / "apiary"


def test_another_version_shows_what_it_would_change(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    assert cli.main(["shadow", "--contract", str(ROOT)]) == 0
    assert "no difference" in capsys.readouterr().out

    new = tmp_path / "new"
    shutil.copytree(ROOT / "pipelines", new / "pipelines", ignore=shutil.ignore_patterns("__pycache__"))
    contract = new / "pipelines" / "contract" / "wire.py"
    contract.write_text(contract.read_text("utf-8").replace("\nTABLES: tuple", SECRETIVE, 1), "utf-8")
    assert cli.main(["shadow", "--contract", str(new), "--json"]) == 3
    said = json.loads(capsys.readouterr().out)
    tables = {table.pop("table"): table for table in said["tables"]}
    turns = tables.pop("wire.llm_turns")
    assert (turns["rows_here"], turns["rows_there"], turns["only_here"], turns["only_there"]) == (3, 2, 1, 0)
    assert (turns["input_tokens_here"], turns["input_tokens_there"], turns["changed"]) == (1_400, 800, 0)
    assert all(table["rows_here"] == table["rows_there"] == 0 for table in tables.values())
    refused = [tuple(one.values()) for one in said["quarantined"]]
    assert refused == [("bad_user", 1, 1), ("out_of_range:input_tokens", 0, 1)]
    assert {path: path.read_bytes() for path in home.rglob("*") if path.is_file() and path.name != "lock"} == {
        path: data for path, data in before.items() if path.name != "lock"
    }


def test_what_is_no_checkout(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["shadow", "--contract", str(tmp_path)]) == 2
    assert "no checkout of Apiary" in capsys.readouterr().err
