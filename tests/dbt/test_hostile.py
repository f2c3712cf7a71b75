"""A tenant that sends whatever its contract allows changes nothing for the others: no mart, no bill, no run.

Does not belong here: how such rows are made (tests/hostile.py), what is set aside (tests/end_to_end).
"""

from itertools import combinations

import pytest

from pipelines.contract.table import Table
from pipelines.contract.wire import TABLES
from pipelines.quality import gates
from pipelines.store import FolderStore
from pipelines.warehouse import budgets, exclusion, quarantine
from pipelines.warehouse.registry import Register
from tests import hostile
from tests.warehouse import Marts, Warehouse
from tests.warehouse_part.batches import CLONE, LAPTOP, START, MemoryStore, batch, record, row

IDS = tuple(record(f"session {number}") for number in range(6))
# What is told of all tenants at once, in one row: another tenant's numbers are in it by definition.
OF_ALL = {"rpt_reconciliation"}


def honest() -> dict[str, list[hostile.Row]]:
    """Rows with the same ids, and with ordinary values."""
    calm = {"session_id": IDS[0], "list_id": IDS[0], "queen_session_id": IDS[0]}
    found: dict[str, list[hostile.Row]] = {}
    for table in TABLES:
        names = {name: value for name, value in calm.items() if name in table.by_name}
        found[table.name] = [row(table.name, number, **names) for number in range(3)]
        for rule in table.rules:
            for made in found[table.name]:
                rule.mend(made)
    return found


def built(warehouse: Warehouse, folder: FolderStore, seeds: tuple[int, ...], count: int) -> Marts:
    memory = MemoryStore()
    batch(memory, honest(), tenant="acme", device=LAPTOP)
    for seq, seed in enumerate(seeds, 1):
        batch(memory, hostile.batch_of(seed, count, IDS), tenant="evil", device=CLONE, seq=seq)
        # The device of the honest tenant under another tenant's name, and the very records of the honest one.
        batch(memory, honest(), tenant="evil", device=LAPTOP, seq=seq)
    for key, data in memory.objects.items():
        folder.put(key, data)
    loaded = warehouse.ingest(folder.url)
    assert (loaded.quarantined, loaded.reasons) == (0, {}), "it keeps to the contract"
    warehouse.build("--exclude-resource-type", "unit_test")
    return warehouse.marts()


def of(tenant: str, warehouse: Warehouse, marts: Marts) -> dict[str, list[tuple[object, ...]]]:
    """Rows of one tenant, and those of no tenant at all."""
    found = {}
    for mart, rows in marts.items():
        columns = warehouse.columns(mart)
        names = [name for name in ("tenant_id", "x_TenantId", "SubAccountId") if name in columns]
        place = columns.index(names[0]) if names else None
        if mart not in OF_ALL:
            found[mart] = [row for row in rows if place is None or row[place] in (tenant, None)]
    return found


def assert_alone(warehouse: Warehouse, folder: FolderStore, seeds: tuple[int, ...], count: int) -> None:
    together = of("acme", warehouse, built(warehouse, folder, seeds, count))
    meta = warehouse.dbt("parse").result
    allowed = {
        f"{node.schema}.{node.name}": node.config.meta["max_rows_per_input_row"]
        for node in meta.nodes.values()
        if node.resource_type == "model"
    }
    with warehouse.connect() as connection:
        assert budgets.exceeded(connection, allowed) == []
        out = Register(tenants={"evil": START.isoformat()}).refusal
        exclusion.exclude(connection, folder, exclusion.refused(connection, out), admission=out)
    warehouse.run()
    alone = of("acme", warehouse, warehouse.marts())
    assert sum(map(len, alone.values())) > 100
    for mart in alone:
        assert alone[mart] == together[mart], mart


@pytest.mark.long
def test_a_hostile_tenant_changes_nothing_for_the_others(warehouse: Warehouse, tmp_path) -> None:
    assert_alone(warehouse, FolderStore(tmp_path), (1,), 60)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(10, 40))
def test_hostile_tenants_change_nothing_at_length(warehouse: Warehouse, tmp_path, seed: int) -> None:
    folder = FolderStore(tmp_path)
    assert_alone(warehouse, folder, (seed, seed + 1000), 300)
    with warehouse.connect() as connection:
        quarantine.replay(connection, folder, quarantine.Choice())
    warehouse.run()
    with warehouse.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        for suite in (*gates.suites("billing"), *gates.suites("departure")):
            failed = [result for result in gates.run(suite, connection) if result.is_critical and not result.passed]
            assert failed == [], suite.name


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_the_edges_of_all_columns_meet(table: Table) -> None:
    """Pairwise: any two nullable columns are NULL with and without each other; every bound and value is there."""
    made = hostile.rows(table, 1, 60, IDS)
    bound = {part for total, parts in table.sums for part in (total, *parts)} | {rule.column for rule in table.rules}
    free = [column for column in table.columns if column.name not in bound | {"record_id"}]
    for one, other in combinations([column.name for column in free if not column.required], 2):
        assert len({(row[one] is None, row[other] is None) for row in made}) == 4, (one, other)
    for column in free:
        assert set(hostile.candidates(column, IDS)) == {row[column.name] for row in made}, column.name
