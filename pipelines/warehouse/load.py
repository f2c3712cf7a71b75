"""From landing to wire: rows and the ledger line of their batch in one transaction, each record once for ever.

Does not belong here: what may be loaded (landing.py), what marts make of it (models/).
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import duckdb
import pyarrow as pa

from pipelines.contract.ddl import LINEAGE, create_wire, widen_wire
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.wire import BY_NAME, LLM_TURNS, NODE_STEPS
from pipelines.failpoints import fp
from pipelines.store import Store
from pipelines.warehouse import landing
from pipelines.warehouse.landing import Arrival, Batch, IncompleteError, RejectedError

# Batches and rows of one transaction: one commit for many tiny batches, and bounded memory for large ones.
GROUP = 256
GROUP_ROWS = 500_000
SESSION_COLUMNS = ("session_id", "queen_session_id", "list_id")
Progress = Callable[[int, int], None]


@dataclass
class Loaded:
    """What a load did. loaded + quarantined = received; `incomplete` batches lack an object and wait for it."""

    received: int = 0
    loaded: int = 0
    quarantined: int = 0
    incomplete: int = 0
    rows_in: int = 0
    rows_new: int = 0
    rows_duplicate: int = 0
    rows_conflict: int = 0
    new_by_table: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)


def prepare(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the wire schema if it is absent, and as wide as the contract if it is not."""
    connection.execute("SET TimeZone = 'UTC'")
    for statement in (*create_wire(), *widen_wire()):
        connection.execute(statement)


def known_manifests(connection: duckdb.DuckDBPyConnection) -> set[str]:
    """Keys of the manifests that the ledger has an answer for."""
    return {key for (key,) in connection.execute("SELECT manifest_key FROM wire.batches").fetchall()}


def load(
    connection: duckdb.DuckDBPyConnection,
    store: Store,
    arrivals: Sequence[Arrival],
    *,
    progress: Progress | None = None,
) -> Loaded:
    """Load batches in the order of their arrival; one that the ledger knows is passed over.

    Raises StoreUnavailableError: what was loaded before stays loaded.
    """
    total = Loaded()
    known = known_manifests(connection)
    waiting = [arrival for arrival in arrivals if arrival.key not in known]
    for group in _groups(store, waiting):
        _load_group(connection, group, total)
        if progress:
            progress(total.received, len(waiting))
    return total


@dataclass
class _Group:
    batches: list[Batch] = field(default_factory=list)
    refused: list[tuple[Arrival, str]] = field(default_factory=list)
    rows: int = 0
    incomplete: int = 0


def _groups(store: Store, arrivals: Sequence[Arrival]) -> Iterator[_Group]:
    group = _Group()
    for arrival in arrivals:
        try:
            batch = landing.read(store, arrival)
            fp("gate.read")
            group.batches.append(batch)
            group.rows += sum(rows.num_rows for rows in batch.tables.values())
        except RejectedError as error:
            group.refused.append((arrival, str(error)))
        except IncompleteError:
            group.incomplete += 1  # no line in the ledger: the next load looks again
        if len(group.batches) + len(group.refused) >= GROUP or group.rows >= GROUP_ROWS:
            yield group
            group = _Group()
    if group.batches or group.refused or group.incomplete:
        yield group


def _load_group(connection: duckdb.DuckDBPyConnection, group: _Group, total: Loaded) -> None:
    total.incomplete += group.incomplete
    batches, refused = group.batches, group.refused
    if not batches and not refused:
        return
    connection.execute("BEGIN")
    try:
        fp("load.begun")
        seq = _next_seq(connection)
        for name, table in BY_NAME.items():
            rows = [_with_lineage(batch, batch.tables[name], seq) for batch in batches if name in batch.tables]
            if rows:
                _load_table(connection, table, pa.concat_tables(rows), seq)
        fp("load.before_ledger")
        _write_ledger(connection, batches, refused, seq)
        fp("load.before_commit")
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    fp("load.after_commit")
    total.received += len(batches) + len(refused)
    total.loaded += len(batches)
    total.quarantined += len(refused)
    for _, reason in refused:
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


