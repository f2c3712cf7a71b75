"""Erasing what the suppression list names: from the warehouse, what is published, the exports, the store; and proof.

Deleting a row leaves its bytes in the engine's file, so the warehouse is written anew without it and put in the old
one's place; the models are built again by the next run. Nothing is deleted before what takes its place is there; killed
at any point, the next pass goes on. A request that cannot be finished waits with its reason, the others are finished.
Does not belong here: what may be loaded (suppression.py), the new warehouse (renewal.py), searching bytes (residue.py),
dbt, statements and the order of a run (defs/erasure.py).
"""

import hashlib
import io
import json
import secrets
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from pipelines.contract.keys import (
    EARLIER_REQUESTS,
    LANDING,
    PROBES,
    REQUESTS,
    Owner,
    is_named_by_contract,
    parse_manifest_key,
    parse_owner,
)
from pipelines.contract.receipts import ErasureReceipt
from pipelines.contract.wire import BY_NAME
from pipelines.errors import ExpectedError
from pipelines.failpoints import fp
from pipelines.home import private_folder, replace_file, sync_folder
from pipelines.store import Store, StoreRefusedError
from pipelines.warehouse import database, kept, landing, load, registry, renewal, residue, suppression
from pipelines.warehouse.landing import Arrival, IncompleteError, RefusedError
from pipelines.warehouse.needles import Needles, UnsearchableError
from pipelines.warehouse.suppression import Scope, Suppression

Build = Callable[[Path], None]
"""Builds the rated lines in a warehouse file. Raises BuildError."""

ATTEMPTS = 3  # to write a warehouse whose file holds nothing of the erased; what is left then waits for the next pass
UNOPENED_AFTER = 3  # objects of one device that could not be searched; the rest of its objects is not opened


class EraseError(ExpectedError):
    """An erasure could not be ended; what it replaced is in place, and nothing was receipted."""


class BuildError(ExpectedError):
    """The models do not build. An erasure does without: it keeps amounts turn by turn."""


@dataclass
class Share:
    """What one line of the list takes away, counted before it goes, and what must be found nowhere afterwards."""

    devices: list[tuple[str, str]] = field(default_factory=list)
    """Region and device of a line that names a device: where its receipt goes."""
    epochs: list[str] = field(default_factory=list)
    objects: int = 0
    rows: int = 0
    identifiers: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    erased_at: str = ""


@dataclass
class Journal:
    """What a pass must still know when the old warehouse is gone. It names what is being erased, and is erased last."""

    shares: dict[str, Share] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """The journal of a pass that was cut off, or that left requests waiting."""
        found = json.loads(path.read_bytes())["shares"]
        return cls({name: Share(**share) for name, share in found.items()})

    @property
    def identifiers(self) -> set[str]:
        """Of all shares."""
        return {word for share in self.shares.values() for word in share.identifiers}

    @property
    def names(self) -> set[str]:
        """Of all shares."""
        return {word for share in self.shares.values() for word in share.names}


@dataclass
class Proof:
    """What a search has found. `owners`: the requests that a word belongs to.

    `left`: places that hold what should be gone, by request. `said`: what else to say, by request; of all under "".
    """

    needles: Needles
    owners: Mapping[str, Collection[str]]
    searched: int = 0
    left: dict[str, list[str]] = field(default_factory=dict)
    said: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def find(self, place: str, words: Collection[str]) -> None:
        """A place that holds words."""
        for request_id in {name for word in words for name in self.owners[word]}:
            self.left.setdefault(request_id, []).append(place)

    def note(self, kind: str, words: Collection[str]) -> None:
        """A place that holds words and stops nothing."""
        for request_id in {name for word in words for name in self.owners[word]}:
            self.said[request_id][kind] += 1


@dataclass(frozen=True)
class Erased:
    """One request that is done: what went, and how many files and objects were searched without a find of theirs.

    `findings`: what the search says beside that, with counts: `others` (objects of other devices that hold one of the
    identifiers), `outside_contract` (objects that no device of ours names so), `signer` (files and objects that name a
    user in what people of the site wrote: books that she signed, lines of the suppression list), `model_in_books`
    (files with the keyed name of a model that is in the books), `unsearchable_…` (with the reason).
    """

    request_id: str
    objects: int
    rows: int
    searched: int
    findings: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Found:
    """What the ledger knows of somebody who is to be erased: batches, and what of other people's goes or stays.

    `mixed`: batches of others of a shared device that hold rows of the user's sessions too, or that nobody could read;
    a batch is the least that can be erased, because its name is the hash of its content. `shared`: such devices.
    """

    batches: int = 0
    mixed: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()


