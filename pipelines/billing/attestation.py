"""The signed head: names the last version of every statement, the files made of it for finance, the book of periods and
the sealed files.

A chain of hashes does not show that its last link was taken away; the head does. It is one file beside the statements,
signed with the site's Ed25519 key, and a copy of each head goes to another store if one is named (`APIARY_ANCHOR`):
who can change every file of this machine cannot change that.
Does not belong here: the chain of manifests (statements.py), comparing everything with the head (verify.py).
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines.billing import ledger, periods
from pipelines.billing.statements import StatementStore
from pipelines.errors import ExpectedError
from pipelines.failpoints import fp
from pipelines.home import private_folder, replace_file
from pipelines.store import Store, open_store

HEAD = "head.json"
SOURCE = "source.json"  # in each folder of `current/`: what its files were made from, and their hashes
KEY = "site.ed25519"  # the private key, under the books' folder in keys/; the public one lies beside it as .pub
ANCHOR = "APIARY_ANCHOR"
PREFIX = "heads/"


class AttestationError(ExpectedError):
    """What was signed before is not there any more as it was: a new head would cover it up."""


@dataclass(frozen=True)
class Head:
    """A head as it was signed. `statements`: manifest hashes of the last versions, by their folders."""

    said: Mapping[str, Any]
    data: bytes

    @property
    def sha256(self) -> str:
        """The name of this head."""
        return hashlib.sha256(self.data).hexdigest()

    @property
    def sequence(self) -> int:
        """How many statements' versions it stands on."""
        return int(self.said["sequence"])


def read(exports: Path) -> Head | None:
    """The head beside the statements, if there is one. Raises ValueError if it is none."""
    path = exports / HEAD
    if not path.exists():
        return None
    data = path.read_bytes()
    said = json.loads(data)
    if not isinstance(said, dict) or "signature" not in said:
        raise ValueError(f"{path} is no head")
    return Head(said, data)


def is_signed(head: Head, public_key: str | None = None) -> bool:
    """Whether the signature is of the key that the head names, and of `public_key` (hexadecimal) if one is given."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    named = str(head.said.get("public_key", ""))
    if public_key is not None and named != public_key:
        return False
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(named))
        key.verify(bytes.fromhex(str(head.said["signature"])), _message(head.said))
    except (InvalidSignature, ValueError, TypeError):
        return False
    return head.data == _written(head.said)


def attest(exports: Path, books: Path, *, as_of: datetime, after_erasure: bool = False) -> Head | None:
    """Sign what stands there now, if it is not signed already with the key of today; None if there is nothing yet.

    What the head before named must still be there, unless an erasure has rewritten it (`after_erasure`).
    Raises AttestationError, periods.BookError, OSError, StoreUnavailableError.
    """
    statement_store, book = StatementStore.open(exports), periods.read(ledger.book_path(books))
    before = read(exports)
    if not statement_store.newest and not book.transitions and before is None:
        return None
    statements = {
        folder.relative_to(exports).as_posix(): {"version": last.number, "manifest_sha256": last.manifest_sha256}
        for folder, last in sorted(statement_store.newest.items())
    }
    said: dict[str, Any] = {
        "sequence": statement_store.sequence, "chain_sha256": statement_store.head, "statements": statements,
        "current": {
            path.parent.relative_to(exports).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(exports.glob(f"current/*/*/{SOURCE}"))
        },
        "periods": {"lines": len(book.transitions), "sha256": book.head},
        "seals": {digest: ledger.current_name(books, digest) for _, digest in book.seals},
    }  # fmt: skip
    if before is not None:
        is_same_key = before.said.get("public_key") == public_key(books)  # one that was changed signs at once
        if is_same_key and all(before.said.get(name) == value for name, value in said.items()):
            _anchor(before)  # the other store may not have answered last time
            return before
        _require_continued(before, statement_store, book, exports, after_erasure=after_erasure)
    key = _private_key(books)
    said |= {
        "as_of": as_of.astimezone(UTC).isoformat(),
        "previous_head_sha256": before.sha256 if before else None,
        "public_key": key.public_key().public_bytes_raw().hex(),
    }
    said["signature"] = key.sign(_message(said)).hex()
    head = Head(said, _written(said))
    replace_file(exports / HEAD, head.data)
    fp("attest.signed")
    _anchor(head)
    return head


def current_files(exports: Path) -> dict[str, str] | None:
    """What the head names of `current/`: the hash of each folder's SOURCE; None without a head that says so."""
    try:
        head = read(exports)
    except ValueError:
        return {}
    return None if head is None or not is_signed(head) else head.said.get("current")


def hashes(folder: Path) -> dict[str, str]:
    """The hash of each file of a folder of `current/`, but for SOURCE, in the order of names."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != SOURCE
    }


def public_key(books: Path) -> str | None:
    """The site's public key, hexadecimal; None before the first signature."""
    path = books / "keys" / f"{KEY}.pub"
    return path.read_text("utf-8").strip() if path.exists() else None


def anchored(store: Store) -> Head | None:
    """The newest head in the other store. Raises StoreUnavailableError, ValueError."""
    keys = sorted(entry.key for entry in store.list(PREFIX))
    if not keys:
        return None
    data = store.get(keys[-1])
    return Head(json.loads(data), data)


def _anchor(head: Head) -> None:
    if url := os.environ.get(ANCHOR):
        instant = datetime.fromisoformat(head.said["as_of"])
        place = f"{head.sequence:010}-{head.said['periods']['lines']:06}-{instant:%Y%m%dT%H%M%S%f}"
        open_store(url).put(f"{PREFIX}{place}-{head.sha256[:16]}.json", head.data)


def _require_continued(
    before: Head, statement_store: StatementStore, book: periods.Book, exports: Path, *, after_erasure: bool
) -> None:
    """What was signed is still there: a statement may have gained versions, the book lines, and nothing is gone."""
    for name, named in before.said["statements"].items():
        folder = exports / name / f"v{named['version']:04}"
        path = folder / "manifest.json"
        data = path.read_bytes() if path.exists() else b""
        same = hashlib.sha256(data).hexdigest() == named["manifest_sha256"]
        if not data or not (same or after_erasure):
            raise AttestationError(
                f"{folder} is not what was signed: restore it; see `apiary verify {exports}`, nothing was signed now"
            )
    signed = before.said["periods"]
    if len(book.transitions) < signed["lines"] or book.head_after(signed["lines"]) != signed["sha256"]:
        raise AttestationError("the book of periods is not what was signed: restore it, nothing was signed now")


def _private_key(books: Path) -> Any:
    """The site's key, made when it is first needed. Raises AttestationError if its file is damaged."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = private_folder(books / "keys") / KEY
    if not path.exists():
        made = Ed25519PrivateKey.generate()
        replace_file(path, made.private_bytes_raw().hex().encode() + b"\n")
        replace_file(path.with_name(f"{KEY}.pub"), made.public_key().public_bytes_raw().hex().encode() + b"\n")
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text("utf-8").strip()))
    except ValueError:
        raise AttestationError(f"{path} is no key of 32 bytes: restore it from a backup") from None


def _message(said: Mapping[str, Any]) -> bytes:
    return json.dumps({name: value for name, value in said.items() if name != "signature"}, sort_keys=True).encode()


def _written(said: Mapping[str, Any]) -> bytes:
    return (json.dumps(said, indent=1, sort_keys=True) + "\n").encode()
