"""What left this device: the owner's copy of every batch, compared byte for byte with what the store holds.

Does not belong here: keeping the copies (spool.py), printing (pipelines/commands).
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipelines.contract.keys import Prefix
from pipelines.home import Home
from pipelines.store import Store

Verdict = Literal["same", "differs", "missing", "deleted", "not deleted"]


@dataclass(frozen=True)
class Receipt:
    """One batch that left: when it was cut, and its rows by table. `tombstone`: it could not be sent, and why."""

    seq: int
    epoch: str
    cut_at: str
    consent_id: str
    rows: dict[str, int]
    bytes: int
    tombstone: str | None
    objects: tuple[dict[str, Any], ...]
    manifest: Path


@dataclass(frozen=True)
class Compared:
    """One object of a receipt and what the comparison with the store gave.

    `deleted`: it was erased by request and is gone. `not deleted`: the server says so, and it is there.
    """

    key: str
    verdict: Verdict


def receipts(home: Home) -> list[Receipt]:
    """Every batch that left, oldest first."""
    found = [_receipt(path) for path in (home.device / "receipts").glob("*.json")]
    return sorted(found, key=lambda receipt: (receipt.cut_at, receipt.seq))


def verify(home: Home, store: Store, *, deleted: Collection[str] = ()) -> list[Compared]:
    """Compare everything that left with the store, byte for byte. `deleted`: epochs that are receipted as erased.

    After 30 days the data itself is no longer kept here; then its hash in the manifest must do. Raises
    StoreUnavailableError, StoreRefusedError.
    """
    compared = []
    for receipt in receipts(home):
        text = receipt.manifest.read_bytes()
        is_deleted = receipt.epoch in deleted
        compared.append(_compare(store, _manifest_key(text), hashlib.sha256(text).hexdigest(), text, is_deleted))
        for item in receipt.objects:
            copy = receipt.manifest.with_name(Path(item["key"]).name)
            data = copy.read_bytes() if copy.exists() else None
            compared.append(_compare(store, item["key"], item["sha256"], data, is_deleted))
    return compared


def _compare(store: Store, key: str, sha256: str, data: bytes | None, is_deleted: bool) -> Compared:
    try:
        held = store.get(key)
    except KeyError:
        return Compared(key, "deleted" if is_deleted else "missing")
    if is_deleted:
        return Compared(key, "not deleted")
    same = hashlib.sha256(held).hexdigest() == sha256 if data is None else held == data
    return Compared(key, "same" if same else "differs")


def _receipt(path: Path) -> Receipt:
    found = json.loads(path.read_bytes())
    tombstone = found.get("tombstone")
    return Receipt(
        seq=found["seq"], epoch=found["epoch"], cut_at=found["cut_at"], consent_id=found["consent_id"],
        rows={item["table"]: item["rows"] for item in found["objects"]},
        bytes=sum(item["bytes"] for item in found["objects"]) + path.stat().st_size,
        tombstone=tombstone["reason"] if tombstone else None, objects=tuple(found["objects"]), manifest=path,
    )  # fmt: skip


def _manifest_key(text: bytes) -> str:
    found = json.loads(text)
    prefix = Prefix(found["region"], found["tenant"], found["device"], found["epoch"])
    return prefix.manifest(found["seq"], hashlib.sha256(text).hexdigest())
