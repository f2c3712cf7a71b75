"""`apiary erase` and `apiary retention`: what somebody sent goes from everywhere, what is past its time from its layer.

Does not belong here: erasing (warehouse/erase.py, defs/erasure.py), retention (warehouse/retention.py).
"""

import argparse
import difflib
import getpass
import sys
from typing import Any

from pipelines import engine
from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, note, say, store_of, tell
from pipelines.commands.warehouse import alone, run_job
from pipelines.contract.numbers import pluralize
from pipelines.engine import Engine
from pipelines.home import BusyError, Home, exclusive


def _erase(options: argparse.Namespace) -> int:
    import re

    from pipelines.contract.keys import is_slug
    from pipelines.store import open_store
    from pipelines.warehouse import erase, suppression

    engine.require(Engine.DUCKDB)
    home, store_url = Home.from_environment(), store_of(options)
    store = open_store(store_url)
    scope: suppression.Scope = "device" if options.device else "user" if options.user else "tenant"
    subject = options.device or options.user or options.tenant
    if options.pending:
        if subject is not None:
            raise Stop(2, "--pending goes on with what is asked for already: name nobody beside it")
        suppression.record_requests(store)
        ids = [line.request_id for line in suppression.pending(store, suppression.load(store))]
        _run_erasure(home, store_url)
        return _show(home, store, ids)
    if subject is None:
        raise Stop(2, "name what to erase: --device D, --tenant T --user U, or --tenant T for all of a tenant")
    if scope == "user" and options.tenant is None:
        raise Stop(2, "a user is known within a tenant only: name it with --tenant")
    form = re.fullmatch(r"[0-9a-f]{32}", subject) if scope == "device" else is_slug(subject)
    if not form or (options.tenant and not is_slug(options.tenant)):
        raise Stop(2, f"{subject!r} names no {scope}: a device has 32 hex digits, others [a-z0-9][a-z0-9_-]{{0,62}}")
    try:
        with exclusive(home.root / "warehouse" / "lock"):
            found = erase.find(home.warehouse, store, scope=scope, tenant=options.tenant, subject=subject)
            if not found and options.tenant and not options.in_advance:
                _require_known(home, store, scope, options.tenant, subject)
    except BusyError:
        raise Stop(1, "a run of this warehouse is at work: wait for it to end") from None
    if not found and options.tenant:
        found = {options.tenant: erase.Found()}
    if not found:
        raise Stop(
            2, f"no batch of {scope} {subject} is known: suppress what may still come with --tenant and --in-advance"
        )
    _confirm(scope, subject, found, options)
    recorded = [
        suppression.record(
            store, scope=scope, tenant=tenant, subject=subject, actor=options.actor or getpass.getuser(),
            reason=options.reason, batches=there.mixed, shared=there.shared,
        )
        for tenant, there in found.items()
    ]  # fmt: skip
    note("suppressed: nothing of it is loaded from now on")
    _run_erasure(home, store_url)
    code = _show(home, store, [line.request_id for line in recorded])
    run_job(home, store_url)  # the marts anew; if that fails, what was erased stays erased
    return code


def _require_known(home: Home, store: Any, scope: Any, tenant: str, subject: str) -> None:
    """Stop at a name that nobody has: a slip would stay on the list for ever, and looks like a deletion."""
    from pipelines.warehouse import erase, suppression

    listed = suppression.load(store).listed
    if any(line.covers(tenant=tenant, device=subject, epoch="", user=subject) for line in listed):
        return  # said again: what there was of it is gone
    known = erase.known(home.warehouse, store, scope="tenant")
    who = f"tenant {tenant}"
    if tenant in known and scope != "tenant":
        known, who = erase.known(home.warehouse, store, scope=scope, tenant=tenant), f"{scope} {subject} of {tenant}"
    name = tenant if who == f"tenant {tenant}" else subject
    if name in known:
        return
    near = difflib.get_close_matches(name, sorted(known))
    meant = f", but {', '.join(near)}" if near else ""
    raise Stop(2, f"nothing was ever sent by {who}{meant}: to suppress what may still come of it, say --in-advance")


