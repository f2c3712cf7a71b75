"""Everything that a device writes to a store is known to the registry of keys, which is what an erasure clears.

Observed at the store itself, over every command; a new writer in the device part must be added here.
"""

from __future__ import annotations

import ast
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.contract.keys import REQUESTS, WRITTEN_BY_DEVICES, is_named_by_contract, parse_owner
from pipelines.device import enrolment
from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, write_home
from pipelines.store import FolderStore, Put
from pipelines.warehouse import suppression
from tests.warehouse_part.batches import MemoryStore

DEVICE_PART = Path(cli.__file__).parent / "device"


def test_every_key_that_a_device_writes_is_in_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APIARY_STORE", "APIARY_TENANT_KEY", "HIVE_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = Home(tmp_path / "apiary")
    monkeypatch.setenv("APIARY_HOME", str(home.root))
    agents = tmp_path / "hive"
    write_home(agents, HomeSpec(layout="v3", seed=3, timezone="UTC", first_day=date(2026, 3, 1), days=1))
    written: list[str] = []
    put = FolderStore.put

    def observed(store: FolderStore, key: str, data: bytes) -> Put:
        written.append(key)
        return put(store, key, data)

    def careless(store: FolderStore, key: str, data: bytes, *, overwrites: bool) -> bool:
        observed(store, key, data)
        return not overwrites

    monkeypatch.setattr(FolderStore, "put", observed)
    monkeypatch.setattr(FolderStore, "takes_carelessly", careless)
    enroll = ["device", "enroll", "--tenant", "acme", "--user", "ada", "--timezone", "UTC"]
    grant = ["device", "consent", "grant", "--yes", "--history", "include", "--home", str(agents)]
    commands = [
        enroll, grant, ["device", "consent", "status"], ["device", "preview"], ["device", "ship"],
        ["device", "consent", "pause"], ["device", "consent", "resume"], ["device", "ship", "--now"],
        ["device", "receipts", "verify"], ["device", "export", "--to", str(tmp_path / "stick")], ["device", "status"],
        ["quota", "check"], ["device", "consent", "withdraw"], grant, ["device", "ship"],
    ]  # fmt: skip
    for command in commands:
        assert cli.main(command) in (0, 3), command
    device_id = enrolment.require(home).device_id
    line = suppression.record(
        MemoryStore(), scope="device", tenant="acme", subject=device_id, actor="a", reason="b", now=datetime.now(UTC)
    )
    kinds = set()
    for key in written:
        owner = parse_owner(key)
        assert owner is not None, key
        assert (owner.tenant, owner.device) == ("acme", device_id), key
        assert is_named_by_contract(key), key
        assert line.owns(owner), key
        assert not line.owns(parse_owner(key.replace(device_id, "0" * 32))), key
        kinds.add(next(prefix for prefix in WRITTEN_BY_DEVICES if key.startswith(prefix)))
    assert kinds == set(WRITTEN_BY_DEVICES)
    assert sum(key.startswith(REQUESTS) for key in written) == 1


def test_nothing_else_in_the_device_part_writes_to_a_store() -> None:
    """These were observed above: the probe of a grant, batches, requests."""
    writers = set()
    for path in DEVICE_PART.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and node.func.attr in ("put", "takes_carelessly"):
                writers.add(path.name)
    assert writers == {"probe.py", "ship.py", "outbox.py"}
