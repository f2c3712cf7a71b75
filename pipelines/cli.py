"""The one entry point `apiary`: what a person types, and what they read back.

It imports lazily: the device commands work in a base install, and the others say which extra they need.
Exit codes: 0 done, 1 could not be done, 2 wrong use or no consent, 3 a quota blocks. Does not belong here: work.
"""

import argparse
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NoReturn

from pipelines import __version__
from pipelines.home import ROOT, BusyError, Home, exclusive

Command = Callable[[argparse.Namespace], int]


class _Stop(Exception):  # noqa: N818 - it carries an exit code, it is no error of its own
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"apiary: {message}; see `{self.prog} --help`\n")
        raise SystemExit(2)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return _tell(1, "stopped; what was done stays done, run it again to go on")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.debug:
            raise
        return _tell(*_explain(error))


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code and the one line for an error."""
    from pipelines.device.errors import DeviceError, UsageError
    from pipelines.store import StoreRefusedError, StoreUnavailableError

    if isinstance(error, _Stop):
        return error.code, str(error)
    if isinstance(error, UsageError):
        return 2, str(error)
    if isinstance(error, (DeviceError, StoreRefusedError, StoreUnavailableError)):
        return 1, str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in WAREHOUSE_MODULES:
        return 1, f"this command needs {error.name}: install apiary[warehouse], or run `make setup` in a checkout"
    if type(error).__name__ in ("NothingPublishedError", "RunFailedError"):
        return 1, str(error)
    if type(error).__name__ == "IOException" and "lock" in str(error):
        return 1, "the warehouse is open in another process: close it, or wait for the run in the UI, and try again"
    if "disk I/O error" in str(error) or "disk is full" in str(error) or "No space left" in str(error):
        return 1, "the disk is full or failing: free some space and run it again; nothing is lost"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return 1, f"{error.filename}: {error.strerror}"
    first = next(iter(str(error).strip().splitlines()), "")
    return 1, f"{type(error).__name__}: {first}; run it again with --debug to see where"


WAREHOUSE_MODULES = {"dagster", "dagster_dbt", "dagster_duckdb", "duckdb", "dbt", "polars", "pandas", "yaml"}


def _tell(code: int, text: str) -> int:
    sys.stderr.write(f"apiary: {text}\n")
    return code


# device --------------------------------------------------------------------------------------------------------------


def _enroll(options: argparse.Namespace) -> int:
    from pipelines.device import enrolment
    from pipelines.store import open_store

    home = Home.from_environment()
    try:
        open_store(options.store or home.store_url)
    except ValueError as error:
        raise _Stop(2, str(error)) from None
    enrolled = enrolment.enroll(
        home, tenant=options.tenant, user=options.user, region=options.region, timezone=options.timezone,
        store=options.store, tenant_key=options.tenant_key, now=datetime.now(UTC),
    )  # fmt: skip
    print(
        f"enrolled: tenant {enrolled.tenant}, user {enrolled.user}, region {enrolled.region}, zone {enrolled.timezone}"
    )
    print(f"kept in {home.device}; nothing is read or sent before `apiary device consent grant`")
    return 0


def _grant(options: argparse.Namespace) -> int:
    from pipelines.device import grant

    granted = grant.grant(Home.from_environment(), _homes(options, needed=False), history=options.history)
    scope = "everything there is" if granted.history == "include" else "only what happens from now on"
    print(f"consent {granted.consent_id[:8]} granted at {granted.at:%Y-%m-%d %H:%M:%S} UTC: {scope}")
    print("leaves:")
    for line in grant.COVERS:
        print(f"  - {line}")
    print(f"never leaves: {grant.NEVER}")
    answer = grant.ask_store(Home.from_environment(), options.store or os.environ.get("APIARY_STORE"))
    print(f"store: {'; '.join((answer.verdict, *answer.reasons))}")
    print("see it byte for byte with `apiary device preview`; take it back with `apiary device consent withdraw`")
    return 0


def _withdraw(options: argparse.Namespace) -> int:
    from pipelines.device import grant

    asked = grant.withdraw(Home.from_environment(), store_url=options.store or os.environ.get("APIARY_STORE"))
    print("consent withdrawn: nothing more is read, and what had not been sent is gone from this device")
    print(
        "the request to delete what was sent "
        + ("is in the store" if asked else "waits: `apiary device ship` sends it")
    )
    return 0


def _pause(_: argparse.Namespace) -> int:
    from pipelines.device import grant

    grant.pause(Home.from_environment())
    print("paused: nothing is read and nothing leaves until `apiary device consent resume`; what happens meanwhile is")
    print("read then. To leave it out, withdraw and grant again.")
    return 0


def _resume(_: argparse.Namespace) -> int:
    from pipelines.device import grant

    grant.resume(Home.from_environment())
    print("resumed: the next shipping reads what happened meanwhile")
    return 0


def _consent_status(_: argparse.Namespace) -> int:
    from pipelines.device import consent, enrolment

    home = Home.from_environment()
    enrolment.require(home)
    state = consent.open_state(home)
    current = consent.current(state) if state else None
    if current is None:
        print("consent: none was ever given; nothing is read and nothing leaves")
    else:
        print(f"consent {current.consent_id[:8]}: {current.state} at {current.at:%Y-%m-%d %H:%M:%S} UTC")
        print(f"history: {current.history}")
    return 0


def _preview(options: argparse.Namespace) -> int:
    from pipelines.device import preview

    with _progress("reading") as step:
        shown = preview.preview(Home.from_environment(), _homes(options), progress=step)
    if options.json:
        counts = asdict(shown.counts)
        print(
            json.dumps({"consent": shown.consent, "history": shown.history, "counts": counts, "tables": shown.tables})
        )
        return 0
    rows = [[name, len(table), _sample(table[0])] for name, table in shown.tables.items()]
    _table(["table", "rows", "first row"], rows)
    total = shown.counts
    print(
        f"{total.seen} lines read: {total.staged} to send, {total.duplicate} copies, {total.skipped} of kinds nobody"
        f" asked for, {total.rejected} torn or unreadable, {total.before_consent} from before the consent;"
        f" {total.fields_dropped} fields dropped"
    )
    if shown.consent == "none":
        print("nothing leaves: there is no consent. This is what a consent with `--history include` would send.")
    print("every row and column: `apiary device preview --json`")
    return 0


def _sample(row: dict[str, Any]) -> str:
    return ", ".join(f"{k}={v}" for k, v in row.items() if v is not None and k != "record_id")[:160]


def _ship(options: argparse.Namespace) -> int:
    from pipelines.device import ship

    home, store_url = Home.from_environment(), options.store or os.environ.get("APIARY_STORE")
    signal.signal(signal.SIGTERM, _interrupt)
    while True:
        homes = _homes(options, consented=True)
        with _progress("reading") as step:
            shipped = ship.ship(home, homes, store_url=store_url, progress=step, when_full=options.when_full)
        print(f"sent {shipped.rows} rows in {shipped.batches} batches ({shipped.bytes} bytes) to {shipped.store}")
        if shipped.paused:
            sys.stderr.write(f"apiary: nothing new was read: {shipped.paused}; nothing is lost, ship again later\n")
        for problem in shipped.problems:
            sys.stderr.write(f"apiary: {problem}\n")
        if not options.every:
            return 0
        sys.stdout.flush()
        time.sleep(options.every)


def _interrupt(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def _export(options: argparse.Namespace) -> int:
    from pipelines.device import ship

    options.store = options.to.expanduser().absolute().as_uri()
    with _progress("reading") as step:
        shipped = ship.ship(
            Home.from_environment(), _homes(options, consented=True), store_url=options.store, progress=step
        )  # fmt: skip
    print(
        f"wrote {shipped.rows} rows in {shipped.batches} batches to {options.to}: `apiary ingest --from` brings them in"
    )
    return 0


def _receipts(options: argparse.Namespace) -> int:
    from pipelines.device import enrolment, receipts
    from pipelines.store import open_store

    home = Home.from_environment()
    enrolled = enrolment.require(home)
    if options.what == "verify":
        compared = receipts.verify(home, open_store(options.store or os.environ.get("APIARY_STORE") or enrolled.store))
        wrong = [item for item in compared if item.verdict != "same"]
        for item in wrong:
            print(f"{item.verdict}: {item.key}")
        print(f"{len(compared)} objects left this device; {len(compared) - len(wrong)} are the same in the store")
        return 1 if wrong else 0
    found = receipts.receipts(home)
    rows: list[list[object]] = [
        [item.seq, item.cut_at[:19], sum(item.rows.values()), item.bytes, item.consent_id[:8], item.tombstone or "sent"]
        for item in found
    ]
    _table(["batch", "cut at (UTC)", "rows", "bytes", "consent", "outcome"], rows)
    return 0


def _resolve(options: argparse.Namespace) -> int:
    from pipelines.device import resolve

    with _progress("reading") as step:
        name = resolve.resolve(Home.from_environment(), _homes(options), options.hash, progress=step)
    if name is None:
        raise _Stop(1, f"no name in these homes has the hash {options.hash}: was it made with another tenant key?")
    print(name)
    return 0


def _device_status(options: argparse.Namespace) -> int:
    from pipelines.device import consent, enrolment

    home = Home.from_environment()
    enrolled = enrolment.require(home)
    state = consent.open_state(home)
    current = consent.current(state) if state else None
    totals = state.totals() if state else {}
    facts = {
        "tenant": enrolled.tenant, "user": enrolled.user, "region": enrolled.region, "timezone": enrolled.timezone,
        "device_id": enrolled.device_id, "store": os.environ.get("APIARY_STORE") or enrolled.store,
        "consent": current.state if current else "none", "history": current.history if current else None, **totals,
    }  # fmt: skip
    if options.json:
        print(json.dumps(facts))
    else:
        _table(["what", "value"], [[name.replace("_", " "), value] for name, value in facts.items()])
    return 0


def _install(_: argparse.Namespace) -> int:
    from pipelines.device import service

    done = service.install(Home.from_environment())
    for path in done.files:
        print(f"wrote {path}")
    for name, value in done.environment.items():
        print(f"  {name}={value}")
    if "HIVE_HOME" in done.environment:
        print("HIVE_HOME is set in this shell, so the service reads that home; install again to change it")
    print("store credentials are not written down: the service needs them in the usual files of its user")
    if done.to_run:
        print("not started: run")
        for command in done.to_run:
            print(f"  {command}")
    else:
        print(f"ships every {service.EVERY_SECONDS // 60} minutes while you are logged in")
    return 0


def _uninstall(_: argparse.Namespace) -> int:
    from pipelines.device import service

    done = service.uninstall()
    for path in done.files:
        print(f"removed {path}")
    if not done.files:
        print("no service was installed")
    for command in done.to_run:
        print(f"could not be run: {command}")
    return 0


def _quota_check(options: argparse.Namespace) -> int:
    from pipelines.device import enrolment, quota

    home = Home.from_environment()
    answer = quota.check(home, enrolment.require(home), now=datetime.now(UTC))
    if options.json:
        print(json.dumps(answer.to_dict()))
        return answer.exit_code
    print(f"{answer.decision}: {answer.reason}")
    if answer.as_of is not None:
        age = answer.age_seconds
        print(f"as of {answer.as_of:%Y-%m-%d %H:%M:%S} UTC, {age} seconds ago, with this device's own use since")
    for note in answer.notes:
        print(note)
    return answer.exit_code


def _homes(options: argparse.Namespace, *, consented: bool = False, needed: bool = True) -> list[Path]:
    from pipelines.device import consent, enrolment
    from pipelines.device.readers import hive_layout

    if consented:
        # Without consent the homes are not even looked for.
        home = Home.from_environment()
        enrolment.require(home)
        consent.require(consent.open_state(home))
    homes = [path.expanduser() for path in options.home] if options.home else hive_layout.usual_homes()
    if needed and not homes:
        raise _Stop(2, "no agent home was found in the usual places: name one with --home")
    return homes


# warehouse -----------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    _run_job(Home.from_environment(), _store(options), day=options.date)
    return 0


def _run_job(home: Home, store_url: str, *, day: date | None = None) -> None:
    os.environ["APIARY_HOME"] = str(home.root)
    os.environ["APIARY_STORE"] = store_url
    os.environ["APIARY_WAREHOUSE"] = str(home.warehouse)
    try:
        with exclusive(home.root / "warehouse" / "lock"):
            sys.stderr.write("running the warehouse job\n")
            from pipelines.defs import foreground

            foreground.run(home, store_url, day=day)
    except BusyError:
        raise _Stop(1, "another run of this warehouse is at work: wait for it to end") from None
    sys.stderr.write(f"published: {home.published / 'current'}\n")


def _ingest(options: argparse.Namespace) -> int:
    from pipelines.store import open_store
    from pipelines.warehouse import ingest

    source = options.source.expanduser()
    if not source.is_dir():
        raise _Stop(2, f"{source} is no folder: name one that `apiary device export --to` wrote")
    done = ingest.ingest(source, open_store(_store(options)))
    print(f"{done.created} objects brought in, {done.existed} were there already; `apiary run` loads them")
    return 0


def _store(options: argparse.Namespace) -> str:
    """The store's address: flag, `APIARY_STORE`, what this device was enrolled with, the default."""
    from pipelines.device import enrolment
    from pipelines.store import open_store

    home = Home.from_environment()
    enrolled = enrolment.load(home)
    url = options.store or os.environ.get("APIARY_STORE") or (enrolled.store if enrolled else "") or home.store_url
    try:
        open_store(url)
    except ValueError as error:
        raise _Stop(2, str(error)) from None
    return str(url)


