"""Identifiers of the erased, taken out of what was billed: statements and sealed lines keep every row and amount.

A redacted file is another file with the same rows; its manifest says so, and the hash that the chain goes by stays the
first one, so `apiary verify` still follows it. A sealed file's new name is kept beside its old one.
Does not belong here: what is erased (warehouse/erase.py), when (defs/erasure.py).
"""

import csv
import hashlib
import hmac
import io
import json
import re
import secrets
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.billing import exports, focus, ledger, periods
from pipelines.billing.statements import MANIFEST, manifest_bytes, place, to_csv, to_parquet
from pipelines.home import replace_file

ERASED = "ERASED"
USER_COLUMNS = frozenset({"user_id", "SubAccountId", "SubAccountName"})
"""Columns of sealed lines and of statements whose values are users."""
COLONY = "colony_id"
"""Column of sealed lines whose values stay different ones."""
_WORD = re.compile(r"[A-Za-z0-9_-]+")
_BY_USER = re.compile(r"<h2>By user</h2>.*?</table>", re.DOTALL)  # of a summary (summary.py), its first cells
_TITLED = re.compile(r'(title=")([^"]*)(">)([^<]*)')  # of a page: an id, and what people read for it
_FIRST_CELL = re.compile(r"^(<tr><td[^>]*>)([^<]*)", re.MULTILINE)


@dataclass(frozen=True)
class Change:
    """What becomes `ERASED`: words wherever they stand, users in columns of users.

    Elsewhere the name of a user may be the word for an account, a model or a kind of token: to change one there would
    bill it again.
    """

    words: frozenset[str]
    users: frozenset[str]
    colony_key: bytes = b""

    def text(self, text: str, *, column: str = "") -> str:
        """A value as it may stay. `column`: the name of its column."""
        words = self.words | self.users if column in USER_COLUMNS else self.words
        changed = _WORD.sub(lambda found: ERASED if found[0] in words else found[0], text)
        if column == COLONY and changed != text:  # a plan by colony days counts several as several
            return f"{ERASED}-{hmac.digest(self.colony_key, text.encode(), 'sha256').hex()[:12]}"
        return changed

    def row(self, text: str, names: Sequence[str]) -> str:
        """A row of a statement as its restatement tells it. `names`: of its cells."""
        cells = json.loads(text)
        if len(cells) != len(names):  # of a release that told other columns: a cell that is a name is taken for one
            names = ["user_id" if cell in self.users else "" for cell in cells]
        told = zip(cells, names, strict=True)
        return json.dumps([cell if cell is None else self.text(cell, column=name) for cell, name in told])

    def page(self, text: str) -> str:
        """A file that is no table."""

        def users(table: re.Match[str]) -> str:
            return _FIRST_CELL.sub(lambda cell: cell[1] + self.text(cell[2], column="user_id"), table[0])

        def both(cell: re.Match[str]) -> str:
            changed = self.text(cell[2])
            return cell[0] if changed == cell[2] else f"{cell[1]}{changed}{cell[3]}{changed}"

        return _BY_USER.sub(users, self.text(_TITLED.sub(both, text)))


def redact(
    exports_folder: Path, billing: Path, words: Collection[str], users: Collection[str] = (), *, at: datetime,
    key: bytes = b"",
) -> int:  # fmt: skip
    """Put `ERASED` for each of these in all statements and sealed lines; how many files are other now.

    `words`: what means nothing else; `users`: names that may, and go where they mean a user. Each is made of letters,
    digits, `_` and `-` between separators. May be killed and called again, with the same `key`: by it a colony gets
    the same word in all sealed lines. Without one the call has a key of its own. Raises OSError, SealError.
    """
    change = Change(frozenset(words), frozenset(users), key or secrets.token_bytes(32))
    done = 0
    for folder in _versions(exports_folder):
        done += _redact_version(folder, change, at)
    for digest in {digest for _, digest in periods.read(ledger.book_path(billing)).seals}:
        done += _redact_seal(billing, digest, change)
    names = ledger.renamed(billing)
    for left in names.keys() - names.values():
        (billing / "closed" / f"{left}.parquet").unlink(missing_ok=True)
    return done


def signed_texts(billing: Path) -> Iterator[str]:
    """What those who keep the books wrote into them: who signed, and why. Raises OSError.

    Not the names of users in a book of seats: finance takes such a line out, or ends it.
    """
    for row in _book_rows(billing):
        yield from (str(text) for column, text in row.items() if column != "user_id")
    book = ledger.book_path(billing)
    if book.exists():
        yield book.read_text("utf-8", errors="replace")


def models_in_books(billing: Path) -> set[str]:
    """Models that the books price or settle, private ones by their keyed hash. Raises OSError."""
    return {row["model"] for row in _book_rows(billing) if row.get("model")}


