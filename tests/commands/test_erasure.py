"""`apiary erase` of a name that nobody has. Does not belong here: erasing (tests/warehouse_part, tests/end_to_end)."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands import erasure
from pipelines.store import FolderStore
from pipelines.warehouse import suppression
from tests.device.driving import append, dump, granted, queen_folder, turn


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FolderStore:
    """What ada of acme has sent, not loaded yet; no job runs."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    monkeypatch.setenv("APIARY_STORE", (tmp_path / "store").as_uri())
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1)))
    granted(tmp_path / "device", tmp_path / "hive", store=tmp_path / "store").ship(tmp_path / "hive")
    for name in ("_run_erasure", "run_job"):
        monkeypatch.setattr(erasure, name, lambda *_: None)
    monkeypatch.setattr(erasure, "_show", lambda *_: 0)
    return FolderStore(tmp_path / "store")


@pytest.mark.parametrize(
    ("who", "said"),
    [
        (["--tenant", "acne"], "by tenant acne, but acme:"),
        (["--tenant", "acne", "--user", "ada"], "by tenant acne, but acme:"),
        (["--tenant", "acme", "--user", "adda"], "by user adda of acme, but ada:"),
        (["--tenant", "acme", "--user", "nobody"], "by user nobody of acme:"),
        (["--tenant", "acme", "--device", "0" * 32], f"by device {'0' * 32} of acme"),
    ],
)
def test_a_name_that_nobody_has_is_erased_in_advance_only(
    who: list[str], said: str, store: FolderStore, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["erase", *who, "--yes"]) == 2
    assert said in capsys.readouterr().err
    assert suppression.load(store).listed == ()
    assert cli.main(["erase", *who, "--yes", "--in-advance"]) == 0
    assert len(suppression.load(store).listed) == 1
    assert cli.main(["erase", *who, "--yes"]) == 0, "whose name is on the list is known"


@pytest.mark.parametrize("who", [["--tenant", "acme"], ["--tenant", "acme", "--user", "ada"]])
def test_what_was_sent_and_not_loaded_yet_is_known(who: list[str], store: FolderStore) -> None:
    assert cli.main(["erase", *who, "--yes"]) == 0
    assert len(suppression.load(store).listed) == 1