def _usage(options: argparse.Namespace) -> int:
    from pipelines.warehouse import usage

    rows = usage.usage(
        Home.from_environment().published, options.by, first_day=options.first_day, last_day=options.last_day
    )  # fmt: skip
    if options.json:
        print(json.dumps(rows))
    else:
        _usage_table(rows)
    return 0


HEADINGS = {
    "input_tokens": "input", "output_tokens": "output", "cache_read_input_tokens": "cache read",
    "cache_write_input_tokens": "cache write", "reported_cost_usd": "reported cost USD",
}  # fmt: skip


def _usage_table(rows: list[dict[str, Any]]) -> None:
    if not rows:
        print("no usage")
        return
    _table([HEADINGS.get(name, name.replace("_", " ")) for name in rows[0]], [list(row.values()) for row in rows])


def _doctor(options: argparse.Namespace) -> int:
    from importlib.metadata import PackageNotFoundError, version

    from pipelines.store import open_store

    home, store_url = Home.from_environment(), _store(options)
    rows: list[list[object]] = [["apiary", __version__, "ok"], ["python", sys.version.split()[0], "ok"]]
    for package in ("pyarrow", "boto3", "duckdb", "dagster", "dbt-duckdb", "great-expectations"):
        try:
            rows.append([package, version(package), "ok"])
        except PackageNotFoundError:
            rows.append([package, "not installed", "device only"])
    existing = next(path for path in (home.root, *home.root.parents) if path.exists())
    rows.append(["APIARY_HOME", home.root, "ok" if os.access(existing, os.W_OK) else "NOT WRITABLE"])
    is_open = home.device.exists() and home.device.stat().st_mode & 0o077
    rows.append(["device folder", home.device, "READABLE BY OTHERS: chmod 700 it" if is_open else "ok"])
    if _is_device_without_consent(home):
        rows.append(["store", store_url, "not asked: this device has no consent"])
    else:
        try:
            next(iter(open_store(store_url).list("landing/")), None)
            rows.append(["store", store_url, "ok"])
        except Exception as error:  # noqa: BLE001 - whatever it is, the doctor says it
            rows.append(["store", store_url, f"NOT REACHABLE: {error}"])
    rows.append(["warehouse", home.warehouse, "ok" if home.warehouse.exists() else "none yet: apiary run"])
    _table(["what", "value", "verdict"], rows)
    return 1 if any(str(row[2]).startswith(("NOT", "READABLE")) for row in rows) else 0


