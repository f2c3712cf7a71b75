"""`apiary verify`: whether billing files are what their manifests say. Needs the files, no warehouse and no network.

Does not belong here: writing them (statements.py), tracing a row to its sources (prove.py).
"""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_HALF_UP, Context, Decimal, InvalidOperation, localcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.billing import attestation, focus, ledger, periods
from pipelines.billing.attestation import HEAD
from pipelines.billing.books import NO_MINOR_UNIT
from pipelines.billing.exports import COSTS, HASH, model_basis, payable, restatement, row_sha256, totals
from pipelines.billing.statements import FIRST_HASH, MANIFEST, Version, cell, harmless, manifest_bytes, schema_sha256
from pipelines.errors import UsageError
from pipelines.store import Store

EXACT = Context(prec=80)
SCHEMAS = focus.SCHEMAS | {"unpriced": focus.UNPRICED, "restatement": focus.RESTATEMENT}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong, by the file it is wrong in."""

    path: Path
    what: str


@dataclass(frozen=True)
class Verified:
    """What was looked at, and everything that is wrong with it."""

    statements: int
    files: int
    faults: tuple[Fault, ...]


def verify(
    folder: Path, *, books: Path | None = None, anchor: Store | None = None, public_key: str | None = None
) -> Verified:
    """Check one statement, or all of them under a folder: hashes, rows, totals, restatements, the chain, and its head.

    The chain and the signed head are checked where all of it is there: below the folder of the exports. `books`: the
    folder with the book of periods and the sealed lines, which the head names too. `anchor`: where copies of the heads
    are; `public_key`: the only key whose signature counts. Raises UsageError, StoreUnavailableError.
    """
    manifests = sorted(folder.rglob(MANIFEST))
    if not manifests and not (folder / HEAD).exists():
        raise UsageError(f"{folder} holds no statement: name the exports' folder, or one version's")
    faults: list[Fault] = []
    versions: list[Version] = []
    files = 0
    for path in manifests:
        data = path.read_bytes()
        try:
            version = Version(path.parent, json.loads(data), hashlib.sha256(data).hexdigest())
            files += len(version.manifest["files"])
            if manifest_bytes(version.manifest) != data:
                faults.append(Fault(path, "was changed: it is not what its own hash says"))
            faults += _faults_of(version)
        except (ValueError, KeyError, TypeError, AttributeError):
            faults.append(Fault(path, "is no manifest any more"))
            continue
        versions.append(version)
    faults += _strangers(folder, versions)
    if (folder / "daily").is_dir() or (folder / "monthly").is_dir() or (folder / HEAD).exists():
        faults += _chain_faults(versions)
        faults += _head_faults(folder, versions, books, anchor, public_key)
    faults += _restatement_faults(versions)
    return Verified(len(manifests), files, tuple(dict.fromkeys(faults)))


def _faults_of(version: Version) -> Iterator[Fault]:
    contents: dict[str, bytes] = {}
    for file in version.manifest["files"]:
        path = version.folder / file["name"]
        if not path.is_file():
            yield Fault(path, "is missing")
            continue
        data = path.read_bytes()
        if len(data) != file["bytes"] or hashlib.sha256(data).hexdigest() != file["sha256"]:
            yield Fault(path, "was changed: its bytes are not those of the manifest")
            continue
        contents[file["name"]] = data
    rows = {file["name"]: file["rows"] for file in version.manifest["files"]}
    for name, digest in version.manifest["schemas"].items():
        if f"{name}.csv" in contents and f"{name}.parquet" in contents:
            yield from _dataset_faults(version, name, digest, contents, rows[f"{name}.csv"])


def _dataset_faults(
    version: Version, name: str, digest: str, contents: Mapping[str, bytes], expected: int
) -> Iterator[Fault]:
    text, table = contents[f"{name}.csv"], pq.read_table(io.BytesIO(contents[f"{name}.parquet"]))
    path = version.folder / f"{name}.csv"
    if schema_sha256(table.schema) != digest:
        yield Fault(version.folder / f"{name}.parquet", "has other columns than the manifest says")
    header, *lines = csv.reader(io.StringIO(text.decode(), newline=""))
    if header != table.schema.names or len(lines) != expected or len(table) != expected:
        yield Fault(path, "and its Parquet file have not the rows that the manifest says")
        return
    for number, (line, row) in enumerate(zip(lines, table.to_pylist(), strict=True), 1):
        written = [_number(cell_, field.type) for cell_, field in zip(line, table.schema, strict=True)]
        stored = [_number(cell(row[field.name]), field.type) for field in table.schema]
        if written != stored:
            yield Fault(path, f"and its Parquet file differ in row {number}")
        if any(value is not None and value != harmless(value) for value in row.values() if isinstance(value, str)):
            yield Fault(path, f"row {number} holds text that a spreadsheet would run")
    if name == COSTS:
        yield from _cost_faults(version, path, table, contents)


def _cost_faults(version: Version, path: Path, table: pa.Table, contents: Mapping[str, bytes]) -> Iterator[Fault]:
    rows = table.to_pylist()
    if totals(rows) != version.manifest["totals"]:
        yield Fault(path, "does not add up to the totals of the manifest")
    if "model_basis" in version.manifest and model_basis(rows) != version.manifest["model_basis"]:
        yield Fault(path, "does not add up to the totals of the manifest by how models are known")
    if len({row["x_RowKey"] for row in rows}) != len(rows):
        yield Fault(path, "holds a row twice")
    for number, row in enumerate(rows, 1):
        yield from (Fault(path, f"row {number}: {what}") for what in row_faults(row))
    if "focus_invoice_detail.parquet" in contents:
        invoices = pq.read_table(io.BytesIO(contents["focus_invoice_detail.parquet"])).to_pylist()
        yield from _invoice_faults(version, rows, invoices)


def row_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """What a cost row breaks of FOCUS' rules: identities, allowed values, half-open periods, one month each."""
    quantity = row["PricingQuantity"]
    if HASH in row and row[HASH] != row_sha256(dict(row)):
        yield f"{HASH} is not the hash of its other cells"
    for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
        if row[price] is not None and row[cost] != EXACT.multiply(row[price], quantity):
            yield f"{cost} is not {price} times PricingQuantity"
    if row["ChargeCategory"] not in ("Usage", "Purchase", "Tax", "Credit", "Adjustment"):
        yield f"ChargeCategory is {row['ChargeCategory']!r}"
    if row["ChargeClass"] not in (None, "Correction"):
        yield f"ChargeClass is {row['ChargeClass']!r}"
    if not row["ChargePeriodStart"] < row["ChargePeriodEnd"]:
        yield "the charge period ends before it begins"
    start: datetime = row["ChargePeriodStart"]
    if row["ChargeClass"] is None and not row["BillingPeriodStart"] <= start < row["BillingPeriodEnd"]:
        yield "the charge lies outside its billing period and is no correction"
    if row["ChargeClass"] == "Correction" and not row["x_IncurredPeriod"] <= f"{row['BillingPeriodStart']:%Y-%m}":
        yield "a correction of a later month"
    if row["ChargeCategory"] == "Usage" and row["ChargeClass"] is None and row["BilledCost"] < 0:
        yield "usage with a negative cost"


