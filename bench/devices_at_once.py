"""150 devices whose batches land at once while they are loaded: whether each record is there once, and how soon.

`python -m bench.devices_at_once [--devices 150] [--report FILE]`. Neighbours hold some records of each other, as copied
homes do. The floor is DuckDB reading the same files into one table. Does not belong here: many tiny batches
(tiny_batches.py).
"""

import argparse
import tempfile
import threading
from functools import partial
from pathlib import Path

import duckdb

from bench.tiny_batches import claim, measured, seconds_of
from pipelines.contract.wire import LLM_TURNS
from pipelines.device.blocks import pack
from pipelines.device.spool import to_parquet
from pipelines.store import FolderStore
from pipelines.warehouse import gate, landing, load
from tests.warehouse_part.batches import START, MemoryStore, Row, batch, record, turn

BATCHES, ROWS, SHARED = 4, 500, 50
GOAL_SECONDS = 20 * 60  # of 95 in 100 batches, from landing to wire


def rows_of(device: int, seq: int, devices: int) -> list[Row]:
    """A batch's turns: its own, and copies of some of the next device's."""
    own = [(device, seq, number) for number in range(ROWS)]
    copies = [((device + 1) % devices, seq, number) for number in range(SHARED)]
    return [turn(key, occurred_at=START.isoformat(), input_tokens=1_000 + key[2]) for key in (*own, *copies)]


def sealed(device: int, devices: int) -> dict[str, bytes]:
    """What one device has to send, its manifests behind their objects."""
    memory = MemoryStore()
    for seq in range(1, BATCHES + 1):
        data, sums = to_parquet(LLM_TURNS, [pack("llm_turns", rows_of(device, seq, devices))])
        batch(memory, {"llm_turns": data}, device=record(device), seq=seq, change=partial(claim, sums))
    return memory.objects


def send(store: FolderStore, objects: dict[str, bytes]) -> None:
    """Put everything, in the order it was sealed."""
    for key, data in objects.items():
        store.put(key, data)


def load_while(senders: list[threading.Thread], store: FolderStore, connection: duckdb.DuckDBPyConnection) -> None:
    """Load what is there until everybody has sent everything and it is loaded."""
    for sender in senders:
        sender.start()
    while True:
        are_done = not any(sender.is_alive() for sender in senders)
        arrivals = landing.pending(store, load.known_manifests(connection))
        load.load(connection, store, arrivals)
        if are_done and not arrivals:
            break
    gate.shared().close()  # the child's time counts once it has ended


def run(devices: int) -> str:
    """Measure, and say so in Markdown."""
    fleet = [sealed(device, devices) for device in range(devices)]
    rows, tokens = devices * BATCHES * ROWS, devices * BATCHES * sum(1_000 + number for number in range(ROWS))
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(str(Path(folder) / "apiary.duckdb")) as connection:
        store = FolderStore(Path(folder) / "store")
        senders = [threading.Thread(target=send, args=(store, objects)) for objects in fleet]
        load.prepare(connection)
        whole = measured(lambda: load_while(senders, store, connection))
        files = [str(store.root / key) for objects in fleet for key in objects if key.endswith(".parquet")]
        bare = measured(lambda: connection.execute("CREATE TABLE bare AS SELECT * FROM read_parquet(?)", [files]))
        found = connection.execute(
            "SELECT count(*), count(DISTINCT record_id), sum(input_tokens) FROM wire.llm_turns"
        ).fetchone()
        if found != (rows, rows, tokens):
            raise SystemExit(f"loaded {found}, sent {rows} turns with {tokens} input tokens")
        books = connection.execute(
            "SELECT count(*), sum(rows_duplicate), quantile_cont(epoch(loaded_at - received_at), 0.95)"
            " FROM wire.batches WHERE status = 'loaded'"
        ).fetchone()
        assert books is not None
    batches, duplicate, late = books
    if (batches, duplicate) != (devices * BATCHES, devices * BATCHES * SHARED):
        raise SystemExit(f"{batches} batches with {duplicate} duplicate rows")
    lines = [
        "# Many devices at once", "",
        f"{devices} devices put {BATCHES} batches of {ROWS + SHARED} turns each into a folder store at the same time,",
        f"while they are loaded; {SHARED} of each batch's turns are copies of another device's.", "",
        *seconds_of([("read all files into one table", *bare), ("send, gate, ledger and load", *whole)], batches), "",
        f"Loaded: {rows:,} turns, each once; {duplicate:,} copies recognised; token sums equal.",
        f"From landing to wire: 95 of 100 batches within {late:.1f} s (goal {GOAL_SECONDS} s).",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=150)
    parser.add_argument("--report", type=Path)
    options = parser.parse_args()
    text = run(options.devices)
    if options.report:
        options.report.write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
