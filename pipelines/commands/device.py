"""`apiary device …` and `apiary quota …`: what the owner of a device types. All of it works in a base install.

Does not belong here: what the commands do (pipelines/device).
"""

import argparse
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pipelines.commands.device_status import confirm_deletions, print_scope, show_status
from pipelines.commands.tables import as_json, table
from pipelines.commands.terminal import Shared, Stop, agrees, homes_of, note, progress, say, seconds, store_of, tell
from pipelines.contract.numbers import pluralize
from pipelines.home import Home

if TYPE_CHECKING:
    from pipelines.device.consent import Scope
    from pipelines.device.readers.base import Runtime

MAX_PATHS = 5  # of folders that were not read, on a terminal
SOURCE_NAMES = ("events", "logs", "descriptions", "tasks")  # of device/consent.py, which takes time to load
RUNTIME_NAMES = ("hive", "claude-code", "openclaw", "hyperhive")  # of contract/wire.py


def _names(text: str) -> tuple[str, ...]:
    """Names with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _enroll(options: argparse.Namespace) -> int:
    from pipelines.device import consent, enrolment
    from pipelines.store import open_store

    home = Home.from_environment()
    try:
        open_store(options.store or home.store_url)
    except ValueError as error:
        raise Stop(2, str(error)) from None
    before = enrolment.load(home)
    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
    stands = current is not None and current.state in ("granted", "paused")
    if before is not None and before.user != options.user and stands:
        raise Stop(
            2,
            f"this device is enrolled for {before.user}, whose consent stands: {options.user} needs an APIARY_HOME of"
            " their own, or that consent is ended first with `apiary device consent withdraw`",
        )
    enrolled = enrolment.enroll(
        home, tenant=options.tenant, user=options.user, region=options.region, timezone=options.timezone,
        store=options.store, tenant_key=options.tenant_key, credentials=options.credentials, now=datetime.now(UTC),
    )  # fmt: skip
    say(f"enrolled: tenant {enrolled.tenant}, user {enrolled.user}, region {enrolled.region}, zone {enrolled.timezone}")
    if before is not None and before.store and not options.store:
        say(f"the store stays {before.store}, as it was enrolled before: name another one with --store")
    if not (options.tenant_key or os.environ.get("APIARY_TENANT_KEY")):
        say(
            f"no tenant key was named: names are hashed with the key in {home.device}. Devices of a tenant without a"
            " common key cannot recognise each other's copies of records that rest on names (docs/contract.md); tokens"
            " are counted once in any case"
        )
    if current is not None and stands:
        say(f"kept in {home.device}; the consent of {current.at:%Y-%m-%d %H:%M} UTC stands ({current.state})")
    else:
        say(f"kept in {home.device}; nothing is read or sent before `apiary device consent grant`")
    return 0


def _grant(options: argparse.Namespace) -> int:
    from pipelines.device import grant

    homes = homes_of(options, needed=False, strict=True)
    found = _runtimes(homes)
    sources = options.sources
    if not set(sources) - set(SOURCE_NAMES):  # no runtime is named: those that were found
        sources = (*sources, *dict.fromkeys(each.name for each in found.values() if each))
    scope = grant.scope_of(Home.from_environment(), homes, sources)
    is_watched = sys.stdin.isatty() and sys.stdout.isatty()
    if sys.stdin.isatty() and not (is_watched or options.yes):  # a person, who cannot have seen what it covers
        raise Stop(
            2,
            "nothing was granted: what it covers is shown on a terminal before it is asked for, and the output is none;"
            " add --yes to grant it unasked",
        )
    for home, runtime in found.items():
        say(f"found {runtime.title} in {home}" if runtime else f"nothing of an agent yet in {home}")
    if is_watched:
        _print_found(homes, scope, options)
        _print_terms(homes, scope)
    _print_changes(homes, scope, options.history)
    if is_watched:
        say(f"goes to: {store_of(options)}")
        say(
            "take it back at any time with `apiary device consent withdraw`: nothing more is read, what was not sent is"
            " deleted here, and a request to delete what was sent goes there; sums that were billed stay, without names"
        )
        say("see every row and column before you decide: `apiary device preview --json`")
        if not options.yes and not agrees("grant this consent?"):
            raise Stop(2, "nothing was granted and nothing has changed")
    granted = grant.grant(Home.from_environment(), homes, history=options.history, sources=sources)
    reach = "everything there is" if granted.history == "include" else "only what happens from now on"
    say(f"consent {granted.consent_id[:8]} granted at {granted.at:%Y-%m-%d %H:%M:%S} UTC: {reach}")
    if not is_watched:
        _print_terms(homes, granted.scope)
    answer = grant.ask_store(Home.from_environment(), options.store or os.environ.get("APIARY_STORE"))
    say(f"store: {'; '.join((answer.verdict, *answer.reasons))}")
    say("see it byte for byte with `apiary device preview`; take it back with `apiary device consent withdraw`")
    return 0


def _print_found(homes: Sequence[Path], scope: "Scope", options: argparse.Namespace) -> None:
    """What a grant is about, read for its owner before it is in force."""
    from pipelines.device import preview
    from pipelines.device.readers import registry

    with progress("reading") as step:
        found = preview.found(Home.from_environment(), homes, scope, progress=step)
    for problem in found.problems:
        tell(0, problem)
    titles = {runtime.name: runtime.title for runtime in registry.RUNTIMES}
    sessions = ", ".join(f"{pluralize(number, 'session')} of {titles[name]}" for name, number in found.sessions.items())
    span = f", {found.first:%Y-%m-%d} to {found.last:%Y-%m-%d} (UTC)" if found.first and found.last else ""
    say(f"holds: {sessions}{span}" if sessions else "holds: no sessions yet")
    size = f"{pluralize(found.rows, 'row')}, about {pluralize(found.bytes, 'byte')}"
    if options.history == "include":
        say(f"would leave: all of it, {size}, less what was sent before; then what is new")
    else:
        say(f"would leave: only what happens from now on; `--history include` would add what is there: {size}")


def _print_terms(homes: Sequence[Path], scope: "Scope") -> None:
    """What a grant covers, what leaves and what never does."""
    from pipelines.device import grant

    say("covers:")
    for home in homes:
        say(f"  - the home {home}")
    if not homes:
        say("  - every agent's home of this machine, as none was named")
    print_scope(scope)
    say("leaves:")
    for line in grant.COVERS:
        say(f"  - {line}")
    say(f"never leaves: {grant.NEVER}")


def _print_changes(homes: Sequence[Path], scope: "Scope", history: str) -> None:
    """What a grant changes against the consent in force: nothing widens unseen."""
    from pipelines.contract.wire import contract_hash
    from pipelines.device import consent
    from pipelines.device import homes as agent_homes
    from pipelines.device.errors import DeviceError

    home = Home.from_environment()
    with consent.open_state(home) as state:
        before = consent.current(state) if state else None
    if before is None or not before.is_open:
        return
    try:
        known = agent_homes.granted(home)
    except DeviceError:
        known = []  # damaged: the new grant mends it
    columns = "this release" if before.contract_hash == contract_hash() else "another release"
    old = _terms(known, before.scope, before.history) | {"columns of": columns, "state": before.state}
    new = _terms(homes, scope, history) | {"columns of": "this release", "state": "granted"}
    if changed := [name for name in old if old[name] != new[name]]:
        say(f"changes against the consent of {before.at:%Y-%m-%d %H:%M} UTC:")
        for name in changed:
            say(f"  - {name}: before: {old[name]}; now: {new[name]}")


def _terms(homes: Sequence[Path], scope: "Scope", history: str) -> dict[str, str]:
    from pipelines.device.readers import registry

    number = "every agent's home" if scope.homes is None else pluralize(len(scope.homes), "home")
    return {
        "homes": ", ".join(sorted(map(str, homes))) or number,
        "agents": ", ".join(runtime.title for runtime in registry.RUNTIMES if runtime.name in scope.runtimes),
        "kinds of files": ", ".join(name for name in SOURCE_NAMES if name in scope.sources),
        "history": "everything there is" if history == "include" else "only what happens from the grant on",
    }


def _runtimes(homes: Sequence[Path]) -> dict[Path, "Runtime | None"]:
    """Whose homes these are."""
    from pipelines.device.readers import registry

    return {home: registry.recognised(home) for home in homes}


def _print_homes(homes: Sequence[Path]) -> None:
    for home, runtime in _runtimes(homes).items():
        say(f"{runtime.title if runtime else 'no agent yet'}: {home}")


def _withdraw(options: argparse.Namespace) -> int:
    from pipelines.device import consent, grant

    home = Home.from_environment()
    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
    if current and current.is_open and sys.stdin.isatty() and not options.yes:
        question = (
            f"take back the consent of {current.at:%Y-%m-%d %H:%M} UTC? Nothing more is read, what was not sent is"
            f" deleted here at once, and a request to delete what was sent goes to {store_of(options)};"
            " `apiary device consent pause` only stops for a while"
        )
        if not agrees(question):
            raise Stop(2, "nothing was withdrawn and nothing has changed")
    asked = grant.withdraw(home, store_url=options.store or os.environ.get("APIARY_STORE"))
    say("consent withdrawn: nothing more is read, and what had not been sent is gone from this device")
    say(
        "the request to delete what was sent "
        + ("is in the store" if asked else "waits: `apiary device ship` sends it")
    )
    return 0


def _pause(_: argparse.Namespace) -> int:
    from pipelines.device import grant

    grant.pause(Home.from_environment())
    say(
        "paused: nothing is read and nothing leaves until `apiary device consent resume`; what happens meanwhile is"
        " read then. To leave it out, withdraw and grant again."
    )
    return 0


def _resume(_: argparse.Namespace) -> int:
    from pipelines.device import grant

    grant.resume(Home.from_environment())
    say("resumed: the next shipping reads what happened meanwhile")
    return 0


def _preview(options: argparse.Namespace) -> int:
    from pipelines.device import preview

    homes = homes_of(options)
    with progress("reading") as step:
        shown = preview.preview(Home.from_environment(), homes, progress=step)
    for problem in shown.problems:
        tell(0, problem)
    if options.json:
        counts = asdict(shown.counts)
        told = {"consent": shown.consent, "is_outdated": shown.is_outdated, "history": shown.history, "counts": counts}
        print(as_json({**told, "session_folders_passed_over": shown.passed_over, "tables": shown.tables}))
        return 0
    _print_homes(homes)
    for name, rows in shown.tables.items():
        say(f"{name}: {pluralize(len(rows), 'row')}, the first one:")
        say(*(f"    {column} {value}" for column, value in rows[0].items() if value is not None))
    total = shown.counts
    say(
        f"{pluralize(total.seen, 'line')} read: {total.staged:,} to send, {total.duplicate:,} copied from another,"
        f" {total.skipped:,} not asked for, {total.rejected:,} torn or unreadable, {total.before_consent:,} from before"
        f" the consent; left out: {pluralize(total.fields_dropped, 'field')}"
    )
    if shown.passed_over:
        say(
            f"not read, as no known version of the agent keeps sessions there:"
            f" {pluralize(len(shown.passed_over), 'folder')}"
        )
        say(*(f"  {path}" for path in shown.passed_over[:MAX_PATHS]))
        if len(shown.passed_over) > MAX_PATHS:
            say("  ... all of them: `apiary device preview --json`")
    if shown.is_outdated:
        say(
            "nothing leaves: this release sends other columns than the consent was granted for. This is what would"
            " leave after `apiary device consent grant`"
        )
    elif shown.consent == "paused":
        say(
            "nothing leaves while the consent is paused. This is what would leave under it after"
            " `apiary device consent resume`"
        )
    if shown.consent == "none":
        say(
            "nothing leaves: there is no consent. This is what a consent with `--history include` would send; one"
            " without it sends what happens from then on"
        )
    say("every row and column: `apiary device preview --json`")
    return 0


def _ship(options: argparse.Namespace) -> int:
    from pipelines.device import ship

    home, store_url = Home.from_environment(), options.store or os.environ.get("APIARY_STORE")
    signal.signal(signal.SIGTERM, _interrupt)
    while True:
        homes = homes_of(options, consented=True)
        with progress("reading") as step:
            shipped = ship.ship(
                home, homes, store_url=store_url, progress=step, when_full=options.when_full, is_forced=options.now,
                on_retry=_say_again,
            )  # fmt: skip
        if shipped.next_try_at is not None:
            say(
                f"not sent: {shipped.store} did not take a batch and is asked again from"
                f" {shipped.next_try_at:%Y-%m-%d %H:%M:%S} UTC on, or at once with --now;"
                f" {pluralize(shipped.waiting, 'batch waits', 'batches wait')} safely in the spool"
            )
        elif shipped.rows == shipped.report_rows:
            say(
                f"nothing new to send; the report of this run went to {shipped.store}"
                f" ({pluralize(shipped.rows, 'row')}: of the run, and of sizes and lines of files)"
            )
        else:
            size = f"{pluralize(shipped.batches, 'batch')} ({pluralize(shipped.bytes, 'byte')})"
            say(f"sent {pluralize(shipped.rows, 'row')} in {size} to {shipped.store}")
        if shipped.paused:
            tell(0, f"nothing new was read: {shipped.paused}; nothing is lost, ship again later")
        for problem in shipped.problems:
            tell(0, problem)
        if not options.every:
            return 0
        sys.stdout.flush()
        time.sleep(options.every)


def _say_again(error: str, delay: float) -> None:
    note(f"{error}; trying again in {pluralize(round(delay), 'second')}")


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _export(options: argparse.Namespace) -> int:
    from pipelines.device import ship

    options.store = options.to.expanduser().absolute().as_uri()
    with progress("reading") as step:
        shipped = ship.ship(
            Home.from_environment(), homes_of(options, consented=True), store_url=options.store, progress=step,
            is_forced=True,
        )  # fmt: skip
    size = f"{pluralize(shipped.rows, 'row')} in {pluralize(shipped.batches, 'batch')}"
    say(f"wrote {size} to {options.to}: `apiary ingest --from` brings them in")
    return 0


def _receipts(options: argparse.Namespace) -> int:
    from pipelines.device import consent, deletions, enrolment, receipts

    home = Home.from_environment()
    enrolled = enrolment.require(home)
    if options.what == "verify":
        url = options.store or os.environ.get("APIARY_STORE") or enrolled.store
        store = enrolment.open_store(home, url)
        confirm_deletions(home, url)
        with consent.open_state(home) as state:
            asked = deletions.asked(state) if state else []
        done = [item for item in (*asked, *deletions.of_others(store, enrolled, asked)) if item.receipt]
        compared = receipts.verify(home, store, deleted={epoch for item in done for epoch in item.epochs})
        for item in compared:
            if item.verdict not in ("same", "deleted"):
                say(f"{item.verdict}: {item.key}")
        for deletion in done:
            say(deletion)
        counts = Counter(item.verdict for item in compared)
        gone = f", {counts['deleted']} were deleted by request and are gone" if counts["deleted"] else ""
        say(f"{pluralize(len(compared), 'object')} left this device; {counts['same']} are the same in the store{gone}")
        return 0 if len(compared) == counts["same"] + counts["deleted"] else 1
    with consent.open_state(home) as state:
        asked = deletions.asked(state) if state else []
    erased = {epoch for item in asked if item.receipt for epoch in item.epochs}
    rows: list[list[object]] = [
        [number, datetime.fromisoformat(item.cut_at), sum(item.rows.values()), item.bytes, item.consent_id[:8],
         item.tombstone or ("deleted" if item.epoch in erased else "sent")]
        for number, item in enumerate(receipts.receipts(home), start=1)
    ]  # fmt: skip
    if rows:
        table(["batch", "cut at (UTC)", "rows", "bytes", "consent", "outcome"], rows)
    else:
        say("nothing left this device yet")
    return 0


def _resolve(options: argparse.Namespace) -> int:
    from pipelines.device import resolve

    with progress("reading") as step:
        names = resolve.resolve(Home.from_environment(), homes_of(options), options.hash, progress=step)
    if len(options.hash) == 1:
        say(*names.values())
    elif names:
        table(["hash", "name"], [list(pair) for pair in names.items()], is_exact=True)
    if unknown := [keyed for keyed in options.hash if keyed not in names]:
        raise Stop(1, f"no name in these homes has the hash {', '.join(unknown)}: was it made with another tenant key?")
    return 0


def _install(_: argparse.Namespace) -> int:
    from pipelines.device import service

    done = service.install(Home.from_environment())
    for path in done.files:
        say(f"wrote {path}")
    for name, value in done.environment.items():
        say(f"  {name}={value}")
    granted = homes_of(argparse.Namespace(home=None), needed=False)
    say(f"reads {', '.join(map(str, granted)) or 'no home yet: none is granted or in the usual places'}")
    if "HIVE_HOME" in done.environment:
        say("HIVE_HOME is set in this shell: the service reads that home if the consent names none")
    say("store credentials are not written down: the service needs them in the usual files of its user")
    if done.to_run:
        say("not started: run")
        for command in done.to_run:
            say(f"  {command}")
    else:
        say(f"ships every {service.EVERY_SECONDS // 60} minutes while you are logged in")
    return 0


def _uninstall(_: argparse.Namespace) -> int:
    from pipelines.device import service

    done = service.uninstall()
    for path in done.files:
        say(f"removed {path}")
    if not done.files:
        say("no service was installed")
    for command in done.to_run:
        say(f"could not be run: {command}")
    return 0


def _quota_check(options: argparse.Namespace) -> int:
    from pipelines.device import enrolment, quota

    home = Home.from_environment()
    answer = quota.check(home, enrolment.require(home), now=datetime.now(UTC))
    if options.json:
        print(json.dumps(answer.to_dict()))
        return answer.exit_code
    say(f"{answer.decision}: {answer.reason}")
    if answer.as_of is not None:
        age = pluralize(answer.age_seconds or 0, "second")
        say(f"as of {answer.as_of:%Y-%m-%d %H:%M:%S} UTC, {age} ago, with this device's own use since")
    say(*answer.notes)
    return answer.exit_code


def add(commands: Any, shared: Shared) -> None:
    """The groups `device` and `quota` under `apiary`."""
    device = commands.add_parser("device", help="this device: enrolment, consent, preview, shipping, receipts")
    _add_device_commands(device.add_subparsers(required=True, metavar="COMMAND"), shared)
    quota = commands.add_parser("quota", help="budgets, as far as this device knows them")
    _add_quota_commands(quota.add_subparsers(required=True, metavar="COMMAND"), shared)


def _add_device_commands(group: Any, shared: Shared) -> None:
    enroll = shared.add(group, "enroll", "say whose device this is", _enroll, shared.store)
    enroll.add_argument("--tenant", required=True)
    enroll.add_argument("--user", required=True)
    enroll.add_argument("--region", default="local")
    enroll.add_argument("--timezone", metavar="IANA", help="zone of the agents' local times (default: this machine's)")
    enroll.add_argument(
        "--credentials", type=Path, metavar="FILE", help="this device's own store credentials, as in ~/.aws/credentials"
    )
    enroll.add_argument("--tenant-key", type=Path, metavar="FILE", help="the tenant's key (or APIARY_TENANT_KEY)")
    book = group.add_parser("consent", help="grant, pause, withdraw or show consent")
    consents = book.add_subparsers(required=True, metavar="COMMAND")
    grant = shared.add(consents, "grant", "let usage leave this device", _grant, shared.store)
    grant.add_argument(
        "--home",
        type=Path,
        action="append",
        metavar="PATH",
        help="an agent's home; may be given several times (default: those of the consent in force, else those in the"
        " usual places)",
    )
    grant.add_argument(
        "--sources",
        type=_names,
        default=(),
        metavar="NAME,…",
        help=f"agent runtimes ({', '.join(RUNTIME_NAMES)}; default: those found) and kinds of files"
        f" ({', '.join(SOURCE_NAMES)}; default: all, whatever the consent in force covers)",
    )
    grant.add_argument(
        "--history",
        choices=["include", "exclude"],
        default="exclude",
        help="what was before now (default: exclude, whatever the consent in force covers)",
    )
    grant.add_argument("--yes", action="store_true", help="do not ask at a terminal")
    shared.add(consents, "pause", "read and send nothing for a while", _pause)
    shared.add(consents, "resume", "go on after a pause", _resume)
    withdraw = shared.add(
        consents, "withdraw", "take consent back; what was not sent is deleted", _withdraw, shared.store
    )
    withdraw.add_argument("--yes", action="store_true", help="do not ask; without a terminal nothing is asked")
    standing = shared.add(
        consents, "status", "show the consent in force, what left and what waits", show_status, shared.homes,
        shared.store,
    )  # fmt: skip
    standing.add_argument("--json", action="store_true", help="one object on standard output")
    preview = shared.add(group, "preview", "show what would leave, before it does", _preview, shared.homes)
    preview.add_argument("--json", action="store_true")
    ship = shared.add(group, "ship", "send what is new", _ship, shared.homes, shared.store)
    when = ship.add_mutually_exclusive_group()
    when.add_argument("--once", action="store_true", help="send once (the default)")
    when.add_argument("--every", type=seconds, metavar="15m", help="send again and again")
    ship.add_argument("--now", action="store_true", help="ask a store that did not answer again before its time")
    ship.add_argument(
        "--when-full", choices=["pause", "drop_oldest"], default="pause", help="what to do when nothing can be sent"
    )
    export = shared.add(group, "export", "write what is new into a folder, without a network", _export, shared.homes)
    export.add_argument("--to", type=Path, required=True, metavar="DIR")
    kept = shared.add(
        group, "receipts", "list what left, or compare every byte with the store", _receipts, shared.store
    )
    kept.add_argument("what", nargs="?", choices=["list", "verify"], default="list")
    resolve = shared.add(group, "resolve", "name keyed hashes, here at home", _resolve, shared.homes)
    resolve.add_argument("hash", nargs="+", metavar="HASH")
    status = shared.add(
        group, "status", "show the consent in force, what left and what waits", show_status, shared.homes, shared.store
    )
    status.add_argument("--json", action="store_true")
    shared.add(group, "install", "ship every 15 minutes as a service of this user", _install)
    shared.add(group, "uninstall", "remove the service; state and spool stay", _uninstall)


def _add_quota_commands(group: Any, shared: Shared) -> None:
    check = shared.add(group, "check", "may this user go on? exit code 0: allow or warn, 3: block", _quota_check)
    check.add_argument("--json", action="store_true")