def _book_rows(billing: Path) -> Iterator[dict[str, str]]:
    for path in sorted(billing.glob("*.csv")):
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            yield from csv.DictReader(file)


def _versions(root: Path) -> Iterator[Path]:
    """The folders of all versions; one whose replacement was cut off is put back first."""
    for before in sorted(root.glob("*/**/.v[0-9][0-9][0-9][0-9].before")):
        folder = before.with_name(before.name[1:].removesuffix(".before"))
        if folder.exists():
            shutil.rmtree(before)
        else:
            before.rename(folder)
    yield from (path.parent for path in sorted(root.glob(f"*/**/v[0-9][0-9][0-9][0-9]/{MANIFEST}")))


def _redact_version(folder: Path, change: Change, at: datetime) -> bool:
    written = (folder / MANIFEST).read_bytes()
    manifest: dict[str, Any] = json.loads(written)
    before = {file["name"]: (folder / file["name"]).read_bytes() for file in manifest["files"]}
    content = dict(before)
    for name in manifest["schemas"]:
        table = pq.read_table(io.BytesIO(before[f"{name}.parquet"]))
        changed = _redacted(table, change)
        if name == "restatement":
            before_it = folder.parent / (manifest["supersedes"] or folder.name)
            before_it = before_it if before_it.is_dir() else folder  # somebody removed it, as `apiary verify` says
            changed = _redacted_rows(changed, change, "row_before", _cells_of(before_it))
            changed = _redacted_rows(changed, change, "row_after", _cells_of(folder))
        if changed.equals(table):
            continue
        rows = changed.to_pylist()
        if exports.HASH in changed.column_names:  # the hash of what was erased would still confirm a guess
            rows = [row | {exports.HASH: exports.row_sha256(row)} for row in rows]
        content[f"{name}.csv"], content[f"{name}.parquet"] = to_csv(table.schema, rows), to_parquet(table.schema, rows)
        if name == "restatement":
            manifest["restatement"]["sha256"] = exports.restatement_sha256(rows)
    content |= {
        name: change.page(data.decode()).encode()
        for name, data in before.items()
        if not name.endswith((".csv", ".parquet"))
    }
    said = {name: value if name in ("files", "schemas") else _each(value, change) for name, value in manifest.items()}
    if content == before and said == manifest:
        return False
    first = manifest.get("erased") or {
        "manifest_sha256": hashlib.sha256(written).hexdigest(),
        "files": {file["name"]: file["sha256"] for file in manifest["files"]},
    }
    said["erased"] = {**first, "erased_at": at.isoformat()}
    said["files"] = [
        {**file, "bytes": len(content[file["name"]]), "sha256": hashlib.sha256(content[file["name"]]).hexdigest()}
        for file in manifest["files"]
    ]
    old = folder.with_name(f".{folder.name}.before")
    place(folder, {**content, MANIFEST: manifest_bytes(said)}, replacing=old)
    return True


def _redact_seal(billing: Path, digest: str, change: Change) -> bool:
    lines = ledger.sealed(billing, digest)
    changed = _redacted(lines, change)
    if changed.equals(lines):
        return False
    left, new = ledger.current_name(billing, digest), ledger.seal(billing, changed)
    names = ledger.renamed(billing) | {digest: new, left: new}
    replace_file(ledger.renamed_path(billing), (json.dumps(names, indent=1, sort_keys=True) + "\n").encode())
    return True


def _redacted(table: pa.Table, change: Change) -> pa.Table:
    columns = [
        _redacted_texts(field.name, column, change) if pa.types.is_string(field.type) else column
        for field, column in zip(table.schema, table.columns, strict=True)
    ]
    return pa.Table.from_arrays(columns, schema=table.schema)


def _cells_of(folder: Path) -> list[str]:
    """The names of the cells that a restatement tells of a version's rows."""
    written = set(pq.read_schema(folder / f"{exports.COSTS}.parquet").names)
    return [name for name in focus.COST_AND_USAGE.names if name != exports.HASH and name in written]


def _redacted_rows(table: pa.Table, change: Change, column: str, names: Sequence[str]) -> pa.Table:
    texts = [text if text is None else change.row(text, names) for text in table[column].to_pylist()]
    return table.set_column(table.schema.get_field_index(column), column, pa.array(texts, pa.string()))


def _redacted_texts(name: str, column: pa.ChunkedArray, change: Change) -> pa.Array:
    """Each text changed once: a month's lines repeat most of theirs."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = [change.text(text, column=name) for text in encoded.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(encoded.indices)


def _each(value: Any, change: Change) -> Any:
    """Every text of a manifest's value, changed."""
    if isinstance(value, str):
        return change.text(value)
    if isinstance(value, list):
        return [_each(item, change) for item in value]
    if isinstance(value, dict):
        return {name: _each(item, change) for name, item in value.items()}
    return value
