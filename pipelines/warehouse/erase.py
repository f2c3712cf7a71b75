"""Erasing what the suppression list names: from the warehouse, what is published, the exports, the landing; and proof.

Deleting a row leaves its bytes in the engine's file, so the warehouse is written anew without it and put in the old
one's place. Nothing is deleted before what takes its place is there; killed at any point, the next run goes on.
Does not belong here: what may be loaded (suppression.py), the new warehouse (renewal.py), searching bytes (residue.py),
dbt, exports and the order of a run (defs/erasure.py).
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from pipelines.contract.keys import parse_manifest_key, parse_prefix
from pipelines.contract.receipts import ErasureReceipt
from pipelines.contract.wire import BY_NAME
from pipelines.errors import ExpectedError
from pipelines.failpoints import fp
from pipelines.home import private_folder, replace_file, sync_folder
from pipelines.store import Store
from pipelines.warehouse import kept, landing, load, registry, renewal, residue, suppression
from pipelines.warehouse.landing import Arrival, IncompleteError, RefusedError
from pipelines.warehouse.suppression import Scope, Suppression

Build = Callable[[Path, tuple[str, ...]], None]
"""Builds the models in a warehouse file: all, or those that the arguments select."""


class EraseError(ExpectedError):
    """The erasure could not be ended; what it replaced is in place, and nothing was receipted."""


@dataclass
class Share:
    """What one line of the list takes away, counted before it goes."""

    devices: list[tuple[str, str]] = field(default_factory=list)
    """Region and device of a line that names a device: where its receipt goes."""
    epochs: list[str] = field(default_factory=list)
    objects: int = 0
    rows: int = 0


@dataclass
class Journal:
    """What a pass must still know when the old warehouse is gone. It names what is being erased, and is erased last."""

    shares: dict[str, Share] = field(default_factory=dict)
    identifiers: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    erased_at: str = ""
    days: list[str] = field(default_factory=list)
    """Days whose bill named the erased: their superseded exports go."""

    @classmethod
    def read(cls, path: Path) -> "Journal":
        """The journal of a pass that was cut off."""
        found = json.loads(path.read_bytes())
        return cls(**found | {"shares": {name: Share(**share) for name, share in found["shares"].items()}})


@dataclass(frozen=True)
class Erased:
    """One request that is done: what went, and how many files and objects were searched without a find."""

    request_id: str
    objects: int
    rows: int
    searched: int


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
    """One pass over all lines that are not done."""

    def __init__(self, warehouse: Path, store: Store) -> None:
        self._warehouse = warehouse
        self._store = store
        self._folder = warehouse.parent / "erasing"
        self._path = self._folder / "journal.json"
        self.suppressions = suppression.load(store)
        self.lines = suppression.pending(store, self.suppressions)
        self.journal = Journal()

    def rewrite(self, build: Build, *, now: datetime) -> bool:
        """Put a warehouse without the erased in the place of the old one; whether there is anything to erase.

        What was billed for them stays as sums (kept.py). Raises EraseError, StoreUnavailableError, duckdb.Error.
        """
        if not self.lines:
            shutil.rmtree(self._folder, ignore_errors=True)
            return False
        if self._path.exists():
            self.journal = Journal.read(self._path)
        if not self._is_affected():
            if not self._path.exists():
                self._write_journal(now)
            return True
        fresh = private_folder(self._folder) / self._warehouse.name  # the models name the database by its file
        for left in (fresh, fresh.with_name(f"{fresh.name}.wal")):
            left.unlink(missing_ok=True)
        self._copy(fresh)
        fp("erase.copied")
        build(fresh, ())
        self._compare(fresh)
        fp("erase.compared")
        build(fresh, ("--full-refresh", "--select", "mart_daily_billing+", "stg_billing__closed_lines+"))
        self._write_journal(now)
        fp("erase.journalled")
        renewal.settle(fresh)
        fresh.replace(self._warehouse)
        sync_folder(self._warehouse.parent)
        fp("erase.swapped")
        return True

    def clear_landing(self) -> int:
        """Delete every object of the landing that the list names, data before manifests; how many.

        Raises StoreUnavailableError, StoreRefusedError.
        """
        deleted = 0
        for _, key in list(self._doomed_objects(self.suppressions.listed)):
            self._store.delete(key)
            deleted += 1
            fp("erase.deleted")
        return deleted

    def prove(self, folders: Iterable[Path], *, passing_over: Iterable[Path], now: datetime) -> list[Erased]:
        """Search every file and object for what should be gone, and receipt it. Raises EraseError if any is left."""
        if not self.lines:
            return []
        needles = residue.Needles(self.journal.identifiers, self.journal.names)
        self._delete_snapshots(needles)
        registry.forget(self._warehouse.parent, set(self.journal.identifiers))
        searched, found = residue.search(
            needles, folders, passing_over=[*passing_over, self._folder], store=self._store,
            passing_over_keys=("receipts/", suppression.REQUESTS),
        )  # fmt: skip
        if found:
            raise EraseError(f"nothing was receipted: what should be erased is still in {', '.join(found[:5])}")
        done = [self._receipt(line, searched, datetime.fromisoformat(self.journal.erased_at)) for line in self.lines]
        ids = {line.request_id for line in self.lines}
        for key, request in suppression.requests(self._store).asked.items():
            if request.request_id in ids:
                self._store.delete(key)
        shutil.rmtree(self._folder, ignore_errors=True)
        return done

    # before anything goes ------------------------------------------------------------------------------------------

    def _is_affected(self) -> bool:
        """Whether the warehouse holds anything that a line names."""
        if not self._warehouse.exists():
            return False
        with duckdb.connect(str(self._warehouse)) as connection:
            load.prepare(connection)
            return bool(self._doomed_batches(connection, "wire"))

    def _doomed_batches(self, connection: duckdb.DuckDBPyConnection, schema: str) -> dict[str, str]:
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

    def _copy(self, fresh: Path) -> None:
        """A new warehouse: other tenants as they are, and these tenants' other batches loaded again.

        Again, because of two copies of a record the one that goes may be the one that was kept.
        """
        tenants = sorted({line.tenant for line in self.lines})
        with renewal.beside(fresh, self._warehouse) as connection:
            load.prepare(connection)
            doomed = self._doomed_batches(connection, "old.wire")
            self._count(connection, doomed)
            before = dict(
                connection.execute(
                    "SELECT manifest_key, status FROM old.wire.batches WHERE list_contains(?, tenant_id)", [tenants]
                ).fetchall()
            )
            arrivals = [arrival for arrival in landing.pending(self._store, ()) if arrival.key in before]
            # What is not in the landing any more cannot be loaded again.
            gone = before.keys() - {arrival.key for arrival in arrivals} - doomed.keys()
            renewal.copy_tables(connection, tenants, sorted(gone))
            kept.restore(connection, self._store)
            load.load(connection, self._store, arrivals, judge=registry.judge(self._warehouse.parent, self._store))
            renewal.copy_decisions(connection, tenants)
            after = dict(
                connection.execute(
                    "SELECT manifest_key, status FROM wire.batches WHERE list_contains(?, tenant_id)", [tenants]
                ).fetchall()
            )
            had = {key for key, status in before.items() if status == "loaded"} - doomed.keys()
            lost = sorted(key for key in had if after.get(key) != "loaded")
            if lost:
                raise EraseError(
                    f"nothing was erased: {len(lost)} batches of others were loaded once and are refused now, such as"
                    f" {lost[0]}; see which of today's rules refuses them (apiary quarantine), then erase again"
                )

    def _count(self, connection: duckdb.DuckDBPyConnection, doomed: dict[str, str]) -> None:
        """Count the rows that each line takes away."""
        connection.execute("CREATE TEMP TABLE doomed (manifest_key VARCHAR, request_id VARCHAR)")
        connection.executemany("INSERT INTO doomed VALUES (?, ?)", [list(item) for item in doomed.items()])
        rows = dict.fromkeys(doomed.values(), 0)
        for table in BY_NAME:
            counts = connection.execute(
                f"SELECT request_id, count(*) FROM old.wire.{table} AS rows"
                " JOIN doomed ON rows._manifest_key = doomed.manifest_key GROUP BY request_id"
            ).fetchall()
            for request_id, count in counts:
                rows[request_id] += int(count)
        for request_id, count in rows.items():
            self.journal.shares.setdefault(request_id, Share()).rows = count

    def _compare(self, fresh: Path) -> None:
        """Take down what the new warehouse holds no more: sums to keep, identifiers to look for, days of bills."""
        tenants = sorted({line.tenant for line in self.lines})
        with renewal.beside(fresh, self._warehouse) as connection:
            has_bills = connection.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE database_name = 'old' AND schema_name = 'marts'"
                " AND table_name = 'mart_daily_billing'"
            ).fetchone()
            if has_bills != (0,):
                name = hashlib.sha256("".join(sorted(line.request_id for line in self.lines)).encode()).hexdigest()[:32]
                kept.put(self._store, name, kept.difference(connection, tenants))
                kept.restore(connection, self._store)
                days = connection.execute(
                    "SELECT DISTINCT usage_date FROM (SELECT * EXCLUDE (_ingest_seq) FROM old.marts.mart_daily_billing"
                    " EXCEPT ALL SELECT * EXCLUDE (_ingest_seq) FROM marts.mart_daily_billing)"
                    " WHERE list_contains(?, tenant_id) ORDER BY usage_date",
                    [tenants],
                ).fetchall()
                self.journal.days = sorted({*self.journal.days, *(day.isoformat() for (day,) in days)})
            # A pass that was cut off may have written down others before.
            self.journal.identifiers = sorted(
                {*self.journal.identifiers, *renewal.identifiers_gone(connection, tenants)}
            )
            users = {user for (user,) in connection.execute("SELECT DISTINCT user_id FROM old.wire.batches").fetchall()}
            asked = {user for user in users if user and any(line.is_user(user) for line in self.lines)}
            # A name that somebody else bears too, elsewhere, cannot be told from it by its bytes.
            still = {
                name
                for (name,) in connection.execute(
                    "SELECT unnest([user_id, tenant_id, region]) FROM wire.batches UNION"
                    " SELECT user_id FROM wire.sessions UNION SELECT user_id FROM wire.device_reports"
                ).fetchall()
            }
            # Who has no device left goes from the bills too, unless finance keeps a seat: that name no device sent.
            gone = asked | (users - _seated(connection) - {None})
            self.journal.names = sorted({*self.journal.names, *gone} - still)

    def _write_journal(self, now: datetime) -> None:
        """Write down where receipts go and how many objects go."""
        for request in suppression.requests(self._store).asked.values():
            share = self.journal.shares.setdefault(request.request_id, Share())
            share.devices, share.epochs = [(request.region, request.device)], list(request.epochs)
        asked = {line.request_id: line.scope == "device" for line in self.lines}
        objects: dict[str, int] = {}
        for request_id, key in self._doomed_objects(self.lines):
            share = self.journal.shares.setdefault(request_id, Share())
            objects[request_id] = objects.get(request_id, 0) + 1
            share.objects = max(share.objects, objects[request_id])
            prefix = parse_prefix(key)
            if asked[request_id] and prefix is not None and (prefix.region, prefix.device) not in share.devices:
                share.devices.append((prefix.region, prefix.device))
            if asked[request_id] and prefix is not None and prefix.epoch not in share.epochs:
                share.epochs.append(prefix.epoch)
        self.journal.erased_at = now.isoformat()
        replace_file(self._path, json.dumps(asdict(self.journal)).encode())

    # what goes -----------------------------------------------------------------------------------------------------

    def _doomed_objects(self, lines: Iterable[Suppression]) -> Iterator[tuple[str, str]]:
        """Objects of the landing that a line names, with the line's request; a batch's data before its manifest.

        A user is named by manifests, and only those of tenants with a pending line, or that a load refused, are read.
        """
        by_prefix = [line for line in lines if line.scope != "user"]
        by_user = [line for line in lines if line.scope == "user"]
        refused = self._refused_manifests() if by_user else set()
        tenants = {line.tenant for line in self.lines if line.scope == "user"}
        manifests = []
        for entry in self._store.list(landing.ROOT):
            prefix = parse_prefix(entry.key)
            if prefix is None:
                continue
            place = {"tenant": prefix.tenant, "device": prefix.device, "epoch": prefix.epoch}
            line = next((line for line in by_prefix if line.covers(**place, user=None)), None)
            parts = parse_manifest_key(entry.key)
            if line is not None and parts is None:
                yield line.request_id, entry.key
            elif parts is not None and (
                line is not None or (by_user and (prefix.tenant in tenants or load.veiled(entry.key) in refused))
            ):
                manifests.append((line, Arrival(entry.key, parts, entry.received_at)))
        for line, arrival in manifests:
            if line is not None:
                yield line.request_id, arrival.key
                continue
            try:
                manifest = landing.read_manifest(self._store, arrival)
            except (RefusedError, IncompleteError):
                continue
            request_id = self._line_of(arrival.key, manifest.user_id, by_user)
            if request_id is not None:
                for claim in manifest.claims:
                    yield request_id, claim.key
                yield request_id, arrival.key

    def _refused_manifests(self) -> set[str]:
        if not self._warehouse.exists():
            return set()
        with duckdb.connect(str(self._warehouse)) as connection:
            load.prepare(connection)
            return load.suppressed_manifests(connection)

    def _delete_snapshots(self, needles: residue.Needles) -> None:
        """Budgets' snapshots that name an erased device; the next one is written without it."""
        for entry in list(self._store.list("quota/")):
            if needles.are_in_object(entry.key, self._store.get(entry.key)):
                self._store.delete(entry.key)

    def _receipt(self, line: Suppression, searched: int, erased_at: datetime) -> Erased:
        """Tell a device's owner, and write down that a line is done. Written again it is the same."""
        share = self.journal.shares.get(line.request_id, Share())
        for region, device in share.devices:
            receipt = ErasureReceipt(
                request_id=line.request_id, device=device, epochs=tuple(share.epochs), erased_at=erased_at,
                objects_deleted=share.objects, rows_deleted=share.rows,
            )  # fmt: skip
            self._store.put(receipt.key(region=region, tenant=line.tenant), receipt.to_json())
        fp("erase.receipted")
        text = {
            "request_id": line.request_id, "erased_at": erased_at.isoformat(), "objects": share.objects,
            "rows": share.rows, "searched": searched, "found": 0,
        }  # fmt: skip
        self._store.put(f"{suppression.DONE}{line.request_id}.json", json.dumps(text, sort_keys=True).encode())
        return Erased(line.request_id, share.objects, share.rows, searched)


def _seated(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Users for whom finance keeps a seat, if its books were ever read."""
    if not connection.execute(
        "SELECT 1 FROM duckdb_tables() WHERE database_name = 'old' AND schema_name = 'billing' AND table_name = 'seats'"
    ).fetchall():
        return set()
    return {user for (user,) in connection.execute("SELECT user_id FROM old.billing.seats").fetchall()}
