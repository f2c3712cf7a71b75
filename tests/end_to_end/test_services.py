"""The services of a site as `make services` starts them: object server, PostgreSQL, UI, daemon, API; used in a browser.

Screenshots lie in .cache/screenshots. Without Chromium runs are launched as the UI asks for them, and nothing is looked
at. Does not belong here: units and containers (tests/test_deploy.py), what a run makes (test_job.py).
"""

import json
import os
import shutil
import signal
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import duckdb
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from deploy import services
from pipelines.home import Home
from pipelines.store import open_store
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.dagster_server import DagsterServer, free_port
from tests.end_to_end.driving import device, send
from tests.object_server import free_ports

pytestmark = pytest.mark.services
REPOSITORY = Path(__file__).resolve().parents[2]
SCREENSHOTS = REPOSITORY / ".cache" / "screenshots"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LAYERS = {path.name for path in (REPOSITORY / "models").iterdir() if path.is_dir()}
GROUPS = LAYERS | {"billing", "books", "erasure", "published", "quota", "seeds", "wire"}
SECONDS = 1800.0  # of a whole run on a machine that is busy with other things
SELECTOR = """{jobName: "daily", repositoryName: "__repository__", repositoryLocationName: "apiary"}"""
LAUNCH = f"""mutation ($day: String!) {{ launchRun(executionParams: {{ selector: {SELECTOR}, runConfigData: "{{}}",
    executionMetadata: {{tags: [{{key: "dagster/asset_partition_range_start", value: $day}},
                                {{key: "dagster/asset_partition_range_end", value: $day}}]}} }}) {{ __typename }} }}"""
RUNS = "{ runsOrError { ... on Runs { results { runId status tags { key value } } } } }"
ENDED = {"SUCCESS", "FAILURE", "CANCELED"}


class Channel:
    """A webhook that remembers what it was told."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []
        heard = self.heard

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Nothing on the terminal."""

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/"


class Site:
    """The services, with what is asked of them."""

    def __init__(self, home: Home, running: services.Services, channel: Channel) -> None:
        self.home, self.running, self.channel = home, running, channel
        self.ui = DagsterServer(f"http://127.0.0.1:{running.port('APIARY_PORT')}", running.folder / "daemon.log")

    def launch(self) -> None:
        """A run of today's partition, as the UI asks for it."""
        told = self.ui.ask(LAUNCH, day=f"{datetime.now(UTC):%Y-%m-%d}")
        assert told["launchRun"]["__typename"] == "LaunchRunSuccess", told

    def runs(self) -> list[dict[str, Any]]:
        """All runs, the first one first."""
        found: list[dict[str, Any]] = self.ui.ask(RUNS)["runsOrError"]["results"]
        return found[::-1]

    def ended(self, count: int) -> str:
        """Wait until so many runs have ended; the status of the last one."""
        self.ui.wait_for(lambda: sum(run["status"] in ENDED for run in self.runs()) >= count, SECONDS)
        assert len(self.runs()) == count
        return str(self.runs()[-1]["status"])

    @property
    def published(self) -> str:
        return (self.home.published / "current").resolve().name


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    # Not in pytest's folder: PostgreSQL has a user of its own where the tests run as root.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder, pytest.MonkeyPatch.context() as patch:
        Path(folder).chmod(0o711)
        for name in [name for name in os.environ if name.startswith(("APIARY_", "DAGSTER_", "AWS_", "HIVE_"))]:
            patch.delenv(name)
        names = ("APIARY_S3_PORT", "APIARY_S3_MASTER_PORT", "APIARY_S3_VOLUME_PORT", "APIARY_S3_FILER_PORT")
        ports = dict(zip(names, map(str, free_ports(4)), strict=True))
        ports |= {name: str(free_port()) for name in ("APIARY_PORT", "APIARY_SERVE_PORT", "APIARY_POSTGRES_PORT")}
        channel, home = Channel(), Home(Path(folder) / "home")
        settings = dict(os.environ) | ports | {"APIARY_ALERT_WEBHOOK": channel.url, "APIARY_LOG_FORMAT": "json"}
        settings["APIARY_UI_URL"] = f"http://127.0.0.1:{ports['APIARY_PORT']}"
        with services.started(home, settings, say=lambda _: None) as running:
            for name, value in running.settings.items():
                if name.startswith("AWS_"):
                    patch.setenv(name, value)
            append(queen_folder(Path(folder) / "hive") / "events.jsonl", dump(*(turn(number) for number in range(3))))
            send(device(Path(folder) / "laptop", store=running.settings["APIARY_STORE"]), Path(folder) / "hive")
            made = Site(home, running, channel)
            made.ui.wait_for(made.ui.is_loaded, SECONDS)
            yield made


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser | None]:
    if CHROMIUM is None:
        yield None
        return
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(site: Site, browser: Browser | None) -> Iterator[Page | None]:
    """A window of the UI."""
    if browser is None:
        yield None
        return
    context = browser.new_context(base_url=site.ui.url, viewport={"width": 1500, "height": 1000})
    context.set_default_timeout(120_000)
    yield context.new_page()
    context.close()


