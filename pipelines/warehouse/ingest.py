"""Brings an exported folder into the store, for sites without a network: the same keys, as if the device had sent them.

Does not belong here: loading (load.py); what is brought in twice is there once.
"""

from dataclasses import dataclass
from pathlib import Path

from pipelines.failpoints import fp
from pipelines.store import FolderStore, Put, Store
from pipelines.warehouse.landing import ROOT


@dataclass(frozen=True)
class Ingested:
    """Objects that were new to the store, and those it had."""

    created: int
    existed: int


def ingest(source: Path, store: Store) -> Ingested:
    """Copy a folder's landing into the store, each device's data before its manifests.

    Raises StoreUnavailableError, StoreRefusedError; run again it goes on.
    """
    folder = FolderStore(source.absolute())
    outcomes = {Put.CREATED: 0, Put.EXISTED: 0}
    keys = [entry.key for entry in folder.list(ROOT)]
    for key in sorted(keys, key=lambda key: (key.endswith(".json"), key)):
        outcomes[store.put(key, folder.get(key))] += 1
        fp("ingest.put")
    return Ingested(outcomes[Put.CREATED], outcomes[Put.EXISTED])
