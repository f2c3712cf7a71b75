"""People hear of what fails, is stale or waits: found in Dagster's records, told once by webhook and e-mail.

Does not belong here: how the channels behave (tests/billing/test_alert_messages.py).
"""

import json
import re
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import duckdb
import pytest

from pipelines.home import Home
from pipelines.warehouse import raised_alerts

DAY = timedelta(days=1)


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """What a webhook hears."""
    server: Any = HTTPServer(("127.0.0.1", 0), _Hook)
    server.heard = []
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    monkeypatch.setenv("APIARY_ALERT_WEBHOOK", f"http://127.0.0.1:{server.server_port}/")
    monkeypatch.setenv("APIARY_UI_URL", "https://dagster.example.org/")
    yield server.heard
    server.shutdown()
    server.server_close()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))
    with dg.DagsterInstance.ephemeral(str(tmp_path)) as made:
        yield made


State = dict[str, Any]
CHECKS = {
    ("wire", "batches", "gate_batches"): (dg.AssetCheckSeverity.ERROR, {"a": 1, "FAILED a": "1: it should be 0"}),
    ("wire", "quarantine", "no_batch_is_quarantined"): (
        dg.AssetCheckSeverity.WARN, {"batches": 3, "reasons": {"hash_mismatch": 2, "bad_key": 1}},
    ),
    ("erasure", "receipts", "every_request_is_finished"): (
        dg.AssetCheckSeverity.WARN, {"0123": "what should be erased is still in FILE"},
    ),
    ("billing", "statements", "exports_complete"): (
        dg.AssetCheckSeverity.WARN, {"1": "held_back 2026-11 acct-bolt: cost is off"},
    ),
    ("marts", "fct_tasks", "unique"): (dg.AssetCheckSeverity.ERROR, {}),
    ("marts", "mart_unknown_records", "a_note"): (dg.AssetCheckSeverity.WARN, {}),
}  # fmt: skip
KEYS = [dg.AssetCheckKey(dg.AssetKey([schema, table]), name) for schema, table, name in CHECKS]


def run(instance: dg.DagsterInstance, failed: set[str], *, breaks: bool = False) -> str:
    """One run of the daily job in which these checks fail; its id."""

    def check(schema: str, table: str, name: str) -> dg.AssetsDefinition:
        severity, metadata = CHECKS[schema, table, name]
        key = dg.AssetKey([schema, table])

        @dg.asset(key=key, check_specs=[dg.AssetCheckSpec(name, asset=key)])
        def made():
            passed = name not in failed
            result = dg.AssetCheckResult(
                check_name=name, passed=passed, severity=severity, metadata={} if passed else metadata
            )
            return dg.MaterializeResult(check_results=[result])

        return made

    assets = [check(*key) for key in CHECKS]

    @dg.asset(key=["published", "marts"], deps=[asset.key for asset in assets])
    def published() -> None:
        if breaks:
            raise ValueError("the disk is full")

    defs = dg.Definitions([*assets, published], jobs=[dg.define_asset_job("daily")], executor=dg.in_process_executor)
    done = defs.resolve_job_def("daily").execute_in_process(instance=instance, raise_on_error=False)
    assert done.success is not breaks
    return done.run_id


def test_each_kind_is_told_once_with_what_to_do_and_a_link_and_so_is_its_end(
    instance: dg.DagsterInstance, hook: list[Any], tmp_path: Path
) -> None:
    from pipelines.defs import operation_alerts
    from pipelines.defs.operation_alerts import find, tell

    home, now = Home(tmp_path / "home"), datetime.now(UTC)

    def told(at: datetime = now) -> list[dict[str, Any]]:
        assert tell(home, find(instance, KEYS, now=at)) == []
        rows: list[dict[str, Any]] = json.loads((home.root / "operation" / "alerts.json").read_bytes())
        return rows

    assert told() == [], "before the first run"
    run(instance, set())
    assert told() == []
    assert hook == [], "of a good run nobody hears"

    failing = run(instance, {name for _, _, name in CHECKS}, breaks=True)
    found = told()
    assert {row["kind"]: row["found"] for row in found} == {
        "run_failed": f"run {failing[:8]}: published__marts: ValueError: the disk is full",
        "gate_failed": "a: 1: it should be 0",
        "quarantine": "1 bad_key, 2 hash_mismatch",
        "erasure_waits": "0123: what should be erased is still in FILE",
        "export_held_back": "1: held_back 2026-11 acct-bolt: cost is off",
        "check_failed": "failed",
    }
    assert {row["link"] for row in found} == {f"https://dagster.example.org/runs/{failing}"}
    told()
    (message,) = hook
    assert message["alerts"] == found
    lines = message["text"].splitlines()
    assert len(lines) == 6
    assert lines[0].startswith("run failed: daily: ")
    assert "apiary quarantine list" in message["text"]
    assert "a_note" not in message["text"], "a warning of a model is for the UI"

    run(instance, set())
    assert told() == []
    assert hook[1:] == [{"text": operation_alerts.OK, "alerts": []}]
    began = raised(home)
    assert sorted(kind for _, kind, *_ in began) == sorted(row["kind"] for row in found if row["kind"] != "quarantine")
    assert {run_id for *_, run_id in began} == {failing}
    assert str(tmp_path) not in home.raised_alerts.read_text("utf-8")
    (stale,) = told(now + timedelta(hours=51))
    assert stale["kind"] == "stale"
    told(now + timedelta(hours=60))
    assert len(hook) == 3, "it is told once, however long it lasts"
    assert [kind for _, kind, *_ in raised(home)[len(began) :]] == ["stale"], "and is one row"


