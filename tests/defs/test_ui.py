"""The Dagster UI is reached from this machine only, and for readers it changes nothing.

Does not belong here: what Dagster shows (test_definitions.py), Apiary's own pages (tests/serve).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipelines import cli

REPOSITORY = Path(__file__).resolve().parents[2]


def test_the_ui_is_asked_to_listen_on_loopback(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Test 63: what `apiary dev` starts, word for word."""
    started: list[list[str]] = []
    for name in ("HOME", "WAREHOUSE", "STORE"):
        monkeypatch.setenv(f"APIARY_{name}", str(tmp_path / "apiary"))
    monkeypatch.delenv("APIARY_STORE")
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setattr(os, "execv", lambda _program, arguments: started.append(arguments))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.listen()
        monkeypatch.setenv("APIARY_PORT", port)
        assert cli.main(["dev"]) == 2, "somebody listens there"
        assert started == []
    with pytest.raises(SystemExit, match="2"):
        cli.main(["dev", "--port", "70000"])
    cli.main(["dev"])
    ((_, command, *options),) = started
    assert command == "dev"
    assert options[options.index("-h") + 1] == "127.0.0.1"
    assert options[options.index("-p") + 1] == port


@pytest.mark.parametrize(
    ("command", "settings", "started"),
    [
        (["webserver"], {}, ["dagster-webserver", "-h", "127.0.0.1"]),
        (["webserver"], {"APIARY_UI_READ_ONLY": "on", "APIARY_LOG_FORMAT": "json"},
         ["dagster-webserver", "-h", "127.0.0.1", "--read-only", "--log-format", "json"]),
        (["webserver", "--read-only"], {}, ["dagster-webserver", "-h", "127.0.0.1", "--read-only"]),
        (["webserver", "--host", "0.0.0.0"], {}, None),
        (["webserver", "--host", "0.0.0.0", "--beyond-loopback"], {}, ["dagster-webserver", "-h", "0.0.0.0"]),
        (["webserver"], {"APIARY_UI_READ_ONLY": "yes"}, None),
        (["daemon"], {"APIARY_LOG_FORMAT": "json"}, ["dagster-daemon", "run", "--log-format", "json"]),
    ],
)  # fmt: skip
def test_each_server_is_started_with_the_settings_of_the_site(
    command: list[str], settings: dict[str, str], started: list[str] | None, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    """What takes the place of the process; ports and the workspace aside."""
    seen: list[list[str]] = []
    for name, value in {"APIARY_HOME": str(tmp_path), "APIARY_WAREHOUSE": "", "DAGSTER_HOME": "", **settings}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("APIARY_STORE", (tmp_path / "store").as_uri())
    monkeypatch.setattr(os, "execv", lambda _program, arguments: seen.append(arguments))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("APIARY_PORT", str(free.getsockname()[1]))
    code = cli.main(command)
    if started is None:
        assert (code, seen) == (2, [])
        return
    ((program, *arguments),) = seen
    said = [word for word in arguments if word not in ("-p", os.environ["APIARY_PORT"])]
    assert [Path(program).name, *said] == [*started, "-w", str(REPOSITORY / "workspace.yaml")]


def ask(port: int, query: str, host: str = "127.0.0.1") -> dict[str, Any]:
    request = urllib.request.Request(
        f"http://{host}:{port}/graphql", json.dumps({"query": query}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@pytest.mark.long
def test_a_reader_of_the_ui_can_change_nothing_and_a_neighbour_not_even_read(tmp_path: Path) -> None:
    """Test 63: the server itself, read-only: no other address of this machine answers, and mutations are refused."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("dagster-webserver"))
    environment = os.environ | {"DAGSTER_HOME": str(tmp_path), "APIARY_HOME": str(tmp_path / "apiary")}
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(
        [program, "--read-only", "-h", "127.0.0.1", "-p", str(port), "-w", str(REPOSITORY / "workspace.yaml")],
        env=environment, cwd=REPOSITORY, stdout=log, stderr=log, start_new_session=True,
    ) as server:  # fmt: skip
        try:
            for _ in range(180):
                try:
                    assert ask(port, "{version}")["data"]["version"]
                    break
                except OSError:
                    time.sleep(1)
            else:
                pytest.fail((tmp_path / "log").read_text())
            for mutation in (
                "mutation {reloadWorkspace {__typename}}",
                'mutation {deletePipelineRun(runId: "x") {__typename}}',
                'mutation {terminateRun(runId: "x") {__typename}}',
            ):
                assert "Unauthorized" in json.dumps(ask(port, mutation))
            others = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
            for address in others - {"127.0.0.1"}:
                with pytest.raises(OSError):  # noqa: PT011 - refused, or no way there: nobody answers
                    ask(port, "{version}", address)
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with the process that holds our code
