"""Two wheels in empty environments: the device part alone, and with the warehouse the whole job."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.device.driving import append, dump, queen_folder, turn

pytestmark = pytest.mark.services
ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
DEVELOPMENT = (
    "pipelines/simulate/", "pipelines/peers/", "pipelines/commands/compare.py", "pipelines/commands/demo.py",
    "pipelines/commands/simulate.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("dist")
    for project in (ROOT, ROOT / "packaging" / "warehouse"):
        subprocess.run([UV, "build", "--quiet", "--wheel", "--out-dir", folder, project], check=True, cwd=folder)
    return {path.name.partition("-")[0]: path for path in folder.glob("*.whl")}


class Installed:
    """An environment that has nothing but what the wheels ask for, in the versions of the lock file."""

    def __init__(self, root: Path, *wheels: Path) -> None:
        self.root = root
        self.agents = root / "person" / ".hive"
        python = root / "bin" / "python"
        subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, root], check=True)
        command = [UV, "pip", "install", "--quiet", "--python", python, "-c", ROOT / "requirements.lock", *wheels]
        subprocess.run(command, check=True)

    def apiary(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run the program from a folder that has nothing of the checkout."""
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("APIARY_", "DAGSTER_", "HIVE_", "PYTHON"))}
        clean |= {"HOME": str(self.root / "person"), "APIARY_HOME": str(self.root / "apiary")}
        return subprocess.run(
            [self.root / "bin" / "apiary", *map(str, arguments)], env=clean, cwd=self.root, capture_output=True,
            text=True, check=False, timeout=1200,
        )  # fmt: skip

    def done(self, *arguments: object) -> str:
        """What it printed; it must not fail."""
        result = self.apiary(*arguments)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def ship(self) -> None:
        """What README says to the owner of a device, with three turns to send."""
        append(queen_folder(self.agents) / "events.jsonl", dump(*(turn(n) for n in range(3))))
        self.done("device", "enroll", "--tenant", "acme", "--user", "ada", "--timezone", "UTC")
        self.done("device", "consent", "grant", "--history", "include", "--yes")
        self.done("device", "preview")
        assert "sent" in self.done("device", "ship")


@pytest.fixture(scope="module")
def device(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("device") / "env", wheels["apiary"])


def test_every_file_is_in_one_wheel_or_is_for_development(wheels: dict[str, Path]) -> None:
    said = subprocess.run(["git", "ls-files", "pipelines"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = {name for name in said.stdout.splitlines() if not name.startswith(DEVELOPMENT)}
    found = [
        name
        for wheel in wheels.values()
        for name in zipfile.ZipFile(wheel).namelist()
        if not name.startswith("pipelines/project/") and ".dist-info/" not in name
    ]
    assert sorted(found) == sorted(wanted)
    versions = {tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]}
    assert {path.name.split("-")[1] for path in wheels.values()} == versions


def test_the_device_part_has_nothing_of_the_warehouse(device: Installed) -> None:
    device.ship()
    usage = json.loads(device.done("me", "--json", "--period", "all"))
    assert (usage["totals"]["all"]["turns"], usage["totals"]["all"]["unpriced_tokens"]) == (3, 0)
    said = device.apiary("run")
    assert (said.returncode, said.stderr) == (
        1,
        "apiary: `apiary run` is a command of the warehouse: install apiary-warehouse\n",
    )
    names = [path.name for path in (next(device.root.glob("lib/*/site-packages")) / "pipelines").iterdir()]
    assert not {"billing", "warehouse", "simulate", "defs", "serve", "project"} & set(names)


def test_the_warehouse_runs_the_whole_job(wheels: dict[str, Path], tmp_path: Path) -> None:
    site = Installed(tmp_path / "env", *wheels.values())
    package = next(site.root.glob("lib/*/site-packages")) / "pipelines"
    before = {path for path in (package / "project").rglob("*") if path.is_file()}
    site.ship()
    site.done(
        "account", "open", "--tenant", "acme", "--account", "acct-acme", "--from", "2026-01-01", "--by", "grace",
        "--approved-by", "rosa",
    )  # fmt: skip
    site.done("run")
    (row,) = json.loads(site.done("usage", "--by", "tenant", "--json"))
    assert row["turns"] == 3
    assert "0 faults" in site.done("verify", site.root / "apiary" / "exports")
    models = len(list((ROOT / "models").rglob("*.sql")))
    assert len([path for path in before if path.suffix == ".sql" and "models" in path.parts]) == models
    # Whoever installed it may be the only one who may write there.
    assert {path for path in (package / "project").rglob("*") if path.is_file()} == before