def raised(home: Home) -> list[tuple[Any, ...]]:
    """What the warehouse says of the alerts that began, in their order."""
    with duckdb.connect() as connection:
        count, _ = raised_alerts.load(connection, home.raised_alerts)
        rows = connection.execute("SELECT alert_id, kind, subject, run_id FROM operation.alerts").fetchall()
    assert len(rows) == count == len({row[0] for row in rows})
    return rows


def test_a_beginning_that_was_noted_twice_counts_once_and_a_torn_line_not_at_all(tmp_path: Path) -> None:
    home, at = Home(tmp_path), datetime(2026, 3, 1, tzinfo=UTC)
    first = raised_alerts.Raised("run_failed", "daily", "r1", at)
    raised_alerts.record(home.raised_alerts, [first])
    with home.raised_alerts.open("a") as file:
        file.write('{"alert_id": "cut')
    raised_alerts.record(home.raised_alerts, [first, raised_alerts.Raised("run_failed", "daily", "r2", at + DAY)])
    assert [row[3] for row in raised(home)] == ["r1", "r2"]
    damaged = (
        "[]",
        "7",
        "{}",
        '{"alert_id": {}, "kind": "k", "subject": "s", "run_id": null, "raised_at": "2026-03-01"}',
    )
    with home.raised_alerts.open("a") as file:
        file.write("\n".join(damaged) + "\n")
    assert [row[3] for row in raised(home)] == ["r1", "r2"], "a damaged line stops no run"
    with duckdb.connect() as connection:
        assert raised_alerts.load(connection, home.raised_alerts) == (2, 1 + len(damaged))
    assert home.raised_alerts.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("server", "reported", "found"),
    [
        ("[DagsterApiServer] Run execution process for X was terminated by signal 9 (SIGKILL). This usually", None,
         "Run execution process for X was terminated by signal 9 (SIGKILL)"),
        (None, "the process 4711 of this run is gone", "the process 4711 of this run is gone"),
        (None, None, "This run has been marked as failed from outside the execution context."),
    ],
)  # fmt: skip
def test_of_a_run_that_was_killed_it_is_told_how(
    instance: dg.DagsterInstance, server: str | None, reported: str | None, found: str
) -> None:
    from pipelines.defs import operation_alerts

    killed = instance.create_run_for_job(dg.GraphDefinition("daily").to_job(), status=dg.DagsterRunStatus.STARTED)
    if server:
        instance.report_engine_event(server, killed)
    instance.report_run_failed(killed, reported)
    (alert,) = operation_alerts.find(instance, [], now=datetime.now(UTC))
    assert alert.found == f"run {killed.run_id[:8]}: {found}"


def test_every_kind_of_alert_has_a_section_in_the_runbook() -> None:
    from pipelines.defs import operation_alerts

    kinds = raised_alerts.kinds()
    assert set(get_args(operation_alerts.Kind)) <= kinds.keys()
    for name, kind in kinds.items():
        page, _, anchor = kind.docs_page.partition("#")
        lines = (Path(__file__).resolve().parents[2] / page).read_text("utf-8").splitlines()
        anchors = {
            re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-") for line in lines if "#" in line
        }
        assert anchor in anchors, f"{name} is explained nowhere: {kind.docs_page}"


def test_the_daemon_tells_without_being_switched_on(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    from pipelines.defs import operation_alerts

    with pytest.MonkeyPatch.context() as patch, dg.build_sensor_context(instance) as context:
        patch.setattr(operation_alerts, "HOME", Home(tmp_path / "home"))
        told = operation_alerts.operation_alerts(context)
    assert isinstance(told, dg.SkipReason)
    assert operation_alerts.operation_alerts.default_status is dg.DefaultSensorStatus.RUNNING
    assert (tmp_path / "home" / "operation" / "alerts.json").read_text("utf-8") == "[]\n"
