"""How much of this machine the device part may take while it cannot send.

Does not belong here: what happens when a limit is reached (ship.py).
"""

import shutil
from pathlib import Path

# About 7 million rows at 35 bytes: a month of a busy device without a network. Chosen 2026-11.
SPOOL_BYTES = 256 << 20
# An agent that finds the disk full loses its own work; on a small disk a twentieth of it must do.
FREE_BYTES = 1 << 30
FREE_SHARE = 20


def why_full(folder: Path, spooled: int) -> str | None:
    """Why nothing more may be kept in `folder`, which holds `spooled` bytes that wait; None if there is room."""
    if spooled >= SPOOL_BYTES:
        return f"{spooled >> 20} MiB wait to be sent, the limit is {SPOOL_BYTES >> 20} MiB"
    disk = shutil.disk_usage(folder)
    floor = min(FREE_BYTES, disk.total // FREE_SHARE)
    if disk.free < floor:
        return f"{disk.free >> 20} MiB of disk are free, the limit is {floor >> 20} MiB"
    return None
