"""The situations of the runbook, made on a copy of a site's home, and what is true once its commands have been typed.

A rehearsal takes a drill, makes the situation, types every command of its section in the order of the page, and looks.
Does not belong here: which commands there are (tests/runbook.py), what the commands do in every other case (tests of
each part).
"""

import json
import os
import re
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from urllib.parse import unquote, urlparse

import duckdb
import pytest

from pipelines import cli
from pipelines.device import enrolment
from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, write_home
from pipelines.store import open_store
from pipelines.warehouse import landing, load, registry
from tests import runbook
from tests.end_to_end.driving import PROGRAM, device, send

DEVICE, ACCOUNT, DIGITS = "0123456789abcdef0123456789abcdef", "acc-lantern", "0123456789ab"
NO_SERVER = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip


@dataclass
class Drill:
    """One section on one home. `given`: what stands in a command for what the page writes, also as a command before it
    answered."""

    page: str
    heading: str
    home: Home
    scratch: Path
    patch: pytest.MonkeyPatch
    given: dict[str, str] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return runbook.sections(self.page)[self.heading]

    def type_all(self, *, fails: dict[str, int] | None = None) -> None:
        """Every command of the section, in its order. `fails`: exit codes other than 0, by the command of the page."""
        wrong = dict(fails or {})
        for command in runbook.commands(self.text):
            if command in runbook.MENTIONED or command in runbook.RUNS:
                continue
            self.type(command, code=wrong.pop(command, 0))
        assert not wrong, "the page has no such commands"

    def type(self, command: str, *, code: int = 0) -> str:
        """One command of the page; what it said."""
        typed = command
        for written, meant in self.given.items():
            typed = typed.replace(written, meant)
        out, err = StringIO(), StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            try:
                found = cli.main(runbook.arguments(typed))
            except SystemExit as stop:
                found = int(stop.code or 0)
        told = out.getvalue() + err.getvalue()
        assert found == code, f"{typed}: exit {found}\n{told}"
        self.said[command] = told
        if command.startswith("apiary month-end") and (shown := re.findall(r"--sign ([0-9a-f]{12})", told)):
            self.given[DIGITS] = shown[-1]
        if command.startswith("apiary serve --make-key"):
            (self.given["acme-1a2b3c4d"],) = set(re.findall(r"\bacme-[0-9a-f]{8}\b", told))
        return told

    def run_python(self) -> str:
        """The block of Python of the section; what it printed."""
        (code,) = re.findall(r"<<'END'\n(.*?)\nEND\n", self.text, re.DOTALL)
        out = StringIO()
        with redirect_stdout(out):
            exec(code, {})
        return out.getvalue()

    def query(self, sql: str) -> list[tuple[object, ...]]:
        with duckdb.connect(str(self.home.warehouse), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def other_device(self) -> Home:
        """Another device of the tenant, bob's, which has sent one batch; the warehouse has loaded it."""
        other, agents = Home(self.scratch / "device"), self.scratch / "hive"
        if not other.root.exists():
            write_home(agents, HomeSpec(layout="v2", seed=5, timezone="UTC", first_day=date(2026, 3, 2), days=1))
            device(other.root, store=self.home.store_url, user="bob")
            send(other, agents)
            self.load()
        self.patch.setenv("HIVE_HOME", str(agents))
        self.given[DEVICE] = enrolment.require(other).device_id
        return other

    def load(self) -> load.Loaded:
        """Load what waits in the landing, as the first step of a run does."""
        store = open_store(self.home.store_url)
        admission = registry.admission_policy(self.home.warehouse.parent, store)
        with duckdb.connect(str(self.home.warehouse)) as connection:
            load.prepare(connection)
            waiting = landing.pending(store, load.known_manifests(connection))
            return load.load(connection, store, waiting, admission=admission)

    def objects(self, device_id: str) -> list[Path]:
        """The files of the landing that a device put there, without its manifests."""
        root = Path(unquote(urlparse(self.home.store_url).path))
        return sorted(path for path in root.rglob("*.parquet") if device_id in str(path))


Rehearsal = Callable[[Drill], None]
WITHIN = "A statement would change"  # rehearsed while the month closes
REHEARSALS: dict[tuple[str, str], Rehearsal] = {}


def rehearses(heading: str, page: str = "runbook") -> Callable[[Rehearsal], Rehearsal]:
    """Name the section that a rehearsal is of. They are done in the order in which they stand here."""

    def known(rehearsal: Rehearsal) -> Rehearsal:
        REHEARSALS[page, heading] = rehearsal
        return rehearsal

    return known


@rehearses("Runbook")
def _first_look(drill: Drill) -> None:
    drill.type_all()
    assert str(drill.home.root) in drill.said["apiary doctor"]
    assert "loaded" in drill.run_python()


def _restated(drill: Drill) -> None:
    """Somebody holds March's statement, which is closing; then the text of one of its rows is another one."""
    export = "apiary export month 2026-10 --account acc-lantern --as-of 2026-04-02T09:00:00Z"
    drill.type(export)
    with duckdb.connect(str(drill.home.warehouse)) as connection:
        connection.execute(
            'UPDATE marts.export_focus_daily SET "ChargeDescription" = \'rehearsed\' WHERE "x_RowKey" ='
            " (SELECT min(\"x_RowKey\") FROM marts.export_focus_daily WHERE billing_period = '2026-03-01')"
        )
    refused = drill.type(export, code=1)
    assert "the statement of A for 2026-03 would change: 1 row, billed cost by 0" in refused
    (drill.given[DIGITS],) = re.findall(r"--accept ([0-9a-f]{12})", refused)
    drill.type_all()


@rehearses("Closing a month")
def _month_end(drill: Drill) -> None:
    """March of this site instead of the page's October; the signature is the one that was shown."""
    [(row,)] = drill.query('SELECT min("x_RowKey") FROM marts.export_focus_daily')
    drill.given |= {
        "2026-10": "2026-03", "2026-11-0": "2026-04-0", "2026-11-20": "2026-04-20", ACCOUNT: "A",
        "EXPORTS": str(drill.home.exports), "ROW": str(row),
    }  # fmt: skip
    reopen = next(command for command in runbook.commands(drill.text) if " reopen " in command)
    for number, command in enumerate(runbook.commands(drill.text)):
        if number == 2:  # it is closing
            _restated(replace(drill, heading=WITHIN, given=dict(drill.given), said={}))
        if command not in (*runbook.RUNS, reopen):
            drill.type(command)
    said = "".join(drill.said.values())
    assert "2026-03 is closing for A" in said
    assert "2026-03 is closed for A" in said
    assert "next: nothing: 2026-03 is closed" in said
    assert ", 0 faults" in drill.said["apiary verify EXPORTS"]
    assert drill.said["apiary prove ROW"].rstrip().endswith("proved: every link holds")
    manifest = max((drill.home.exports / "monthly").rglob("manifest.json"))
    assert json.loads(manifest.read_text())["period_state"] == "closed"
    folder = drill.home.exports / "current" / "A" / "2026-03"
    assert {path.name for path in folder.iterdir()} >= {"costs.csv", "statement.xlsx", "statement.html"}
    drill.type(reopen)
    drill.given |= {"2026-04-05": "2026-04-25"}
    assert "open" in drill.type(next(c for c in runbook.commands(drill.text) if " status " in c))


@rehearses("The files of finance")
def _files_of_finance(drill: Drill) -> None:
    drill.given["apiary export alerts"] = "apiary export alerts --as-of 2026-04-02T09:00:00Z"  # no month is due
    drill.type_all()
    assert (drill.home.exports / "alerts.json").read_text("utf-8").strip() == "[]"


@rehearses("A statement is missing, late or held back")
def _missing_statement(drill: Drill) -> None:
    """April has ended, and nobody has written its statement."""
    ask = "apiary export alerts --as-of 2026-05-05T09:00:00Z"
    assert "missing: 2026-04, account A: the month has ended, no statement" in drill.type(ask, code=1)
    drill.given |= {"2026-10": "2026-04", "2026-11-05": "2026-05-05", ACCOUNT: "A"}
    drill.type_all()
    assert "all billing statements are there" in drill.type(ask)


@rehearses("The signed head")
def _signed_head(drill: Drill) -> None:
    anchor = (drill.scratch / "anchor").as_uri()
    drill.patch.setenv("APIARY_ANCHOR", anchor)
    key = next((drill.home.books / "keys").glob("*.pub")).read_text("utf-8").split()[0]
    drill.given |= {
        "EXPORTS": str(drill.home.exports), "HEX": key, "s3://bucket/prefix": anchor, "2026-10": "2026-03",
        "2026-11-05": "2026-05-06",
    }  # fmt: skip
    drill.type("apiary export days --as-of 2026-11-05T09:00:00Z")  # signs, and leaves a copy with the anchor
    drill.type_all()


@rehearses("Changing keys and credentials")
def _changed_keys(drill: Drill) -> None:
    """The device's new credentials reach a store that is a folder; the key of the site is moved aside."""
    write_home(drill.scratch / "cy", HomeSpec(layout="v2", seed=7, timezone="UTC", first_day=date(2026, 3, 2), days=1))
    drill.patch.setenv("HIVE_HOME", str(drill.scratch / "cy"))
    other = device(drill.scratch / "cy-device", store=drill.home.store_url, user="cy")
    given = drill.scratch / "credentials"
    given.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = secret\n")
    keys = drill.home.books / "keys"
    before = (keys / "site.ed25519.pub").read_text("utf-8").strip()
    keys.rename(drill.scratch / "keys-before")
    drill.given |= {
        "FILE": str(given), "--user ada": "--user cy", "EXPORTS": str(drill.home.exports), "2026-11-05": "2026-05-08",
    }  # fmt: skip
    for command in runbook.commands(drill.text):
        drill.patch.setenv("APIARY_HOME", str((other if command.startswith("apiary device") else drill.home).root))
        if "HEX" in command:
            drill.given["HEX"] = (keys / "site.ed25519.pub").read_text("utf-8").strip()
        drill.type(command)
    assert drill.given["HEX"] != before
    assert (other.device / "credentials").read_bytes() == given.read_bytes()
    drill.given["HEX"] = before
    drill.type("apiary verify EXPORTS --public-key HEX", code=1)


@rehearses("Somebody doubts a row")
def _doubted_row(drill: Drill) -> None:
    [(row,)] = drill.query('SELECT max("x_RowKey") FROM marts.export_focus_daily')
    drill.given |= {"DIR": str(drill.home.exports), "ROW": str(row)}
    drill.type_all()


@rehearses("A batch was quarantined")
def _quarantined_batch(drill: Drill) -> None:
    """An object is damaged, then restored; its batch stays refused until it is replayed."""
    write_home(drill.scratch / "eve", HomeSpec(layout="v2", seed=6, timezone="UTC", first_day=date(2026, 3, 2), days=1))
    eve = device(drill.scratch / "eve-device", store=drill.home.store_url, user="eve")
    send(eve, drill.scratch / "eve")
    damaged = drill.objects(enrolment.require(eve).device_id)[0]
    sealed, status = damaged.read_bytes(), damaged.stat()
    damaged.chmod(0o600)
    damaged.write_bytes(sealed[:-1] + b"?")
    assert drill.load().reasons == {"hash_mismatch": 1}
    damaged.write_bytes(sealed)
    os.utime(damaged, ns=(status.st_atime_ns, status.st_mtime_ns))
    [(key,)] = drill.query("SELECT manifest_key FROM wire.batches WHERE status = 'quarantined'")
    drill.given["KEY"] = str(key)
    drill.type_all()
    assert drill.query("SELECT count(*) FROM wire.batches WHERE status = 'quarantined'") == [(0,)]


@rehearses("Which devices may send")
def _register(drill: Drill) -> None:
    drill.other_device()
    drill.type_all()
    drill.type("apiary devices open")


@rehearses("A device or a tenant has to go out of the marts")
def _expelled(drill: Drill) -> None:
    drill.other_device()
    before = drill.query("SELECT count(*) FROM wire.llm_turns")
    drill.type_all()
    assert drill.query("SELECT count(*) FROM wire.llm_turns") == before


@rehearses("Turns from the future")
def _future(drill: Drill) -> None:
    """A turn of a clock that is a year ahead, as the models leave it."""
    with duckdb.connect(str(drill.home.warehouse)) as connection:
        connection.execute(
            "INSERT INTO marts.mart_held_turns BY NAME SELECT turn_id, tenant_id, session_id, turn_source,"
            " input_tokens, output_tokens, occurred_at + INTERVAL 400 DAY AS occurred_at, occurred_at AS received_at"
            " FROM marts.fct_llm_turns ORDER BY turn_id LIMIT 1"
        )
    [(session,)] = drill.query("SELECT session_id FROM marts.mart_held_turns")
    drill.given["session ID"] = f"session {session}"
    drill.type_all()
    assert drill.query("SELECT count(*) FROM wire.released") == [(1,)]


@rehearses("Turns on the wrong day")
def _wrong_zone(drill: Drill) -> None:
    other = drill.other_device()
    drill.patch.setenv("APIARY_HOME", str(other.root))
    drill.given["--user ada"] = "--user bob"
    drill.type_all()
    assert enrolment.require(other).timezone == "America/New_York"


@rehearses("The landing is not what was loaded")
def _landing(drill: Drill) -> None:
    other = drill.other_device()
    lost = drill.objects(drill.given[DEVICE])[0]
    aside, status = drill.scratch / "lost-object", lost.stat()
    lost.rename(aside)
    drill.patch.setenv("APIARY_HOME", str(other.root))
    drill.type("apiary device status")
    drill.patch.setenv("APIARY_HOME", str(drill.home.root))
    assert "missing" in drill.type("apiary landing verify", code=1)
    aside.rename(lost)
    os.utime(lost, ns=(status.st_atime_ns, status.st_mtime_ns))
    drill.type("apiary landing verify")


@rehearses("A device stopped sending")
def _silent_device(drill: Drill) -> None:
    other = drill.other_device()
    assert drill.given[DEVICE][:8] in drill.run_python()
    drill.patch.setenv("APIARY_HOME", str(other.root))
    for command in runbook.commands(drill.text):
        if "--every" not in command:
            drill.type(command)
            continue
        sending = subprocess.Popen([*PROGRAM, *runbook.arguments(command)], stdout=subprocess.PIPE, text=True)
        assert sending.stdout is not None
        assert sending.stdout.readline()
        sending.send_signal(signal.SIGTERM)
        sending.wait(10)


@rehearses("Loading everything again", "backfills")
def _sent_again(drill: Drill) -> None:
    """What had been sent falls onto itself."""
    other = drill.other_device()
    drill.patch.setenv("APIARY_HOME", str(other.root))
    drill.type_all()


@rehearses("An agent misbehaves")
def _agent(drill: Drill) -> None:
    agents = json.loads(drill.type("apiary agent list --json"))
    drill.given["queen:queen_growth"] = str(agents[0]["agent"])
    drill.type_all()
    assert "derailed" in drill.home.operator_actions.read_text("utf-8")


@rehearses("The store does not answer")
def _no_store(drill: Drill) -> None:
    for name, value in (NO_SERVER | {"APIARY_STORE": "s3://bucket/prefix"}).items():
        drill.patch.setenv(name, value)
    drill.type_all(fails={"apiary doctor": 1})
    assert "NOT REACHABLE" in drill.said["apiary doctor"]
    assert "cannot be reached" in drill.type("apiary run", code=1)


@rehearses("Budgets and quotas")
def _budgets(drill: Drill) -> None:
    drill.other_device()
    drill.type_all()
    assert {"acme-month", "acme-ada"} <= set(drill.said["apiary budget list"].split())


@rehearses("Serving the data over HTTP")
def _served(drill: Drill) -> None:
    drill.type_all()


@rehearses("First day")
def _first_day(drill: Drill) -> None:
    drill.type_all()


@rehearses("Daily look")
def _daily_look(drill: Drill) -> None:
    drill.given["apiary export alerts"] = "apiary export alerts --as-of 2026-04-02T09:00:00Z"  # no month is due
    drill.type_all()


@rehearses("How long things are kept")
def _retention(drill: Drill) -> None:
    drill.type_all()
    assert any((drill.home.root / "retention").iterdir())


@rehearses("After an upgrade")
def _upgrade(drill: Drill) -> None:
    drill.type_all()


@rehearses("Prices")
def _prices(drill: Drill) -> None:
    proposed = drill.scratch / "prices.csv"
    proposed.write_text(
        "provider_name,model,component,unit_price,valid_from\n"
        "anthropic,anthropic/rehearsed,output,0.00001,2026-03-01T00:00:00Z\n"
    )
    drill.given["FILE"] = str(proposed)
    told = drill.type("apiary prices propose FILE")
    (drill.given["SHEET"],) = set(re.findall(r"\b[0-9a-f]{12,64}\b", told)) or {""}
    [(session,)] = drill.query("SELECT min(session_id) FROM wire.sessions WHERE starts_with(session_id, 'session_')")
    drill.given["session_20261120_100000_0a1b2c3d"] = str(session)
    drill.type_all()


@rehearses("Comparing with a provider's bill")
def _provider(drill: Drill) -> None:
    """A server in place of the provider's, and a file that was downloaded."""
    start = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
    used = {"model": "gpt-5", "input_tokens": 7, "output_tokens": 2, "input_cached_tokens": 0}
    cost = {"amount": {"value": "1.5", "currency": "usd"}, "line_item": "gpt-5, output"}
    pages = {
        name: json.dumps(
            {"data": [{"start_time": start, "end_time": start + 86400, "results": [row]}], "has_more": False}
        )
        for name, row in (("usage", used), ("costs", cost))
    }
    (drill.scratch / "usage.json").write_text(pages["usage"])
    drill.given |= {"FILE": str(drill.scratch / "usage.json"), "2026-11-01": "2026-03-01", "2026-11-19": "2026-03-02"}
    with _provider_server(pages["costs"]) as url:
        drill.patch.setenv("OPENAI_ADMIN_KEY", "key")
        drill.patch.setenv("OPENAI_REPORTS_URL", url)
        drill.type_all()
    assert len(list((drill.home.books / "provider").rglob("*.json*"))) >= 2


@contextmanager
def _provider_server(page: str) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@rehearses("Backup and restore")
def _restored(drill: Drill) -> None:
    """The home is lost after a backup; what is restored verifies."""
    kept = drill.scratch / "backups"
    drill.given |= {"/backups": str(kept), "$APIARY_HOME": str(drill.home.root)}
    drill.type("apiary backup --to /backups")
    (file,) = kept.iterdir()
    drill.given[f"{kept}/apiary-backup-20261120T010203Z.tar"] = str(file)
    before = drill.query("SELECT count(*), sum(input_tokens) FROM marts.fct_llm_turns")
    drill.home.root.rename(drill.scratch / "destroyed")
    for command in runbook.commands(drill.text):
        if "backup --to" not in command and command not in runbook.RUNS:
            drill.type(command)
    assert drill.query("SELECT count(*), sum(input_tokens) FROM marts.fct_llm_turns") == before


@rehearses("The finance gate fails")
def _finance_gate(drill: Drill) -> None:
    """A row of a statement costs a cent more than its lines."""
    with duckdb.connect(str(drill.home.warehouse)) as connection:
        connection.execute(
            'UPDATE marts.export_focus_daily SET "BilledCost" = "BilledCost" + 0.01 WHERE "x_RowKey" ='
            ' (SELECT min("x_RowKey") FROM marts.export_focus_daily WHERE "ChargeCategory" = \'Usage\')'
        )
    drill.given |= {"2026-10": "2026-03", "2026-11-04": "2026-05-07"}
    refused = drill.type("apiary export month 2026-10 --as-of 2026-11-04T09:00:00Z", code=1)
    assert "no statement is written while checks fail" in refused
    drill.type_all()
    assert "agreed with audit" in "".join(
        path.read_text("utf-8") for path in (drill.home.exports / "monthly").rglob("manifest.json")
    )