def _is_device_without_consent(home: Home) -> bool:
    """No store is asked anything for a device before its owner has consented."""
    from pipelines.device import consent, enrolment

    state = consent.open_state(home)
    current = consent.current(state) if state else None
    return enrolment.load(home) is not None and (current is None or current.state != "granted")


def _dev(options: argparse.Namespace) -> int:
    from pipelines.defs import foreground

    home = Home.from_environment()
    os.environ["APIARY_HOME"] = str(home.root)
    os.environ["APIARY_WAREHOUSE"] = str(home.warehouse)
    os.environ["APIARY_STORE"] = _store(options)
    foreground.make_instance_home(home)
    program = str(Path(sys.executable).with_name("dagster"))
    arguments = [program, "dev", "-h", "127.0.0.1", "-p", "3000", "-w", str(ROOT / "workspace.yaml")]
    os.execv(program, arguments)  # noqa: S606 - the interface takes this process's place and its signals


# demo ----------------------------------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> int:
    from pipelines.warehouse import usage

    home = Home.from_environment()
    if options.home:
        if options.consent != "include":
            raise _Stop(2, "a real home is read with its owner's consent only: add CONSENT=include to ship its history")
        _ship_real(home, _homes(options))
    else:
        _ship_fleet(home)
    store_url = os.environ.get("APIARY_STORE") or home.store_url
    _run_job(home, store_url)
    print()
    _usage_table(usage.usage(home.published, "tenant and model"))
    print()
    ledger = usage.collapsed(home.published)
    _table(
        [name.replace("_", " ") for name in ledger[0]] if ledger else ["no usage"],
        [list(row.values()) for row in ledger],
    )
    print()
    places = [
        ("object store", store_url), ("warehouse", home.warehouse), ("published marts", home.published / "current"),
        ("billing exports", home.exports / "daily"),
    ]  # fmt: skip
    _table(["what", "where"], [list(place) for place in places])
    return 0


