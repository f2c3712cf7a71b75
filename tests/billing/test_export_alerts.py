"""A statement that is missing, late or held back is a row, and one that is there is none."""

import json
import shutil
from datetime import UTC, date, datetime

from pipelines.billing import export_alerts
from pipelines.billing.exports import export_days, export_month
from pipelines.billing.gate import Check
from tests.billing.ledgers import MET, Ledger, line

JANUARY = date(2025, 1, 1)
AT = datetime(2025, 2, 3, tzinfo=UTC)
DUE = datetime(2025, 2, 6, tzinfo=UTC)
BOLT = {"tenant_id": "bolt", "billing_account_id": "acct-bolt"}


def alerts(ledger: Ledger, at: datetime = AT, **more: object) -> list[tuple[str, str | None, str | None]]:
    found = export_alerts.find(ledger.export(at, **more), ["acct-acme", "acct-bolt"])
    export_alerts.write(ledger.exports, found)
    told = json.loads((ledger.exports / "alerts.json").read_text())
    assert len(told) == len(found)
    assert export_alerts.read(ledger.exports) == found
    return [(row["kind"], row["usage_date"], row["account"]) for row in told]


def test_each_kind_is_found_and_ends(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 3)), line("b", date(2025, 1, 4), **BOLT)])
    ledger.build()
    assert alerts(ledger) == [("missing", "2025-01-03", None), ("missing", "2025-01-04", None)]
    export_days(ledger.export(AT))
    assert alerts(ledger) == []
    ledger.tell([line("c", date(2025, 1, 3), session_id="other")])
    ledger.build()
    assert alerts(ledger) == [("late", "2025-01-03", None)]
    export_days(ledger.export(AT))
    assert alerts(ledger) == []
    assert alerts(ledger, DUE) == [("missing", None, "acct-acme"), ("missing", None, "acct-bolt")]
    for account in ("acct-acme", "acct-bolt"):
        export_month(ledger.export(DUE), JANUARY, account)
    assert alerts(ledger, DUE) == []
    failing = Check("x.cost_off", is_blocking=True, passed=False, found="acct-bolt: 1", accounts=("acct-bolt",))
    assert alerts(ledger, checks=[MET, failing]) == [("held_back", None, "acct-bolt")]
    shutil.rmtree(ledger.exports / "daily")
    assert [kind for kind, *_ in alerts(ledger)] == ["missing", "missing"]
