"""The failpoints that the harness knows, by the program that passes them.

Does not belong here: where they are in the code (grep for `fp("`), what is done at one (lives.py).
"""

DEVICE = (
    "collect.begun", "read.reset", "read.chunk", "stage.rows", "stage.checkpoint", "stage.summary",
    "stage.observations", "stage.report", "state.before_commit", "state.after_commit", "state.shared_commit",
    "cut.assigned", "seal.begun", "seal.written", "seal.synced", "seal.renamed", "seal.manifest",
    "seal.folder_synced", "seal.marked", "bury.begun", "bury.marked", "sweep.found", "put.before", "put.after",
    "store.written", "store.linked", "deliver.put", "deliver.marked", "receipt.moved", "deliver.finished",
    "receipt.pruned",
)  # fmt: skip
"""Passed by a shipping."""

OWNER = (
    "replace.written", "replace.synced", "replace.renamed", "withdraw.requested", "withdraw.forgotten",
    "withdraw.committed", "purge.removed", "withdraw.purged", "outbox.put", "outbox.sent",
)  # fmt: skip
"""Passed by an enrolment or a withdrawal."""

INGEST = (
    "ingest.put", "gate.read", "load.begun", "load.judged", "load.replaced", "load.inserted", "load.before_ledger",
    "load.before_commit", "load.after_commit", "publish.written", "publish.renamed", "publish.link", "publish.pointed",
)  # fmt: skip
"""Passed by a load or a publication."""

ERASE = (
    "erase.copied", "erase.compared", "erase.journalled", "erase.swapped", "erase.deleted", "erase.receipted",
)  # fmt: skip
"""Passed by an erasure (tests/warehouse_part/test_erase.py dies at each)."""

EXCLUDE = ("exclude.before_commit", "exclude.after_commit")
"""Passed when a device is expelled (tests/warehouse_part/test_exclusion.py dies at each)."""

BILLING = (
    "statement.file", "statement.half", "statement.synced", "statement.renamed", "close.sealed", "close.booked",
    "attest.signed", "current.written",
)  # fmt: skip
"""Passed by a billing export or a close (tests/billing dies at them)."""

TORTURED = (*DEVICE, *OWNER, *INGEST)
"""What `make torture` dies at."""

ALL = (*TORTURED, *ERASE, *EXCLUDE, *BILLING)
