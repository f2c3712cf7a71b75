"""The spool: a batch can be made again byte for byte, and a file in it is whole or not there."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.contract import wire
from pipelines.contract.keys import parse_manifest_key
from pipelines.device import spool as spools
from pipelines.device.blocks import pack
from pipelines.device.consent import Consent
from pipelines.device.enrolment import Enrolment
from pipelines.device.redact import Redactor, Row
from pipelines.device.spool import Spool, to_parquet
from pipelines.device.state import MEMORY, State

NOW = datetime(2026, 5, 4, tzinfo=UTC)
ENROLLED = Enrolment("0" * 32, "acme", "ada", "eu", "Europe/Berlin", "file:///x", "")
CONSENT = Consent("c" * 32, "granted", NOW, "include", wire.contract_hash())


def row(number: int) -> Row:
    values = {
        "record_id": f"{number:032x}", "session_id": "session_20260504_101500_0a1b2c3d", "agent_role": "queen",
        "input_tokens": number, "output_tokens": 1, "model": "anthropic/claude-opus-4-6", "occurred_at": NOW,
        "reported_cost_usd": Decimal("0.00123456789012345678"), "is_time_ambiguous": False,
    }  # fmt: skip
    made = Redactor(b"k" * 32).row(wire.LLM_TURNS, values)
    assert made is not None
    return made


@pytest.fixture
def state() -> Iterator[State]:
    with closing(State(MEMORY)) as made:
        made.set_value("epoch", "e" * 16)
        yield made


def seal(state: State, root: Path) -> Spool:
    made = Spool(root / "spool")
    made.seal_all(state, ENROLLED, CONSENT, NOW)
    return made


def test_a_sealed_batch_is_its_rows_and_its_names_are_its_content(state: State, tmp_path: Path) -> None:
    for number in (2, 1):
        state.stage("llm_turns", row(number))
    (batch,) = seal(state, tmp_path).sealed(state)
    data_key, manifest_key = (file.key for file in batch.files)
    data, manifest = (file.path for file in batch.files)
    table = pq.read_table(data)
    assert table.schema == wire.LLM_TURNS.arrow
    assert [found["input_tokens"] for found in table.to_pylist()] == [2, 1], (
        "rows stand in the order in which they were staged"
    )
    assert table.to_pylist()[1]["reported_cost_usd"] == Decimal("0.00123456789012345678")
    assert table.to_pylist()[1]["occurred_at"] == NOW
    for key, path in ((file.key, file.path) for file in batch.files):
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in key
    assert parse_manifest_key(manifest_key) is not None
    assert data_key in manifest.read_text()
    assert state.waiting_rows()["llm_turns"], "the rows stay until the batch is delivered"


def test_the_same_rows_give_the_same_bytes() -> None:
    block = pack("llm_turns", [row(number) for number in range(100)])
    assert to_parquet(wire.LLM_TURNS, [block]) == to_parquet(wire.LLM_TURNS, [block])


def test_a_batch_sealed_twice_is_the_same_files(state: State, tmp_path: Path) -> None:
    """A crash after the files were written and before the state knows of it."""
    for number in range(20):
        state.stage("llm_turns", row(number))
    really = state.sealed

    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    state.sealed = dying
    with pytest.raises(KeyboardInterrupt):
        seal(state, tmp_path)
    first = {path.name: path.read_bytes() for path in (tmp_path / "spool" / "ready").iterdir()}
    state.sealed = really
    made = Spool(tmp_path / "spool")
    made.seal_all(state, ENROLLED, CONSENT, NOW + timedelta(days=1))
    assert {path.name: path.read_bytes() for path in (tmp_path / "spool" / "ready").iterdir()} == first
    assert len(first) == 2


def test_batches_are_bounded_and_chained(state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spools, "MAX_ROWS", 10)
    for number in range(25):
        state.stage("llm_turns", row(number))
    manifests = [json.loads(batch.files[-1].path.read_text()) for batch in seal(state, tmp_path).sealed(state)]
    assert [manifest["objects"][0]["rows"] for manifest in manifests] == [10, 10, 5]
    digests = [
        hashlib.sha256(batch.files[-1].path.read_bytes()).hexdigest()
        for batch in Spool(tmp_path / "spool").sealed(state)
    ]
    assert [manifest["previous_manifest_sha256"] for manifest in manifests] == ["", *digests[:2]]


def test_a_file_in_ready_is_whole_whenever_the_writing_dies(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 3: within the writing, at fsync, between the move and the folder's fsync."""
    state.stage("llm_turns", row(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(spools.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            seal(state, tmp_path)
    ready = tmp_path / "spool" / "ready"
    assert not ready.exists() or list(ready.iterdir()) == []
    assert len(list(seal(state, tmp_path).sealed(state))) == 1


def test_a_delivered_batch_becomes_its_receipt(state: State, tmp_path: Path) -> None:
    state.stage("llm_turns", row(1))
    made = seal(state, tmp_path)
    (batch,) = made.sealed(state)
    contents = {file.path.name: file.read() for file in batch.files}
    state.delivered(batch.seq, NOW)
    made.finish(batch)
    assert list((tmp_path / "spool" / "ready").iterdir()) == []
    assert {path.name: path.read_bytes() for path in (tmp_path / "receipts").iterdir()} == contents


def test_the_data_of_old_receipts_goes_and_their_manifests_stay(state: State, tmp_path: Path) -> None:
    state.stage("llm_turns", row(1))
    made = seal(state, tmp_path)
    (batch,) = made.sealed(state)
    state.delivered(batch.seq, NOW)
    made.finish(batch)
    written = (tmp_path / "receipts" / batch.files[0].path.name).stat().st_mtime
    made.prune(datetime.fromtimestamp(written + spools.RECEIPT_SECONDS - 60, UTC))
    assert len(list((tmp_path / "receipts").iterdir())) == 2
    made.prune(datetime.fromtimestamp(written + spools.RECEIPT_SECONDS + 60, UTC))
    assert [path.name for path in (tmp_path / "receipts").iterdir()] == [batch.files[-1].path.name]


def test_a_crash_before_the_tidying_keeps_the_receipt_and_leaves_nothing_else(state: State, tmp_path: Path) -> None:
    state.stage("llm_turns", row(1))
    made = seal(state, tmp_path)
    (batch,) = made.sealed(state)
    state.delivered(batch.seq, NOW)
    state.stage("llm_turns", row(2))
    made.seal_all(state, ENROLLED, CONSENT, NOW)
    (tmp_path / "spool" / "ready" / "0000000009-llm_turns-ffffffffffffffff.parquet").write_bytes(
        b"of a batch nobody knows"
    )
    made.sweep(state)
    (waiting,) = made.sealed(state)
    assert {path.name for path in (tmp_path / "spool" / "ready").iterdir()} == {
        file.path.name for file in waiting.files
    }
    assert {path.name for path in (tmp_path / "receipts").iterdir()} == {file.path.name for file in batch.files}


def test_nobody_else_may_read_the_spool(state: State, tmp_path: Path) -> None:
    state.stage("llm_turns", row(1))
    seal(state, tmp_path)
    for path in (tmp_path / "spool").rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


@pytest.mark.parametrize("table", wire.TABLES, ids=lambda table: table.name)
def test_a_row_without_a_required_value_cannot_be_written(table: wire.Table) -> None:
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        to_parquet(table, [pack(table.name, [{"record_id": "0" * 32}])])