def _invoice_faults(
    version: Version, rows: Iterable[Mapping[str, Any]], invoices: list[dict[str, Any]]
) -> Iterator[Fault]:
    """The rows of each invoice line add up to its payable amount; the rounding is at most half a minor unit."""
    sums: dict[str, Decimal] = {}
    for row in rows:
        sums[row["InvoiceDetailId"]] = sums.get(row["InvoiceDetailId"], Decimal(0)) + row["BilledCost"]
    path = version.folder / "focus_invoice_detail.csv"
    if sums.keys() != {line["InvoiceDetailId"] for line in invoices}:
        yield Fault(path, "has not the groups of the cost rows")
    for line in invoices:
        if sums.get(line["InvoiceDetailId"]) != line["BilledCost"]:
            yield Fault(path, f"{line['InvoiceDetailId']} is not the sum of its rows")
        if line["x_ExactCost"] + line["x_RoundingDelta"] != line["BilledCost"]:
            yield Fault(path, f"{line['InvoiceDetailId']} does not say what was rounded")
    if version.manifest.get("rounding") == "per_invoice":  # earlier versions rounded each line
        yield from _payable_faults(version, path, invoices)


def _payable_faults(version: Version, path: Path, invoices: list[dict[str, Any]]) -> Iterator[Fault]:
    """An invoice is its exact sum, rounded once; no line is off by a minor unit, and the manifest says the same."""
    if payable(invoices) != version.manifest.get("payable"):
        yield Fault(path, "has not the payable amounts of the manifest")
    for invoice in {line["InvoiceId"] for line in invoices}:
        own = [line for line in invoices if line["InvoiceId"] == invoice]
        unit = Decimal(1) if own[0]["BillingCurrency"] in NO_MINOR_UNIT else Decimal("0.01")
        with localcontext(prec=60):
            exact = sum((line["x_ExactCost"] for line in own), Decimal(0))
            billed = sum((line["BilledCost"] for line in own), Decimal(0))
            if billed != (exact / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit:
                yield Fault(path, f"{invoice} is not its exact amount, rounded once")
        if any(abs(line["x_RoundingDelta"]) >= unit for line in own):
            yield Fault(path, f"{invoice} has a line that is off by a whole minor unit")


def _restatement_faults(versions: Iterable[Version]) -> Iterator[Fault]:
    """Each version's restatement is exactly what differs from the one before."""
    by_place = {(version.folder.parent, version.folder.name): version for version in versions}
    for version in by_place.values():
        before = by_place.get((version.folder.parent, version.manifest["supersedes"] or ""))
        paths = [version.folder / f"{name}.parquet" for name in (COSTS, "restatement")]
        try:
            rows, said = (pq.read_table(path, partitioning=None).to_pylist() for path in paths)
            expected = restatement(before, rows)
        except (OSError, pa.ArrowException):
            continue  # named already: the bytes are not those of the manifest
        if (before is not None or version.manifest["supersedes"] is None) and expected != said:
            yield Fault(version.folder / "restatement.csv", "is not what changed since the version before")


def _chain_faults(versions: Iterable[Version]) -> Iterator[Fault]:
    previous, number = FIRST_HASH, 0
    for version in sorted(versions, key=lambda item: item.manifest["sequence"]):
        number += 1
        path = version.folder / MANIFEST
        if version.manifest["sequence"] != number:
            yield Fault(path, f"is number {version.manifest['sequence']} of the chain, number {number} is missing")
            number = version.manifest["sequence"]
        elif version.manifest["previous_manifest_sha256"] != previous:
            yield Fault(path, "does not continue the chain: it or the manifest before was changed")
        previous = version.chain_sha256


def _head_faults(
    folder: Path, versions: Iterable[Version], books: Path | None, anchor: Store | None, public_key: str | None
) -> Iterator[Fault]:
    """What the signed head names is there, it is the last there is, and nobody else signed it."""
    path = folder / HEAD
    versions = list(versions)
    try:
        head = attestation.read(folder)
    except ValueError:
        yield Fault(path, "is no signed head any more")
        return
    if head is None:
        if any(version.manifest.get("attested") for version in versions):
            yield Fault(path, "is missing: the last versions are named nowhere")
        return
    if not attestation.is_signed(head, public_key):
        yield Fault(path, "was changed, or signed with another key")
        return
    newest = {
        version.folder.parent.relative_to(folder).as_posix(): version
        for version in sorted(versions, key=lambda item: item.number)
    }
    named = head.said["statements"]
    for name in sorted(named.keys() | newest.keys()):
        last = newest.get(name)
        if last is None:
            yield Fault(folder / name, "is missing: the signed head names it")
        elif name not in named:
            yield Fault(folder / name, "is not in the signed head: `apiary export days` signs what a killed run left")
        elif last.manifest_sha256 != named[name]["manifest_sha256"]:
            yield Fault(last.folder / MANIFEST, "is not the last version that was signed")
    yield from _current_faults(folder, head)
    if anchor is not None:
        there = attestation.anchored(anchor)
        if there is None or there.sha256 != head.sha256:
            yield Fault(path, "is not the newest head of the other store")
    if books is not None:
        yield from _book_faults(books, head)


def _current_faults(folder: Path, head: attestation.Head) -> Iterator[Fault]:
    """The files of finance are those that were signed; a head of an earlier version does not name them."""
    if "current" not in head.said:
        return
    named: Mapping[str, str] = head.said["current"]
    there = {path.relative_to(folder).as_posix() for path in folder.glob("current/*/*") if path.is_dir()}
    for name in sorted(named.keys() | {name for name in there if not Path(name).name.startswith(".")}):
        path = folder / name / attestation.SOURCE
        if name not in named:
            yield Fault(
                folder / name, "is not in the signed head: the next `apiary run` or `apiary export month` signs it"
            )
        elif not path.is_file():
            yield Fault(folder / name, "is missing: the signed head names it; `apiary export month` makes it again")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != named[name]:
            yield Fault(path, "is not what was signed: `apiary export month` makes its folder again")
        else:
            files: Mapping[str, str] = json.loads(path.read_bytes())["files"]
            found = attestation.hashes(folder / name)
            for file in sorted(files.keys() | found.keys()):
                if files.get(file) != found.get(file):
                    what = "is missing" if file not in found else "was changed" if file in files else "was not signed"
                    yield Fault(folder / name / file, f"{what}: `apiary export month` makes its folder again")


def _book_faults(books: Path, head: attestation.Head) -> Iterator[Fault]:
    """The book of periods and the sealed files are those that the head names, no more and no less."""
    path = ledger.book_path(books)
    try:
        book = periods.read(path)
    except periods.BookError as error:
        yield Fault(path, str(error))
        return
    if {"lines": len(book.transitions), "sha256": book.head} != head.said["periods"]:
        yield Fault(path, "is not the book that was signed")
    try:
        current = {digest: ledger.current_name(books, digest) for _, digest in book.seals}
    except ValueError:
        yield Fault(ledger.renamed_path(books), "was changed: restore it")
        return
    if current != head.said["seals"]:
        yield Fault(books / "closed", "are not the sealed files that were signed")
    for digest, name in sorted(current.items()):
        try:
            ledger.sealed(books, digest)
        except ledger.SealError:
            yield Fault(books / "closed" / f"{name}.parquet", "is missing or was changed")
    if (books / "closed").is_dir():
        known = {f"{name}.parquet" for name in current.values()} | {ledger.renamed_path(books).name}
        for file in sorted((books / "closed").iterdir()):
            # A close that was killed leaves a file that no line names; the next one takes it or leaves it.
            if file.name not in known and not _is_named_by_its_content(file):
                yield Fault(file, "is no sealed file that the book names")


def _is_named_by_its_content(file: Path) -> bool:
    return file.suffix == ".parquet" and hashlib.sha256(file.read_bytes()).hexdigest() == file.stem


def _strangers(folder: Path, versions: Iterable[Version]) -> Iterator[Fault]:
    """Files beside a manifest that it does not know."""
    for version in versions:
        known = {file["name"] for file in version.manifest["files"]} | {MANIFEST}
        for path in sorted(version.folder.iterdir()):
            if path.name not in known:
                yield Fault(path, "is in no manifest")


def _number(text: str, kind: pa.DataType) -> object:
    if not text or not pa.types.is_decimal(kind):
        return text
    if "e" in text.lower() or text == "-0":
        return None
    try:
        return Decimal(text)
    except InvalidOperation:
        return None
