"""Who is asked of every batch before its objects are fetched, and again at every replay, rebuild and erasure.

THE place for a reason that lies with the sender; one that begins with `suppressed` is no fault (load.py).
Does not belong here: the reasons themselves (suppression.py, registry.py), what a batch may hold (decode.py).
"""

from pathlib import Path

from pipelines.store import Store
from pipelines.warehouse import registry, suppression
from pipelines.warehouse.landing import Arrival, Judge, Manifest


def judge(folder: Path, store: Store) -> Judge:
    """The judge of the warehouse in a folder: first whose data may not be here, then who may send.

    Raises RegisterDamagedError, and ValueError for a suppression that cannot be read.
    """
    suppressed, admitted = suppression.load(store).judge, registry.load(folder).judge

    def ask(arrival: Arrival, manifest: Manifest) -> str | None:
        return suppressed(arrival, manifest) or admitted(arrival, manifest)

    return ask
