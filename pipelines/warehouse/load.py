"""From landing to wire: rows and the ledger line of their batch in one transaction, each record once for ever.

Does not belong here: what may be loaded (landing.py), what marts make of it (models/).
"""

import hashlib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from pipelines.contract.ddl import BOOKS, LINEAGE, PRESENT, create_wire, widen_wire
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.wire import BY_NAME, LLM_TURNS, NODE_STEPS, OFFSET_BASES, TABLES
from pipelines.failpoints import fp
from pipelines.store import Store, StoreRefusedError, StoreUnavailableError
from pipelines.warehouse import ducklake, gate, landing
from pipelines.warehouse.decode import MAX_ROWS
from pipelines.warehouse.gate import Judged, Part
from pipelines.warehouse.landing import (
    SUPPRESSED,
    AdmissionPolicy,
    Arrival,
    FetchedBatch,
    IncompleteError,
    Manifest,
    RefusedError,
    everybody,
)

# Batches and rows of one transaction: one commit for many tiny batches, and bounded memory for large ones.
GROUP = 2_048
GROUP_ROWS = 500_000
# Batches, bytes and rows that a child of the gate is given at once, and how many such jobs are under way. The rows are
# those that the manifests claim: with more a batch is refused.
JOB = 256
JOB_BYTES = 16 << 20
JOB_ROWS = 200_000
AHEAD = 3
SESSION_COLUMNS = ("session_id", "queen_session_id", "list_id")
# What the warehouse says of a value that does not fit, which is somebody's: anything else is its own trouble.
UNFIT = (duckdb.DataError, pa.ArrowInvalid, OverflowError)
UNLOADABLE = "unloadable"
REPLACED = ") AS new USING (manifest_key) WHEN MATCHED THEN UPDATE BY NAME WHEN NOT MATCHED THEN INSERT BY NAME"
Progress = Callable[[int, int], None]


@dataclass
class Loaded:
    """What a load did: loaded + tombstones + quarantined + suppressed = received.

    `incomplete` batches lack an object and wait for it.
    """

    received: int = 0
    loaded: int = 0
    tombstones: int = 0
    quarantined: int = 0
    suppressed: int = 0
    incomplete: int = 0
    rows_in: int = 0
    rows_new: int = 0
    rows_duplicate: int = 0
    rows_conflict: int = 0
    new_by_table: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def refused(self) -> str:
        """How many batches were quarantined and why, for a line that tells of the load."""
        return f"{self.quarantined} quarantined{f' {self.reasons}' if self.reasons else ''}"


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the wire schema if it is absent, and as wide as the contract if it is not."""
    connection.execute("SET TimeZone = 'UTC'")
    if ducklake.is_ducklake(connection):
        ducklake.prepare(connection)
        return
    for statement in create_wire():
        connection.execute(statement)
    for statement in widen_wire(set(connection.execute(PRESENT).fetchall())):
        connection.execute(statement)


def known_manifests(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Keys of the manifests that the ledger has an answer for."""
    return {key for (key,) in connection.execute("SELECT manifest_key FROM wire.batches").fetchall()}


