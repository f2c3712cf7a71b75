"""What the owner of a device can do: see what left, name a hash, pause, take it back, carry it out by hand."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipelines.contract.pseudonyms import pseudonym
from pipelines.contract.receipts import ErasureReceipt, ErasureRequest, parse_request
from pipelines.device import consent, deletions, enrolment, grant, probe, receipts, resolve
from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from pipelines.store import FolderStore, Put, StoreRefusedError, StoreUnavailableError, open_store
from pipelines.warehouse.ingest import ingest
from tests.device.driving import Device, append, dump, granted, queen_folder, turn


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "hive"
    append(queen_folder(made, queen="queen_of_my_own") / "events.jsonl", dump(*map(turn, range(3))))
    return made


@pytest.fixture
def made(tmp_path: Path, home: Path) -> Device:
    return granted(tmp_path / "apiary", home)


def book(made: Device) -> str | None:
    with made.state() as state:
        current = consent.current(state)
    return current.state if current else None


def unreachable(*_: object) -> Put:
    raise StoreUnavailableError("the store does not answer")


def test_receipts_are_compared_byte_for_byte(made: Device, home: Path) -> None:
    made.ship(home)
    append(queen_folder(home) / "events.jsonl", dump(turn(7)))
    made.ship(home)
    assert [receipt.seq for receipt in receipts.receipts(made.home)] == [1, 2]
    compared = receipts.verify(made.home, made.store)
    assert {item.key for item in compared} == {entry.key for entry in made.store.list("landing")}
    assert {item.verdict for item in compared} == {"same"}
    victim, missing = (made.store.root / item.key for item in compared[:2])
    victim.write_bytes(victim.read_bytes() + b" ")
    missing.unlink()
    verdicts = {item.key: item.verdict for item in receipts.verify(made.home, made.store) if item.verdict != "same"}
    assert verdicts == {compared[0].key: "differs", compared[1].key: "missing"}


def test_receipts_whose_data_went_are_compared_by_their_hash(made: Device, home: Path) -> None:
    made.ship(home)
    for path in (made.home.device / "receipts").glob("*.parquet"):
        path.unlink()
    assert {item.verdict for item in receipts.verify(made.home, made.store)} == {"same"}
    victim = next(made.store.root.rglob("*.parquet"))
    victim.write_bytes(victim.read_bytes()[::-1])
    assert [item.verdict for item in receipts.verify(made.home, made.store)].count("differs") == 1


def test_a_hash_is_named_at_home_only(made: Device, home: Path, tmp_path: Path) -> None:
    made.ship(home)
    (name,) = {row["queen_name"] for row in made.delivered("sessions") if row["queen_name"]}
    assert name.startswith("k1_")
    unknown = "k1_" + "0" * 32
    assert resolve.resolve(made.home, [home], [unknown, name]) == {name: "queen_of_my_own"}
    assert resolve.resolve(made.home, [home], [unknown]) == {}
    short, long = pseudonym(name), pseudonym(name, 12)
    assert resolve.resolve(made.home, [home], [short, long]) == dict.fromkeys([short, long], "queen_of_my_own")
    stranger = granted(tmp_path / "stranger", home)
    assert resolve.resolve(stranger.home, [home], [name]) == {}
    with pytest.raises(UsageError, match="no keyed hash"):
        resolve.resolve(made.home, [home], ["queen_of_my_own"])
    assert b"queen_of_my_own" not in made.state_file.read_bytes()


def test_a_pause_postpones_and_loses_nothing(made: Device, home: Path) -> None:
    made.ship(home)
    grant.pause(made.home)
    append(queen_folder(home) / "events.jsonl", dump(turn(7)))
    with pytest.raises(UsageError, match="paused"):
        made.ship(home)
    assert len(made.delivered("llm_turns")) == 3
    with pytest.raises(UsageError, match="paused already"):
        grant.pause(made.home)
    grant.resume(made.home)
    made.ship(home)
    assert len(made.delivered("llm_turns")) == 4
    with pytest.raises(UsageError, match="not paused"):
        grant.resume(made.home)


def test_what_was_withdrawn_is_neither_paused_nor_resumed(made: Device) -> None:
    made.withdraw()
    with pytest.raises(UsageError, match="no open consent"):
        grant.pause(made.home)
    with pytest.raises(UsageError, match="withdrawn, which a new one follows only"):
        grant.resume(made.home)


def test_a_withdrawal_asks_for_deletion(made: Device, home: Path) -> None:
    made.ship(home)
    epochs = {manifest["epoch"] for manifest in made.manifests()}
    assert grant.withdraw(made.home, store_url=made.store_url)
    (entry,) = made.store.list("requests/v1/acme")
    request = json.loads(made.store.get(entry.key))
    assert request["request"] == "delete_device"
    assert set(request["epochs"]) >= epochs
    assert book(made) == "deletion_requested"
    with pytest.raises(UsageError, match="withdrawn"):
        made.ship(home)


def test_a_withdrawal_names_what_a_state_sent_that_is_gone(made: Device, home: Path) -> None:
    """The receipts outlive a damaged state: their epochs are to be deleted too."""
    made.ship(home)
    for path in made.home.device.glob("state.db*"):
        path.unlink()
    made.grant([home])
    made.ship(home)
    epochs = {manifest["epoch"] for manifest in made.manifests()}
    assert len(epochs) == 2
    grant.withdraw(made.home, store_url=made.store_url)
    (entry,) = made.store.list("requests/v1/acme")
    assert set(json.loads(made.store.get(entry.key))["epochs"]) >= epochs


def test_a_withdrawal_is_delivered_later_if_it_must(made: Device, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.ship(home)
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", unreachable)
        assert not grant.withdraw(made.home, store_url=made.store_url)
        assert book(made) == "withdrawn"
        with pytest.raises(UsageError, match="withdrawn"):
            made.ship(home)
    assert list(made.store.list("requests/v1/")) == []
    monkeypatch.setattr("pipelines.device.limits.SPOOL_BYTES", 0)
    with pytest.raises(UsageError, match="withdrawn"):
        made.ship(home)
    assert len(list(made.store.list("requests/v1/acme"))) == 1
    assert book(made) == "deletion_requested"
    with pytest.raises(UsageError):
        made.ship(home)
    assert len(list(made.store.list("requests/v1/acme"))) == 1, "asked once"


def test_a_withdrawal_goes_where_credentials_of_release_0_1_0_allow_it(
    made: Device, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = FolderStore.put

    def allowed(store: FolderStore, key: str, data: bytes) -> Put:
        if key.startswith("requests/v1/"):
            raise StoreRefusedError("403")
        return put(store, key, data)

    made.ship(home)
    monkeypatch.setattr(FolderStore, "put", allowed)
    assert grant.withdraw(made.home, store_url=made.store_url)
    (entry,) = made.store.list("x1/acme")
    assert parse_request(entry.key, made.store.get(entry.key)).device in entry.key
    assert book(made) == "deletion_requested"


def receipt_for(request: ErasureRequest, **other: Any) -> ErasureReceipt:
    facts: dict[str, Any] = {
        "request_id": request.request_id, "device": request.device, "epochs": request.epochs,
        "erased_at": datetime(2026, 11, 20, 12, tzinfo=UTC), "objects_deleted": 3, "rows_deleted": 17,
    }  # fmt: skip
    return ErasureReceipt(**(facts | other))


def requested(made: Device) -> list[tuple[str, bytes]]:
    return [(entry.key, made.store.get(entry.key)) for entry in made.store.list("requests/v1/")]


def asked(made: Device) -> ErasureRequest:
    (entry,) = made.store.list("requests/v1/")
    return parse_request(entry.key, made.store.get(entry.key))


def test_the_servers_receipt_confirms_a_deletion(made: Device, home: Path) -> None:
    made.ship(home)
    grant.withdraw(made.home, store_url=made.store_url)
    request = asked(made)
    place = {"region": "eu", "tenant": "acme"}
    foreign = receipt_for(request, request_id="0" * 32)
    wrong = [(foreign.key(**place), foreign.to_json()), (f"receipts/v1/eu/acme/{request.device}/x.json", b"{}")]
    for key, data in wrong:
        made.store.put(key, data)
    grant.confirm(made.home, store_url=made.store_url)
    assert book(made) == "deletion_requested", "another request's receipt and rubbish say nothing"
    right = receipt_for(request)
    made.store.put(right.key(**place), right.to_json())
    with pytest.raises(UsageError, match="the deletion is confirmed"):
        made.ship(home)
    assert book(made) == "confirmed"
    with made.state() as state:
        (deletion,) = deletions.asked(state)
        assert (deletion.receipt, deletion.requested_at) == (right, request.requested_at)
    made.grant([home])
    made.ship(home)
    assert book(made) == "granted"


def test_a_receipt_for_another_device_or_an_earlier_request_confirms_nothing(made: Device, home: Path) -> None:
    place = {"region": "eu", "tenant": "acme"}
    made.ship(home)
    grant.withdraw(made.home, store_url=made.store_url)
    first = asked(made)
    made.grant([home])
    made.ship(home)
    grant.withdraw(made.home, store_url=made.store_url)
    for receipt in (receipt_for(first), receipt_for(first, device="0" * 32)):
        made.store.put(receipt.key(**place), receipt.to_json())
    (second,) = (r for r in map(parse_request, *zip(*requested(made), strict=True)) if r.request_id != first.request_id)
    misplaced = receipt_for(second, device="0" * 32)
    key = misplaced.key(**place).replace("0" * 32, second.device)
    made.store.put(key, misplaced.to_json())
    grant.confirm(made.home, store_url=made.store_url)
    assert book(made) == "deletion_requested", "the second request is not carried out"
    with made.state() as state:
        assert [deletion.receipt is None for deletion in deletions.asked(state)] == [False, True]


def test_what_a_receipt_calls_deleted_is_gone(made: Device, home: Path) -> None:
    made.ship(home)
    epochs = {receipt.epoch for receipt in receipts.receipts(made.home)}
    still_there = receipts.verify(made.home, made.store, deleted=epochs)
    assert {item.verdict for item in still_there} == {"not deleted"}
    (made.store.root / still_there[0].key).unlink()
    verdicts = {item.key: item.verdict for item in receipts.verify(made.home, made.store, deleted=epochs)}
    assert verdicts.pop(still_there[0].key) == "deleted"
    assert set(verdicts.values()) == {"not deleted"}


def test_a_receipt_that_comes_after_a_new_grant_leaves_that_grant_alone(made: Device, home: Path) -> None:
    made.ship(home)
    grant.withdraw(made.home, store_url=made.store_url)
    made.grant([home])
    right = receipt_for(asked(made))
    made.store.put(right.key(region="eu", tenant="acme"), right.to_json())
    made.ship(home)
    assert book(made) == "granted"
    with made.state() as state:
        assert state.unconfirmed_requests() == []


WITHDRAW = """
import os, signal, sys
from pathlib import Path
from pipelines import failpoints
from pipelines.device import grant
from pipelines.home import Home
failpoints.hook = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == sys.argv[2] else None
grant.withdraw(Home(Path(sys.argv[1])), store_url="file:///dev/null/nowhere")
"""


@pytest.mark.parametrize("point", ["withdraw.committed", "withdraw.purged"])
def test_a_withdrawal_outlives_a_kill_a_full_spool_and_thirty_days_offline(
    made: Device, home: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """Test 71: what was read and not sent is gone, nothing leaves any more, and the request arrives in the end."""
    with monkeypatch.context() as patch:
        patch.setattr(FolderStore, "put", unreachable)
        with pytest.raises(DeviceError):
            made.ship(home)
        killed = subprocess.run([sys.executable, "-c", WITHDRAW, str(made.home.root), point], check=False)
        assert killed.returncode == -signal.SIGKILL
        patch.setattr("pipelines.device.limits.SPOOL_BYTES", 0)
        for _ in range(30):
            with pytest.raises(UsageError, match="withdrawn"):
                made.ship(home)
    with made.state() as state:
        assert (state.totals()["rows_staged"], state.totals()["batches_waiting"]) == (0, 0)
    monkeypatch.setattr("pipelines.device.limits.SPOOL_BYTES", 0)
    with pytest.raises(UsageError, match="withdrawn"):
        made.ship(home)
    assert asked(made).device == made_enrolment(made).device_id
    assert list(made.store.list("landing")) == []
    assert [path for path in (made.home.device / "spool").rglob("*") if path.is_file()] == []


def made_enrolment(made: Device) -> enrolment.Enrolment:
    return enrolment.require(made.home)


def test_a_new_grant_after_a_withdrawal_starts_another_chain(made: Device, home: Path) -> None:
    made.ship(home)
    before = {(m["epoch"], m["seq"]) for m in made.manifests()}
    grant.withdraw(made.home, store_url=made.store_url)
    made.grant([home])
    made.ship(home)
    after = {(m["epoch"], m["seq"]) for m in made.manifests()} - before
    assert {seq for _, seq in after} == {1}
    assert {epoch for epoch, _ in after}.isdisjoint({epoch for epoch, _ in before})


def test_carried_out_by_hand_it_is_the_same(made: Device, home: Path, tmp_path: Path) -> None:
    by_hand = Device(made.home, (tmp_path / "stick").as_uri())
    by_hand.ship(home)
    target = open_store((tmp_path / "landing").as_uri())
    first = ingest(tmp_path / "stick", target)
    second = ingest(tmp_path / "stick", target)
    assert (first.existed, second.created) == (0, 0)
    assert first.created == second.existed == len(list(target.list("landing")))
    append(queen_folder(home) / "events.jsonl", dump(turn(7)))
    made.ship(home)
    assert len(made.delivered("llm_turns")) == 1, "what went out by hand does not go out again"


def test_manifests_are_carried_last(tmp_path: Path, made: Device, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.ship(home)
    keys: list[str] = []
    put = FolderStore.put

    def noted(store: FolderStore, key: str, data: bytes) -> Put:
        keys.append(key)
        return put(store, key, data)

    monkeypatch.setattr(FolderStore, "put", noted)
    ingest(made.store.root, open_store((tmp_path / "landing").as_uri()))
    kinds = [key.endswith(".json") for key in keys]
    assert kinds == sorted(kinds)
    assert any(kinds)


def test_a_good_store_and_a_careless_one(made: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    assert grant.ask_store(made.home, made.store_url).verdict == "ok"

    def careless(store: FolderStore, key: str, data: bytes) -> Put:
        (store.root / key).parent.mkdir(parents=True, exist_ok=True)
        (store.root / key).write_bytes(data)
        return Put.CREATED

    monkeypatch.setattr(FolderStore, "put", careless)
    answer = grant.ask_store(made.home, made.store_url)
    assert answer.verdict == "degraded-store"
    assert len(answer.reasons) == 2
    monkeypatch.setattr(FolderStore, "put", unreachable)
    assert grant.ask_store(made.home, made.store_url).verdict == "not reachable"


def test_no_store_is_asked_without_a_grant(made: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    grant.withdraw(made.home, store_url=made.store_url)
    monkeypatch.setattr(probe, "probe", lambda *_: pytest.fail("the store was asked"))
    with pytest.raises(UsageError):
        grant.ask_store(made.home, made.store_url)
