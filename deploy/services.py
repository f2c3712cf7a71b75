"""`make services`: everything that a site runs, on the loopback of one machine, until Ctrl-C.

An S3-compatible server (SeaweedFS), PostgreSQL for Dagster's records, the UI, the daemon and `apiary serve`. Data lie
beside APIARY_HOME, in the folder of its name with `-services`: an erasure looks into every byte of APIARY_HOME, and
what an object server or a database deletes stays in their files for a while. The services of a server are started by
systemd (deploy/systemd) or compose instead.
Does not belong here: what the programs do (pipelines/commands/orchestration.py).
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pipelines.home import Home, private_folder

PORTS = {
    "APIARY_PORT": 3000, "APIARY_SERVE_PORT": 8321, "APIARY_S3_PORT": 8333, "APIARY_S3_MASTER_PORT": 9333,
    "APIARY_S3_VOLUME_PORT": 9340, "APIARY_S3_FILER_PORT": 8888, "APIARY_POSTGRES_PORT": 5433,
}  # fmt: skip
BUCKET = "apiary"
START_SECONDS = 300.0
STOP_SECONDS = 15.0


class ServiceError(Exception):
    """A service did not come up, or ended by itself."""


@dataclass
class Services:
    """What is started, and the settings that reach it."""

    folder: Path
    settings: dict[str, str]
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    def port(self, name: str) -> int:
        """The port of a service. Raises ServiceError."""
        text = self.settings.get(name) or str(PORTS[name])
        if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
            raise ServiceError(f"{name} is {text!r}: a port is a number from 1 to 65535")
        return int(text)

    def start(self, name: str, command: list[str | Path], **more: str) -> None:
        """Start a program with the settings; what it says goes into `<name>.log`."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with open(os.open(self.folder / f"{name}.log", flags, 0o600), "ab") as log:  # noqa: PTH123
            self.running[name] = subprocess.Popen(
                command, env=self.settings | more, stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                start_new_session=True, cwd=self.folder,
            )  # fmt: skip

    def wait(self, name: str, is_up: Callable[[], bool]) -> None:
        """Until a service answers. Raises ServiceError."""
        end = time.monotonic() + START_SECONDS
        while not is_up():
            if self.running[name].poll() is not None or time.monotonic() > end:
                raise ServiceError(f"{name} did not come up: see {self.folder / f'{name}.log'}")
            time.sleep(0.2)

    def watch(self) -> None:
        """Until one ends by itself. Raises ServiceError."""
        while True:
            for name, process in self.running.items():
                if process.poll() is not None:
                    raise ServiceError(f"{name} ended: see {self.folder / f'{name}.log'}")
            time.sleep(1)

    def stop(self) -> None:
        """End all, the last one first, with what they started."""
        for process in reversed(self.running.values()):
            _signal(process, signal.SIGTERM)
        end = time.monotonic() + STOP_SECONDS
        for process in self.running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: signal.Signals) -> None:
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def _answers(url: str, *, statuses: tuple[int, ...] = (200,)) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status in statuses
    except urllib.error.HTTPError as error:
        return error.code in statuses
    except OSError:
        return False


def start_objects(services: Services, program: Path) -> None:
    """The object server with a bucket, and the settings with which others reach it. Raises ServiceError."""
    folder = private_folder(services.folder / "objects")
    identities = folder / "identities.json"
    if not identities.exists():
        keys = {"accessKey": "apiary", "secretKey": secrets.token_urlsafe(24)}
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        text = json.dumps({"identities": [{"name": "apiary", "credentials": [keys], "actions": actions}]})
        identities.touch(mode=0o600)
        identities.write_text(text, "utf-8")
    (key,) = json.loads(identities.read_text("utf-8"))["identities"][0]["credentials"]
    data = private_folder(folder / "data")
    options = {
        "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.port": services.port("APIARY_S3_MASTER_PORT"),
        "volume.port": services.port("APIARY_S3_VOLUME_PORT"), "filer.port": services.port("APIARY_S3_FILER_PORT"),
        "s3.port": services.port("APIARY_S3_PORT"), "s3.config": identities, "volume.max": 100,
        "master.volumeSizeLimitMB": 64, "volume.preStopSeconds": 0, "master.electionTimeout": "1s",
        "master.heartbeatInterval": "200ms",
        "s3.port.iceberg": 0, "s3.port.lance": 0,  # they would take fixed ports
    }  # fmt: skip
    given = [f"-{name}={value}" for name, value in options.items()]
    services.start("objects", [program, "server", "-filer", "-s3", *given])
    endpoint = f"http://127.0.0.1:{services.port('APIARY_S3_PORT')}"
    services.wait("objects", lambda: _answers(f"{endpoint}/status"))
    services.settings |= {
        "AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": key["accessKey"], "AWS_SECRET_ACCESS_KEY": key["secretKey"],
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true", "APIARY_STORE": f"s3://{BUCKET}",
    }  # fmt: skip
    import boto3
    from botocore.exceptions import ClientError

    client = boto3.client(
        "s3", endpoint_url=endpoint, aws_access_key_id=key["accessKey"], aws_secret_access_key=key["secretKey"],
        region_name="us-east-1",
    )  # fmt: skip
    try:
        client.create_bucket(Bucket=BUCKET)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
            raise ServiceError(f"the bucket {BUCKET} could not be made: {error}") from None


