"""The service of a device: golden texts, checked by their own readers, and files that come and go whole."""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.device import service
from pipelines.device.errors import DeviceError
from pipelines.device.service import Installed, install, uninstall
from pipelines.errors import UsageError
from pipelines.home import Home
from tests.device.driving import append, device, dump, granted, queen_folder, turn

COMMAND = ("/opt/apiary/bin/apiary", "device", "ship", "--once")
PINNED = {"APIARY_HOME": "/home/ada/my apiary", "APIARY_STORE": "s3://bucket/a%20b", "HIVE_HOME": '/h/"$x\\y'}

SERVICE = r"""# Written by `apiary device install`; `apiary device uninstall` removes it.
[Unit]
Description=Apiary: ship what is new, once

[Service]
Type=oneshot
Environment="APIARY_HOME=/home/ada/my apiary"
Environment=APIARY_STORE=s3://bucket/a%%20b
Environment="HIVE_HOME=/h/\"$x\\y"
ExecStart=/opt/apiary/bin/apiary device ship --once
UMask=0077
Nice=19
CPUSchedulingPolicy=idle
IOSchedulingClass=idle
TimeoutStopSec=90
"""

TIMER = """# Written by `apiary device install`; `apiary device uninstall` removes it.
[Unit]
Description=Apiary: ship every 15 minutes

[Timer]
OnCalendar=*-*-* *:02,17,32,47:05

[Install]
WantedBy=timers.target
"""

AGENT = {
    "Comment": service.MARK,
    "Label": "apiary.device",
    "ProgramArguments": list(COMMAND),
    "EnvironmentVariables": PINNED,
    "StartCalendarInterval": [{"Minute": 2}, {"Minute": 17}, {"Minute": 32}, {"Minute": 47}],
    "RunAtLoad": False,
    "ProcessType": "Background",
    "Nice": 19,
    "LowPriorityIO": True,
    "LowPriorityBackgroundIO": True,
    "ExitTimeOut": 90,
    "Umask": 0o077,
}


class Recorder:
    """Stands for systemctl and launchctl."""

    def __init__(self, *, works: bool = True) -> None:
        self.commands: list[str] = []
        self.works = works

    def __call__(self, command: Sequence[str]) -> bool:
        self.commands.append(" ".join(command))
        return self.works


@pytest.fixture
def person(tmp_path: Path) -> Path:
    (tmp_path / "person").mkdir()
    return tmp_path / "person"


@pytest.fixture
def enrolled(tmp_path: Path) -> Home:
    return device(tmp_path / "apiary").home


def at(person: Path, platform: str = "linux", **other: Any) -> dict[str, Any]:
    return {"person": person, "platform": platform, "environment": {}, "run": Recorder(), **other}


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_the_texts_are_these() -> None:
    assert service.systemd_service(COMMAND, PINNED) == SERVICE
    assert service.systemd_timer(125) == TIMER
    assert plistlib.loads(service.launchd_agent(COMMAND, PINNED, 125)) == AGENT


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_understands_them(tmp_path: Path) -> None:
    script = tmp_path / "a b%c$d" / "apiary"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    units = {
        "apiary-device.service": service.systemd_service((str(script), *COMMAND[1:]), PINNED),
        "apiary-device.timer": service.systemd_timer(899),
    }
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    program = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name) for name in units)]
    environment = {**os.environ, "SYSTEMD_LOG_LEVEL": "warning", "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run(program, capture_output=True, text=True, check=False, env=environment)
    assert not [line for line in (done.stdout + done.stderr).splitlines() if "apiary" in line], done.stderr
    when = service.systemd_timer(899).split("OnCalendar=")[1].splitlines()[0]
    told = subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, text=True, check=False)
    assert "14,29,44,59:59" in told.stdout


def test_devices_come_at_times_of_their_own() -> None:
    offsets = {service.start_offset(f"{number:032x}") for number in range(0, 10**6, 997)}
    assert min(offsets) >= 0
    assert max(offsets) < service.EVERY_SECONDS
    assert len(offsets) > 600


def test_it_is_written_and_started(enrolled: Home, person: Path) -> None:
    run = Recorder()
    done = install(enrolled, **at(person, run=run))
    folder = person / ".config" / "systemd" / "user"
    assert done.files == (folder / "apiary-device.service", folder / "apiary-device.timer")
    assert sorted(contents(person)) == sorted(path.relative_to(person).as_posix() for path in done.files)
    assert run.commands == [
        "systemctl --user daemon-reload",
        "systemctl --user enable apiary-device.timer",
        "systemctl --user restart apiary-device.timer",
    ]
    assert done.to_run == ()
    assert done.environment == {"APIARY_HOME": str(enrolled.root), "APIARY_STORE": (enrolled.root / "store").as_uri()}
    assert str(enrolled.root) in done.files[0].read_text()


def test_macos_gets_an_agent(enrolled: Home, person: Path) -> None:
    run = Recorder()
    done = install(enrolled, **at(person, "darwin", run=run))
    assert done.files == (person / "Library" / "LaunchAgents" / "apiary.device.plist",)
    domain = f"gui/{os.getuid()}"
    assert run.commands == [
        f"launchctl bootout {domain}/apiary.device",
        f"launchctl bootstrap {domain} {done.files[0]}",
    ]
    agent = plistlib.loads(done.files[0].read_bytes())
    assert agent["EnvironmentVariables"] == done.environment
    assert agent["ProgramArguments"][-3:] == ["device", "ship", "--once"]
    uninstall(**at(person, "darwin"))
    assert contents(person) == {}