def suppressed_manifests(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The pseudonymised keys of manifests that were suppressed."""
    found = connection.execute("SELECT manifest_key FROM wire.batches WHERE status = 'suppressed'").fetchall()
    return {key for (key,) in found}


def pseudonymised(manifest_key: str) -> str:
    """The name in the ledger of a batch that was suppressed: its key would name its device for ever."""
    return f"{SUPPRESSED}/{hashlib.sha256(manifest_key.encode()).hexdigest()[:32]}"


def load(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    arrivals: Sequence[Arrival],
    *,
    admission: AdmissionPolicy = everybody,
    again: Collection[str] = (),
    progress: Progress | None = None,
) -> Loaded:
    """Load batches in the order of their arrival; one that the ledger knows is passed over, unless it was refused and
    its key is among those to be judged `again`.

    A batch of which a value does not fit into the warehouse is refused: it stops none of its group. Raises
    StoreUnavailableError, StoreRefusedError: what was loaded before stays loaded.
    """
    total = Loaded()
    since = last_seq(connection)
    known = known_manifests(connection).difference(again)
    waiting = [arrival for arrival in arrivals if known.isdisjoint((arrival.key, pseudonymised(arrival.key)))]
    for group in _groups(store, waiting, admission):
        _load_group(connection, group, total, is_replay=bool(again), since=since)
        if progress:
            progress(total.received, len(waiting))
    return total


@dataclass
class _Group:
    parts: list[Part] = field(default_factory=list)
    refused: list[tuple[Arrival, Manifest | None, str]] = field(default_factory=list)
    batches: int = 0
    rows: int = 0
    incomplete: int = 0

    def add(self, judged: Judged, job: "_Job") -> None:
        """Take what became of a job."""
        self.parts += judged.parts
        self.refused += job.refused
        self.refused += [(batch.arrival, batch.manifest, reason) for batch, reason in judged.refused]
        self.batches += len(job.fetched) + len(job.refused)
        self.rows += sum(sum(counts) for part in judged.parts for counts in part.counts.values())
        self.incomplete += job.incomplete

    def without(self, answered: Collection[str]) -> "_Group":
        """What is left of it, if the ledger has an answer for some of its batches by now."""

        def is_left(arrival: Arrival) -> bool:
            return arrival.key not in answered and pseudonymised(arrival.key) not in answered

        left = _Group(refused=[refused for refused in self.refused if is_left(refused[0])])
        left.parts = [part.only([is_left(batch.arrival) for batch in part.fetched]) for part in self.parts]
        left.batches = len(left.refused) + sum(len(part.fetched) for part in left.parts)
        return left

    def apart(self) -> list["_Group"]:
        """Its batches in two groups; one batch refused, and nothing of what it says."""
        arrivals = [batch.arrival for part in self.parts for batch in part.fetched]
        arrivals += [arrival for arrival, _, _ in self.refused]
        if len(arrivals) == 1:
            return [_Group(refused=[(arrivals[0], None, UNLOADABLE)], batches=1)]
        keys, half = [arrival.key for arrival in arrivals], len(arrivals) // 2
        return [self.without(set(keys[half:])), self.without(set(keys[:half]))]


@dataclass
class _Job:
    fetched: list[FetchedBatch] = field(default_factory=list)
    refused: list[tuple[Arrival, Manifest | None, str]] = field(default_factory=list)
    bytes: int = 0
    rows: int = 0
    incomplete: int = 0

    @property
    def is_full(self) -> bool:
        """Whether a child should not be given more at once."""
        batches = len(self.fetched) + len(self.refused)
        return batches >= min(JOB, GROUP) or self.bytes >= JOB_BYTES or self.rows >= min(JOB_ROWS, GROUP_ROWS)


def _groups(store: Store, arrivals: Sequence[Arrival], admission: AdmissionPolicy) -> Iterator[_Group]:
    """What belongs into one transaction each. A store that goes away ends it, after what was fetched before."""
    group = _Group()
    trouble: StoreUnavailableError | StoreRefusedError | None = None
    under_way: deque[tuple[Future[Judged], _Job]] = deque()
    jobs = _jobs(_fetched(store, arrivals, admission))
    are_more = True
    while are_more or under_way:
        try:
            job = next(jobs, None) if are_more else None
        except (StoreUnavailableError, StoreRefusedError) as error:
            trouble, job = error, None
        are_more = job is not None
        if job is not None:
            under_way.append((gate.shared().submit(job.fetched), job))
        while len(under_way) > (AHEAD if are_more else 0):
            judged, first = under_way.popleft()
            group.add(judged.result(), first)
            if group.batches >= GROUP or group.rows >= GROUP_ROWS:
                yield group
                group = _Group()
    if group.batches or group.incomplete:
        yield group
    if trouble is not None:
        raise trouble


def _jobs(fetched: Iterable[tuple[Arrival, FetchedBatch | RefusedError | None]]) -> Iterator[_Job]:
    """Batches for a child of the gate; those in hand come before the store's trouble is passed on."""
    job = _Job()
    try:
        for arrival, found in fetched:
            fp("gate.read")
            if isinstance(found, FetchedBatch):
                job.fetched.append(found)
                job.bytes += sum(len(item.data) for item in found.items)
                job.rows += sum(MAX_ROWS if item.rows is None else item.rows for item in found.items)
            elif found is None:
                job.incomplete += 1  # no line in the ledger: the next load looks again
            else:
                job.refused.append((arrival, found.manifest, str(found)))
            if job.is_full:
                yield job
                job = _Job()
    except (StoreUnavailableError, StoreRefusedError):
        yield job
        raise
    yield job


def _fetched(
    store: Store, arrivals: Sequence[Arrival], admission: AdmissionPolicy
) -> Iterator[tuple[Arrival, FetchedBatch | RefusedError | None]]:
    """Batches as they came, in order; None for one that lacks an object."""

    def fetch(arrival: Arrival) -> FetchedBatch | RefusedError | None:
        try:
            return landing.fetch(store, arrival, admission)
        except RefusedError as error:
            return error
        except IncompleteError:
            return None

    if store.connections == 1:
        for arrival in arrivals:
            yield arrival, fetch(arrival)
        return
    with ThreadPoolExecutor(store.connections) as pool:
        waiting: deque[tuple[Arrival, Future[FetchedBatch | RefusedError | None]]] = deque()
        for arrival in arrivals:
            waiting.append((arrival, pool.submit(fetch, arrival)))
            if len(waiting) > 2 * store.connections:
                first, future = waiting.popleft()
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()


def _load_group(
    connection: duckdb.DuckDBPyConnection, group: _Group, total: Loaded, *, is_replay: bool, since: int
) -> None:
    total.incomplete += group.incomplete
    if not group.batches:
        return

    def work() -> tuple[int, _Group, list[str]]:
        fp("load.begun")
        left = group
        if ducklake.is_ducklake(connection):
            left = group.without(_answered(connection, since))
            if not left.batches:
                return since, left, []
        # Of a DuckLake the number is this transaction's alone: what nobody has answered nobody else answers.
        seq = next_seq(connection)
        for name, table in BY_NAME.items():
            rows = [_with_lineage(part, name, seq) for part in left.parts if name in part.tables]
            if rows:
                _load_table(connection, table, pa.concat_tables(rows), seq)
        if any("device_reports" in part.tables for part in left.parts):
            _touch_rezoned(connection, seq)
        fp("load.before_ledger")
        answers = _write_ledger(connection, left, seq, is_replay=is_replay)
        fp("load.before_commit")
        return seq, left, answers

    try:
        seq, group, answers = ducklake.until_committed(connection, work)
    except UNFIT:
        if any(reason == UNLOADABLE for _, _, reason in group.refused):
            raise
        for smaller in group.apart():
            _load_group(connection, smaller, total, is_replay=is_replay, since=since)
        return
    fp("load.after_commit")
    if not group.batches:
        return
    total.received += group.batches
    total.loaded += answers.count("loaded")
    total.tombstones += answers.count("tombstone")
    total.quarantined += answers.count("quarantined")
    total.suppressed += answers.count("suppressed")
    for _, _, reason in group.refused:
        total.reasons[reason] = total.reasons.get(reason, 0) + 1
    counts = connection.execute(
        "SELECT table_name, sum(rows_in), sum(rows_new), sum(rows_duplicate), sum(rows_conflict)"
        " FROM wire.row_counts WHERE _ingest_seq = ? GROUP BY table_name",
        [seq],
    ).fetchall()
    for name, rows_in, new, duplicate, conflict in counts:
        total.rows_in += int(rows_in)
        total.rows_new += int(new)
        total.rows_duplicate += int(duplicate)
        total.rows_conflict += int(conflict)
        total.new_by_table[name] = total.new_by_table.get(name, 0) + int(new)


def next_seq(connection: duckdb.DuckDBPyConnection) -> int:
    """The number of the next load, or of the next decision that the marts must hear of."""
    seq = last_seq(connection) + 1
    if ducklake.is_ducklake(connection):
        ducklake.take_seq(connection, seq)
    return seq


def last_seq(connection: duckdb.DuckDBPyConnection) -> int:
    """The highest number taken; 0 if none was."""
    found = connection.execute(
        """
        SELECT coalesce(max(seq), 0)
        FROM (
            SELECT ingest_seq AS seq FROM wire.batches
            UNION ALL SELECT _ingest_seq FROM wire.released
            UNION ALL SELECT max(_ingest_seq) FROM wire.touched_sessions
        )
        """
    ).fetchone()
    assert found is not None  # noqa: S101 - an aggregate has a row
    return int(found[0])


def _answered(connection: duckdb.DuckDBPyConnection, since: int) -> set[str]:
    """What the ledger calls the batches that were answered after a number."""
    found = connection.execute("SELECT manifest_key FROM wire.batches WHERE ingest_seq > ?", [since]).fetchall()
    return {key for (key,) in found}


def _with_lineage(part: Part, name: str, seq: int) -> pa.Table:
    """The rows of a part with the columns that say where they come from."""
    senders = {
        "tenant_id": (
            [batch.arrival.parts.prefix.tenant for batch in part.fetched],
            pa.string(),
        ),
        "region": ([batch.arrival.parts.prefix.region for batch in part.fetched], pa.string()),
        "_user_id": ([batch.manifest.user_id for batch in part.fetched], pa.string()),
        "_device_id": (
            [batch.arrival.parts.prefix.device for batch in part.fetched],
            pa.string(),
        ),
        "_manifest_key": ([batch.arrival.key for batch in part.fetched], pa.string()),
        "_received_at": (
            [batch.arrival.received_at for batch in part.fetched],
            pa.timestamp("us", tz="UTC"),
        ),
        "_ingest_seq": ([seq] * len(part.fetched), pa.int64()),
    }
    rows = part.tables[name]
    sender_of_row = pa.array([n for n, count in enumerate(part.counts[name]) for _ in range(count)], pa.int64())
    for column in LINEAGE:
        values, kind = senders[column]
        rows = rows.append_column(column, pa.array(values, kind).take(sender_of_row))
    return rows


def _load_table(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table, seq: int) -> None:
    """Merge rows into a wire table: one row per record, whatever the order of arrival.

    A later observation of a record takes the place of an earlier one (`Table.superseded_by`), whichever arrives first.
    Two other rows of one record that differ in facts are a conflict: those that arrived first stay, the others are set
    aside with both hashes. Of rows with the same facts one is kept by a rule that knows no order of arrival: the
    origin, the earliest session (a fork's copy names its own), the earliest observation, the least device.
    """
    _judge(connection, table, rows)
    fp("load.judged")
    listed = ", ".join([*table.names, *LINEAGE])
    connection.execute(
        f"""
        DELETE FROM wire.{table.name} AS old USING judged
        WHERE judged._outcome = 'replaced' AND old.tenant_id = judged.tenant_id AND old.record_id = judged.record_id
        """
    )
    fp("load.replaced")
    connection.execute(
        f"""
        INSERT INTO wire.{table.name} ({listed})
        SELECT {listed.replace("_ingest_seq", str(seq))} FROM judged WHERE _outcome = 'new' OR (_wins AND NOT _is_kept)
        """
    )
    fp("load.inserted")
    connection.execute(
        f"""
        INSERT INTO wire.conflicts BY NAME
        SELECT '{table.name}' AS table_name, tenant_id, record_id, _true_facts AS kept_hash, _facts AS other_hash,
            _manifest_key AS manifest_key, {seq} AS _ingest_seq
        FROM judged WHERE _outcome = 'conflict'
        """
    )
    is_turn = {LLM_TURNS: "true", NODE_STEPS: "step_index >= 0"}.get(table, "false")
    has_tokens = table in (LLM_TURNS, NODE_STEPS)
    cost = "sum(reported_cost_usd) FILTER (_outcome IN ('duplicate', 'conflict'))" if table is LLM_TURNS else "NULL"
    sums = "".join(
        f", coalesce(sum({f'{side}_tokens' if has_tokens else '0'}) {which}, 0) AS {side}_tokens_{name}"
        for side in ("input", "output")
        for name, which in [("in", ""), *((o, f"FILTER (_outcome = '{o}')") for o in ("new", "duplicate", "conflict"))]
    )
    connection.execute(
        f"""
        INSERT INTO wire.row_counts BY NAME
        SELECT _manifest_key AS manifest_key, '{table.name}' AS table_name, count(*) AS rows_in,
            count(*) FILTER (_outcome = 'new') AS rows_new,
            count(*) FILTER (_outcome = 'duplicate') AS rows_duplicate,
            count(*) FILTER (_outcome = 'conflict') AS rows_conflict,
            count(*) FILTER (_outcome = 'duplicate' AND {is_turn}) AS turn_rows_duplicate,
            count(*) FILTER (_outcome = 'conflict' AND {is_turn}) AS turn_rows_conflict,
            any_value(tenant_id) AS tenant_id, {seq} AS _ingest_seq{sums}, {cost} AS reported_cost_usd_collapsed
        FROM judged WHERE NOT _is_kept GROUP BY _manifest_key
        """
    )
    for column in SESSION_COLUMNS:
        if column in table.by_name:
            _touch(connection, column, seq)
    connection.execute("DROP TABLE judged")


def _judge(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table) -> None:
    """Put arriving rows beside the rows that the wire holds of the same records, and say of each what it is.

    Nearly all records arrive once: their rows are new and are compared with nothing.
    """
    facts = [c for c in table.columns if c.fact and c.name not in ("record_id", "session_id")]
    digest = ", ".join(_fact(column, table) for column in facts) or "''"
    listed = ", ".join([*table.names, *LINEAGE])
    # A generated id holds the time at which it was made; a keyed name says nothing of age.
    generated = "session_id LIKE 'k1!_%' ESCAPE '!'"
    first = [generated, "session_id"] if "session_id" in table.by_name else []
    first += ["observed_at"] if "observed_at" in table.by_name else []
    # A batch may hold one record twice: the last names of the order are what its rows can differ in.
    loose = [column.name for column in table.columns if not column.fact and column.name not in first]
    if "offset_basis" in table.by_name and not table.by_name["offset_basis"].fact:
        # Of copies on several devices the one that was resolved by the better evidence, whoever sent it.
        first.append(f"coalesce(list_position({list(OFFSET_BASES)}, offset_basis), {len(OFFSET_BASES)})")
    order = ", ".join([*table.origin_by, *first, "_device_id", "_received_at", "_manifest_key", *loose])
    newest = "".join(f"{value} DESC NULLS LAST, " for value in _rank(table))
    is_superseded = f"_place > 1 AND {table.superseded_by[0]} IS NOT NULL" if table.superseded_by else "false"
    connection.register("arriving", rows)
    connection.execute(
        f"""
        CREATE TEMP TABLE to_compare AS
        SELECT tenant_id, record_id FROM arriving GROUP BY ALL HAVING count(*) > 1
        UNION
        SELECT tenant_id, record_id FROM wire.{table.name} AS old
        SEMI JOIN arriving ON arriving.tenant_id = old.tenant_id AND arriving.record_id = old.record_id
        """
    )
    with_compared = "JOIN to_compare ON to_compare.tenant_id = rows.tenant_id AND to_compare.record_id = rows.record_id"
    connection.execute(
        f"""
        CREATE TEMP TABLE judged AS
        WITH both_sides AS (
            SELECT {listed}, false AS _is_kept FROM arriving AS rows SEMI {with_compared}
            UNION ALL
            SELECT {listed}, true AS _is_kept FROM wire.{table.name} AS rows SEMI {with_compared}
        ),
        hashed AS (
            SELECT *, sha256(concat_ws(chr(31), {digest})) AS _facts FROM both_sides
        ),
        known AS (
            SELECT *,
                bool_or(_is_kept) OVER (PARTITION BY tenant_id, record_id) AS _is_known,
                first_value(_facts) OVER (
                    PARTITION BY tenant_id, record_id
                    ORDER BY {newest}_is_kept DESC, _received_at, _manifest_key, _facts
                ) AS _true_facts,
                dense_rank() OVER (PARTITION BY tenant_id, record_id ORDER BY {newest}tenant_id) AS _place
            FROM hashed
        ),
        placed AS (
            SELECT *,
                row_number() OVER (
                    PARTITION BY tenant_id, record_id ORDER BY _facts <> _true_facts, {order}
                ) = 1 AS _wins
            FROM known
        )
        SELECT *,
            CASE
                WHEN _is_kept THEN CASE WHEN _wins THEN 'kept' ELSE 'replaced' END
                WHEN {is_superseded} THEN 'duplicate'
                WHEN _facts <> _true_facts THEN 'conflict'
                WHEN _wins AND NOT _is_known THEN 'new'
                ELSE 'duplicate'
            END AS _outcome
        FROM placed
        UNION ALL BY NAME
        SELECT {listed}, false AS _is_kept, true AS _wins, 'new' AS _outcome FROM arriving AS rows ANTI {with_compared}
        """
    )
    connection.execute("DROP TABLE to_compare")
    connection.unregister("arriving")


def _rank(table: Table) -> list[str]:
    """By what observations of a record supersede one another; nothing where none may."""
    flag, *others = table.superseded_by or ("",)
    return [flag, *(f"CASE WHEN {flag} IS NOT NULL THEN {other} END" for other in others)] if flag else []


def _fact(column: Column, table: Table) -> str:
    """A fact as text. An identifier keyed under another device's key is no other fact."""
    value = f"CASE WHEN {column.name} LIKE 'k1\\_%' ESCAPE '\\' THEN 'k1' ELSE {column.name} END"
    text = f"coalesce({value if column.keep is Keep.ID else f'cast({column.name} AS VARCHAR)'}, chr(0))"
    if column.name in table.origin:
        return f"CASE WHEN {table.superseded_by[0]} IS NULL THEN {text} ELSE chr(0) END"
    return text


def _touch(connection: duckdb.DuckDBPyConnection, column: str, seq: int) -> None:
    """Note the sessions that the marts must look at again: those that gained a row, and those that lost one."""
    connection.execute(
        f"""
        INSERT INTO wire.touched_sessions (tenant_id, session_id, _ingest_seq)
        SELECT DISTINCT tenant_id, {column}, {seq} FROM judged
        WHERE {column} IS NOT NULL AND (_outcome IN ('new', 'replaced') OR (_wins AND NOT _is_kept))
            AND (tenant_id, {column}) NOT IN (
                SELECT (tenant_id, session_id) FROM wire.touched_sessions WHERE _ingest_seq = {seq}
            )
        """
    )


def _touch_rezoned(connection: duckdb.DuckDBPyConnection, seq: int) -> None:
    """Note the sessions of devices whose time zone a load changed: the marts resolve their local times again."""
    sessions = " UNION ".join(
        f"SELECT tenant_id, session_id, _device_id FROM wire.{table.name}"
        for table in TABLES
        if "utc_offset_seconds" in table.by_name
    )
    connection.execute(
        f"""
        INSERT INTO wire.touched_sessions (tenant_id, session_id, _ingest_seq)
        WITH reports AS (
            SELECT tenant_id, _device_id, timezone, _received_at, started_at, record_id, _ingest_seq
            FROM wire.device_reports AS old
            SEMI JOIN (
                SELECT DISTINCT tenant_id, _device_id FROM wire.device_reports WHERE _ingest_seq = {seq}
            ) AS arrived ON old.tenant_id = arrived.tenant_id AND old._device_id = arrived._device_id
            WHERE timezone IS NOT NULL
        ),
        sides AS (
            SELECT 'after' AS side, * FROM reports
            UNION ALL
            SELECT 'before' AS side, * FROM reports WHERE _ingest_seq < {seq}
        ),
        followed AS (
            SELECT *,
                lead(timezone) OVER (
                    PARTITION BY tenant_id, _device_id, side ORDER BY _received_at, started_at, record_id
                ) AS next_timezone
            FROM sides
        ),
        zones AS (
            SELECT tenant_id, _device_id, side,
                list((timezone, CASE WHEN next_timezone IS NOT NULL THEN _received_at END)
                    ORDER BY _received_at, started_at, record_id) AS periods
            FROM followed WHERE next_timezone IS DISTINCT FROM timezone
            GROUP BY tenant_id, _device_id, side
        ),
        rezoned AS (
            SELECT tenant_id, _device_id FROM zones AS later
            JOIN zones AS earlier USING (tenant_id, _device_id)
            WHERE later.side = 'after' AND earlier.side = 'before' AND later.periods IS DISTINCT FROM earlier.periods
        )
        SELECT DISTINCT tenant_id, session_id, {seq} FROM ({sessions}) AS used
        SEMI JOIN rezoned ON used.tenant_id = rezoned.tenant_id AND used._device_id = rezoned._device_id
        WHERE (tenant_id, session_id) NOT IN (
            SELECT (tenant_id, session_id) FROM wire.touched_sessions WHERE _ingest_seq = {seq}
        )
        """
    )


def _write_ledger(connection: duckdb.DuckDBPyConnection, group: _Group, seq: int, *, is_replay: bool) -> list[str]:
    """The commit mark of each batch, in the transaction of its rows; the answers."""
    sound = [(batch.arrival, batch.manifest) for part in group.parts for batch in part.fetched]
    answers: list[tuple[Arrival, Manifest | None, str, str | None]] = [
        (arrival, manifest, "tombstone" if manifest.tombstone else "loaded", manifest.tombstone)
        for arrival, manifest in sound
    ]
    answers += [
        (arrival, manifest, SUPPRESSED if reason.startswith(SUPPRESSED) else "quarantined", reason)
        for arrival, manifest, reason in group.refused
    ]
    # All lines in one statement: one for each batch would search the counts of all loads again and again.
    lines = [_line(*answer) for answer in answers]
    connection.register("lines", pa.Table.from_pylist(lines, schema=LINES))
    into, end = f"INSERT {'OR REPLACE' if is_replay else ''} INTO wire.batches BY NAME", ""
    if is_replay and ducklake.is_ducklake(connection):  # it has no key by which to replace
        into, end = "MERGE INTO wire.batches USING (", REPLACED
    connection.execute(
        f"""
        {into}
        SELECT lines.*, coalesce(counts.rows_in, 0) AS rows_in, coalesce(counts.rows_new, 0) AS rows_new,
            coalesce(counts.rows_duplicate, 0) AS rows_duplicate, coalesce(counts.rows_conflict, 0) AS rows_conflict,
            coalesce(counts.input_tokens_in, 0) AS input_tokens_in,
            coalesce(counts.input_tokens_new, 0) AS input_tokens_new,
            coalesce(counts.output_tokens_in, 0) AS output_tokens_in,
            coalesce(counts.output_tokens_new, 0) AS output_tokens_new,
            coalesce(old.attempts, 0) + 1 AS attempts, $gate AS gate_hash, $now AS loaded_at, $seq AS ingest_seq
        FROM lines
        LEFT JOIN (SELECT manifest_key, attempts FROM wire.batches) AS old USING (manifest_key)
        LEFT JOIN (
            SELECT manifest_key, sum(rows_in) AS rows_in, sum(rows_new) AS rows_new,
                sum(rows_duplicate) AS rows_duplicate, sum(rows_conflict) AS rows_conflict,
                sum(input_tokens_in) AS input_tokens_in, sum(input_tokens_new) AS input_tokens_new,
                sum(output_tokens_in) AS output_tokens_in, sum(output_tokens_new) AS output_tokens_new
            FROM wire.row_counts WHERE _ingest_seq = $seq GROUP BY manifest_key
        ) AS counts USING (manifest_key)
        {end}
        """,
        {"gate": gate.rules_hash(), "now": datetime.now(UTC), "seq": seq},
    )
    if is_replay:
        connection.execute("DELETE FROM wire.batch_objects WHERE manifest_key IN (SELECT manifest_key FROM lines)")
        # Of somebody who was erased since the line of before, which has the key, goes: it names its owner.
        erased = [arrival.key for arrival, _, status, _ in answers if status == SUPPRESSED]
        for table in ("batches", "batch_objects"):
            connection.execute(f"DELETE FROM wire.{table} WHERE list_contains(?, manifest_key)", [erased])
    connection.unregister("lines")
    objects = [
        line
        for arrival, manifest, status, _ in answers
        if manifest and status != SUPPRESSED
        for line in _object_lines(arrival, manifest, seq)
    ]
    connection.register("objects", pa.Table.from_pylist(objects, schema=OBJECT_LINES))
    connection.execute("INSERT INTO wire.batch_objects BY NAME SELECT * FROM objects")
    connection.unregister("objects")
    return [status for _, _, status, _ in answers]


def _arrow(book: str, *left_out: str) -> pa.Schema:
    """The columns of a book that the loader fills from Python."""
    kinds = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "TIMESTAMPTZ": pa.timestamp("us", tz="UTC")}
    return pa.schema(
        [(name, kinds[kind.split()[0]]) for name, (kind, _) in BOOKS[book].items() if name not in left_out]
    )


