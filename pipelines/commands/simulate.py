"""`apiary simulate`: homes of many simulated devices, or their landing, of the size that is asked for.

Does not belong here: what is written (pipelines/simulate).
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ProcessPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.terminal import Shared, Stop, day, progress, say
from pipelines.contract.numbers import pluralize
from pipelines.home import Home

if TYPE_CHECKING:
    from pipelines.simulate.fleet import DeviceSpec
    from pipelines.simulate.scale import Written


def _simulate(options: argparse.Namespace) -> int:
    from pipelines.simulate import scale

    if min(options.devices, options.days, options.turns_per_day) < 1:
        raise Stop(2, "devices, days and turns per day are at least 1")
    home = Home.from_environment()
    store_url = options.store or home.store_url
    last_day = options.last_day or datetime.now(UTC).date() - timedelta(days=2)
    made = scale.devices(
        options.devices, days=options.days, turns_per_day=options.turns_per_day, last_day=last_day, seed=options.seed,
        only_hive=options.landing,
    )  # fmt: skip
    if any((home.devices / device.name).exists() for device in made):
        raise Stop(2, f"{home.devices} has simulated devices already: name another APIARY_HOME")
    begun, written = time.monotonic(), scale.Written()
    places = [home.devices / device.name for device in made]
    with ProcessPoolExecutor() as pool, progress("writing") as step:
        work = _landing if options.landing else _homes
        for done, found in enumerate(pool.map(work, places, made, [store_url] * len(made)), 1):
            written += found
            if step is not None:
                step(done, len(made))
    seconds = time.monotonic() - begun
    say(
        f"{pluralize(written.turns, 'turn')} of {pluralize(len(made), 'device')}, tokens in: {written.input_tokens:,},"
        f" out: {written.output_tokens:,}, {pluralize(round(written.turns / seconds * 60), 'turn')} a minute:"
        f" {store_url if options.landing else home.devices}"
    )
    return 0


def _homes(place: Path, device: DeviceSpec, _: str) -> Written:
    from pipelines.simulate import scale

    return scale.write_homes(place, device)


def _landing(place: Path, device: DeviceSpec, store_url: str) -> Written:
    return write_landing(Home(place), device, store_url)


def write_landing(mine: Home, device: DeviceSpec, store_url: str, *, is_first: bool = True) -> Written:
    """Enrol a device, deliver the batches of its days and keep its state, so that more days may follow (`is_first`:
    whether it was not enrolled before)."""
    from pipelines.device import consent, enrolment, grant
    from pipelines.device.redact import Redactor
    from pipelines.device.retry import Retry, utc_now
    from pipelines.device.ship import deliver
    from pipelines.device.spool import Spool
    from pipelines.simulate import scale

    spec, now = device.home, datetime.now(UTC)
    if is_first:
        enrolment.enroll(
            mine, tenant=device.tenant, user=device.user, region=device.region, timezone=spec.timezone,
            store=store_url, tenant_key=None, now=now,
        )  # fmt: skip
        grant.grant(mine, [], history="include", now=now)
    enrolled = enrolment.require(mine)
    redactor, spool = Redactor(enrolment.tenant_key(mine)), Spool(mine.device / "spool")
    store = enrolment.open_store(mine, store_url)
    written = scale.Written()
    with consent.open_state(mine) as state:
        assert state is not None  # noqa: S101 - the grant made it
        granted = consent.require(state)
        for number in range(spec.days):
            with state.step():
                for table, row, turns in scale.rows_of(device, redactor, spec.first_day + timedelta(days=number)):
                    state.stage(table, row)
                    written += turns
        spool.seal_all(state, enrolled, granted, now)
        deliver(state, spool, store, Retry(state, store.url, lambda _: None, utc_now, is_forced=True, on_retry=None))
    return written


def add(group: Any, shared: Shared) -> None:
    """The command under `apiary`."""
    simulate = shared.add(
        group, "simulate", "homes of simulated devices, or their landing, of any size", _simulate, shared.store
    )
    simulate.add_argument("--devices", type=int, default=3, metavar="N", help="how many (default 3)")
    simulate.add_argument("--days", type=int, default=4, metavar="N", help="days of work (default 4)")
    simulate.add_argument("--turns-per-day", type=int, default=100, metavar="N", help="of each device (default 100)")
    simulate.add_argument("--last-day", type=day, metavar="DAY", help="the newest day (default: two days ago)")
    simulate.add_argument("--seed", type=int, default=1, metavar="N", help="other numbers give other work")
    simulate.add_argument(
        "--landing",
        action="store_true",
        help="deliver the batches of the devices, of Hive's rows, instead of writing homes",
    )
