"""`apiary device status` and `apiary device consent status`: one screen of where a device stands.

Does not belong here: what is on it (pipelines/device/status.py).
"""

import argparse
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pipelines.commands.tables import as_json
from pipelines.commands.terminal import homes_of, say, tell
from pipelines.contract.numbers import pluralize
from pipelines.home import Home

if TYPE_CHECKING:
    from pipelines.device.consent import Scope
    from pipelines.device.deletions import Deletion
    from pipelines.device.status import Status


def show_status(options: argparse.Namespace) -> int:
    """Print it."""
    from pipelines.device import consent, status

    home, store_url = Home.from_environment(), options.store or os.environ.get("APIARY_STORE")
    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
    # Without a consent homes are not even looked for.
    homes = homes_of(options, needed=False) if options.home or (current and current.is_open) else []
    confirm_deletions(home, store_url)
    found = status.status(home, homes, store_url=store_url)
    if options.json:
        print(as_json(_told(found)))
    else:
        _print(found)
    return 0


def confirm_deletions(home: Home, store_url: str | None) -> None:
    """Look whether deletions that were asked for were carried out. A store that does not answer stops nothing."""
    from pipelines.device import grant
    from pipelines.store import StoreRefusedError, StoreUnavailableError

    try:
        grant.confirm(home, store_url=store_url)
    except (StoreUnavailableError, StoreRefusedError) as error:
        tell(0, f"whether a deletion was carried out is not known now: {error}")


def print_scope(scope: "Scope") -> None:
    """The runtimes and kinds of files that a consent covers, and those that it does not."""
    from pipelines.device.consent import SOURCES
    from pipelines.device.readers import registry

    for runtime in registry.RUNTIMES:
        say(f"  - {runtime.title}" if runtime.name in scope.runtimes else f"  - not: {runtime.title}")
    for name, words in SOURCES.items():
        say(f"  - {words}" if name in scope.sources else f"  - not: {words}")


def _print(found: "Status") -> None:
    who = found.enrolled
    current = found.consent
    say(_standing(found))
    if current is not None and current.is_open:
        say("covers:")
        for home in found.homes:
            title = f" ({home.runtime.title})" if home.runtime else " (nothing of an agent yet)"
            say(f"  - {'' if home.is_covered else 'not: '}the home {home.path}{title}")
        if current.scope.homes is None:
            say("  - every agent's home that is named")
        elif more := len(current.scope.homes) - sum(home.is_covered for home in found.homes):
            say(f"  - {pluralize(more, 'home')} more, named by an earlier grant or command")
        print_scope(current.scope)
    _print_delivery(found, is_open=current is not None and current.is_open)
    for deletion in found.deletions:
        say(deletion)
    say(
        f"this device: {who.device_id}, tenant {who.tenant}, user {who.user}, region {who.region}, zone {who.timezone}",
        f"store: {found.store}",
    )


def _standing(found: "Status") -> str:
    """The consent and what it means now, in words: the names of the book's states are for programs."""
    current, last = found.consent, found.deletions[-1] if found.deletions else None
    if current is None:
        return "consent: none was ever given; nothing is read and nothing leaves"
    reach = "with everything before it" if current.history == "include" else "without what was before it"
    text = f"consent {current.consent_id[:8]}: granted at {_time(current.at)}, {reach}"
    if current.is_open and current.is_outdated:
        return (
            f"{text}; this release sends other columns than it was granted for: nothing is read and nothing leaves"
            " until it is granted again (`apiary device preview`, then `apiary device consent grant`)"
        )
    if current.state == "paused":
        return f"{text}; it is paused: nothing is read and nothing leaves until `apiary device consent resume`"
    if current.is_open:
        return text
    deletion = {
        "withdrawn": "the request to delete what was sent waits: `apiary device ship` sends it",
        "deletion_requested": "the deletion of what was sent is requested",
        "confirmed": f"the deletion of what was sent is proven, of {_time(_erased_at(last))}",
    }[current.state]
    asked_at = _time(last.requested_at if last else None)  # in one step with the withdrawal
    return f"{text}; withdrawn at {asked_at}: nothing is read and nothing leaves; {deletion}"


def _erased_at(deletion: "Deletion | None") -> datetime | None:
    return deletion.receipt.erased_at if deletion and deletion.receipt else None


def _print_delivery(found: "Status", *, is_open: bool) -> None:
    sent = found.delivered
    if sent.batches:
        gone = f", {sent.rows_deleted:,} of them deleted there by request" if sent.rows_deleted else ""
        say(
            f"uploaded: {pluralize(sent.rows, 'row')} in {pluralize(sent.batches, 'batch')}"
            f" ({pluralize(sent.bytes, 'byte')}){gone}; last at {_time(sent.last_at)}"
        )
    else:
        say("uploaded: nothing yet")
    if found.rows_waiting or found.batches_waiting:
        say(f"waiting: {pluralize(found.rows_waiting, 'row')} in {pluralize(found.batches_waiting, 'batch')}")
    else:
        say("waiting: nothing that was read")
    if not is_open:
        return
    if found.consent is not None and found.consent.is_outdated:
        say("next upload: none before `apiary device consent grant`")
    elif found.consent is not None and found.consent.state == "paused":
        say("next upload: none before `apiary device consent resume`")
    elif found.waits_until is not None:
        say(f"next upload: from {_time(found.waits_until)} on, or at once with `apiary device ship --now`")
    elif found.is_installed:
        say("next upload: within 15 minutes, by the service of this user")
    else:
        say("next upload: with `apiary device ship`; `apiary device install` does it every 15 minutes")
    if found.passed_over:
        say(f"not read: {pluralize(found.passed_over, 'folder')} of an unknown layout; see `apiary device preview`")


def _told(found: "Status") -> dict[str, Any]:
    current, sent = found.consent, found.delivered
    last = found.deletions[-1] if found.deletions else None
    return {
        "tenant": found.enrolled.tenant, "user": found.enrolled.user, "region": found.enrolled.region,
        "timezone": found.enrolled.timezone, "device_id": found.enrolled.device_id, "store": found.store,
        "consent": current.state if current else "none",
        "is_outdated": current.is_open and current.is_outdated if current else False,
        "history": current.history if current else None,
        "granted_at": _plain(current.at if current else None),
        "deletion_requested_at": _plain(last.requested_at if last else None),
        "deletion_confirmed_at": _plain(_erased_at(last)),
        "rows_staged": found.rows_waiting, "batches_waiting": found.batches_waiting,
        "batches_delivered": sent.batches, "rows_delivered": sent.rows, "bytes_delivered": sent.bytes,
        "rows_deleted": sent.rows_deleted, "last_upload_at": _plain(sent.last_at),
        "next_upload_not_before": _plain(found.waits_until), "is_service_installed": found.is_installed,
        "session_folders_passed_over": found.passed_over,
        "homes": {str(home.path): home.runtime.name if home.runtime else None for home in found.homes},
        "homes_covered": [str(home.path) for home in found.homes if home.is_covered],
    }  # fmt: skip


def _plain(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S}"


def _time(at: datetime | None) -> str:
    return "?" if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
