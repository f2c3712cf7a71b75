"""`apiary dev`, `webserver` and `daemon`: Dagster's programs with the settings of this site.

Each sets the environment, takes care of `dagster.yaml` and becomes the program: its signals, its exit code.
Does not belong here: running the job in this process (warehouse.py), what is run (pipelines/defs).
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from pipelines import engine, log_format
from pipelines.commands.reading import is_loopback, port_number, require_free
from pipelines.commands.terminal import Shared, Stop, note, store_of
from pipelines.engine import Engine
from pipelines.home import ROOT, Home

PORT, DEFAULT_PORT = "APIARY_PORT", "3000"
READ_ONLY = "APIARY_UI_READ_ONLY"


def _dev(options: argparse.Namespace) -> int:
    port = options.port or _port_setting()
    require_free("127.0.0.1", port, f"--port or {PORT}")
    _become(options, "dagster", "dev", "-h", "127.0.0.1", "-p", str(port))


def _webserver(options: argparse.Namespace) -> int:
    if not options.beyond_loopback and not is_loopback(options.host):
        raise Stop(2, f"{options.host} can be reached from elsewhere: say --beyond-loopback if that is meant")
    port = options.port or _port_setting()
    require_free(options.host, port, f"--port or {PORT}")
    is_read_only = options.read_only or _switch(READ_ONLY)
    arguments = ["-h", options.host, "-p", str(port), *(["--read-only"] if is_read_only else [])]
    _become(options, "dagster-webserver", *arguments)


def _daemon(options: argparse.Namespace) -> int:
    _become(options, "dagster-daemon", "run")


def _become(options: argparse.Namespace, program: str, *arguments: str) -> NoReturn:
    engine.require(Engine.DUCKDB, Engine.DUCKLAKE)
    from pipelines.defs import foreground
    from pipelines.store import StoreUnavailableError, open_store
    from pipelines.warehouse import arrivals

    home = Home.from_environment()
    os.environ["APIARY_HOME"] = str(home.root)
    os.environ["APIARY_WAREHOUSE"] = str(home.warehouse)
    os.environ["APIARY_STORE"] = store_of(options)
    try:
        arrivals.note_first_day(home.first_arrival_day, open_store(os.environ["APIARY_STORE"]))
    except StoreUnavailableError as error:
        note(f"apiary: {error}: the partitions begin today until a run has reached it")
    foreground.make_instance_home(home)
    path = str(Path(sys.executable).with_name(program))
    log = ["--log-format", "json"] if log_format.is_json() else []
    os.execv(path, [path, *arguments, *log, "-w", str(ROOT / "workspace.yaml")])  # noqa: S606 - with its signals


def _switch(name: str) -> bool:
    setting = os.environ.get(name) or "off"
    if setting not in ("on", "off"):
        raise Stop(2, f"{name} is {setting!r}: say on or off")
    return setting == "on"


def _port_setting() -> int:
    text = os.environ.get(PORT) or DEFAULT_PORT
    try:
        return port_number(text)
    except argparse.ArgumentTypeError as error:
        raise Stop(2, f"{PORT}: {error}") from None


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    dev = shared.add(group, "dev", "open the Dagster UI on 127.0.0.1, with its daemon", _dev, shared.store)
    webserver = shared.add(group, "webserver", "serve the Dagster UI alone", _webserver, shared.store)
    webserver.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    webserver.add_argument("--beyond-loopback", action="store_true", help="listen where other machines reach it")
    webserver.add_argument(
        "--read-only",
        action="store_true",
        help=f"nobody launches or switches anything there (or {READ_ONLY}=on)",
    )
    shared.add(group, "daemon", "run Dagster's schedules, sensors and queue", _daemon, shared.store)
    for command in (dev, webserver):
        command.add_argument(
            "--port", type=port_number, metavar="N", help=f"the port; otherwise {PORT}, otherwise {DEFAULT_PORT}"
        )
