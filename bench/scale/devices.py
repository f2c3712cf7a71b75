"""The devices of a simulated fleet: their homes written, enrolled, read and delivered.

Does not belong here: what a home looks like (pipelines/simulate), what becomes of batches (pipelines/warehouse).
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from pipelines.device import enrolment, grant
from pipelines.device import ship as shipping
from pipelines.home import Home
from pipelines.simulate import fleet, homes


def ship(home: Home, devices: Sequence[fleet.DeviceSpec]) -> None:
    """Every device's home written, read and shipped to the store."""
    for device in devices:
        mine = Home(home.devices / device.name)
        homes.write_home(mine.root / "hive", device.home)
        if device.other is not None:
            device.other.write(mine.root / device.other.folder)
        enrolment.enroll(
            mine, tenant=device.tenant, user=device.user, region=device.region, timezone=device.home.timezone,
            store=home.store_url, tenant_key=None, now=datetime.now(UTC),
        )  # fmt: skip
        _consent_and_ship(home, device)


def ship_again(home: Home, device: fleet.DeviceSpec) -> None:
    """A device that lost its state, consent among it, ships all that it has shipped before."""
    for path in Home(home.devices / device.name).device.glob("state.db*"):
        path.unlink()
    _consent_and_ship(home, device)


def _consent_and_ship(home: Home, device: fleet.DeviceSpec) -> None:
    mine = Home(home.devices / device.name)
    agents = [mine.root / "hive", *([] if device.other is None else [mine.root / device.other.folder])]
    grant.grant(mine, agents, history="include")
    shipping.ship(mine, agents, store_url=home.store_url)