def postgres_programs() -> Path | None:
    """The folder of PostgreSQL's programs: Debian's newest, else where `initdb` is on the PATH; None without any."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    found = debian[-1] if debian else shutil.which("initdb")
    return Path(found).parent if found else None


def start_postgres(services: Services, programs: Path) -> None:
    """A cluster of its own for Dagster's records. Raises ServiceError, subprocess.CalledProcessError."""
    folder = private_folder(services.folder / "postgres")
    port, data, secret = services.port("APIARY_POSTGRES_PORT"), folder / "data", folder / "password"
    as_user: list[str | Path] = []
    if os.geteuid() == 0:  # it refuses to run as root
        import pwd

        owner = pwd.getpwnam("postgres")
        as_user = ["setpriv", f"--reuid={owner.pw_uid}", f"--regid={owner.pw_gid}", "--clear-groups"]
        services.folder.chmod(services.folder.stat().st_mode | 0o011)  # it has to get to its own folder
        os.chown(folder, owner.pw_uid, owner.pw_gid)
    if not secret.exists():
        secret.touch(mode=0o600)
        secret.write_text(secrets.token_urlsafe(24), "utf-8")
        if as_user:
            os.chown(secret, owner.pw_uid, owner.pw_gid)
    if not (data / "PG_VERSION").exists():
        shutil.rmtree(data, ignore_errors=True)
        command = [
            *as_user, programs / "initdb", "--pgdata", data, "--username", "dagster", "--pwfile", secret,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-locale", "--no-sync",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=folder)
    services.start(
        "postgres",
        [*as_user, programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port), "-k", ""],
    )
    password = urllib.parse.quote(secret.read_text("utf-8"))
    address = f"postgresql://dagster:{password}@127.0.0.1:{port}/postgres"
    import psycopg2

    def is_up() -> bool:
        try:
            psycopg2.connect(address, connect_timeout=5).close()
        except psycopg2.OperationalError:
            return False
        return True

    services.wait("postgres", is_up)
    services.settings["APIARY_DAGSTER_POSTGRES"] = address


@contextmanager
def started(home: Home, settings: Mapping[str, str], *, say: Callable[[str], None]) -> Iterator[Services]:
    """All services, ready; `say` is told what each is, and of a program that is missing what is used in its place.

    Raises ServiceError, subprocess.CalledProcessError.
    """
    folder = private_folder(home.root.with_name(f"{home.root.name}-services"))
    services = Services(folder, dict(settings) | {"APIARY_HOME": str(home.root)})
    with ExitStack() as stack:
        stack.callback(services.stop)
        programs = Path(sys.executable).parent
        weed, postgres = shutil.which("weed", path=f"{programs}:{os.environ.get('PATH', '')}"), postgres_programs()
        if settings.get("APIARY_STORE"):
            say(f"store: {settings['APIARY_STORE']} (APIARY_STORE is set)")
        elif weed is None:
            say("store: the folder of APIARY_HOME: SeaweedFS is missing, run `make setup`")
        else:
            start_objects(services, Path(weed))
            say(f"store: s3://{BUCKET} at {services.settings['AWS_ENDPOINT_URL']}")
        if settings.get("APIARY_DAGSTER_POSTGRES"):
            say("Dagster's records: PostgreSQL (APIARY_DAGSTER_POSTGRES is set)")
        elif postgres is None:
            say("Dagster's records: SQLite: PostgreSQL is missing, install the Debian package postgresql")
        else:
            start_postgres(services, postgres)
            say(f"Dagster's records: PostgreSQL at 127.0.0.1:{services.port('APIARY_POSTGRES_PORT')}")
        apiary = programs / "apiary"
        ui, serve = services.port("APIARY_PORT"), services.port("APIARY_SERVE_PORT")
        services.start("webserver", [apiary, "webserver", "--port", str(ui)])
        services.wait("webserver", lambda: _answers(f"http://127.0.0.1:{ui}/server_info"))
        say(f"Dagster UI: http://127.0.0.1:{ui}")
        services.start("daemon", [apiary, "daemon"])
        services.start("serve", [apiary, "serve", "--port", str(serve)])
        services.wait("serve", lambda: _answers(f"http://127.0.0.1:{serve}/health", statuses=(200, 503)))
        say(f"API and report: http://127.0.0.1:{serve}/report/")
        yield services


def main() -> int:
    """Start all, say where, and wait; the exit code."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with started(Home.from_environment(), os.environ, say=lambda text: print(text, flush=True)) as services:
            print("all services are up; Ctrl-C ends them", flush=True)
            services.watch()
    except KeyboardInterrupt:
        return 0
    except (ServiceError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"services: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
