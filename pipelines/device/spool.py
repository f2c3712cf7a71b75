"""Batches on the device: rows of a cut become Parquet files and a manifest in the spool, named by their content.

A batch can be made again from its cut, byte for byte, so a crash at any point only repeats work.
Does not belong here: the network (ship.py), what the rows mean.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import __version__
from pipelines.contract import wire
from pipelines.contract.keys import PROTOCOL, Prefix
from pipelines.contract.table import Table
from pipelines.contract.wire import BY_NAME, contract_hash
from pipelines.device.blocks import unpack
from pipelines.device.consent import Consent
from pipelines.device.enrolment import Enrolment
from pipelines.device.state import State
from pipelines.failpoints import fp
from pipelines.home import private_folder

TINY_ROWS = 16
UNIQUE = ("record_id", "span_id")  # columns of which no value stands twice in a file
# The protocol allows 50,000. Sealing a batch takes the most memory of all that is done here: with 20,000 rows the whole
# stays below 150 MB (tests/device/test_light_load.py).
MAX_ROWS = 20_000


REPORTS = (wire.DEVICE_REPORTS.name, wire.SOURCE_FILES.name)

# A delivered batch's files stay this long beside its manifest: the owner can compare them with the store.
RECEIPT_SECONDS = 30 * 86_400


@dataclass(frozen=True)
class File:
    """One file of a batch: its key in the store, its place in the spool, its hash."""

    key: str
    path: Path
    sha256: str

    def read(self) -> bytes:
        """Its bytes. Raises DamagedError if they are not what was sealed: a disk may fail, and people tidy up."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            data = b""
        if hashlib.sha256(data).hexdigest() != self.sha256:
            raise DamagedError(self.path.name)
        return data


class DamagedError(Exception):
    """A file of the spool is missing or has changed."""


@dataclass(frozen=True)
class Sealed:
    """A batch in the spool: its files in the order they must be sent, the manifest last."""

    seq: int
    files: tuple[File, ...]
    rows: int
    size: int
    report_rows: int = 0
    """Of the rows those that say what runs did, which every batch has."""

    @property
    def is_tombstone(self) -> bool:
        """Whether it is a manifest alone."""
        return len(self.files) == 1


