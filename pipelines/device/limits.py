"""How much of this machine the device part may take while it cannot send, and how it spares the store.

Does not belong here: what happens when a limit is reached (ship.py), keeping count of tries (retry.py).
"""

import shutil
from pathlib import Path

# About 7 million rows at 35 bytes: a month of a busy device without a network. Chosen 2026-11.
SPOOL_BYTES = 256 << 20
# An agent that finds the disk full loses its own work; on a small disk a twentieth of it must do.
FREE_BYTES = 1 << 30
FREE_SHARE = 20

# A store that did not answer: U(0, min(1 h, 5 s * 2^n)) after the n-th failure in a row. An hour, because a longer one
# would be noticed by people; 5 seconds, because a restart of a server takes about that.
FIRST_DELAY_SECONDS = 5.0
MAX_DELAY_SECONDS = 3600.0
# A server may ask for more. A day is the most: a wrong number must not silence a device for good.
MAX_RETRY_AFTER_SECONDS = 86_400.0
# What one run waits in all before it leaves the rest to a later one: a run that hangs about is one that a person or
# systemd's timer waits for.
PATIENCE_SECONDS = 30.0
# A store that refused these credentials: asked once an hour, so that mended ones are noticed without anyone's help.
BREAKER_SECONDS = 3600.0
# Batches a minute once a run has sent as many: 300,000 rows a minute are more than any device makes, and a fleet that
# comes back with a backlog must leave room for the others.
UPLOADS_PER_MINUTE = 15


def why_full(folder: Path, spooled: int) -> str | None:
    """Why nothing more may be kept in `folder`, which holds `spooled` bytes that wait; None if there is room."""
    if spooled >= SPOOL_BYTES:
        return f"{spooled >> 20} MiB wait to be sent, the limit is {SPOOL_BYTES >> 20} MiB"
    disk = shutil.disk_usage(folder)
    floor = min(FREE_BYTES, disk.total // FREE_SHARE)
    if disk.free < floor:
        return f"{disk.free >> 20} MiB of disk are free, the limit is {floor >> 20} MiB"
    return None
