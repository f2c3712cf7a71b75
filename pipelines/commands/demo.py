"""`apiary demo`: a simulated fleet, or a home with its owner's consent, through the whole job.

Does not belong here: how homes are simulated (pipelines/simulate).
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.commands.tables import table
from pipelines.commands.terminal import Shared, Stop, homes_of, note, progress
from pipelines.commands.warehouse import run_job, usage_table
from pipelines.contract.numbers import pluralize, words
from pipelines.home import Home

if TYPE_CHECKING:
    from pipelines.simulate.fleet import DeviceSpec
    from pipelines.warehouse.operator_actions import Kind


ACTIONS: tuple[tuple[Kind, str, str, str], ...] = (
    ("fire", "northwind-orchards", "queen:queen_technology", "derailed"),
    ("note", "quarry-and-sons", "queen:queen_technology", "unresponsive"),
)
"""What a person decided about an agent: the action, its tenant, the agent, the reason."""


def _demo(options: argparse.Namespace) -> int:
    from pipelines.warehouse import usage

    home, program = Home.from_environment(), os.path.relpath(sys.argv[0])
    # Dagster's parts set the variable for themselves while the job runs.
    same = f", with APIARY_HOME={home.root} before each" if os.environ.get("APIARY_HOME") else ""
    if options.home:
        if options.consent != "include":
            raise Stop(2, "a real home is read with its owner's consent only: add CONSENT=include to ship its history")
        _ship_real(home, homes_of(options))
    else:
        # The newest sessions end on a local evening: two days back is the past in every zone.
        ship_fleet(home, last_day=datetime.now(UTC).date() - timedelta(days=2))
    store_url = os.environ.get("APIARY_STORE") or home.store_url
    run_job(home, store_url)
    print()
    usage_table(usage.usage(home.published, "tenant and model"))
    print()
    for rows in (usage.collapsed(home.published), usage.billing_models(home.published)):
        if rows:
            table([words(name) for name in rows[0]], [list(row.values()) for row in rows])
            print()
    places = [
        ("object store", store_url), ("warehouse", home.warehouse), ("published marts", home.published / "current"),
        ("billing exports", home.exports / "daily"),
    ]  # fmt: skip
    table(["what", "where"], [list(place) for place in places])
    note(f"go on with `{program} usage --by model`, `{program} report` or `{program} dev`{same}")
    return 0


def _ship_real(home: Home, homes: list[Path]) -> None:
    from pipelines.device import collect, consent, enrolment, grant, ship

    collect.check_homes(homes)
    if enrolment.load(home) is None:
        enrolment.enroll(
            home, tenant="local", user="owner", region="local", timezone=None, store=None, tenant_key=None,
            now=datetime.now(UTC),
        )  # fmt: skip
    with consent.open_state(home) as state:
        current = consent.current(state) if state else None
    if current is None or current.state != "granted" or current.history != "include":
        grant.grant(home, homes, history="include")
    with progress("reading") as step:
        shipped = ship.ship(home, homes, store_url=os.environ.get("APIARY_STORE"), progress=step)
    note(f"sent {pluralize(shipped.rows, 'row')} in {pluralize(shipped.batches, 'batch')}")


def ship_fleet(
    home: Home, *, last_day: date, clock: Callable[[], datetime] | None = None, tenant_key: Path | None = None
) -> None:
    """A simulated fleet that works until the evening of a day: each device has homes of its own; they share the store.

    `clock`: that of devices and books. `tenant_key`: a file; else each device makes a key of its own.
    """
    from pipelines.device import enrolment, grant, ship
    from pipelines.device.retry import utc_now
    from pipelines.simulate import fleet, homes

    store_url = os.environ.get("APIARY_STORE") or home.store_url
    devices, clock = fleet.demo_fleet(last_day=last_day), clock or utc_now
    sign_books(home, devices, now=clock())
    for device in devices:
        mine = Home(home.devices / device.name)
        hive = mine.root / "hive"
        agents = [hive] if device.other is None else [hive, mine.root / device.other.folder]
        is_new = not hive.exists()
        if is_new:
            aside = hive.with_name("hive.aside")
            homes.write_home(aside, device.home)
            if device.other is not None:
                device.other.write(mine.root / device.other.folder)
            aside.rename(hive)
        agents = [home for home in agents if home.exists()]
        if is_new:
            enrolment.enroll(
                mine, tenant=device.tenant, user=device.user, region=device.region, timezone=device.home.timezone,
                store=store_url, tenant_key=tenant_key, now=clock(),
            )  # fmt: skip
            grant.grant(mine, agents, history="include", now=clock())
        with progress(f"{device.name:<12}") as step:
            shipped = ship.ship(mine, agents, store_url=store_url, progress=step, clock=clock)
        note(f"{device.name:<20} {device.tenant}/{device.user}: sent {pluralize(shipped.rows, 'row')}")


def sign_books(home: Home, devices: tuple[DeviceSpec, ...], *, now: datetime) -> None:
    """What was agreed with the simulated tenants and decided about their agents, once. Where finance keeps books
    already, nothing is added."""
    from pipelines.billing import books, prices
    from pipelines.simulate import contracts
    from pipelines.warehouse import operator_actions

    if (home.books / f"{books.ACCOUNTS.name}.csv").exists():
        return
    folders, valid_from = [books.SHIPPED, home.books], contracts.first_month(devices)
    sheets = [
        prices.Sheet(
            provider_name="apiary",
            model=model,
            prices=tuple(prices.Price(component=name, unit_price=price) for name, price in components.items()),
            valid_from=valid_from,
            source=prices.Source(name="operator", version="demo", sha256="0" * 64),
        )
        for model, components in (("platform", contracts.PLATFORM), (contracts.LOCAL_MODEL, contracts.LOCAL_PRICES))
    ]
    prices.propose(folders, sheets, now=now)
    ids = [sheet.sheet_id for sheet in sheets]
    prices.decide(folders, ids, "approve", by="demo", reason="the demo's own price list", now=now)
    made = contracts.demo_contracts(devices, signed_at=now)
    for book in books.BOOKS:
        books.append(book, home.books, made.get(book.name, ()))
    for action, tenant, agent, reason in ACTIONS:
        operator_actions.record(
            home.operator_actions, action=action, tenant=tenant, agent=agent, reason=reason, actor="demo", now=now
        )


def add(group: Any, shared: Shared) -> None:
    """The command under `apiary`."""
    demo = shared.add(
        group, "demo", "a simulated fleet (or a home with consent) through the whole job", _demo, shared.homes
    )
    demo.add_argument("--consent", choices=["include"], help="the owner's consent to ship a real home's history")