def find(warehouse: Path, store: Store, *, scope: Scope, tenant: str | None, subject: str) -> dict[str, Found]:
    """What the warehouse holds of a device, a user or a tenant, by tenant. Raises duckdb.Error."""
    if not warehouse.exists():
        return {}
    column = {"device": "device_id", "user": "user_id", "tenant": "tenant_id"}[scope]
    with duckdb.connect(str(warehouse)) as connection:
        load.prepare(connection)
        counts = connection.execute(
            f"SELECT tenant_id, count(*) FROM wire.batches WHERE {column} = $subject"
            " AND coalesce(tenant_id = $tenant, true) GROUP BY tenant_id ORDER BY tenant_id",
            {"subject": subject, "tenant": tenant},
        ).fetchall()
        if scope != "user":
            return {name: Found(number) for name, number in counts}
        return {name: _found_user(connection, store, name, subject, number) for name, number in counts}


def known(warehouse: Path, store: Store, *, scope: Scope, tenant: str | None = None) -> set[str]:
    """Devices, users or tenants that ever sent something, as the ledger and the store tell. Raises duckdb.Error."""
    names, keys = set(), set()
    if warehouse.exists():
        column = {"device": "device_id", "user": "user_id", "tenant": "tenant_id"}[scope]
        with duckdb.connect(str(warehouse)) as connection:
            load.prepare(connection)
            for key, name in connection.execute(
                f"SELECT manifest_key, {column} FROM wire.batches WHERE coalesce(tenant_id = $tenant, true)",
                {"tenant": tenant},
            ).fetchall():
                keys.add(key)
                names.add(name)
    if scope == "user":
        waiting = landing.pending(store, keys)
        names |= {_user_of(store, arrival) for arrival in waiting if arrival.parts.prefix.tenant == tenant}
    else:
        owners = [parse_owner(entry.key) for place in (PROBES, LANDING) for entry in store.list(place)]
        mine = [owner for owner in owners if owner and tenant in (None, owner.tenant)]
        names |= {owner.tenant if scope == "tenant" else owner.device for owner in mine}
    return names - {None}


def _user_of(store: Store, arrival: Arrival) -> str | None:
    try:
        return landing.read_manifest(store, arrival).user_id
    except RefusedError as error:
        return error.manifest.user_id if error.manifest else None
    except IncompleteError:
        return None


def _found_user(connection: duckdb.DuckDBPyConnection, store: Store, tenant: str, user: str, number: int) -> Found:
    others = connection.execute(
        """
        SELECT manifest_key, device_id, status, received_at FROM wire.batches
        WHERE tenant_id = $tenant AND user_id IS DISTINCT FROM $user AND device_id IN (
            SELECT device_id FROM wire.batches WHERE tenant_id = $tenant AND user_id = $user
        )
        """,
        {"tenant": tenant, "user": user},
    ).fetchall()
    sessions = connection.execute(
        "SELECT DISTINCT session_id FROM wire.sessions WHERE tenant_id = ? AND user_id = ?", [tenant, user]
    ).fetchall()
    theirs = {session for (session,) in sessions} | {user}
    mixed = []
    for key, _, status, received_at in others:
        parts = parse_manifest_key(key)
        if parts and (status == "quarantined" or _names_any(store, Arrival(key, parts, received_at), theirs)):
            mixed.append(key)
    return Found(number, tuple(mixed), tuple(sorted({device for _, device, _, _ in others})))


def _names_any(store: Store, arrival: Arrival, values: set[str]) -> bool:
    """Whether a batch that was loaded names a session or a user."""
    try:
        claims = landing.read_manifest(store, arrival).claims
    except (RefusedError, IncompleteError):
        return True
    for claim in claims:
        columns = [name for name in (*load.SESSION_COLUMNS, "user_id") if name in claim.table.by_name]
        rows = pq.read_table(io.BytesIO(store.get(claim.key)), columns=columns)
        if any(not values.isdisjoint(column.unique().to_pylist()) for column in rows.columns):
            return True
    return False


