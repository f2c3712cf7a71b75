"""A limit in the warehouse stops an agent at home: book, mart, snapshot in the store, device."""

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.billing import books
from pipelines.contract.quota import parse, period_of, prefix
from pipelines.store import open_store
from pipelines.warehouse import quota
from tests.device.driving import append, dump, queen_folder, turn
from tests.end_to_end.driving import device, send
from tests.warehouse import Warehouse

pytestmark = pytest.mark.services


def test_a_device_answers_from_the_published_snapshot(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = datetime.now(UTC)
    stamp = max(now - timedelta(hours=1), period_of("day", now)[0]).strftime("%Y-%m-%dT%H:%M:%S")
    store_url = (tmp_path / "store").as_uri()
    homes = {user: device(tmp_path / user, store=store_url, user=user) for user in ("ada", "bob")}
    agents = {user: tmp_path / f"hive_{user}" for user in homes}
    for number, (user, unpriced) in enumerate({"ada": 0, "bob": 1}.items()):
        session = f"session_20260504_101500_0a1b2c3{number}"
        file = queen_folder(agents[user], session) / "events.jsonl"
        append(file, dump(*(turn(n, session=session, at=f"{stamp}.{n}") for n in range(1, 4))))
        if unpriced:
            append(file, dump(turn(9, session=session, at=f"{stamp}.9", cost_usd=0.0, input_tokens=5000)))
        send(homes[user], agents[user])

    def say(user: str) -> tuple[int, dict]:
        monkeypatch.setenv("APIARY_HOME", str(homes[user].root))
        code = cli.main(["quota", "check", "--json"])
        return code, json.loads(capsys.readouterr().out)

    def build(*budgets: dict) -> list[str]:
        common = {"scope": "tenant", "scope_id": None, "period": "month", "valid_from": now.date().replace(day=1),
                  "warn_at": Decimal("0.8"), "tenant_id": "acme"}  # fmt: skip
        warehouse.enter(books.BUDGETS, [common | {"budget_id": f"b{n}"} | row for n, row in enumerate(budgets)])
        warehouse.run("--select", "mart_budget")
        with warehouse.connect() as connection:
            return quota.publish(connection, open_store(store_url))

    warehouse.ingest(store_url)
    warehouse.run("--select", "+agg_usage_quarter_hourly", "+mart_budget", "--exclude", "mart_budget")
    assert build() == [], "no budget, no snapshot"
    (key,) = build(
        {"measure": "tokens", "scope": "user", "scope_id": "ada", "limit_amount": Decimal(400)},
        {"measure": "reported_cost_usd", "limit_amount": Decimal(10), "unpriced_limit_tokens": None},
        {"measure": "tokens", "scope": "colony", "scope_id": "c", "limit_amount": Decimal(0)},
    )
    snapshot = parse(open_store(store_url).get(key))
    assert key.startswith(prefix("eu", "acme"))
    used = {budget.measure: (budget.used, budget.unpriced_tokens) for budget in snapshot.budgets}
    # Three turns of 100 + n input and 10 output tokens; six of them at 0.0125 USD; bob's 5000 + 10 without a price.
    assert used == {"tokens": (336, 0), "reported_cost_usd": (Decimal("0.075"), 5010)}
    assert {counted.device for counted in snapshot.counted} == {
        json.loads((home.device / "enrolment.json").read_text())["device_id"] for home in homes.values()
    }

    for user, home in homes.items():
        send(home, agents[user])  # brings the snapshot home
    code, ada = say("ada")
    assert (code, ada["decision"]) == (0, "warn"), "336 of 400: beyond 0.8; and the cap sees what has no price"
    code, bob = say("bob")
    assert (code, bob["decision"]) == (0, "warn")
    assert "5,010 tokens have no price" in bob["reason"], "never blind to unpriced models"

    # What the device uses beyond the snapshot counts at once.
    append(
        queen_folder(agents["ada"], "session_20260504_101500_0a1b2c30") / "events.jsonl",
        dump(turn(10, session="session_20260504_101500_0a1b2c30", at=f"{stamp}.8")),
    )
    send(homes["ada"], agents["ada"])
    code, ada = say("ada")
    assert (code, ada["decision"]) == (3, "block"), "336 + 120 of 400"

    # A limit on tokens without a price blocks everybody it is for; and a budget that ended is taken back.
    snapshots = [
        parse(open_store(store_url).get(key))
        for key in build({"measure": "reported_cost_usd", "limit_amount": Decimal(10), "unpriced_limit_tokens": 5000})
    ]
    assert [len(snapshot.budgets) for snapshot in snapshots] == [1]
    send(homes["bob"], agents["bob"])
    assert say("bob")[0] == 3
    (key,) = build()
    assert parse(open_store(store_url).get(key)).budgets == ()

    # A key holds whole seconds, and a clock may be set back: the one published last is the newest all the same.
    for limit, moment in ((5, now), (6, now), (7, now), (8, now - timedelta(seconds=10))):
        budget = {"budget_id": "b", "scope": "tenant", "scope_id": None, "period": "month", "measure": "turns",
                  "valid_from": now.date().replace(day=1), "warn_at": Decimal("0.8"), "tenant_id": "acme"}  # fmt: skip
        warehouse.enter(books.BUDGETS, [budget | {"limit_amount": Decimal(limit)}])
        with warehouse.connect() as connection:
            (key,) = quota.publish(connection, open_store(store_url), now=moment)
        assert key == next(iter(open_store(store_url).list(prefix("eu", "acme")))).key
        assert [item.limit for item in parse(open_store(store_url).get(key)).budgets] == [limit]
