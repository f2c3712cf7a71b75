"""Makes the home of a release that later releases are tested to upgrade: `make frozen-home`, when a release is cut.

Two simulated devices, a third one with a few turns of an earlier month, that month closed, and a batch that waits as
the store was away. Does not belong here: upgrading it (test_upgrade.py).
"""

import re
import subprocess
import tempfile
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

from pipelines import __version__
from pipelines.commands.demo import sign_books
from pipelines.device import enrolment, grant, ship
from pipelines.device.errors import DeviceError
from pipelines.home import Home
from pipelines.simulate.fleet import DeviceSpec
from pipelines.simulate.homes import HomeSpec, write_home
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.driving import apiary

ARCHIVE = Path(__file__).parent / "releases" / f"{__version__}.tar.xz"
LEFT_OUT = ("published", "dagster", "dbt")  # what the next run makes again
MODEL = "openai/gpt-5.5"
AGREED = date(2026, 9, 1)  # usage without an account is in no month that can be closed


def fleet() -> tuple[DeviceSpec, ...]:
    """A tenant that pays by tokens and one with a plan."""
    common = {"first_day": date(2026, 10, 5), "days": 1, "turns_per_session": 3}
    return (
        DeviceSpec(
            tenant="lantern-freight", user="ravi-osei", region="ap", name="ravi-laptop",
            home=HomeSpec(layout="v3", seed=3, timezone="Asia/Kolkata", **common),
        ),
        DeviceSpec(
            tenant="quarry-and-sons", user="greta-quist", region="eu", name="greta-laptop",
            home=HomeSpec(layout="v2", seed=5, timezone="UTC", **common),
        ),
    )  # fmt: skip


def enrolled(home: Home, name: str, tenant: str, user: str, zone: str) -> Home:
    """A device with consent for its own folder."""
    device = Home(home.root / "devices" / name)
    enrolment.enroll(
        device, tenant=tenant, user=user, region="eu", timezone=zone, store=home.store_url, tenant_key=None,
        now=datetime.now(UTC),
    )  # fmt: skip
    grant.grant(device, [device.root / "hive"], history="include")
    return device


def send(device: Home) -> None:
    """Ship what the device has. Raises DeviceError."""
    ship.ship(device, [device.root / "hive"], sleep=lambda _: None)


def worked(device: Home, session: str, at: str, turns: int) -> None:
    """Write the turns of one session."""
    lines = [turn(n, session=session, at=f"{at}:3{n}.5", model=MODEL, cost_usd=None) for n in range(turns)]
    append(queen_folder(device.root / "hive", session) / "events.jsonl", dump(*lines))


def main() -> None:
    """Make the home, and the archive of it."""
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "apiary")
        left_out = [f"--exclude=apiary/{name}" for name in LEFT_OUT]
        subprocess.run(["tar", "-C", folder, *left_out, "-cJf", ARCHIVE, "apiary"], check=True)
    print(f"{ARCHIVE}: {ARCHIVE.stat().st_size:,} bytes")  # noqa: T201 - what a person sees


def write(root: Path) -> None:
    """Let this release make a home in a folder."""
    home, devices = Home(root), fleet()
    agreed = tuple(replace(spec, home=replace(spec.home, first_day=AGREED)) for spec in devices)
    sign_books(home, agreed, now=datetime.now(UTC))
    for spec in devices:
        write_home(root / "devices" / spec.name / "hive", spec.home)
        send(enrolled(home, spec.name, spec.tenant, spec.user, spec.home.timezone))
    ines = Home(root / "devices" / "ines-laptop")
    worked(ines, "session_20260910_101500_0a1b2c3d", "2026-09-10T10:15", 4)
    worked(ines, "session_20261006_101500_0a1b2c3d", "2026-10-06T10:15", 1)
    send(enrolled(home, "ines-laptop", "lantern-freight", "ines-moreau", "UTC"))
    apiary(root, "run")
    signed = ("--actor", "ada", "--reason", "month end")
    apiary(root, "period", "close", "2026-09", "--as-of", "2026-10-07T09:00:00Z", *signed)
    told = apiary(root, "period", "status", "2026-09", "--as-of", "2026-10-20T09:00:00Z").stdout
    totals = re.search(r"--sign (\w+)", told)
    assert totals, told
    waived = ("--waive", "arrivals=a laptop was retired", "--waive", "grace=the fleet is idle")
    close = ("period", "close", "2026-09", "--as-of", "2026-10-20T09:00:00Z", *signed, "--sign", totals[1], *waived)
    assert "closed" in apiary(root, *close).stdout
    worked(ines, "session_20261007_101500_0a1b2c3d", "2026-10-07T10:15", 3)
    store, away = root / "store", root / "away"
    store.rename(away)
    store.write_text("")
    try:
        send(ines)
    except DeviceError as error:
        print(error)  # noqa: T201 - what a person sees
    store.unlink()
    away.rename(store)


if __name__ == "__main__":
    main()
