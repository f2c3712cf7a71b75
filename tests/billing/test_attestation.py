"""Whatever is taken away, swapped, cut off or edited of statements, book and seals is found, the last of them too."""

import hashlib
import json
import os
import random
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipelines.billing import attestation, current, periods, redaction, verify
from pipelines.billing import ledger as files
from pipelines.billing.attestation import AttestationError
from pipelines.billing.exports import COSTS, export_days, export_month, row_sha256
from pipelines.billing.statements import MANIFEST, StatementStore, manifest_bytes, to_csv, to_parquet
from pipelines.store import open_store
from tests.billing.ledgers import Ledger, line

JANUARY = date(2025, 1, 1)
AT = datetime(2025, 2, 20, tzinfo=UTC)
SHORT, LONG = 30, 1000


@pytest.fixture(scope="module")
def attested(new_ledger: Callable[[], Ledger]) -> Ledger:
    """Two days and a closed month, restated once, all of it signed."""
    ledger = new_ledger()
    ledger.tell([line("a", date(2025, 1, 3)), line("b", date(2025, 1, 4), 5)])
    ledger.build()
    export_days(ledger.export(AT, is_attested=True))
    ledger.tell([line("b", date(2025, 1, 4), 7)])
    ledger.close(JANUARY)
    export_days(ledger.export(AT, is_attested=True))
    export_month(ledger.export(AT, is_attested=True), JANUARY, "acct-acme")
    assert len(current.refresh(StatementStore.open(ledger.exports))) == 1
    attestation.attest(ledger.exports, ledger.books, as_of=AT)
    assert faults(ledger) == ()
    return ledger


@pytest.fixture
def signed(attested: Ledger, tmp_path: Path) -> Ledger:
    """The same in a folder of the test's own."""
    return attested.fork(tmp_path / "ledger")


def faults(ledger: Ledger, **more: object) -> tuple[verify.Fault, ...]:
    return verify.verify(ledger.exports, books=ledger.books, **more).faults


def evidence(ledger: Ledger) -> list[Path]:
    """Every file that proves something; the private key proves nothing by itself."""
    found = [*ledger.exports.rglob("*"), *(ledger.books / "closed").rglob("*"), files.book_path(ledger.books)]
    return sorted(path for path in found if path.is_file())


def versions(ledger: Ledger) -> list[Path]:
    return sorted(path.parent for path in ledger.exports.rglob(MANIFEST))