def _ship_real(home: Home, homes: list[Path]) -> None:
    from pipelines.device import collect, consent, enrolment, grant, ship

    collect.check_homes(homes)
    if enrolment.load(home) is None:
        enrolment.enroll(
            home, tenant="local", user="owner", region="local", timezone=None, store=None, tenant_key=None,
            now=datetime.now(UTC),
        )  # fmt: skip
    state = consent.open_state(home)
    current = consent.current(state) if state else None
    if current is None or current.state != "granted" or current.history != "include":
        grant.grant(home, homes, history="include")
    with _progress("reading") as step:
        shipped = ship.ship(home, homes, store_url=os.environ.get("APIARY_STORE"), progress=step)
    sys.stderr.write(f"sent {shipped.rows} rows in {shipped.batches} batches\n")


def _ship_fleet(home: Home) -> None:
    """A simulated fleet: each device has a home of its own; they share the store."""
    from datetime import timedelta

    from pipelines.device import enrolment, grant, ship
    from pipelines.simulate import fleet, homes

    store_url = os.environ.get("APIARY_STORE") or home.store_url
    # The newest sessions end on a local evening: two days back is the past in every zone.
    last_day = datetime.now(UTC).date() - timedelta(days=2)
    for device in fleet.demo_fleet(last_day=last_day):
        mine = Home(home.root / "devices" / device.name)
        agents = mine.root / "hive"
        if not agents.exists():
            aside = agents.with_name("hive.aside")
            homes.write_home(aside, device.home)
            aside.rename(agents)
            enrolment.enroll(
                mine, tenant=device.tenant, user=device.user, region=device.region, timezone=device.home.timezone,
                store=store_url, tenant_key=None, now=datetime.now(UTC),
            )  # fmt: skip
            grant.grant(mine, [agents], history="include")
        with _progress(f"{device.name:<12}") as step:
            shipped = ship.ship(mine, [agents], store_url=store_url, progress=step)
        sys.stderr.write(f"{device.name:<20} {device.tenant}/{device.user}: sent {shipped.rows} rows\n")