class Pass:
    """One pass over lines that are not done; by default all of them.

    `failed`: the reason of each line that waits, once `prove` has ended.
    """

    def __init__(self, warehouse: Path, store: Store, *, only: Collection[str] | None = None) -> None:
        self._warehouse = warehouse
        self._store = store
        self._folder = folder_of(warehouse)
        self._path = self._folder / "journal.json"
        self.suppressions = suppression.load(store)
        pending = suppression.pending(store, self.suppressions)
        self._pending = {line.request_id for line in pending}
        self.lines = [line for line in pending if only is None or line.request_id in only]
        self.journal = Journal.read(self._path) if self._path.exists() else Journal()
        self.failed: dict[str, str] = {}

    @property
    def colony_key(self) -> bytes:
        """What makes one word of an erased colony in all sealed lines, until no request waits any more."""
        path = private_folder(self._folder) / "colony.key"
        if not path.exists():
            replace_file(path, secrets.token_bytes(32))
        return path.read_bytes()

    def rewrite(self, build: Build, *, now: datetime) -> bool:
        """Put a warehouse without the erased in the place of the old one; whether there is anything to erase.

        What was counted of them stays as sums (kept.py). Raises StoreUnavailableError, duckdb.Error, OSError.
        """
        self._end_finished()
        if not self.lines:
            return False
        if not (self._is_affected() or self._has_leftovers(self._warehouse)):
            self._write_journal(now)
            return True
        fresh = private_folder(self._folder) / self._warehouse.name  # the models name the database by its file
        gone: set[str] = set()
        for _ in range(ATTEMPTS):
            while refused := self._copy(fresh, gone):
                gone |= refused
            fp("erase.copied")
            self._compare(fresh, build)
            fp("erase.compared")
            self._write_journal(now)
            fp("erase.journalled")
            renewal.drop_built(fresh)
            # The engine does not clear all memory that it writes: a block of the new file may hold what one of the old.
            if not self._has_leftovers(fresh):
                break
        renewal.settle(fresh)
        fresh.replace(self._warehouse)
        sync_folder(self._warehouse.parent)
        fp("erase.swapped")
        return True

    def common_names(self, texts: Iterable[str]) -> set[str]:
        """Names of users that go and are words for something else too: words of the program, of these texts, or values
        that the warehouse still holds. Raises duckdb.Error."""
        names = self.journal.names
        common = Needles((), names).found_in("\n".join(texts).encode()) | (names & residue.own_words())
        if names and self._warehouse.exists():
            with duckdb.connect(str(self._warehouse)) as connection:
                common |= renewal.still_there(connection, names)
        return common

    def clear_landing(self) -> int:
        """Delete the objects of the store that the lines of this pass and those that are done name, data before
        manifests; how many. What another waiting line names stays until its own pass: the warehouse still holds it.

        An object that the store does not let go stops no other; it stops this pass if one of its own lines names it.
        Raises StoreUnavailableError, StoreRefusedError.
        """
        deleted, refused = 0, None
        mine = {line.request_id for line in self.lines}
        lines = [line for line in self.suppressions.listed if line.request_id not in self._pending - mine]
        for request_id, key in list(self._objects_to_erase(lines)):
            try:
                self._store.delete(key)
            except StoreRefusedError as error:
                if request_id in mine or not mine:
                    refused = refused or error
                continue
            deleted += 1
            fp("erase.deleted")
        if refused is not None:
            raise refused
        return deleted

    def clear_copies(self) -> list[Path]:
        """Remove copies of the warehouse that were set aside, if they hold the erased or cannot be read; which."""
        needles, folder = Needles(self.journal.identifiers, self.journal.names), self._warehouse.parent
        removed = []
        for path in (*folder.glob("*.unreadable-*"), folder / "rebuilt", folder / "shadow", folder / "trial"):
            if self.lines and path.exists():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
                removed.append(path)
        for path in folder.glob(f"{self._warehouse.stem}.before-*"):
            if self.lines and (_is_unsearchable(needles, path) or residue.found_in_file(needles, path)):
                path.unlink()
                removed.append(path)
        return removed

    def prove(
        self,
        folders: Iterable[Path],
        *,
        passing_over: Iterable[Path],
        signed: Iterable[str] = (),
        models: Collection[str] = (),
        now: datetime,
    ) -> list[Erased]:
        """Search every file and object for what should be gone, and receipt each line of which nothing is left.

        `signed`: what those wrote into the site's books who keep them. A name in it was sent by no device: in files it
        stays, and is told. `models`: names of models in those books, also as keyed hashes; they stay in files likewise.
        The others wait, with their reasons in `failed` and for `waiting`. Raises StoreUnavailableError.
        """
        if not self.lines:
            return []
        shares = {line.request_id: self.journal.shares.setdefault(line.request_id, Share()) for line in self.lines}
        back = self._back_again(shares)
        owners: dict[str, set[str]] = {}
        for name, share in shares.items():
            for word in {*share.identifiers, *share.names} - back:
                owners.setdefault(word, set()).add(name)
        needles = Needles(
            {word for share in shares.values() for word in share.identifiers} - back,
            {word for share in shares.values() for word in share.names} - back,
        )
        self._delete_snapshots(needles)
        registry.forget(self._warehouse.parent, set(needles.identifiers))
        proof = Proof(needles, owners)
        signers = Needles((), needles.names).found_in("\n".join(signed).encode())
        self._search_files(proof, folders, [*passing_over, self._folder], {"signer": signers, "model_in_books": models})
        self._search_objects(proof)
        done = []
        for line in self.lines:
            if places := proof.left.get(line.request_id):
                self.failed[line.request_id] = (
                    f"what should be erased is still in {', '.join(places[:5])}: remove it, then"
                    " `apiary erase --pending`"
                )
                continue
            findings = proof.said[""] + proof.said[line.request_id]
            done.append(self._receipt(line, proof.searched, findings, now))
            self._finish(line)
        write_failed(self._warehouse, self.failed, lines=self.lines, at=now)
        if not self.journal.shares and not waiting(self._warehouse):
            shutil.rmtree(self._folder, ignore_errors=True)
        return done

    # before anything goes ------------------------------------------------------------------------------------------

    def _end_finished(self) -> None:
        """What a pass left that died after its receipts."""
        for key, request in suppression.requests(self._store).asked.items():
            if request.request_id in {line.request_id for line in self.suppressions.listed} - self._pending:
                self._store.delete(key)
        self.journal.shares = {name: share for name, share in self.journal.shares.items() if name in self._pending}
        if not self._pending:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _is_affected(self) -> bool:
        """Whether the warehouse holds anything that a line names."""
        if not self._warehouse.exists():
            return False
        with duckdb.connect(str(self._warehouse)) as connection:
            load.prepare(connection)
            return bool(self._batches_to_erase(connection, "wire"))

    def _has_leftovers(self, file: Path) -> bool:
        """Whether a warehouse's file holds words of the journal that none of its tables has as a value. A name that is
        a word of the program stands in every file, also in one that is written anew."""
        needles = Needles(self.journal.identifiers, self.journal.names - residue.own_words())
        if not file.exists() or not (needles.identifiers or needles.names):
            return False
        found = residue.found_in_file(needles, file)
        with duckdb.connect(str(file)) as connection:
            return bool(found - renewal.still_there(connection, found, ("wire", "billing", "operation")))

    def _batches_to_erase(self, connection: duckdb.DuckDBPyConnection, schema: str) -> dict[str, str]:
        """Manifests of the ledger that a line names, with the line's request."""
        found = {}
        batches = connection.execute(
            f"SELECT manifest_key, user_id FROM {schema}.batches"
            " WHERE status <> 'suppressed' AND list_contains(?, tenant_id)",
            [sorted({line.tenant for line in self.lines})],
        ).fetchall()
        for key, user in batches:
            if (request_id := self._line_of(key, user, self.lines)) is not None:
                found[key] = request_id
        return found

    def _line_of(self, key: str, user: str | None, lines: Iterable[Suppression]) -> str | None:
        parts = parse_manifest_key(key)
        if parts is None:
            return None
        prefix = parts.prefix
        for line in lines:
            if line.covers(tenant=prefix.tenant, device=prefix.device, epoch=prefix.epoch, user=user, key=key):
                return line.request_id
        return None

    def _copy(self, fresh: Path, gone: Collection[str]) -> set[str]:
        """A new warehouse: other tenants as they are, and these tenants' other batches loaded again.

        Again, because of two copies of a record the one that goes may be the one that was kept. `gone`: batches that
        cannot be loaded again; their rows are copied. Returns those that today's rules refuse: then it is begun anew.
        """
        for left in (fresh, fresh.with_name(f"{fresh.name}.wal")):
            left.unlink(missing_ok=True)
        tenants = sorted({line.tenant for line in self.lines})
        with renewal.beside(fresh, self._warehouse) as connection:
            load.prepare(connection)
            to_erase = self._batches_to_erase(connection, "old.wire")
            self._count(connection, to_erase)
            before = dict(
                connection.execute(
                    "SELECT manifest_key, status FROM old.wire.batches WHERE list_contains(?, tenant_id)", [tenants]
                ).fetchall()
            )
            found = [arrival for arrival in landing.pending(self._store, ()) if arrival.key in before]
            arrivals = [arrival for arrival in found if arrival.key not in gone]
            missing = before.keys() - {arrival.key for arrival in found} - to_erase.keys()
            renewal.copy_tables(connection, tenants, sorted({*gone, *missing}))
            kept.restore(connection, self._store)
            load.load(
                connection,
                self._store,
                arrivals,
                admission=registry.admission_policy(self._warehouse.parent, self._store),
            )
            renewal.copy_decisions(connection, tenants)
            after = dict(
                connection.execute(
                    "SELECT manifest_key, status FROM wire.batches WHERE list_contains(?, tenant_id)", [tenants]
                ).fetchall()
            )
            had = {key for key, status in before.items() if status == "loaded"} - to_erase.keys()
            return {key for key in had if after.get(key) != "loaded"}

    def _count(self, connection: duckdb.DuckDBPyConnection, to_erase: dict[str, str]) -> None:
        """Count the rows that each line takes away."""
        connection.execute("CREATE TEMP TABLE to_erase (manifest_key VARCHAR, request_id VARCHAR)")
        connection.execute("INSERT INTO to_erase SELECT unnest(?), unnest(?)", [[*to_erase], [*to_erase.values()]])
        rows = dict.fromkeys(to_erase.values(), 0)
        for table in BY_NAME:
            counts = connection.execute(
                f"SELECT request_id, count(*) FROM old.wire.{table} AS rows"
                " JOIN to_erase ON rows._manifest_key = to_erase.manifest_key GROUP BY request_id"
            ).fetchall()
            for request_id, count in counts:
                rows[request_id] += int(count)
        for request_id, count in rows.items():
            self.journal.shares.setdefault(request_id, Share()).rows = count

    def _compare(self, fresh: Path, build: Build) -> None:
        """Take down what the new warehouse holds no more: sums to keep, words to look for."""
        tenants = sorted({line.tenant for line in self.lines})
        is_built = False
        if not self._is_rated():
            with suppress(BuildError):  # an erasure before this one dropped what was built, and no run came since
                build(self._warehouse)
        was_rated = self._is_rated()
        if was_rated and self._is_current(tenants):
            with suppress(BuildError):  # then amounts are kept turn by turn
                build(fresh)
                is_built = True
        with renewal.beside(fresh, self._warehouse) as connection:
            name = hashlib.sha256("".join(sorted(line.request_id for line in self.lines)).encode()).hexdigest()[:32]
            if is_built:
                kept.put(self._store, name, kept.difference(connection, tenants))
            elif was_rated:
                kept.put(self._store, name, kept.turns_gone(connection, tenants))
            kept.restore(connection, self._store)
            to_erase = self._batches_to_erase(connection, "old.wire")
            identifiers = renewal.identifiers_gone(connection, tenants, to_erase)
            users = dict(connection.execute("SELECT manifest_key, user_id FROM old.wire.batches").fetchall())
            # A name that somebody else bears too, elsewhere, cannot be told from it by its bytes.
            still = {
                name
                for (name,) in connection.execute(
                    "SELECT unnest([user_id, tenant_id, region]) FROM wire.batches UNION"
                    " SELECT user_id FROM wire.sessions UNION SELECT user_id FROM wire.device_reports"
                ).fetchall()
            }
            seated = _seated(connection)
        for line in self.lines:
            share = self.journal.shares.setdefault(line.request_id, Share())
            mine = {users[key] for key, request_id in to_erase.items() if request_id == line.request_id} - {None}
            # Who has no device left goes from the bills too, unless finance keeps a seat: that name no device sent.
            gone = {user for user in mine if line.is_user(user) or user not in seated}
            share.names = sorted({*share.names, *(gone - still)})
            # A pass that was cut off may have written down others before.
            share.identifiers = sorted({*share.identifiers, *identifiers.get(line.request_id, ())})

    def _is_rated(self) -> bool:
        with duckdb.connect(str(self._warehouse), read_only=True) as connection:
            return renewal.has(connection, "marts", "fct_rated_lines", database=self._warehouse.stem)

    def _is_current(self, tenants: list[str]) -> bool:
        with duckdb.connect(str(self._warehouse), read_only=True) as connection:
            return kept.is_current(connection, tenants)

    def _write_journal(self, now: datetime) -> None:
        """Write down where receipts go and how many objects go."""
        for request in suppression.requests(self._store).asked.values():
            if request.request_id in {line.request_id for line in self.lines}:
                share = self.journal.shares.setdefault(request.request_id, Share())
                share.devices, share.epochs = [(request.region, request.device)], list(request.epochs)
        by_id = {line.request_id: line for line in self.lines}
        objects: Counter[str] = Counter()
        for request_id, key in self._objects_to_erase(self.lines):
            share = self.journal.shares.setdefault(request_id, Share())
            objects[request_id] += 1
            share.objects = max(share.objects, objects[request_id])
            if by_id[request_id].scope != "device" or not key.startswith(LANDING):
                continue
            owner = parse_owner(key)
            assert owner is not None  # noqa: S101 - it was told by its owner
            region = key.removeprefix(LANDING).partition("/")[0]
            if [region, owner.device] not in [list(device) for device in share.devices]:
                share.devices.append((region, owner.device))
            if owner.epoch is not None and owner.epoch not in share.epochs:
                share.epochs.append(owner.epoch)
        for line in self.lines:
            share = self.journal.shares.setdefault(line.request_id, Share())
            share.erased_at = share.erased_at or now.isoformat()
            if line.scope == "device":
                share.identifiers = sorted({*share.identifiers, *(device for _, device in share.devices)})
        private_folder(self._folder)
        replace_file(self._path, json.dumps(asdict(self.journal)).encode())

    # what goes -----------------------------------------------------------------------------------------------------

    def _objects_to_erase(self, lines: Iterable[Suppression]) -> Iterator[tuple[str, str]]:
        """Objects of the store that a line names, with the line's request; a batch's data before its manifest.

        A user is named by manifests, and only those of tenants with a pending line, or that a load refused, are read.
        """
        by_place = [line for line in lines if line.scope != "user"]
        by_user = [line for line in lines if line.scope == "user"]
        refused = self._refused_manifests() if by_user else set()
        tenants = {line.tenant for line in self.lines if line.scope == "user"}
        manifests = []
        for entry in (entry for place in (PROBES, LANDING) for entry in self._store.list(place)):
            owner = parse_owner(entry.key)
            if owner is None:
                continue
            line = next((line for line in by_place if line.owns(owner)), None)
            parts = parse_manifest_key(entry.key)
            if line is not None and parts is None:
                yield line.request_id, entry.key
            elif parts is not None and (
                line is not None or (by_user and (owner.tenant in tenants or load.pseudonymised(entry.key) in refused))
            ):
                manifests.append((line, Arrival(entry.key, parts, entry.received_at)))
        for line, arrival in manifests:
            if line is not None:
                yield line.request_id, arrival.key
                continue
            try:
                manifest = landing.read_manifest(self._store, arrival)
                user: str | None = manifest.user_id
                keys = [claim.key for claim in manifest.claims]
            except RefusedError as error:  # of a newer release: what it says of its objects is not known, theirs is
                user, keys = error.manifest.user_id if error.manifest else None, self._objects_of(arrival)
            except IncompleteError:
                continue
            request_id = self._line_of(arrival.key, user, by_user)
            if request_id is not None:
                for key in (*keys, arrival.key):
                    yield request_id, key

    def _objects_of(self, arrival: Arrival) -> list[str]:
        """Objects of a batch by their keys, which hold its number."""
        place = f"{arrival.parts.prefix.path}/d/"
        return [
            entry.key for entry in self._store.list(place) if entry.key.startswith(f"{place}{arrival.parts.seq:010}-")
        ]

    def _refused_manifests(self) -> set[str]:
        if not database.exists(self._warehouse):
            return set()
        with database.connect(self._warehouse) as connection:
            load.prepare(connection)
            return load.suppressed_manifests(connection)

    def _delete_snapshots(self, needles: Needles) -> None:
        """Budgets' snapshots that name an erased device; the next one is written without it."""
        for entry in list(self._store.list("quota/")):
            if needles.found_in(entry.key.encode()) or needles.found_in(self._store.get(entry.key)):
                self._store.delete(entry.key)

    # the proof -----------------------------------------------------------------------------------------------------

    def _back_again(self, shares: Mapping[str, Share]) -> set[str]:
        """Words that stand in the warehouse again since, by right: a device that was granted anew, a session's copy."""
        words = {word for share in shares.values() for word in (*share.identifiers, *share.names)}
        found: set[str] = set()
        if self._warehouse.exists():
            with duckdb.connect(str(self._warehouse)) as connection:
                load.prepare(connection)
                found = renewal.still_there(connection, words)
        devices = {
            device for line in self.lines if line.scope == "device" for _, device in shares[line.request_id].devices
        }
        for entry in self._store.list(LANDING) if devices else ():
            owner = parse_owner(entry.key)
            if owner is not None and owner.device in devices and not any(line.owns(owner) for line in self.lines):
                found.add(owner.device)
        return found

    def _search_files(
        self, proof: "Proof", folders: Iterable[Path], passing_over: Iterable[Path], kept: Mapping[str, Collection[str]]
    ) -> None:
        common = residue.own_words().intersection(proof.needles.names)
        for path in residue.files(folders, passing_over=passing_over):
            proof.searched += 1
            try:
                words = residue.found_in_file(proof.needles, path)
            except UnsearchableError as error:
                proof.said[""][f"unsearchable_{error}"] += 1
                continue
            except FileNotFoundError:
                continue
            except OSError:
                proof.said[""]["unsearchable_unreadable"] += 1
                continue
            for kind, by_right in kept.items():
                proof.note(kind, words.intersection(by_right))
                words = words.difference(by_right)
            if meant := words & common:
                try:
                    meant -= residue.users_in_file(meant, path)
                except UnsearchableError as error:  # whose the name is there is not known
                    proof.said[""][f"unsearchable_{error}"] += 1
                proof.note("unsearchable_common_name", meant)
                words -= meant
            proof.find(str(path), words)

    def _search_objects(self, proof: "Proof") -> None:
        """What devices wrote is theirs: it is removed with its device, and never stops the erasure of somebody else."""
        unopened: Counter[Owner] = Counter()
        objects = residue.ObjectSearch(proof.needles, self._store)
        for entry in list(self._store.list("")):
            owner = parse_owner(entry.key)
            is_of_device = entry.key.startswith((LANDING, PROBES))
            if entry.key.startswith(("receipts/", REQUESTS, EARLIER_REQUESTS)):
                continue
            if is_of_device and not is_named_by_contract(entry.key):
                proof.said[""]["outside_contract"] += 1
                continue
            if owner is not None and unopened[owner] >= UNOPENED_AFTER:
                proof.said[""]["unsearchable_not_opened"] += 1
                continue
            proof.searched += 1
            try:
                words = objects.found_in(entry.key)
            except UnsearchableError as error:
                proof.said[""][f"unsearchable_{error}"] += 1
                if owner is not None:
                    unopened[owner] += 1
                continue
            if entry.key.startswith(suppression.ROOT):  # without its line an erasure would not last
                proof.note("signer", words.intersection(proof.needles.names))
                words = words.difference(proof.needles.names)
            if is_of_device and not any(line.owns(owner) for line in self.lines):
                proof.note("others", words)
            elif words and entry.key.startswith(".aside/"):
                self._store.delete(entry.key)  # of a put that died
            else:
                proof.find(entry.key, words)
        for kind in self._store.passed_over.values():
            proof.said[""][f"unsearchable_{kind.replace(' ', '_').replace('-', '_').lower()}"] += 1

    def _receipt(self, line: Suppression, searched: int, findings: Mapping[str, int], now: datetime) -> Erased:
        """Tell a device's owner, and write down that a line is done. Written again it is the same."""
        share = self.journal.shares[line.request_id]
        erased_at = datetime.fromisoformat(share.erased_at or now.isoformat())
        for region, device in share.devices:
            receipt = ErasureReceipt(
                request_id=line.request_id, device=device, epochs=tuple(share.epochs), erased_at=erased_at,
                objects_deleted=share.objects, rows_deleted=share.rows, findings=dict(sorted(findings.items())),
            )  # fmt: skip
            self._store.put(receipt.key(region=region, tenant=line.tenant), receipt.to_json())
        fp("erase.receipted")
        text = {
            "request_id": line.request_id, "erased_at": erased_at.isoformat(), "objects": share.objects,
            "rows": share.rows, "searched": searched, "found": 0, "findings": dict(findings),
        }  # fmt: skip
        self._store.put(f"{suppression.DONE}{line.request_id}.json", json.dumps(text, sort_keys=True).encode())
        return Erased(line.request_id, share.objects, share.rows, searched, dict(findings))

    def _finish(self, line: Suppression) -> None:
        """Forget a line that is receipted: its request, and what the journal says of it."""
        for key, request in suppression.requests(self._store).asked.items():
            if request.request_id == line.request_id:
                self._store.delete(key)
        for key in suppression.requests(self._store).unreadable:
            if line.owns(parse_owner(key)):
                self._store.delete(key)
        self.journal.shares.pop(line.request_id, None)
        replace_file(self._path, json.dumps(asdict(self.journal)).encode())


