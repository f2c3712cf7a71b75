"""A real S3-compatible server for tests: started on free ports of the loopback, killed at the end.

Does not belong here: what a store must do (test_store.py).
"""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = Path(sys.executable).with_name("weed")
NOT_INSTALLED = "SeaweedFS is not installed: `make setup` and `make test-scale` install it, on Linux alone"
START_SECONDS = 60.0


@dataclass(frozen=True)
class ObjectServer:
    """Where it listens and who may come in."""

    endpoint: str
    access_key: str = "tester"
    secret_key: str = "not-a-secret"

    @property
    def environment(self) -> dict[str, str]:
        """The usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key, "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip


def free_ports(count: int) -> list[int]:
    """Ports that are free, and free 10,000 above too: the server opens a second one there for each."""
    found: list[int] = []
    while len(found) < count:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            if port > 50_000:
                port -= 25_000
            try:
                other.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found


@contextmanager
def object_server(folder: Path, *, others: Sequence[dict[str, Any]] = ()) -> Iterator[ObjectServer]:
    """A server whose data lies in `folder`; `others` are identities beside the tester's.

    Raises RuntimeError if it does not come up.
    """
    master, volume, filer, s3 = free_ports(4)
    server = ObjectServer(f"http://127.0.0.1:{s3}")
    folder.mkdir(parents=True)
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": server.access_key, "secretKey": server.secret_key}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (folder / "identities.json").write_text(json.dumps({"identities": [identity, *others]}))
    (folder / "data").mkdir()
    options = {
        "dir": folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.port": master, "volume.port": volume,
        "filer.port": filer, "s3.port": s3, "s3.config": folder / "identities.json", "volume.max": 100,
        "master.volumeSizeLimitMB": 64, "volume.preStopSeconds": 0, "master.electionTimeout": "1s",
        "master.heartbeatInterval": "200ms",
        "s3.port.iceberg": 0, "s3.port.lance": 0,  # they would take fixed ports
    }  # fmt: skip
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [PROGRAM, "server", "-filer", "-s3", *(f"-{name}={value}" for name, value in options.items())],
            stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip
    try:
        _wait(f"{server.endpoint}/status", process, folder / "log")
        yield server
    finally:
        process.kill()  # a polite stop takes it a quarter of a minute
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError(f"the object server did not come up:\n{log.read_text(errors='replace')[-2000:]}")