# reading and writing -------------------------------------------------------------------------------------------------


@contextmanager
def _progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _table(names: list[str], rows: list[list[object]]) -> None:
    """A table that lines up; numbers to the right, with thousands."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(names):
        is_number = bool(rows) and all(isinstance(row[number], int) or row[number] is None for row in rows)
        table.add_column(name, justify="right" if is_number or "USD" in name else "left", overflow="fold")
    for row in rows:
        table.add_row(*[_cell(value) for value in row])
    width = None if sys.stdout.isatty() else 240  # a file or a pipe has no edge to break lines at
    Console(width=width, soft_wrap=False).print(table)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _seconds(text: str) -> float:
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval: write 15m, 1h or 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write YYYY-MM-DD") from None


class _Shared:
    """Options that several commands take."""

    def __init__(self) -> None:
        self.always = argparse.ArgumentParser(add_help=False)
        self.always.add_argument("--debug", action="store_true", help="show where an error comes from")
        self.store = argparse.ArgumentParser(add_help=False)
        self.store.add_argument("--store", metavar="URL", help="file:///folder or s3://bucket/prefix (or APIARY_STORE)")
        self.homes = argparse.ArgumentParser(add_help=False)
        self.homes.add_argument(
            "--home", type=Path, action="append", metavar="PATH", help="an agent's home; may be given several times"
        )

    def add(self, group: Any, name: str, text: str, command: Command, *parents: argparse.ArgumentParser) -> Any:
        """A command under a group."""
        added = group.add_parser(name, help=text, description=text, parents=[self.always, *parents])
        added.set_defaults(command=command)
        return added


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="apiary", description="What AI agents used, counted once, without people's content.")
    parser.add_argument("--version", action="version", version=f"apiary {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = _Shared()
    device = commands.add_parser("device", help="this device: enrolment, consent, preview, shipping, receipts")
    _add_device_commands(device.add_subparsers(required=True, metavar="COMMAND"), shared)
    quota = commands.add_parser("quota", help="budgets, as far as this device knows them")
    _add_quota_commands(quota.add_subparsers(required=True, metavar="COMMAND"), shared)
    _add_warehouse_commands(commands, shared)
    return parser


def _add_device_commands(group: Any, shared: _Shared) -> None:
    enroll = shared.add(group, "enroll", "say whose device this is", _enroll, shared.store)
    enroll.add_argument("--tenant", required=True)
    enroll.add_argument("--user", required=True)
    enroll.add_argument("--region", default="local")
    enroll.add_argument("--timezone", metavar="IANA", help="zone of the agents' local times (default: this machine's)")
    enroll.add_argument("--tenant-key", type=Path, metavar="FILE", help="the tenant's key (or APIARY_TENANT_KEY)")
    book = group.add_parser("consent", help="grant, pause, withdraw or show consent")
    consents = book.add_subparsers(required=True, metavar="COMMAND")
    grant = shared.add(consents, "grant", "let usage leave this device", _grant, shared.homes, shared.store)
    grant.add_argument("--history", choices=["include", "exclude"], default="exclude", help="what was before now")
    shared.add(consents, "pause", "read and send nothing for a while", _pause)
    shared.add(consents, "resume", "go on after a pause", _resume)
    shared.add(consents, "withdraw", "take consent back; what was not sent is deleted", _withdraw, shared.store)
    shared.add(consents, "status", "show the consent in force", _consent_status)
    preview = shared.add(group, "preview", "show what would leave, before it does", _preview, shared.homes)
    preview.add_argument("--json", action="store_true")
    ship = shared.add(group, "ship", "send what is new", _ship, shared.homes, shared.store)
    when = ship.add_mutually_exclusive_group()
    when.add_argument("--once", action="store_true", help="send once (the default)")
    when.add_argument("--every", type=_seconds, metavar="15m", help="send again and again")
    ship.add_argument(
        "--when-full", choices=["pause", "drop_oldest"], default="pause", help="what to do when nothing can be sent"
    )
    export = shared.add(group, "export", "write what is new into a folder, without a network", _export, shared.homes)
    export.add_argument("--to", type=Path, required=True, metavar="DIR")
    kept = shared.add(
        group, "receipts", "list what left, or compare every byte with the store", _receipts, shared.store
    )
    kept.add_argument("what", nargs="?", choices=["list", "verify"], default="list")
    resolve = shared.add(group, "resolve", "name a keyed hash, here at home", _resolve, shared.homes)
    resolve.add_argument("hash", metavar="HASH")
    status = shared.add(group, "status", "show enrolment, consent and what was sent", _device_status)
    status.add_argument("--json", action="store_true")
    shared.add(group, "install", "ship every 15 minutes as a service of this user", _install)
    shared.add(group, "uninstall", "remove the service; state and spool stay", _uninstall)


def _add_quota_commands(group: Any, shared: _Shared) -> None:
    check = shared.add(group, "check", "may this user go on? exit code 0: allow or warn, 3: block", _quota_check)
    check.add_argument("--json", action="store_true")


def _add_warehouse_commands(group: Any, shared: _Shared) -> None:
    ingest = shared.add(group, "ingest", "bring in a folder that a device exported", _ingest, shared.store)
    ingest.add_argument("--from", dest="source", type=Path, required=True, metavar="DIR")
    run = shared.add(group, "run", "load, build, check, publish and export, once", _run, shared.store)
    run.add_argument("--date", type=_day, metavar="D", help="only what arrived on this UTC day")
    usage = shared.add(group, "usage", "show usage from the published data", _usage)
    usage.add_argument("--by", required=True, choices=["model", "tenant", "user", "colony", "session", "agent", "day"])
    usage.add_argument("--from", dest="first_day", type=_day, metavar="D", help="first UTC day")
    usage.add_argument("--to", dest="last_day", type=_day, metavar="D", help="last UTC day")
    usage.add_argument("--json", action="store_true", help="one array on standard output")
    shared.add(group, "doctor", "show versions, paths and whether the store answers", _doctor, shared.store)
    shared.add(group, "dev", "open the Dagster UI on 127.0.0.1:3000", _dev, shared.store)
    demo = shared.add(
        group, "demo", "a simulated fleet (or a home with consent) through the whole job", _demo, shared.homes
    )
    demo.add_argument("--consent", choices=["include"], help="the owner's consent to ship a real home's history")


if __name__ == "__main__":
    raise SystemExit(main())
