"""The demo as of one day: the fleet of `apiary demo` with a fixed clock, key and ids, so that its numbers are the same
whenever it is made. The page of questions and the pictures of the README are of it.

Does not belong here: how the fleet is simulated (pipelines/simulate), what is asked of it (questions_page.py).
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from itertools import count
from pathlib import Path

import pytest

from pipelines.commands.demo import ship_fleet
from pipelines.device import enrolment
from pipelines.home import Home, private_folder
from pipelines.warehouse import operator_actions, publish
from tests.warehouse import Warehouse

LAST_DAY = date(2026, 11, 20)
NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)


def build(root: Path) -> Home:
    """The published demo in a new folder."""
    home, numbers = Home(root), count(1)
    key = root.with_name(f"{root.name}.key")
    key.write_text("5" * 64)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("APIARY_STORE", "APIARY_TENANT_KEY"):
            patch.delenv(name, raising=False)
        patch.setenv("APIARY_HOME", str(root))
        patch.setattr(
            enrolment.secrets, "token_hex", lambda size: sha256(bytes([next(numbers)])).hexdigest()[: 2 * size]
        )
        ship_fleet(home, last_day=LAST_DAY, clock=lambda: NOW, tenant_key=key)
        # The store's clock says when a batch arrived: one after the other.
        for second, path in enumerate(sorted(path for path in (root / "store").rglob("*") if path.is_file())):
            arrived = (NOW + timedelta(milliseconds=second)).timestamp()
            os.utime(path, (arrived, arrived))
        private_folder(home.warehouse.parent)
        patch.setenv("APIARY_WAREHOUSE", str(home.warehouse))
        warehouse = Warehouse(home.warehouse, root / "dbt")
        warehouse.ingest(home.store_url)
        warehouse.sign(home.books)
        with warehouse.connect() as connection:
            operator_actions.load(connection, home.operator_actions)
        warehouse.run()
        with warehouse.connect() as connection:
            publish.publish(connection, home.published, now=NOW)
    return home
