"""Derived files: fresh, and stale as soon as the contract says something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipelines.contract import render, wire


def test_the_derived_files_are_fresh() -> None:
    assert render.stale() == [], "run `make contract`"


def test_a_stale_file_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "ROOT", tmp_path)
    assert render.stale() == list(render.FILES)
    render.main()
    assert render.stale() == []
    (tmp_path / "docs" / "contract.md").write_text("edited")
    assert render.stale() == [Path("docs/contract.md")]


def test_people_can_read_every_column_and_its_reason() -> None:
    text = render.contract_md()
    for table in wire.TABLES:
        assert f"## {table.name}" in text
        for column in table.columns:
            assert f"| `{column.name}` | {column.type} |" in text
            assert column.why in text
    assert wire.contract_hash() in text
