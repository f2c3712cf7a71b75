"""Taking batches that were loaded out of the wire, and with the next build out of every mart and bill.

It is a matter of the wire and the ledger alone: it needs no model to build. Of two copies of a record the one that goes
may be the one that was kept, so the tenant's other batches are loaded again. Does not belong here: who is taken out
(registry.py keeps it, isolation.py finds it), putting back in (quarantine.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import duckdb

from pipelines.contract.keys import parse_manifest_key
from pipelines.contract.wire import BY_NAME
from pipelines.failpoints import fp
from pipelines.store import Store
from pipelines.warehouse import ducklake, landing, load, quarantine
from pipelines.warehouse.landing import SUPPRESSED, AdmissionPolicy, Arrival, Manifest


@dataclass(frozen=True)
class Excluded:
    """What was taken out, and how many batches of the same tenants were loaded again for it."""

    batches: int
    rows: int
    reloaded: int


def refused(connection: duckdb.DuckDBPyConnection, admission: AdmissionPolicy) -> dict[str, str]:
    """Batches that are loaded and would be refused now for who sent them, with the reason: somebody was expelled since.

    What its owner wants erased is erased by the erasure.
    """
    found = connection.execute(
        "SELECT manifest_key, user_id, received_at FROM wire.batches WHERE status = 'loaded'"
    ).fetchall()
    reasons = {}
    for key, user, received_at in found:
        parts = parse_manifest_key(key)
        if parts is not None:
            reason = admission(Arrival(key, parts, received_at), Manifest("", user or ""))
            if reason is not None and not reason.startswith(SUPPRESSED):
                reasons[key] = reason
    return reasons


def exclude(
    connection: duckdb.DuckDBPyConnection, store: Store, reasons: Mapping[str, str], *, admission: AdmissionPolicy
) -> Excluded:
    """Take batches out; each becomes one that was refused for its reason. The policy must refuse them too.

    The marts follow with the next build: every session that loses a row is looked at again. Killed in between, the next
    load goes on. Raises StoreUnavailableError, StoreRefusedError.
    """

    def work() -> tuple[int, int]:
        seq = load.next_seq(connection)
        connection.execute("CREATE OR REPLACE TEMP TABLE leaving (manifest_key VARCHAR, reason VARCHAR)")
        connection.execute("INSERT INTO leaving SELECT unnest($1), unnest($2)", [list(reasons), list(reasons.values())])
        batches, rows = _count(connection)
        _add_copies(connection, store)
        _touch(connection, seq)
        for table, column in [*((name, "_manifest_key") for name in BY_NAME), *_BOOKS]:
            connection.execute(f"DELETE FROM wire.{table} WHERE {column} IN (SELECT manifest_key FROM leaving)")
        connection.execute(
            """
            UPDATE wire.batches AS old SET status = 'quarantined', reason = leaving.reason, ingest_seq = $seq,
                loaded_at = $now, rows_in = 0, rows_new = 0, rows_duplicate = 0, rows_conflict = 0, input_tokens_in = 0,
                input_tokens_new = 0, output_tokens_in = 0, output_tokens_new = 0
            FROM leaving WHERE old.manifest_key = leaving.manifest_key
            """,
            {"seq": seq, "now": datetime.now(UTC)},
        )
        connection.execute("DROP TABLE leaving")
        fp("exclude.before_commit")
        return batches, rows

    batches, rows = ducklake.until_committed(connection, work)
    fp("exclude.after_commit")
    again = quarantine.replay(connection, store, quarantine.Choice(reason=quarantine.UNFINISHED), admission=admission)
    return Excluded(batches, rows, again.loaded)


_BOOKS = (("row_counts", "manifest_key"), ("conflicts", "manifest_key"))


def _count(connection: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    found = connection.execute(
        "SELECT count(*), coalesce(sum(rows_in), 0) FROM wire.batches JOIN leaving USING (manifest_key)"
        " WHERE status = 'loaded'"
    ).fetchone()
    assert found is not None  # noqa: S101 - an aggregate has a row
    return int(found[0]), int(found[1])


def _add_copies(connection: duckdb.DuckDBPyConnection, store: Store) -> None:
    """Batches of the same tenants that are to be loaded again, where any batch of the tenant brought a known record.

    A batch whose objects are gone from the landing keeps its rows.
    """
    waiting = connection.execute(
        """
        WITH tenants AS (
            SELECT DISTINCT tenant_id FROM wire.batches JOIN leaving USING (manifest_key)
        ),
        with_copies AS (
            SELECT DISTINCT tenant_id FROM wire.batches JOIN tenants USING (tenant_id)
            WHERE rows_duplicate + rows_conflict > 0
        )
        SELECT manifest_key FROM wire.batches JOIN with_copies USING (tenant_id)
        WHERE status = 'loaded' AND manifest_key NOT IN (SELECT manifest_key FROM leaving)
        """
    ).fetchall()
    if not waiting:
        return
    there = {arrival.key for arrival in landing.pending(store, ())}
    copies = [key for (key,) in waiting if key in there]
    connection.execute("INSERT INTO leaving SELECT unnest($1), $2", [copies, quarantine.UNFINISHED])


def _touch(connection: duckdb.DuckDBPyConnection, seq: int) -> None:
    """Have the marts look again at every session that loses a row."""
    sessions = " UNION ".join(
        f"SELECT tenant_id, {column} AS session_id FROM wire.{name} WHERE {column} IS NOT NULL"
        " AND _manifest_key IN (SELECT manifest_key FROM leaving)"
        for name, table in BY_NAME.items()
        for column in load.SESSION_COLUMNS
        if column in table.by_name
    )
    connection.execute(
        f"INSERT INTO wire.touched_sessions (tenant_id, session_id, _ingest_seq)"
        f" SELECT tenant_id, session_id, {seq} FROM ({sessions})"
    )
