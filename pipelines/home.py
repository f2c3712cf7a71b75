"""Where Apiary keeps its things on a machine: one folder, `APIARY_HOME`.

Does not belong here: what is in any of them.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines.failpoints import fp

SOURCE = Path(__file__).resolve().parents[1]
"""Where the package `pipelines` is imported from: a checkout or an environment's site-packages."""
_INSTALLED = Path(__file__).resolve().parent / "project"
IS_CHECKOUT = not _INSTALLED.is_dir()
ROOT = SOURCE if IS_CHECKOUT else _INSTALLED
"""What `dbt_project/`, `expectations/`, `policies/` and `notebooks/` stand in: the checkout, or the package."""
MODELS = ROOT / "dbt_project" / "models"
"""The models: in a checkout a link to `models/`."""
CODE = (SOURCE / "pipelines", ROOT / "dbt_project", MODELS, ROOT / "expectations", ROOT / "policies")
"""Everything that decides what a run makes, beside the site's own files."""


@dataclass(frozen=True)
class Home:
    """The paths under one `APIARY_HOME`. A machine may be a device, a warehouse, or both."""

    root: Path

    @classmethod
    def from_environment(cls) -> "Home":
        """`APIARY_HOME`, or the platform's folder for application data."""
        named = os.environ.get("APIARY_HOME")
        if named:
            return cls(Path(named).expanduser().absolute())
        import platformdirs  # only here: it takes a tenth of the time that a quota check has

        return cls(platformdirs.user_data_path("apiary"))

    @property
    def device(self) -> Path:
        """What the device part keeps: enrolment, key, state, spool."""
        return self.root / "device"

    @property
    def devices(self) -> Path:
        """The homes of simulated devices (`apiary demo`): each is its owner's, as `device` is."""
        return self.root / "devices"

    @property
    def scratch(self) -> Path:
        """For a copy of a database that cannot be opened where it lies. It is there for as long as it is read."""
        return self.device / "copy"

    @property
    def store_url(self) -> str:
        """The object store when none is named: a folder."""
        return (self.root / "store").as_uri()

    @property
    def warehouse(self) -> Path:
        """The DuckDB file. One process at a time may open it."""
        return self.root / "warehouse" / "apiary.duckdb"

    @property
    def first_arrival_day(self) -> Path:
        """The day on which the partitions begin (warehouse/arrivals.py)."""
        return self.root / "warehouse" / "first_arrival_day"

    @property
    def last_run(self) -> Path:
        """What the last run that ended well read and made (defs/last_run.py); none while one runs or if it failed."""
        return self.root / "warehouse" / "last_run.json"

    @property
    def published(self) -> Path:
        """What people read: Parquet per mart and `marts.duckdb`."""
        return self.root / "published"

    @property
    def exports(self) -> Path:
        """The billing exports."""
        return self.root / "exports"

    @property
    def books(self) -> Path:
        """What finance signs here: prices, accounts, contracts, rates of exchange (billing/books.py)."""
        return self.root / "billing"

    @property
    def operator_actions(self) -> Path:
        """The book of what people decided about agents (warehouse/operator_actions.py)."""
        return self.root / "operator" / "actions.jsonl"

    @property
    def raised_alerts(self) -> Path:
        """Alerts about the pipeline itself as they began (warehouse/raised_alerts.py)."""
        return self.root / "operation" / "raised.jsonl"

    @property
    def api_keys(self) -> Path:
        """The hashes of the keys of `apiary serve`."""
        return self.root / "serve" / "keys.json"

    @property
    def dagster(self) -> Path:
        """Dagster's own home."""
        return self.root / "dagster"


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can enter, parents included, and return it."""
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            folder.mkdir(mode=0o700, exist_ok=True)
    return path


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def replace_file(path: Path, data: bytes) -> None:
    """Write a private file aside, then move it: a reader sees the old one or the new one, whole."""
    aside = private_folder(path.parent) / f".{path.name}.aside"
    with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123
        file.write(data)
        file.flush()
        fp("replace.written")
        os.fsync(file.fileno())
    fp("replace.synced")
    aside.replace(path)
    fp("replace.renamed")


class BusyError(Exception):
    """Another process holds the lock."""


@contextmanager
def exclusive(lock: Path) -> Iterator[None]:
    """Hold a lock file. The system lets go of it when the process ends, however it ends. Raises BusyError."""
    private_folder(lock.parent)
    with open(os.open(lock, os.O_RDWR | os.O_CREAT, 0o600), "r+b") as file:  # noqa: PTH123
        try:
            if sys.platform == "win32":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyError(str(lock)) from None
        yield