def test_what_cannot_be_run_is_told(enrolled: Home, person: Path) -> None:
    done = install(enrolled, **at(person, run=Recorder(works=False)))
    assert [path.exists() for path in done.files] == [True, True]
    assert done.to_run[1] == "systemctl --user enable apiary-device.timer"
    mac = install(enrolled, **at(person, "darwin", run=Recorder(works=False)))
    assert len(mac.to_run) == 1, "that nothing was loaded before is no fault"
    assert mac.to_run[0].startswith("launchctl bootstrap")


def test_without_the_program_nothing_is_run(monkeypatch: pytest.MonkeyPatch, enrolled: Home, person: Path) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    done = install(enrolled, **at(person, run=None))
    assert len(done.to_run) == 3


def test_the_users_own_folder_for_settings_is_respected(enrolled: Home, person: Path, tmp_path: Path) -> None:
    done = install(enrolled, **at(person, environment={"XDG_CONFIG_HOME": str(tmp_path / "xdg")}))
    assert done.files[0].parent == tmp_path / "xdg" / "systemd" / "user"
    done = install(enrolled, **at(person, environment={"XDG_CONFIG_HOME": "relative"}))
    assert done.files[0].is_relative_to(person)


def test_a_named_home_and_store_are_pinned(enrolled: Home, person: Path) -> None:
    named = {"HIVE_HOME": "/srv/hive", "APIARY_STORE": "s3://b/p", "AWS_SECRET_ACCESS_KEY": "very secret"}
    done = install(enrolled, **at(person, environment=named))
    assert done.environment == {"APIARY_HOME": str(enrolled.root), "APIARY_STORE": "s3://b/p", "HIVE_HOME": "/srv/hive"}
    assert b"secret" not in b"".join(contents(person).values())


def test_a_value_with_a_line_end_is_refused(enrolled: Home, person: Path) -> None:
    with pytest.raises(UsageError, match="HIVE_HOME"):
        install(enrolled, **at(person, environment={"HIVE_HOME": "/a\nExecStart=/bin/evil"}))
    assert contents(person) == {}


def test_it_needs_an_enrolment_and_a_platform(tmp_path: Path, enrolled: Home, person: Path) -> None:
    with pytest.raises(UsageError, match="not enrolled"):
        install(Home(tmp_path / "nobody"), **at(person))
    with pytest.raises(UsageError, match="--every 15m"):
        install(enrolled, **at(person, "win32"))
    assert contents(person) == {}


def test_the_program_is_the_one_beside_the_interpreter(tmp_path: Path) -> None:
    python = tmp_path / "bin" / "python"
    assert service.program(python) == (str(python), "-m", "pipelines.cli", "device", "ship", "--once")
    python.parent.mkdir()
    python.with_name("apiary").touch()
    assert service.program(python) == (str(python.with_name("apiary")), "device", "ship", "--once")


def test_an_upgrade_takes_the_files_over_and_keeps_the_spool(tmp_path: Path, person: Path) -> None:
    agents = tmp_path / "hive"
    append(queen_folder(agents) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", agents)
    made.ship(agents)
    before = contents(made.home.root)
    old = install(made.home, **at(person, python=tmp_path / "old" / "python"))
    inodes = [path.stat().st_ino for path in old.files]
    with old.files[0].open("rb") as reader:
        new = install(made.home, **at(person, python=tmp_path / "new" / "python"))
        assert b"/old/" in reader.read(), "a reader goes on with the whole old file"
    assert new.files == old.files
    assert b"/new/" in new.files[0].read_bytes()
    assert [path.stat().st_ino for path in new.files] != inodes
    assert len(contents(person)) == 2, "nothing is left aside"
    assert contents(made.home.root) == before


def test_uninstalling_removes_these_files_and_no_other(enrolled: Home, person: Path) -> None:
    done = install(enrolled, **at(person))
    own = done.files[0].with_name("apiary-device-mine.service")
    own.write_text("mine")
    before, run = contents(enrolled.root), Recorder()
    assert uninstall(**at(person, run=run)).files == done.files
    assert contents(person) == {own.relative_to(person).as_posix(): b"mine"}
    assert contents(enrolled.root) == before
    assert run.commands == [
        "systemctl --user disable --now apiary-device.timer",
        "systemctl --user stop apiary-device.service",
        "systemctl --user daemon-reload",
    ]


def test_uninstalling_nothing_does_nothing(person: Path) -> None:
    run = Recorder()
    assert uninstall(**at(person, run=run)) == Installed((), {}, ())
    assert run.commands == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_somebody_else_put_there_stays(enrolled: Home, person: Path, kind: str) -> None:
    path = person / ".config" / "systemd" / "user" / "apiary-device.timer"
    path.parent.mkdir(parents=True)
    if kind == "link":
        path.symlink_to("/dev/null")  # systemd's way to mask a unit
    else:
        path.write_text("[Timer]\n")
    with pytest.raises(DeviceError, match="not written by Apiary"):
        install(enrolled, **at(person))
    with pytest.raises(DeviceError, match="not written by Apiary"):
        uninstall(**at(person))
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