def _next_seq(connection: duckdb.DuckDBPyConnection) -> int:
    found = connection.execute("SELECT coalesce(max(ingest_seq), 0) + 1 FROM wire.batches").fetchone()
    assert found is not None  # noqa: S101 - an aggregate has a row
    return int(found[0])


def _with_lineage(batch: Batch, rows: pa.Table, seq: int) -> pa.Table:
    prefix = batch.arrival.parts.prefix
    values: dict[str, tuple[object, pa.DataType]] = {
        "tenant_id": (prefix.tenant, pa.string()),
        "region": (prefix.region, pa.string()),
        "_user_id": (batch.user_id, pa.string()),
        "_device_id": (prefix.device, pa.string()),
        "_manifest_key": (batch.arrival.key, pa.string()),
        "_received_at": (batch.arrival.received_at, pa.timestamp("us", tz="UTC")),
        "_ingest_seq": (seq, pa.int64()),
    }
    for name in LINEAGE:
        value, kind = values[name]
        rows = rows.append_column(name, pa.repeat(pa.scalar(value, kind), rows.num_rows))
    return rows


def _load_table(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table, seq: int) -> None:
    """Merge rows into a wire table: one row per record, whatever the order of arrival.

    Two rows of one record that differ in facts are a conflict: those that arrived first stay, the others are set aside
    with both hashes. Of rows with the same facts one is kept by a rule that knows no order of arrival: the earliest
    session (a fork's copy names its own), the earliest observation, the least device.
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
        INSERT INTO wire.conflicts
        SELECT '{table.name}', tenant_id, record_id, _true_facts, _facts, _manifest_key, {seq}
        FROM judged WHERE _outcome = 'conflict'
        """
    )
    is_turn = {LLM_TURNS: "true", NODE_STEPS: "step_index >= 0"}.get(table, "false")
    connection.execute(
        f"""
        INSERT INTO wire.row_counts BY NAME
        SELECT _manifest_key AS manifest_key, '{table.name}' AS table_name, count(*) AS rows_in,
            count(*) FILTER (_outcome = 'new') AS rows_new,
            count(*) FILTER (_outcome = 'duplicate') AS rows_duplicate,
            count(*) FILTER (_outcome = 'conflict') AS rows_conflict,
            count(*) FILTER (_outcome = 'duplicate' AND {is_turn}) AS turn_rows_duplicate,
            count(*) FILTER (_outcome = 'conflict' AND {is_turn}) AS turn_rows_conflict,
            any_value(tenant_id) AS tenant_id, {seq} AS _ingest_seq
        FROM judged WHERE NOT _is_kept GROUP BY _manifest_key
        """
    )
    for column in SESSION_COLUMNS:
        if column in table.by_name:
            _touch(connection, column, seq)
    connection.execute("DROP TABLE judged")


def _judge(connection: duckdb.DuckDBPyConnection, table: Table, rows: pa.Table) -> None:
    """Put arriving rows beside the rows that the wire holds of the same records, and say of each what it is."""
    facts = [c for c in table.columns if c.fact and c.name not in ("record_id", "session_id")]
    digest = ", ".join(map(_fact, facts)) or "''"
    listed = ", ".join([*table.names, *LINEAGE])
    first = [name for name in ("session_id", "observed_at") if name in table.by_name]
    # A batch may hold one record twice: the last names of the order are what its rows can differ in.
    loose = [column.name for column in table.columns if not column.fact and column.name not in first]
    order = ", ".join([*first, "_device_id", "_received_at", "_manifest_key", *loose])
    connection.register("arriving", rows)
    connection.execute(
        f"""
        CREATE TEMP TABLE judged AS
        WITH both_sides AS (
            SELECT {listed}, false AS _is_kept FROM arriving
            UNION ALL
            SELECT {listed}, true AS _is_kept FROM wire.{table.name} AS old
            SEMI JOIN arriving ON arriving.tenant_id = old.tenant_id AND arriving.record_id = old.record_id
        ),
        hashed AS (
            SELECT *, sha256(concat_ws(chr(31), {digest})) AS _facts FROM both_sides
        ),
        known AS (
            SELECT *,
                bool_or(_is_kept) OVER (PARTITION BY tenant_id, record_id) AS _is_known,
                first_value(_facts) OVER (
                    PARTITION BY tenant_id, record_id ORDER BY _is_kept DESC, _received_at, _manifest_key, _facts
                ) AS _true_facts
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
                WHEN _facts <> _true_facts THEN 'conflict'
                WHEN _wins AND NOT _is_known THEN 'new'
                ELSE 'duplicate'
            END AS _outcome
        FROM placed
        """
    )
    connection.unregister("arriving")


