"""Spark's own standalone cluster on this machine: one master and its workers, started and stopped here.

Does not belong here: what runs on it (spark_build.py).
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

JAVA = 17
SECONDS_TO_START = 120


def missing() -> str | None:
    """What Spark lacks on this machine, and what to do; None if it lacks nothing."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=str(Path(home) / "bin")) if home else shutil.which("java")
    said = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr if java else ""
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < JAVA:
        return f"skipped: Spark needs Java {JAVA}: install it (Debian: openjdk-{JAVA}-jre-headless) or set JAVA_HOME"
    return None


@contextmanager
def running(workers: int, folder: Path, *, memory: str = "768m") -> Iterator[str]:
    """The address of a master with so many workers of one core each. Logs and shuffled data go below the folder.

    Raises TimeoutError if they are not up after two minutes: the logs say why.
    """
    folder.mkdir(parents=True, exist_ok=True)
    port, page = _free_port(), _free_port()
    address = f"spark://127.0.0.1:{port}"
    processes = [_start("master.Master", folder, "--host", "127.0.0.1", "--port", str(port), "--webui-port", str(page))]
    try:
        options = ["--host", "127.0.0.1", "--cores", "1", "--memory", memory, "--webui-port", "0"]
        for number in range(workers):
            place = ["--work-dir", str(folder / f"worker-{number}")]
            processes += [_start("worker.Worker", folder, *options, *place, address)]
        _wait(page, workers, folder)
        yield address
    finally:
        for process in reversed(processes):
            process.terminate()
        for process in processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _start(name: str, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    import pyspark

    home = Path(pyspark.__file__).parent
    environment = os.environ | {
        "SPARK_HOME": str(home), "SPARK_LOCAL_IP": "127.0.0.1", "SPARK_DAEMON_MEMORY": "256m",
        "SPARK_DAEMON_JAVA_OPTS": "-XX:+UseSerialGC", "PYSPARK_PYTHON": sys.executable,
    }  # fmt: skip
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            [home / "bin" / "spark-class", f"org.apache.spark.deploy.{name}", *arguments],
            env=environment, stdout=log, stderr=log, cwd=folder,
        )  # fmt: skip


def _wait(page: int, workers: int, folder: Path) -> None:
    end = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < end:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{page}/json/", timeout=5) as answer:
                if answer.read().decode().count('"state" : "ALIVE"') >= workers:
                    return
        except OSError:
            pass  # it does not listen yet
        time.sleep(0.2)
    raise TimeoutError(f"the cluster is not up after {SECONDS_TO_START} seconds: see {folder}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