def show(page: Page, path: str, *texts: str, name: str) -> None:
    """Open a page that says these, and keep how it looks."""
    page.goto(path)
    for text in texts:
        page.get_by_text(text, exact=False).first.wait_for()
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def test_a_run_that_somebody_launches_in_the_ui_publishes_after_one_that_was_killed(
    site: Site, page: Page | None
) -> None:
    site.launch()

    def process() -> int | None:
        tags = {tag["key"]: tag["value"] for tag in site.runs()[-1]["tags"]}
        return int(tags["apiary/pid"]) if "apiary/pid" in tags else None

    os.kill(site.ui.wait_for(process, SECONDS), signal.SIGKILL)
    if page is None:
        site.launch()
    else:
        show(page, "/asset-groups", *GROUPS, name="groups")
        show(page, "/locations/apiary/jobs/daily", "Materialize all", name="job")
        page.get_by_role("button", name="Materialize all").first.click()
        page.get_by_role("button", name="Latest").click()
        page.screenshot(path=SCREENSHOTS / "launch.png")
        page.get_by_role("button", name="Launch 1 run").click()
    assert site.ended(2) == "SUCCESS"
    assert [run["status"] for run in site.runs()] == ["FAILURE", "SUCCESS"]
    assert site.ui.wait_for(lambda: [m for m in site.channel.heard if "as it should" in str(m)], 300), "its end is told"
    with duckdb.connect(str(site.home.published / "current" / "marts.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM fct_llm_turns").fetchone() == (3,)
    with urllib.request.urlopen(f"http://127.0.0.1:{site.running.port('APIARY_SERVE_PORT')}/health") as answer:
        assert json.load(answer)["status"] == "ok"
    if page is not None:
        show(page, "/assets/marts/fct_llm_turns", "One row for each LLM turn", "Checks", name="mart")
        show(page, "/runs", "Success", "Failure", name="runs")


def test_arrivals_are_on_the_object_server_and_records_in_postgres(site: Site) -> None:
    if services.postgres_programs() is None:
        pytest.skip("there is no PostgreSQL: install the Debian package postgresql")
    import psycopg2

    with pytest.MonkeyPatch.context() as patch:
        for name, value in site.running.settings.items():
            if name.startswith("AWS_"):
                patch.setenv(name, value)
        assert list(open_store(site.running.settings["APIARY_STORE"]).list("landing/"))
    address = site.running.settings["APIARY_DAGSTER_POSTGRES"]
    connection = psycopg2.connect(address)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM runs")
        assert cursor.fetchone()[0] >= 1
    connection.close()
    assert list(site.home.dagster.rglob("*.db")) == [], "nothing of it is in SQLite"
    password = address.split(":")[2].split("@")[0]
    kept = [path for path in site.home.root.rglob("*") if path.is_file() and "postgres" not in path.parts]
    assert [path for path in kept if password.encode() in path.read_bytes()] == []
    assert (site.running.folder / "postgres" / "password").stat().st_mode & 0o077 == 0
    lines = (site.running.folder / "daemon.log").read_text("utf-8").splitlines()
    own = [json.loads(line) for line in lines if line.startswith("{")]
    assert own, "the daemon's own log is for programs; that of a run is in Dagster's records"


def test_bad_data_fails_a_check_with_its_reason_and_the_publication_stays(site: Site, page: Page | None) -> None:
    before = site.published
    with duckdb.connect(str(site.home.warehouse)) as connection:
        connection.execute("CREATE TABLE main.planted AS SELECT * FROM wire.llm_turns LIMIT 1")
        connection.execute("INSERT INTO wire.llm_turns SELECT * FROM main.planted")
    site.launch()
    assert site.ended(3) == "FAILURE"
    assert site.published == before
    told = site.ui.wait_for(lambda: [message for message in site.channel.heard if "gate_failed" in str(message)], 300)
    assert "A turn is there once, at its origin." in json.dumps(told)
    assert f"{site.ui.url}/runs/{site.runs()[-1]['runId']}" in json.dumps(told), "with a link"
    if page is not None:
        show(page, "/assets/wire/llm_turns?view=checks", "gate_llm_turns", "Failed", "at its origin", name="check")
    with duckdb.connect(str(site.home.warehouse)) as connection:
        connection.execute("DELETE FROM wire.llm_turns WHERE record_id IN (SELECT record_id FROM main.planted)")
        connection.execute("INSERT INTO wire.llm_turns SELECT * FROM main.planted")
        connection.execute("DROP TABLE main.planted")