def _run_erasure(home: Home, store_url: str) -> None:
    with alone(home, store_url, "apiary erase") as foreground:
        note("running the erasure job")
        foreground.erase(home, store_url)


def _confirm(scope: str, subject: str, found: dict[str, Any], options: argparse.Namespace) -> None:
    for tenant, there in found.items():
        also = f", {len(there.mixed)} of them of others on the same device" if there.mixed else ""
        note(f"{scope} {subject} of {tenant}: {pluralize(there.batches + len(there.mixed), 'batch')}{also}")
    if options.yes:
        return
    if not sys.stdin.isatty():
        raise Stop(2, "nothing was erased: say --yes, this cannot be undone")
    sys.stderr.write("this cannot be undone; amounts that were billed stay without names. Type `erase` to go on: ")
    if sys.stdin.readline().strip() != "erase":
        raise Stop(2, "nothing was erased")


def _show(home: Home, store: Any, ids: list[str]) -> int:
    """What became of requests; 1 if one waits."""
    import json

    from pipelines.warehouse import erase, suppression

    rows: list[list[object]] = []
    left = {}
    for request_id in ids:
        try:
            said = json.loads(store.get(f"{suppression.DONE}{request_id}.json"))
        except KeyError:
            left[request_id] = erase.waiting(home.warehouse).get(request_id, {}).get("reason", "it was not tried")
            continue
        findings = ", ".join(f"{count} {kind}" for kind, count in said.get("findings", {}).items())
        rows.append([request_id, said["rows"], said["objects"], said["searched"], said["found"], findings or None])
    if rows:
        heads = ["request", "rows erased", "objects erased", "files and objects searched", "found", "findings"]
        table(heads, rows)
    elif not left:
        say("no request waits")
    for request_id, reason in left.items():
        tell(0, f"request {request_id} waits: {reason}")
    return 1 if left else 0


def _apply_retention(options: argparse.Namespace) -> int:
    import json
    import os
    from dataclasses import asdict

    from pipelines.store import open_store

    home, store_url = Home.from_environment(), store_of(options)
    os.environ["APIARY_HOME"] = str(home.root)
    try:
        with exclusive(home.root / "warehouse" / "lock"):
            from pipelines.defs import foreground, retention

            foreground.make_instance_home(home)
            lines = retention.run(home, open_store(store_url), is_dry=options.dry_run)
    except BusyError:
        raise Stop(1, "a run of this warehouse is at work: wait for it to end") from None
    if options.json:
        print(json.dumps([asdict(line) for line in lines]))
    else:
        table(["layer", "rows", "objects", "bytes", "note"], [list(asdict(line).values()) for line in lines])
    return 0


def _retain(options: argparse.Namespace) -> int:
    note("apiary: `apiary retain` is `apiary retention apply` now; the old name goes with the next release")
    return _apply_retention(options)


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    erase = shared.add(group, "erase", "erase what a device, a user or a tenant sent, with proof", _erase, shared.store)
    erase.add_argument("--device", metavar="D", help="the device's 32 hex digits")
    erase.add_argument("--user", metavar="U", help="a user of the tenant")
    erase.add_argument("--tenant", metavar="T", help="the tenant; alone, all of it")
    erase.add_argument("--reason", default="asked for", help="one line for the list, without names")
    erase.add_argument("--actor", help="who decided (default: this machine's user)")
    erase.add_argument(
        "--pending", action="store_true", help="go on with every request that waits, owners' withdrawals among them"
    )
    erase.add_argument(
        "--in-advance", action="store_true", help="also if nothing was sent by them yet: what may come is suppressed"
    )
    erase.add_argument("--yes", action="store_true", help="do not ask")
    retention = group.add_parser("retention", help="how long each layer is kept: policies/retention.yml")
    actions = retention.add_subparsers(required=True, metavar="COMMAND")
    for apply in (
        shared.add(actions, "apply", "delete what is past its time, with a receipt", _apply_retention, shared.store),
        shared.add(group, "retain", "the old name of `retention apply`", _retain, shared.store),
    ):
        apply.add_argument("--dry-run", action="store_true", help="say what would be deleted, and delete nothing")
        apply.add_argument("--json", action="store_true", help="one array on standard output")
