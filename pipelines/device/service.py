"""Shipping as a service of this user: a systemd timer (Linux) or a launchd agent (macOS) that ships every 15 minutes.

The texts are pure functions; installing writes them aside and moves them into place, so that an upgrade never leaves
half a unit. Only these files are ever touched: state and spool stay where they are.
Does not belong here: shipping (ship.py), being the only one at work (the lock in ship.py).
"""

import os
import plistlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.device import enrolment
from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from pipelines.home import Home, replace_file

EVERY_SECONDS = 900  # must divide an hour: the timer names its minutes
NAME = "apiary-device"
LABEL = "apiary.device"
MARK = "Written by `apiary device install`; `apiary device uninstall` removes it."
PINNED = ("APIARY_HOME", "APIARY_STORE", "HIVE_HOME")
STOP_SECONDS = 90  # a shipping that is told to stop ends its step; killed it would only repeat work
COMMAND_SECONDS = 30

Run = Callable[[Sequence[str]], bool]


@dataclass(frozen=True)
class Installed:
    """What was written and what is still to be done by hand.

    `environment`: what the service will see of this shell. `to_run`: commands that could not be run here.
    """

    files: tuple[Path, ...]
    environment: Mapping[str, str]
    to_run: tuple[str, ...]


def install(
    home: Home, *, environment: Mapping[str, str] = os.environ, person: Path | None = None,
    platform: str = sys.platform, python: Path | None = None, run: Run | None = None,
) -> Installed:  # fmt: skip
    """Write the service of this user and start it; over an older one, take its place. A shipping at work goes on.

    `person` is the user's home folder, `python` the interpreter beside which `apiary` stands.
    Raises UsageError without an enrolment or on another platform, DeviceError if a file of that name is not ours.
    """
    enrolled = enrolment.require(home)
    pinned = pinned_environment(home, environment, store=enrolled.store)
    command = program(python or Path(sys.executable))
    offset = start_offset(enrolled.device_id)
    if platform == "darwin":
        texts = [launchd_agent(command, pinned, offset)]
    else:
        texts = [systemd_service(command, pinned).encode(), systemd_timer(offset).encode()]
    paths = files(environment, person=person or Path.home(), platform=platform)
    for path in paths:
        _require_ours(path)
    for path, text in zip(paths, texts, strict=True):
        replace_file(path, text)
    return Installed(paths, pinned, _run_all(_start_commands(paths, platform), run or _run))


def uninstall(
    *, environment: Mapping[str, str] = os.environ, person: Path | None = None, platform: str = sys.platform,
    run: Run | None = None,
) -> Installed:  # fmt: skip
    """Stop the service and remove its files and nothing else; `files` are those that were there.

    Raises UsageError on another platform, DeviceError if a file of that name is not ours.
    """
    paths = files(environment, person=person or Path.home(), platform=platform)
    there = tuple(path for path in paths if os.path.lexists(path))
    for path in there:
        _require_ours(path)
    if not there:
        return Installed((), {}, ())
    # Before the files go: what is gone cannot be disabled, and its link would stay.
    left = _run_all(_stop_commands(platform), run or _run)
    for path in there:
        path.unlink()
    if platform != "darwin":
        left += _run_all([["systemctl", "--user", "daemon-reload"]], run or _run)
    return Installed(there, {}, left)


def is_installed(environment: Mapping[str, str], *, person: Path | None = None, platform: str = sys.platform) -> bool:
    """Whether the files of this user's service are there."""
    try:
        return all(path.exists() for path in files(environment, person=person or Path.home(), platform=platform))
    except UsageError:
        return False


def files(environment: Mapping[str, str], *, person: Path, platform: str) -> tuple[Path, ...]:
    """The files of the service. Raises UsageError on a platform without one."""
    if platform == "darwin":
        return (person / "Library" / "LaunchAgents" / f"{LABEL}.plist",)
    if platform != "linux":
        raise UsageError(f"there is no service for {platform}: let `apiary device ship --every 15m` run instead")
    named = Path(environment.get("XDG_CONFIG_HOME", ""))
    folder = (named if named.is_absolute() else person / ".config") / "systemd" / "user"
    return folder / f"{NAME}.service", folder / f"{NAME}.timer"


def program(python: Path) -> tuple[str, ...]:
    """The command of the service: the `apiary` beside an interpreter, or the interpreter with our module."""
    script = python.with_name("apiary")
    # Not resolved: in a virtual environment the interpreter is a link, and `apiary` stands beside the link.
    start = (str(script.absolute()),) if script.exists() else (str(python.absolute()), "-m", "pipelines.cli")
    return (*start, "device", "ship", "--once")


def pinned_environment(home: Home, environment: Mapping[str, str], *, store: str) -> dict[str, str]:
    """What the service needs to know of this shell: it is started by a session that knows none of it.

    Credentials are not among it: a file of a unit may be read by others.
    """
    pinned = {"APIARY_HOME": str(home.root.absolute()), "APIARY_STORE": environment.get("APIARY_STORE") or store}
    if environment.get("HIVE_HOME"):
        pinned["HIVE_HOME"] = str(Path(environment["HIVE_HOME"]).expanduser().absolute())
    for name, value in pinned.items():
        if not value.isprintable():
            raise UsageError(f"{name} holds characters that no service file can: {value!r}")
    return pinned


