"""`apiary quarantine`, `devices`, `held`, `landing`, `rebuild`, `shadow`: what an operator types about loading.

Does not belong here: what the commands do (pipelines/warehouse).
"""

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipelines import engine
from pipelines.commands.tables import as_json, show, table
from pipelines.commands.terminal import Shared, Stop, note, progress, say, store_of
from pipelines.contract.numbers import pluralize
from pipelines.engine import Engine
from pipelines.home import BusyError, Home


def _moment(text: str) -> datetime:
    """A moment like `2026-11-20` or `2026-11-20T12:00`; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: write 2026-11-20 or 2026-11-20T12:00") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


@contextmanager
def _writing(home: Home) -> Iterator[Any]:
    """The warehouse, open for writing, while no run is at work."""
    from pipelines.warehouse import database, load

    _needed(home)
    with alone(home), database.connect(home.warehouse) as connection:
        load.prepare(connection)
        yield connection


@contextmanager
def alone(home: Home) -> Iterator[None]:
    """Hold the lock of the warehouse. Raises Stop if a run is at work."""
    from pipelines.warehouse import lock

    try:
        with lock.hold(lock.path_of(home.warehouse), f"apiary {' '.join(sys.argv[1:3])}"):
            yield
    except BusyError as error:
        raise Stop(1, f"the warehouse is in use by {error}: wait for it to end") from None


def _needed(home: Home) -> None:
    from pipelines.warehouse import database

    if not database.exists(home.warehouse):
        raise Stop(1, f"there is no warehouse in {home.root} yet: `apiary run` makes it")


def _choice(options: argparse.Namespace) -> Any:
    from pipelines.warehouse.quarantine import Choice

    return Choice(options.reason, options.since, options.manifest)


def _list(options: argparse.Namespace) -> int:
    from pipelines.warehouse import quarantine

    with _writing(Home.from_environment()) as connection:
        found = quarantine.batches(connection, _choice(options))
    show(found, is_json=options.json, nothing="nothing is in quarantine")
    return 0


def _show_one(options: argparse.Namespace) -> int:
    from pipelines.warehouse import quarantine

    with _writing(Home.from_environment()) as connection:
        objects = quarantine.objects(connection, options.manifest)
        (batch,) = quarantine.batches(connection, quarantine.Choice(manifest=options.manifest))
    if options.json:
        print(as_json(batch | {"objects": objects}))
        return 0
    table(["what", "value"], [[name.replace("_", " "), value] for name, value in batch.items()])
    show(objects, nothing="its manifest names no object that anybody here knows")
    return 0


def _replay(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import quarantine, registry

    home = Home.from_environment()
    with _writing(home) as connection:
        store = open_store(store_of(options))
        asked = {str(batch["manifest_key"]) for batch in quarantine.batches(connection, _choice(options))}
        registry.take_back(home.warehouse.parent, asked)
        admission = registry.admission_policy(home.warehouse.parent, store)
        done = quarantine.replay(connection, store, _choice(options), admission=admission)
    if options.json:
        print(as_json(vars(done)))
    else:
        say(
            f"{pluralize(done.received, 'batch')} judged again: {done.loaded} loaded with"
            f" {pluralize(done.rows_new, 'new row')}, {done.refused};"
            " `apiary run` builds the marts"
        )
    return 0 if done.quarantined == done.incomplete == 0 else 1


def _devices(options: argparse.Namespace) -> int:
    from pipelines.warehouse import registry

    home = Home.from_environment()
    found = registry.listed(home.warehouse.parent, home.warehouse)
    show(found, is_json=options.json, nothing="no device has sent anything yet")
    return 0


def _admit(options: argparse.Namespace) -> int:
    from pipelines.warehouse import registry

    registry.admit(
        Home.from_environment().warehouse.parent, options.device, tenant=options.tenant, region=options.region
    )
    say(f"{options.device} may send for {options.tenant}, and for nobody else")
    return 0


def _revoke(options: argparse.Namespace) -> int:
    from pipelines.warehouse import registry

    since = options.since or datetime.now(UTC)
    registry.revoke(Home.from_environment().warehouse.parent, options.device, since=since)
    say(f"what arrives from {options.device} since {since:%Y-%m-%d %H:%M:%S} UTC goes to quarantine")
    return 0


def _expel(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import exclusion, registry

    home, now = Home.from_environment(), datetime.now(UTC)
    folder, who = home.warehouse.parent, _expelled(options)
    with _writing(home) as connection:
        store = open_store(store_of(options))
        if options.device:
            registry.expel(folder, options.device, since=now)
        else:
            registry.expel_tenant(folder, options.tenant, since=now)
        admission = registry.admission_policy(folder, store)
        done = exclusion.exclude(connection, store, exclusion.refused(connection, admission), admission=admission)
    say(
        f"{who} is expelled: out of the wire went {pluralize(done.batches, 'batch')} with"
        f" {pluralize(done.rows, 'row')}; what comes is refused"
    )
    if done.reloaded:
        say(f"loaded again: {pluralize(done.reloaded, 'other batch')} of the tenant, for records that both had brought")
    say(f"`apiary run` takes it out of marts and bills; `apiary devices readmit {_again(options)}` puts it back")
    return 0


def _readmit(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import quarantine, registry

    home = Home.from_environment()
    folder, who = home.warehouse.parent, _expelled(options)
    with _writing(home) as connection:
        store = open_store(store_of(options))
        if options.device:
            registry.readmit(folder, options.device)
        else:
            registry.readmit_tenant(folder, options.tenant)
        reason = registry.EXPELLED_DEVICE if options.device else registry.EXPELLED_TENANT
        choice = quarantine.Choice(reason=reason, device=options.device, tenant=options.tenant)
        done = quarantine.replay(connection, store, choice, admission=registry.admission_policy(folder, store))
    say(
        f"{who} is back: {pluralize(done.loaded, 'batch')} loaded, {pluralize(done.rows_new, 'new row')};"
        " `apiary run` counts them"
    )
    if done.quarantined:
        say(f"refused for other reasons: {done.quarantined}: {done.reasons}")
    return 0


def _expelled(options: argparse.Namespace) -> str:
    """Who is meant, for a person."""
    if (options.device is None) == (options.tenant is None):
        raise Stop(2, "name a device, or a tenant with --tenant")
    return f"device {options.device}" if options.device else f"tenant {options.tenant}"


def _again(options: argparse.Namespace) -> str:
    return str(options.device) if options.device else f"--tenant {options.tenant}"


def _close(options: argparse.Namespace) -> int:
    from pipelines.warehouse import registry

    registry.close(Home.from_environment().warehouse.parent, is_closed=options.is_closed)
    say("only admitted devices may send" if options.is_closed else "every device may send, except revoked ones")
    return 0


def _verify(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import verify

    with _writing(Home.from_environment()) as connection:
        done = verify.verify(connection, open_store(store_of(options)), sample=options.sample)
    if not options.json:
        say(
            f"{pluralize(done.objects, 'object')} looked at, the bytes of {done.read} read:"
            f" {pluralize(len(done.findings), 'finding')}"
        )
    if options.json or done.findings:
        show([vars(finding) for finding in done.findings], is_json=options.json, nothing="")
    return 1 if done.findings else 0


def _rebuild(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import rebuild, registry

    engine.require(Engine.DUCKDB)
    home = Home.from_environment()
    with alone(home), progress("loading") as bar:
        store = open_store(store_of(options))
        admission = registry.admission_policy(home.warehouse.parent, store)
        done = rebuild.rebuild(home.warehouse, store, admission=admission, progress=bar)
        loaded = done.loaded
        note(
            f"{pluralize(loaded.received, 'batch')}: {loaded.loaded} loaded, {loaded.refused};"
            f" {pluralize(done.compared, 'table')} compared"
        )
        rows = [
            {"table": d.table, "rows before": d.before and d.before[0], "rows after": d.after and d.after[0]}
            for d in done.differences
        ]
        if rows and not options.accept:
            show(rows, is_json=options.json, nothing="")
            raise Stop(
                1,
                f"the rebuilt warehouse differs; it lies in {done.aside} until --accept lets it take over",
            )
        before = rebuild.put_in_place(done, home.warehouse)
    show(rows, is_json=options.json, nothing="the rebuilt warehouse holds the same, row by row, and took over")
    if before:
        note(f"the one before lies in {before}: remove it when you like")
    return 0


def _shadow(options: argparse.Namespace) -> int:
    from pipelines.warehouse import shadow

    engine.require(Engine.DUCKDB)
    home = Home.from_environment()
    _needed(home)
    with alone(home):
        found = shadow.shadow(home.warehouse, store_of(options), options.contract, with_marts=options.marts)
    if options.json:
        told = {"tables": list(map(vars, found.tables)), "quarantined": list(map(vars, found.refused))}
        print(as_json(told | {"waiting": found.waiting, "is_equal": found.is_equal}))
    else:
        show([vars(row) for row in found.tables], nothing="")
        show([vars(row) for row in found.refused], nothing="neither has anything in quarantine")
        say("no difference" if found.is_equal else "they differ: look before you switch")
    if found.waiting:
        note(f"not loaded here yet, which counts as a difference: {pluralize(found.waiting, 'batch')}; `apiary run`")
    return 0 if found.is_equal else 3


def _held(options: argparse.Namespace) -> int:
    from pipelines.warehouse import held

    with _writing(Home.from_environment()) as connection:
        found = [vars(row) for row in held.listed(connection)]
    show(found, is_json=options.json, nothing="nothing is held")
    return 0


def _release(options: argparse.Namespace) -> int:
    from pipelines.warehouse import held

    with _writing(Home.from_environment()) as connection:
        count = held.release(connection, tenant=options.tenant, session=options.session)
    say(f"{pluralize(count, 'turn')} let go; `apiary run` counts them on the days that they claim")
    return 0


def _with_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--reason", metavar="R", help="refused for this reason, for any column if none is named")
    parser.add_argument("--since", type=_moment, metavar="T", help="refused since this moment (UTC)")
    parser.add_argument("--manifest", metavar="KEY", help="this batch")
    _with_json(parser)


def _with_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    quarantine = group.add_parser("quarantine", help="batches that were refused: list, show, judge again")
    actions = quarantine.add_subparsers(required=True, metavar="ACTION")
    _with_choice(shared.add(actions, "list", "list refused batches with their reasons", _list))
    one = shared.add(actions, "show", "show one refused batch and its objects", _show_one)
    one.add_argument("manifest", metavar="KEY")
    _with_json(one)
    _with_choice(shared.add(actions, "replay", "judge refused batches again, after a fix", _replay, shared.store))

    devices = group.add_parser(
        "devices", help="which devices may send: list, admit, revoke, expel, readmit, close, open"
    )
    actions = devices.add_subparsers(required=True, metavar="ACTION")
    _with_json(shared.add(actions, "list", "list the devices that have sent or were spoken of", _devices))
    admit = shared.add(actions, "admit", "say for which tenant a device may send", _admit)
    admit.add_argument("device", metavar="DEVICE")
    admit.add_argument("--tenant", required=True)
    admit.add_argument("--region", required=True)
    revoke = shared.add(actions, "revoke", "refuse what arrives from a device", _revoke)
    revoke.add_argument("device", metavar="DEVICE")
    revoke.add_argument("--since", type=_moment, metavar="T", help="what arrived since this moment (UTC); default now")
    for name, command, text in (
        ("expel", _expel, "take what a device or a tenant sent out of the marts, and refuse what comes"),
        ("readmit", _readmit, "put it back in"),
    ):
        whose = shared.add(actions, name, text, command, shared.store)
        whose.add_argument("device", metavar="DEVICE", nargs="?")
        whose.add_argument("--tenant", metavar="T", help="every device of this tenant")
    shared.add(actions, "close", "let only admitted devices send", _close).set_defaults(is_closed=True)
    shared.add(actions, "open", "let every device send, except revoked ones", _close).set_defaults(is_closed=False)

    held = group.add_parser("held", help="turns dated after their arrival, which are not billed: list, release")
    actions = held.add_subparsers(required=True, metavar="ACTION")
    _with_json(shared.add(actions, "list", "list held turns by session", _held))
    release = shared.add(actions, "release", "count held turns on the days that they claim", _release)
    release.add_argument("--tenant", required=True)
    release.add_argument("--session", metavar="ID", help="of this session only")

    landing = group.add_parser("landing", help="the landing: verify")
    actions = landing.add_subparsers(required=True, metavar="ACTION")
    verify = shared.add(
        actions, "verify", "compare the landing with what was loaded, byte by byte", _verify, shared.store
    )
    verify.add_argument("--sample", type=int, metavar="N", help="read the bytes of N objects only; default all")
    _with_json(verify)

    text = "make the warehouse anew from the landing, compare, and put it in place"
    rebuild = shared.add(group, "rebuild", text, _rebuild, shared.store)
    rebuild.add_argument("--accept", action="store_true", help="put it in place although it differs")
    _with_json(rebuild)

    text = "what another version would make of what was loaded, before it is switched on"
    other = shared.add(group, "shadow", text, _shadow, shared.store)
    other.add_argument("--contract", type=Path, required=True, metavar="NEW", help="the folder of its checkout")
    other.add_argument("--marts", action="store_true", help="build its models too, and compare the marts")
    _with_json(other)