class Spool:
    """The spool folder of one device."""

    def __init__(self, root: Path) -> None:
        self._ready = root / "ready"
        self._aside = root / "aside"
        self._receipts = root.parent / "receipts"

    def seal_all(self, state: State, enrolment: Enrolment, consent: Consent, now: datetime) -> None:
        """Cut what is staged into batches and seal every cut batch. Raises OSError if the disk is full."""
        while True:
            for batch in state.batches("cut"):
                self._seal(state, enrolment, consent, int(batch["seq"]), str(batch["cut_at"]))
            with state.step():
                if state.cut(MAX_ROWS, now) is None:
                    return
                fp("cut.assigned")

    def sealed(self, state: State) -> Iterator[Sealed]:
        """Batches that wait to be sent, oldest first."""
        for batch in state.batches("sealed"):
            objects = json.loads(batch["objects"])
            hashes = {item["key"]: item["sha256"] for item in objects}
            report_rows = sum(item["rows"] for item in objects if item["table"] in REPORTS)
            hashes[batch["manifest_key"]] = batch["manifest_sha256"]
            files = tuple(File(key, self._ready / Path(key).name, sha256) for key, sha256 in hashes.items())
            yield Sealed(int(batch["seq"]), files, int(batch["rows"]), int(batch["bytes"]), report_rows)

    def finish(self, batch: Sealed) -> None:
        """Delivered: the files become the receipt of what left."""
        private_folder(self._receipts)
        for file in batch.files:
            file.path.replace(self._receipts / file.path.name)
            fp("receipt.moved")

    def prune(self, now: datetime) -> None:
        """Drop the data of old receipts; their manifests, which say what left and when, stay."""
        for path in self._receipts.glob("*.parquet"):
            if path.stat().st_mtime < now.timestamp() - RECEIPT_SECONDS:
                path.unlink()
                fp("receipt.pruned")

    def size(self) -> int:
        """Bytes that wait in the spool."""
        return sum(path.stat().st_size for path in self._ready.iterdir()) if self._ready.is_dir() else 0

    def write_tombstone(self, state: State, batch: Sealed, reason: str) -> None:
        """Put a tombstone in the place of a batch that cannot be sent: the chain stays dense, the loss is counted."""
        manifest = json.loads(batch.files[-1].read())
        rows = {item["table"]: item["rows"] for item in manifest["objects"]}
        manifest |= {"objects": [], "tombstone": {"reason": reason, "rows": rows}}
        fp("bury.begun")
        self._write_manifest(state, manifest, [], rows=0, size=0)
        fp("bury.marked")
        with state.step():
            state.reopen(batch.seq + 1)  # their manifests hold the hash of the one that a tombstone replaces

    def sweep(self, state: State) -> None:
        """Tidy up after a shipping that died: what no waiting batch needs goes, a delivered one's manifest stays."""
        left = {path.name for path in self._ready.iterdir()} if self._ready.is_dir() else set()
        left -= {file.path.name for batch in self.sealed(state) for file in batch.files}
        if not left:
            return
        fp("sweep.found")
        receipts = set()
        for batch in state.batches("delivered"):
            receipts |= {Path(item["key"]).name for item in json.loads(batch["objects"])}
            receipts.add(Path(batch["manifest_key"]).name)
        for name in left:
            if name in receipts:
                (self._ready / name).replace(private_folder(self._receipts) / name)
            else:
                (self._ready / name).unlink()

    def purge(self) -> None:
        """Empty the spool: consent was withdrawn."""
        for folder in (self._ready, self._aside):
            for path in folder.iterdir() if folder.is_dir() else ():
                path.unlink()
                fp("purge.removed")

    def _seal(self, state: State, enrolment: Enrolment, consent: Consent, seq: int, cut_at: str) -> None:
        prefix = Prefix(enrolment.region, enrolment.tenant, enrolment.device_id, str(state.value("epoch")))
        objects: list[dict[str, Any]] = []
        size = 0
        fp("seal.begun")
        for name in state.tables_of(seq):
            data, sums = to_parquet(BY_NAME[name], state.blocks_of(seq, name))
            digest = hashlib.sha256(data).hexdigest()
            key = prefix.data(seq, name, digest)
            self._write(Path(key).name, data)
            size += len(data)
            objects.append({
                "key": key, "table": name, "schema": BY_NAME[name].schema_id, "sha256": digest, "bytes": len(data),
                **sums,
            })  # fmt: skip
        manifest = {
            "protocol": PROTOCOL, "region": prefix.region, "tenant": prefix.tenant, "device": prefix.device,
            "epoch": prefix.epoch, "seq": seq, "previous_manifest_sha256": state.last_manifest(seq),
            "contract_hash": contract_hash(), "consent_id": consent.consent_id, "user": enrolment.user,
            "uploader_version": __version__, "timezone": enrolment.timezone, "cut_at": cut_at, "objects": objects,
            "counters": state.counters_of(seq), "clock_offset_seconds": state.clock_offset_of(seq),
        }  # fmt: skip
        self._write_manifest(state, manifest, objects, rows=sum(item["rows"] for item in objects), size=size)

    def _write_manifest(
        self, state: State, manifest: dict[str, Any], objects: list[dict[str, Any]], *, rows: int, size: int
    ) -> None:
        """The last file of a batch, and the step that makes it sealed."""
        prefix = Prefix(manifest["region"], manifest["tenant"], manifest["device"], manifest["epoch"])
        data = json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()
        digest = hashlib.sha256(data).hexdigest()
        key = prefix.manifest(manifest["seq"], digest)
        self._write(Path(key).name, data)
        fp("seal.manifest")
        _sync_folder(self._ready)
        fp("seal.folder_synced")
        with state.step():
            state.sealed(manifest["seq"], key=key, sha256=digest, objects=objects, rows=rows, size=size + len(data))
            fp("seal.marked")

    def _write(self, name: str, data: bytes) -> None:
        """Write aside, then move: a file in `ready` is whole."""
        aside = private_folder(self._aside) / name
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
            file.write(data)
            file.flush()
            fp("seal.written")
            os.fsync(file.fileno())
        fp("seal.synced")
        aside.replace(private_folder(self._ready) / name)
        fp("seal.renamed")


def to_parquet(table: Table, blocks: Iterable[bytes]) -> tuple[bytes, dict[str, int]]:
    """The Parquet file of staged rows, the same bytes for the same rows and library version, and what is in it: the
    number of rows and, where each of them has tokens, their sums. The warehouse balances its books with them."""
    batches = [_whole(table, unpack(block)) for block in blocks]
    rows = pa.Table.from_batches(batches, schema=table.arrow).combine_chunks()
    sums = {c.name for c in table.columns if c.name in ("input_tokens", "output_tokens") and c.required}
    sink = pa.BufferOutputStream()
    if rows.num_rows > TINY_ROWS:
        # In the order in which they were read times and numbers grow by little: their differences take the least. A
        # dictionary of what never repeats would only be added to it.
        grows = [column.name for column in table.columns if column.type in ("timestamp", "int64")]
        repeats = [name for name in table.names if name not in (*grows, *UNIQUE)]
        pq.write_table(
            rows, sink, compression="zstd", store_schema=False, use_dictionary=repeats,
            column_encoding=dict.fromkeys(grows, "DELTA_BINARY_PACKED"),
        )  # fmt: skip
    else:  # it would double by what helps a large file, and opening it would take three times as long
        pq.write_table(rows, sink, compression="none", use_dictionary=False, write_statistics=False, store_schema=False)
    data: bytes = sink.getvalue().to_pybytes()
    return data, {"rows": rows.num_rows} | {name: _sum(rows.column(name)) for name in sorted(sums)}


def _whole(table: Table, batch: pa.RecordBatch) -> pa.RecordBatch:
    """The columns of a block and those that it lacks."""
    held = set(batch.schema.names)
    arrays = [
        batch.column(field.name) if field.name in held else pa.nulls(batch.num_rows, field.type)
        for field in table.arrow
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=table.arrow)


def _sum(column: pa.ChunkedArray) -> int:
    return sum(value or 0 for value in column.to_pylist())


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
