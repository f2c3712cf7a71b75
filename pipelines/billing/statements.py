"""Writes one version of a statement: datasets as CSV and Parquet with the same rows, other files, and the manifest.

Everything is written aside and synced, the manifest last; then the folder is moved to its name. A version once written
is never changed. Manifests form one chain: each holds the hash of the one written before it, of whatever statement.
Does not belong here: which statements there are and what is in them (exports.py), reading them back (verify.py).
"""

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.contract.numbers import plain
from pipelines.failpoints import fp
from pipelines.home import private_folder

MANIFEST = "manifest.json"
FIRST_HASH = "0" * 64
FORMULA_STARTS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # the full-width ones are read as the others in some locales
Row = dict[str, Any]


@dataclass(frozen=True)
class Dataset:
    """Rows that are written twice, as `<name>.csv` and `<name>.parquet`."""

    name: str
    schema: pa.Schema
    rows: Sequence[Row]


@dataclass(frozen=True)
class Version:
    """One whole version of a statement, as its manifest tells it."""

    folder: Path
    manifest: Mapping[str, Any]
    manifest_sha256: str

    @property
    def chain_sha256(self) -> str:
        """The hash that the next manifest names: the first one, also after an erasure took identifiers out."""
        return str((self.manifest.get("erased") or {}).get("manifest_sha256", self.manifest_sha256))

    @property
    def number(self) -> int:
        """1 for the first."""
        return int(self.manifest["version"])

    def sha256_of(self, name: str) -> str | None:
        """The hash of one of its files."""
        return next((file["sha256"] for file in self.manifest["files"] if file["name"] == name), None)


@dataclass
class StatementStore:
    """All statements under one folder: the newest version of each, and the end of the chain."""

    root: Path
    newest: dict[Path, Version]
    sequence: int
    head: str

    @classmethod
    def open(cls, root: Path) -> "StatementStore":
        """Read every manifest under a folder. Raises OSError, ValueError."""
        statement_store = cls(root, {}, 0, FIRST_HASH)
        for path in sorted(root.glob("*/**/v[0-9][0-9][0-9][0-9]/" + MANIFEST)):
            data = path.read_bytes()
            version = Version(path.parent, json.loads(data), hashlib.sha256(data).hexdigest())
            statement_store.newest[path.parents[1]] = version  # versions sort by their number
            if version.manifest["sequence"] > statement_store.sequence:
                statement_store.sequence, statement_store.head = version.manifest["sequence"], version.chain_sha256
        return statement_store

    def last(self, statement: Path) -> Version | None:
        """The newest whole version of a statement. What was cut off has no manifest and is no version."""
        return self.newest.get(statement)

    def write(
        self, statement: Path, datasets: Sequence[Dataset], about: Mapping[str, Any], files: Mapping[str, bytes]
    ) -> Version:
        """Write the next version of a statement. `about` is what its manifest says of it. Raises OSError."""
        last = self.last(statement)
        number = last.number + 1 if last else 1
        content: dict[str, bytes] = {}
        rows: dict[str, int] = {}
        for dataset in datasets:
            for name, data in (
                (f"{dataset.name}.csv", to_csv(dataset.schema, dataset.rows)),
                (f"{dataset.name}.parquet", to_parquet(dataset.schema, dataset.rows)),
            ):
                content[name], rows[name] = data, len(dataset.rows)
        content |= files
        manifest = {
            **about,
            "version": number,
            "supersedes": last.folder.name if last else None,
            "schemas": {dataset.name: schema_sha256(dataset.schema) for dataset in datasets},
            "files": [
                {"name": name, "rows": rows.get(name), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
                for name, data in sorted(content.items())
            ],
            "sequence": self.sequence + 1,
            "previous_manifest_sha256": self.head,
        }
        data = manifest_bytes(manifest)
        version = Version(statement / f"v{number:04}", json.loads(data), hashlib.sha256(data).hexdigest())
        place(version.folder, {**content, MANIFEST: data})
        self.newest[statement], self.sequence, self.head = version, self.sequence + 1, version.manifest_sha256
        return version


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """A manifest's file: one form of bytes, which holds the hash of everything else in it."""
    said = {name: value for name, value in manifest.items() if name != "content_sha256"}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**said, "content_sha256": digest}, indent=1, sort_keys=True) + "\n").encode()


def to_csv(schema: pa.Schema, rows: Iterable[Row]) -> bytes:
    """The rows as CSV: a header, LF line ends, numbers in digits without exponent, UTC times, nothing for NULL."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(schema.names)
    for row in rows:
        writer.writerow([cell(row[name]) for name in schema.names])
    return text.getvalue().encode()


def to_parquet(schema: pa.Schema, rows: Sequence[Row]) -> bytes:
    """The same rows as Parquet."""
    safe = [{name: harmless(v) if isinstance(v := row[name], str) else v for name in schema.names} for row in rows]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(safe, schema=schema), sink, compression="zstd")
    data: bytes = sink.getvalue().to_pybytes()
    return data


def cell(value: object) -> str:
    """A value as a CSV cell."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, date):
        return value.isoformat()
    return harmless(str(value)) if isinstance(value, str) else str(value)


def harmless(text: str) -> str:
    """Text that a spreadsheet will not run: a formula's first character gets a quote before it."""
    text = text.replace("\r", " ")  # written without quotes by older Pythons: what follows would begin a cell
    return f"'{text}" if text.lstrip().startswith(FORMULA_STARTS) else text


def schema_sha256(schema: pa.Schema) -> str:
    """The identity of a published schema: names, types and whether a cell may be empty."""
    text = json.dumps([[field.name, str(field.type), field.nullable] for field in schema])
    return hashlib.sha256(text.encode()).hexdigest()


def place(folder: Path, content: Mapping[str, bytes], *, replacing: Path | None = None) -> None:
    """Make a folder with files, all at once: it stands aside under another name until its last byte is on the disk.

    `replacing`: the name under which a folder that is there already waits until the new one is in its place.
    """
    aside = folder.with_name(f".{folder.name}.aside")
    shutil.rmtree(aside, ignore_errors=True)
    private_folder(aside)
    for name, data in content.items():
        fp("statement.file")
        with (aside / name).open("xb") as file:
            file.write(data[: len(data) // 2])
            fp("statement.half")
            file.write(data[len(data) // 2 :])
            file.flush()
            os.fsync(file.fileno())
    _sync(aside)
    fp("statement.synced")
    if replacing is not None:
        folder.rename(replacing)
    aside.rename(folder)
    _sync(folder.parent)
    fp("statement.renamed")
    if replacing is not None:
        shutil.rmtree(replacing)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