def _fact(column: Column) -> str:
    """A fact as text. An identifier keyed under another device's key is no other fact."""
    value = f"CASE WHEN {column.name} LIKE 'k1\\_%' ESCAPE '\\' THEN 'k1' ELSE {column.name} END"
    return f"coalesce({value if column.keep is Keep.ID else f'cast({column.name} AS VARCHAR)'}, chr(0))"


def _touch(connection: duckdb.DuckDBPyConnection, column: str, seq: int) -> None:
    """Note the sessions that the marts must look at again: those that gained a row, and those that lost one."""
    connection.execute(
        f"""
        INSERT INTO wire.touched_sessions
        SELECT DISTINCT tenant_id, {column}, {seq} FROM judged
        WHERE {column} IS NOT NULL AND (_outcome IN ('new', 'replaced') OR (_wins AND NOT _is_kept))
            AND (tenant_id, {column}) NOT IN (
                SELECT (tenant_id, session_id) FROM wire.touched_sessions WHERE _ingest_seq = {seq}
            )
        """
    )


def _write_ledger(
    connection: duckdb.DuckDBPyConnection, batches: list[Batch], refused: list[tuple[Arrival, str]], seq: int
) -> None:
    """The commit mark of each batch, in the transaction of its rows."""
    answers: list[tuple[Arrival, str | None, str | None, str, str | None]] = [
        (batch.arrival, batch.manifest_sha256, batch.user_id, "loaded", None) for batch in batches
    ]
    answers += [(arrival, None, None, "quarantined", reason) for arrival, reason in refused]
    lines = [
        {
            "manifest_key": arrival.key, "manifest_sha256": digest, "tenant_id": arrival.parts.prefix.tenant,
            "region": arrival.parts.prefix.region, "user_id": user, "device_id": arrival.parts.prefix.device,
            "epoch": arrival.parts.prefix.epoch, "seq": arrival.parts.seq, "status": status, "reason": reason,
            "received_at": arrival.received_at,
        }
        for arrival, digest, user, status, reason in answers
    ]  # fmt: skip
    # All lines in one statement: one for each batch would search the counts of all loads again and again.
    connection.register("lines", pa.Table.from_pylist(lines))
    connection.execute(
        """
        INSERT INTO wire.batches BY NAME
        SELECT lines.*, coalesce(counts.rows_in, 0) AS rows_in, coalesce(counts.rows_new, 0) AS rows_new,
            coalesce(counts.rows_duplicate, 0) AS rows_duplicate, coalesce(counts.rows_conflict, 0) AS rows_conflict,
            $now AS loaded_at, $seq AS ingest_seq
        FROM lines LEFT JOIN (
            SELECT manifest_key, sum(rows_in) AS rows_in, sum(rows_new) AS rows_new,
                sum(rows_duplicate) AS rows_duplicate, sum(rows_conflict) AS rows_conflict
            FROM wire.row_counts WHERE _ingest_seq = $seq GROUP BY manifest_key
        ) AS counts USING (manifest_key)
        """,
        {"now": datetime.now(UTC), "seq": seq},
    )
    connection.unregister("lines")


def wire_hash(connection: duckdb.DuckDBPyConnection) -> str:
    """A hash of what the wire holds, whatever the order and the batches it came in."""
    digest = hashlib.sha256()
    for name, table in BY_NAME.items():
        listed = ", ".join(("tenant_id", "region", *table.names))
        rows = connection.execute(f"SELECT {listed} FROM wire.{name} ORDER BY tenant_id, record_id").fetchall()
        digest.update(repr((name, rows)).encode())
    return digest.hexdigest()