def start_offset(device_id: str) -> int:
    """Seconds into each quarter of an hour at which a device ships: its own, so that a fleet does not come at once."""
    return int(device_id, 16) % EVERY_SECONDS


def systemd_service(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The text of the service. `oneshot`: a timer never starts it while it runs."""
    start, *arguments = command
    lines = [
        f"# {MARK}",
        "[Unit]",
        "Description=Apiary: ship what is new, once",
        "",
        "[Service]",
        "Type=oneshot",
        *(f"Environment={_quoted(f'{name}={value}')}" for name, value in sorted(environment.items())),
        # `$` begins a variable in arguments only; doubled in the program's path it would name another file.
        "ExecStart=" + " ".join([_quoted(start), *(_quoted(part.replace("$", "$$")) for part in arguments)]),
        "UMask=0077",
        # The agents' work comes first: we take what nobody else wants.
        "Nice=19",
        "CPUSchedulingPolicy=idle",
        "IOSchedulingClass=idle",
        f"TimeoutStopSec={STOP_SECONDS}",
    ]
    return "\n".join(lines) + "\n"


def systemd_timer(offset: int) -> str:
    """The text of the timer: four fixed times an hour, `offset` seconds into each quarter.

    What was missed while the machine slept needs no making up: the next time is near, and one shipping reads all.
    """
    minutes = ",".join(f"{quarter + offset // 60:02}" for quarter in range(0, 60, EVERY_SECONDS // 60))
    lines = [
        f"# {MARK}",
        "[Unit]",
        "Description=Apiary: ship every 15 minutes",
        "",
        "[Timer]",
        f"OnCalendar=*-*-* *:{minutes}:{offset % 60:02}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "\n".join(lines) + "\n"


def launchd_agent(command: Sequence[str], environment: Mapping[str, str], offset: int) -> bytes:
    """The property list of the agent. launchd starts no second one while it runs; its times have no seconds."""
    agent = {
        "Comment": MARK,
        "Label": LABEL,
        "ProgramArguments": list(command),
        "EnvironmentVariables": dict(environment),
        "StartCalendarInterval": [{"Minute": quarter + offset // 60} for quarter in range(0, 60, EVERY_SECONDS // 60)],
        "RunAtLoad": False,
        "ProcessType": "Background",
        "Nice": 19,
        "LowPriorityIO": True,
        "LowPriorityBackgroundIO": True,
        "ExitTimeOut": STOP_SECONDS,
        "Umask": 0o077,
    }
    return plistlib.dumps(agent, fmt=plistlib.FMT_XML, sort_keys=True)


def _quoted(text: str) -> str:
    """A word as systemd reads it back: `%` begins a specifier, a quote or a backslash would end or change it."""
    escaped = text.replace("%", "%%").replace("\\", "\\\\").replace('"', '\\"')
    return escaped if re.fullmatch(r"[\w@+=:,./%-]+", escaped, re.ASCII) else f'"{escaped}"'


def _start_commands(paths: Sequence[Path], platform: str) -> list[list[str]]:
    if platform == "darwin":
        return [*_stop_commands(platform), ["launchctl", "bootstrap", _launchd_domain(), str(paths[0])]]
    systemctl = ["systemctl", "--user"]
    timer = f"{NAME}.timer"
    # A timer that is at work keeps its old times until it is started again; the service is left alone.
    return [[*systemctl, "daemon-reload"], [*systemctl, "enable", timer], [*systemctl, "restart", timer]]


def _stop_commands(platform: str) -> list[list[str]]:
    if platform == "darwin":
        return [["launchctl", "bootout", f"{_launchd_domain()}/{LABEL}"]]
    systemctl = ["systemctl", "--user"]
    return [[*systemctl, "disable", "--now", f"{NAME}.timer"], [*systemctl, "stop", f"{NAME}.service"]]


def _launchd_domain() -> str:
    return f"gui/{os.getuid()}"


def _run_all(commands: Sequence[Sequence[str]], run: Run) -> tuple[str, ...]:
    """Run commands in order; those that failed. `bootout` of what is not loaded fails, and means nothing."""
    return tuple(" ".join(command) for command in commands if not run(command) and command[1] != "bootout")


def _run(command: Sequence[str]) -> bool:
    found = shutil.which(command[0])
    if found is None:
        return False
    try:
        done = subprocess.run([found, *command[1:]], capture_output=True, check=False, timeout=COMMAND_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _require_ours(path: Path) -> None:
    """Whoever has put a file of their own there, or a link to nowhere, keeps it. Raises DeviceError."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or MARK.encode() not in path.read_bytes():
        raise DeviceError(f"{path} was not written by Apiary: move it away, then try again")