def rewritten(folder: Path, rng: random.Random) -> None:
    """Another amount in a statement, with hashes, totals and manifest that fit it."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["generated_from"]["as_of"] = f"2025-02-{rng.randint(10, 28)}T00:00:00.{rng.randint(1, 999):03}+00:00"
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))


def tamper(ledger: Ledger, rng: random.Random) -> str:
    """One change of one kind, as somebody would make it who knows how the files hang together."""
    kind = rng.choice(("flip", "cut", "empty", "delete", "delete_version", "swap", "swap_versions", "rewrite",
                       "book_cut", "book_edit", "book_add", "last_statement"))  # fmt: skip
    path, book = rng.choice(evidence(ledger)), files.book_path(ledger.books)
    data, lines = path.read_bytes(), book.read_bytes().splitlines(keepends=True)
    if kind == "flip":
        place = rng.randrange(len(data))
        path.write_bytes(data[:place] + bytes([data[place] ^ (1 << rng.randrange(8))]) + data[place + 1 :])
    elif kind == "cut":
        path.write_bytes(data[: rng.randrange(len(data))])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "delete":
        path.unlink()
    elif kind in ("delete_version", "last_statement"):
        by_number = sorted(versions(ledger), key=lambda f: json.loads((f / MANIFEST).read_bytes())["sequence"])
        shutil.rmtree(by_number[-1] if kind == "last_statement" else rng.choice(by_number))
    elif kind == "swap":
        other = rng.choice([p for p in evidence(ledger) if p.read_bytes() != data])
        path.write_bytes(other.read_bytes())
        other.write_bytes(data)
    elif kind == "swap_versions":
        one, two = rng.sample(versions(ledger), 2)
        one.rename(ledger.folder / "aside")
        two.rename(one)
        (ledger.folder / "aside").rename(two)
    elif kind == "rewrite":
        rewritten(rng.choice(versions(ledger)), rng)
    elif kind == "book_cut":
        book.write_bytes(b"".join(lines[: rng.randrange(len(lines))]))
    elif kind == "book_edit":
        said, previous, new = [json.loads(text) for text in lines], "0" * 64, b""
        said[rng.randrange(len(said))]["reason"] = f"another {rng.random()}"
        for item in said:  # with hashes that fit
            text = json.dumps(item | {"previous": previous}, sort_keys=True).encode()
            previous, new = hashlib.sha256(text).hexdigest(), new + text + b"\n"
        book.write_bytes(new)
    elif kind == "book_add":
        head = hashlib.sha256(lines[-1].rstrip(b"\n")).hexdigest()
        book.write_bytes(b"".join(lines) + json.dumps(json.loads(lines[-1]) | {"previous": head}).encode() + b"\n")
    return f"{kind} {path.relative_to(ledger.folder)}"


def hunt(ledger: Ledger, count: int, seed: int) -> None:
    kept = ledger.folder / "kept"
    for name in ("exports", "billing"):
        shutil.copytree(ledger.folder / name, kept / name)
    rng = random.Random(seed)
    for number in range(count):
        said = tamper(ledger, rng)
        assert faults(ledger) != (), (number, said)
        for name in ("exports", "billing"):
            shutil.rmtree(ledger.folder / name)
            shutil.copytree(kept / name, ledger.folder / name)
    assert faults(ledger) == ()


def test_tampering_is_found(signed: Ledger) -> None:
    hunt(signed, SHORT, 1)


@pytest.mark.long
def test_a_thousand_tamperings_are_found(signed: Ledger) -> None:
    hunt(signed, LONG, 2)


def test_the_last_statement_cannot_be_taken_away(signed: Ledger) -> None:
    """The end of the chain: no later manifest names it, the head does."""
    last = max(versions(signed), key=lambda f: json.loads((f / MANIFEST).read_bytes())["sequence"])
    shutil.rmtree(last)
    assert {fault.what for fault in faults(signed)} == {"is missing: the signed head names it"}


def test_a_row_that_was_edited_with_everything_but_its_own_hash(signed: Ledger) -> None:
    """A cell that no rule looks at, in both files, with a manifest that fits: the row's hash does not."""
    folder = next(path for path in versions(signed) if "monthly" in path.parts)
    table = pq.read_table(folder / f"{COSTS}.parquet", partitioning=None)
    rows = table.to_pylist()
    rows[0]["SubAccountName"] = "somebody else"
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for name, data in (
        (f"{COSTS}.csv", to_csv(table.schema, rows)),
        (f"{COSTS}.parquet", to_parquet(table.schema, rows)),
    ):
        (folder / name).write_bytes(data)
        for file in manifest["files"]:
            if file["name"] == name:
                file.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    (folder / MANIFEST).write_bytes(manifest_bytes(manifest))
    found = [fault.what for fault in verify.verify(folder).faults]
    assert found == ["row 1: x_RowHash is not the hash of its other cells"]
    rows[0]["x_RowHash"] = row_sha256(rows[0])
    assert list(verify.row_faults(rows[0])) == []


def test_the_files_of_finance_are_signed_too_and_made_again_where_they_were_changed(signed: Ledger) -> None:
    folder = signed.exports / "current" / "acct-acme" / "2025-01"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    forged = json.loads(before["source.json"])
    forged["files"]["costs.csv"] = hashlib.sha256(b"0").hexdigest()
    for change, named in (
        ({"costs.csv": b"0"}, "costs.csv"),
        ({"more.csv": b""}, "more.csv"),
        ({"costs.csv": b"0", "source.json": json.dumps(forged).encode()}, "source.json"),
    ):
        for name, data in change.items():
            (folder / name).write_bytes(data)
        assert [fault.path.name for fault in faults(signed)] == [named]
        assert current.refresh(StatementStore.open(signed.exports)) == [folder]
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
        assert faults(signed) == ()
    assert current.refresh(StatementStore.open(signed.exports)) == []