def folder_of(warehouse: Path) -> Path:
    """Where a pass keeps what it must still know."""
    return warehouse.parent / "erasing"


def write_failed(warehouse: Path, failed: Mapping[str, str], *, lines: Iterable[Suppression], at: datetime) -> None:
    """Keep why requests wait; those of `lines` that are not named any more do not."""
    path = folder_of(warehouse) / "waiting.json"
    before = waiting(warehouse)
    asked = {line.request_id for line in lines}
    kept_ones = {name: said for name, said in before.items() if name not in asked}
    new = {name: {"reason": reason, "tried_at": at.astimezone(UTC).isoformat()} for name, reason in failed.items()}
    if kept_ones | new:
        private_folder(path.parent)
        replace_file(path, json.dumps(kept_ones | new, indent=1, sort_keys=True).encode())
    else:
        path.unlink(missing_ok=True)


def waiting(warehouse: Path) -> dict[str, dict[str, Any]]:
    """Why requests wait, by their ids: `reason` and `tried_at`."""
    path = folder_of(warehouse) / "waiting.json"
    try:
        return dict(json.loads(path.read_bytes()))
    except (FileNotFoundError, ValueError):
        return {}


def _is_unsearchable(needles: Needles, path: Path) -> bool:
    try:
        residue.found_in_file(needles, path)
    except UnsearchableError:
        return True
    return False


def _seated(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Users whom the books name, by a seat, as whose a session is or by a budget, if they were ever read."""
    queries = {
        "seats": "SELECT user_id FROM old.billing.seats",
        "session_users": "SELECT user_id FROM old.billing.session_users",
        "budgets": "SELECT scope_id FROM old.billing.budgets WHERE scope = 'user'",
    }
    tables = connection.execute(
        "SELECT table_name FROM duckdb_tables() WHERE database_name = 'old' AND schema_name = 'billing'"
    ).fetchall()
    return {
        user for (table,) in tables if table in queries for (user,) in connection.execute(queries[table]).fetchall()
    }
