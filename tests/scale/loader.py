"""A loader of the DuckLake in the environment, as a process of its own: `python -m tests.scale.loader STORE`.

Few batches a transaction, so that loaders meet. Does not belong here: what they must come to (test_ducklake.py).
"""

import json
import sys

from pipelines.store import open_store
from pipelines.warehouse import ducklake, landing, load

if __name__ == "__main__":
    load.GROUP = 32
    store = open_store(sys.argv[1])
    with ducklake.connect() as connection:
        load.prepare(connection)
        done = load.load(connection, store, landing.pending(store, load.known_manifests(connection)))
    said = {"received": done.received, "rows_new": done.rows_new, "rows_duplicate": done.rows_duplicate}
    sys.stdout.write(json.dumps(said))