def test_a_head_is_of_the_sites_own_key(signed: Ledger, tmp_path: Path) -> None:
    own = attestation.public_key(signed.books)
    assert faults(signed, public_key=own) == ()
    forged = tmp_path / "other"
    shutil.copytree(signed.books, forged)
    shutil.rmtree(forged / "keys")
    (signed.exports / "head.json").unlink()
    attestation.attest(signed.exports, forged, as_of=AT)
    assert faults(signed) == (), "the head names its key"
    assert [fault.what for fault in faults(signed, public_key=own)] == ["was changed, or signed with another key"]
    assert oct((signed.books / "keys" / attestation.KEY).stat().st_mode & 0o777) == "0o600"


def test_nothing_is_signed_over_what_is_missing(signed: Ledger) -> None:
    """A run does not make good what was taken away: it says so and signs nothing."""
    before = (signed.exports / "head.json").read_bytes()
    book = files.book_path(signed.books)
    lines = book.read_bytes().splitlines(keepends=True)
    for spoil in (lambda: shutil.rmtree(versions(signed)[-1]), lambda: book.write_bytes(lines[0])):
        kept = signed.folder / "kept"
        shutil.copytree(signed.exports, kept)
        spoil()
        signed.tell([line("c", date(2025, 2, 1))])
        with pytest.raises(AttestationError, match="is not what was signed"):
            attestation.attest(signed.exports, signed.books, as_of=AT)
        assert (signed.exports / "head.json").read_bytes() == before
        shutil.rmtree(signed.exports)
        kept.rename(signed.exports)
        book.write_bytes(b"".join(lines))
    assert faults(signed) == ()


def test_a_copy_of_each_head_is_in_another_store(
    signed: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who can change every file of the machine, key and all, cannot change that."""
    store = open_store((tmp_path / "anchor").as_uri())
    monkeypatch.setenv(attestation.ANCHOR, (tmp_path / "anchor").as_uri())
    attestation.attest(signed.exports, signed.books, as_of=AT)
    assert faults(signed, anchor=store) == ()
    shutil.copytree(signed.exports, tmp_path / "older")
    signed.tell([line("c", date(2025, 2, 1))])
    signed.build()
    export_days(signed.export(AT + timedelta(days=1), is_attested=True))
    attestation.attest(signed.exports, signed.books, as_of=AT + timedelta(days=1))
    assert faults(signed, anchor=store) == ()
    shutil.rmtree(signed.exports)
    (tmp_path / "older").rename(signed.exports)
    assert faults(signed) == (), "an older state is sound by itself"
    assert [fault.what for fault in faults(signed, anchor=store)] == ["is not the newest head of the other store"]
    assert faults(signed, anchor=open_store((tmp_path / "empty").as_uri())) != ()


def test_an_erasure_is_signed_again_and_everything_else_is_not(signed: Ledger) -> None:
    assert redaction.redact(signed.exports, signed.books, (), {"ada"}, at=AT) > 0
    assert faults(signed) != ()
    with pytest.raises(AttestationError):
        attestation.attest(signed.exports, signed.books, as_of=AT)
    attestation.attest(signed.exports, signed.books, as_of=AT, after_erasure=True)
    assert faults(signed) == ()


def test_exports_of_an_earlier_version_have_no_head_and_gain_one(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 3))])
    ledger.build()
    export_days(ledger.export(AT))
    assert faults(ledger) == (), "nothing claims to be signed"
    attestation.attest(ledger.exports, ledger.books, as_of=AT)
    assert faults(ledger) == ()
    os.remove(ledger.exports / "head.json")  # noqa: PTH107
    assert faults(ledger) == ()
    ledger.tell([line("b", date(2025, 1, 5))])
    ledger.build()
    export_days(ledger.export(AT, is_attested=True))
    assert [fault.what for fault in faults(ledger)] == ["is missing: the last versions are named nowhere"]


def test_a_damaged_book_is_named_and_not_raised(signed: Ledger) -> None:
    book = files.book_path(signed.books)
    spoil: list[Callable[[bytes], bytes]] = [lambda d: d[:-20], lambda d: b"[]\n" + d, lambda d: d[1:], lambda d: b""]
    data = book.read_bytes()
    for change in spoil:
        book.write_bytes(change(data))
        assert any(fault.path == book for fault in faults(signed))
    book.write_bytes(data)
    assert periods.read(book).head_after(2) == periods.read(book).head
