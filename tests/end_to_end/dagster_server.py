"""Dagster's servers as `apiary dev` starts them, asked as the UI asks them.

Does not belong here: what should come out (test_*.py), servers that are killed (test_kill_matrix.py).
"""

import json
import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.home import Home
from tests.end_to_end.driving import PROGRAM

START_SECONDS = 300.0
LOADED = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } ... on PythonError { message } } }"
Found = TypeVar("Found")


@dataclass(frozen=True)
class DagsterServer:
    """Where it listens."""

    url: str
    log: Path

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """What GraphQL answers. Raises OSError, AssertionError for errors."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(f"{self.url}/graphql", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=120) as answer:
            said: dict[str, Any] = json.load(answer)
        assert "errors" not in said, said
        found: dict[str, Any] = said["data"]
        return found

    def wait_for(self, look: Callable[[], Found], seconds: float) -> Found:
        """The first thing that is found."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, self.log.read_text("utf-8")[-3000:]
            time.sleep(0.5)
        return found

    def is_loaded(self) -> bool:
        """Whether the code is there."""
        try:
            return bool(self.ask(LOADED)["repositoriesOrError"].get("nodes"))
        except OSError:
            return False


def free_port() -> int:
    """A port of the loopback address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def dagster_server(home: Home, log: Path, **settings: str) -> Iterator[DagsterServer]:
    """`apiary dev` on a free port, ready; killed with all that it started at the end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("APIARY_", "DAGSTER_", "HIVE_"))}
    server = DagsterServer(f"http://127.0.0.1:{(port := free_port())}", log)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*PROGRAM, "dev", "--port", str(port)], stdout=file, stderr=file, start_new_session=True,
            env=clean | {"APIARY_HOME": str(home.root)} | settings,
        )  # fmt: skip
    try:
        server.wait_for(server.is_loaded, START_SECONDS)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        for left in _group(process.pid):
            os.kill(left, signal.SIGKILL)


def _group(leader: int) -> list[int]:
    """Processes of a group; servers and runs of Dagster stay in the group of who started them."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            if os.getpgid(process.pid) == leader:
                found.append(process.pid)
        except OSError:
            continue
    return found