LINES = _arrow(
    "batches", "rows_in", "rows_new", "rows_duplicate", "rows_conflict", "input_tokens_in", "input_tokens_new",
    "output_tokens_in", "output_tokens_new", "attempts", "gate_hash", "loaded_at", "ingest_seq",
)  # fmt: skip
OBJECT_LINES = _arrow("batch_objects")


def _line(arrival: Arrival, manifest: Manifest | None, status: str, reason: str | None) -> dict[str, object]:
    prefix = arrival.parts.prefix
    return {
        "manifest_key": arrival.key, "manifest_sha256": manifest and manifest.sha256, "tenant_id": prefix.tenant,
        "region": prefix.region, "user_id": manifest and manifest.user_id, "device_id": prefix.device,
        "epoch": prefix.epoch, "seq": arrival.parts.seq, "status": status, "reason": reason,
        "previous_manifest_sha256": manifest and manifest.previous_sha256,
        "contract_hash": manifest and manifest.contract_hash, "consent_id": manifest and manifest.consent_id,
        "uploader_version": manifest and manifest.uploader_version, "rows_claimed": manifest and manifest.rows,
        "received_at": arrival.received_at,
    } | (_veil(arrival, reason) if status == SUPPRESSED else {})  # fmt: skip


def _veil(arrival: Arrival, reason: str | None) -> dict[str, object]:
    """What the ledger says of a suppressed batch instead: that there was one. Of a device that others use too it keeps
    the batch's place, or their chain would have a gap."""
    told = dict.fromkeys(("manifest_sha256", "previous_manifest_sha256", "user_id", "consent_id"))
    if reason == SUPPRESSED:
        told |= dict.fromkeys(("device_id", "epoch", "seq"))
    return told | {"manifest_key": pseudonymised(arrival.key)}


def _object_lines(arrival: Arrival, manifest: Manifest, seq: int) -> Iterator[dict[str, object]]:
    batch = {"manifest_key": arrival.key, "tenant_id": arrival.parts.prefix.tenant, "_ingest_seq": seq}
    for claim in manifest.claims:
        yield batch | {
            "table_name": claim.table.name, "object_key": claim.key, "sha256": claim.sha256, "bytes": claim.size,
            "rows_claimed": claim.rows, "input_tokens_claimed": claim.input_tokens,
            "output_tokens_claimed": claim.output_tokens,
        }  # fmt: skip
    for table, rows in manifest.lost:
        yield batch | {"table_name": table, "rows_claimed": rows}


def wire_hash(connection: duckdb.DuckDBPyConnection) -> str:
    """A hash of what the wire holds, whatever the order and the batches it came in."""
    digest = hashlib.sha256()
    for name, table in BY_NAME.items():
        listed = ", ".join(("tenant_id", "region", *table.names))
        rows = connection.execute(f"SELECT {listed} FROM wire.{name} ORDER BY tenant_id, record_id").fetchall()
        digest.update(repr((name, rows)).encode())
    return digest.hexdigest()
