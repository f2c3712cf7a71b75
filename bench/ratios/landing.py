"""B4 and B5: how large batches are, and how they are loaded.

Does not belong here: making them (device.py), how sides are measured (measure.py).
"""

import gzip
import io
from functools import partial
from pathlib import Path

from bench.ratios import device

BATCHES, DEVICES = 5, 4


# B4 ------------------------------------------------------------------------------------------------------------------


def prepare_wire(folder: Path, megabytes: float) -> dict[str, int]:
    """A delivered backlog."""
    sums = device.prepare_backlog(folder, megabytes)
    device.ship_backlog(folder)
    return {"turns": sums["turns"]}


def wire_bytes(folder: Path) -> tuple[dict[str, int], int]:
    """Its bytes in the store, manifests included."""
    files = [path for path in (folder / "store" / "landing").rglob("*") if path.is_file()]
    sums = device.sums_of([path for path in files if path.suffix == ".parquet"])
    return {"turns": sums["turns"]}, sum(path.stat().st_size for path in files)


def gzip_bytes(folder: Path) -> tuple[dict[str, int], int]:
    """The floor: the bytes of the same fields of the same rows as CSV, packed by gzip at its strongest."""
    import pyarrow.csv as pc
    import pyarrow.parquet as pq

    files = sorted((folder / "store" / "landing").rglob("*.parquet"))
    size = 0
    for path in files:
        table = pq.read_table(path)
        held = [name for name in table.column_names if table[name].null_count < len(table)]
        text = io.BytesIO()
        pc.write_csv(table.select(held), text)
        size += len(gzip.compress(text.getvalue(), 9))
    return {"turns": device.sums_of(files)["turns"]}, size


# B5 ------------------------------------------------------------------------------------------------------------------


def prepare_landing(folder: Path, rows: float) -> dict[str, int]:
    """Batches of turns of several devices, about so many rows."""
    from bench.tiny_batches import claim
    from pipelines.contract.wire import LLM_TURNS
    from pipelines.device.blocks import pack
    from pipelines.device.spool import to_parquet
    from pipelines.store import FolderStore
    from tests.warehouse_part.batches import START, MemoryStore, batch, record, turn

    store = FolderStore(folder / "store")
    each = int(rows) // (BATCHES * DEVICES)
    tokens = 0
    for number in range(BATCHES * DEVICES):
        memory = MemoryStore()
        made = [
            turn((number, row), occurred_at=START, session_id=record(row // 100), input_tokens=1_000 + row)
            for row in range(each)
        ]
        tokens += sum(row["input_tokens"] for row in made)
        data, sums = to_parquet(LLM_TURNS, [pack("llm_turns", made)])
        place = {"device": record(number % DEVICES), "seq": number // DEVICES + 1}
        batch(memory, {"llm_turns": data}, change=partial(claim, sums), **place)
        for key, body in memory.objects.items():
            store.put(key, body)
    return {"rows": each * BATCHES * DEVICES, "input_tokens": tokens}


def load(folder: Path) -> dict[str, int]:
    """From landing to wire, with gate, ledger and dedupe."""
    import duckdb

    from pipelines.store import FolderStore
    from pipelines.warehouse import gate, landing
    from pipelines.warehouse import load as loading

    store = FolderStore(folder / "store")
    path = _fresh(folder / "loaded.duckdb")
    with duckdb.connect(str(path)) as connection:
        loading.prepare(connection)
        loading.load(connection, store, landing.pending(store, loading.known_manifests(connection)))
        gate.shared().close()  # the child's time counts once it has ended
        return _sums(connection, "wire.llm_turns")


def insert(folder: Path) -> dict[str, int]:
    """The floor: DuckDB inserts the same files."""
    import duckdb

    path = _fresh(folder / "inserted.duckdb")
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE raw AS SELECT * FROM read_parquet(?) LIMIT 0", [_glob(folder)])
        connection.execute("INSERT INTO raw SELECT * FROM read_parquet(?)", [_glob(folder)])
        return _sums(connection, "raw")


def _glob(folder: Path) -> str:
    return str(folder / "store" / "landing" / "**" / "*.parquet")


def _fresh(path: Path) -> Path:
    for old in path.parent.glob(f"{path.name}*"):
        old.unlink()
    return path


def _sums(connection: "duckdb.DuckDBPyConnection", table: str) -> dict[str, int]:  # noqa: F821
    found = connection.execute(f"SELECT count(*), sum(input_tokens)::BIGINT FROM {table}").fetchone()
    assert found is not None
    return {"rows": found[0], "input_tokens": found[1]}
