"""What a server is set up by: units of systemd and a compose file. Their commands and settings are the program's.

Does not belong here: that the services work together (tests/end_to_end/test_services.py).
"""

import configparser
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli import _parser

REPOSITORY = Path(__file__).resolve().parents[1]
DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
INSTALLED = "/srv/apiary/bin/apiary"


def unit(path: Path) -> configparser.ConfigParser:
    parsed = configparser.ConfigParser(interpolation=None, strict=False)
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read(path)
    return parsed


def parses(arguments: list[str]) -> bool:
    return callable(_parser().parse_args(arguments).command)


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
    return found


def test_units_start_commands_that_there_are() -> None:
    started = set()
    for path in UNITS:
        program, *arguments = shlex.split(unit(path)["Service"]["ExecStart"])
        assert program == INSTALLED
        assert parses(arguments), path
        started.add(arguments[0])
    assert started == {"webserver", "daemon", "serve"}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_no_fault_in_the_units(tmp_path: Path) -> None:
    """With the program of this environment."""
    apiary = str(Path(sys.executable).with_name("apiary"))
    copies = []
    for path in UNITS:
        text = path.read_text("utf-8").replace(INSTALLED, apiary)
        copies.append(tmp_path / path.name)
        copies[-1].write_text(text, "utf-8")
    command = ["systemd-analyze", "verify", "--man=no", "--recursive-errors=no", *map(str, copies)]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (told.returncode, told.stderr) == (0, "")


def test_containers_start_commands_that_there_are_and_publish_on_the_loopback_only(compose: dict[str, Any]) -> None:
    services = compose["services"]
    ours = {name: service for name, service in services.items() if service.get("image") == "apiary-warehouse"}
    assert set(ours) == {"webserver", "daemon", "serve"}
    assert all(parses(service["command"]) for service in ours.values())
    for service in services.values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        assert all(volume.partition(":")[0] in compose["volumes"] for volume in service["volumes"])
    for service in ours.values():
        assert set(service["depends_on"]) <= set(services)
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_no_secret_stands_in_a_file(compose: dict[str, Any]) -> None:
    """What must be secret has no default, so that nobody runs with one that everybody knows."""
    texts = {path.name: path.read_text("utf-8") for path in DEPLOY.rglob("*env*") if path.is_file()}
    for name, text in texts.items():
        for line in text.splitlines():
            assert not re.match(r"\w*(PASSWORD|SECRET|POSTGRES|WEBHOOK|EMAIL)\w*=.", line), f"{name}: {line}"
    asked = (DEPLOY / "compose.yaml").read_text("utf-8")
    for name in ("POSTGRES_PASSWORD", "S3_SECRET_KEY"):
        assert set(re.findall(rf"\$\{{{name}[^}}]*\}}", asked)) == {f"${{{name}:?set it in compose.env}}"}
    assert compose["services"]


def test_settings_are_read_by_somebody() -> None:
    code = "\n".join(
        path.read_text("utf-8") for folder in ("pipelines", "deploy", "dbt_project") for path in
        (REPOSITORY / folder).rglob("*") if path.suffix in (".py", ".yml")
    )  # fmt: skip
    files = [*DEPLOY.rglob("*.env"), DEPLOY / "compose.yaml"]
    named = {name for path in files for name in re.findall(r"\bAPIARY_[A-Z0-9_]+", path.read_text("utf-8"))}
    assert len(named) > 8
    assert {name for name in named if f'"{name}"' not in code} == set()
