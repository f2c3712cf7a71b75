"""A turn that two rules of identity tell counts once, whichever row arrives first, and the ledger says so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.warehouse import RECEIVED, Warehouse

Rows = list[tuple[str, dict[str, Any]]]


def turn(name: str, *, session: str = "session_x", tokens: int = 10, late: int = 0, **columns: Any) -> Rows:
    return [("llm_turns", {
        "record_id": name, "session_id": session, "stream_id": "k1_a", "agent_role": "graph", "iteration": 0,
        "input_tokens": tokens, "output_tokens": 1, "time_basis": "utc", "occurred_at": RECEIVED - timedelta(hours=1),
        "_received_at": RECEIVED + timedelta(minutes=late), **columns,
    })]  # fmt: skip


def test_a_turn_that_was_sent_under_the_first_rule_counts_once(warehouse: Warehouse) -> None:
    """Sent again by the device that lost its state, and by one whose key is another; two turns of one tick stay two."""
    first = turn("old_left")
    again = turn("new_left", late=1, identity_version=2) + turn("new_right", late=1, identity_version=2)
    keyed = turn("old_named", session="k1_a", tokens=70), turn("new_named", session="k1_b", tokens=70, late=2,
                                                               identity_version=2)  # fmt: skip
    ordinary = turn("plain", stream_id="default", tokens=5) + turn("other", tokens=5, late=1, identity_version=2)
    older, newer = [*first, *keyed[0], *ordinary], [*again, *keyed[1]]
    for order in ((older, newer), (newer, older)):
        warehouse.reset()
        for rows in order:
            warehouse.load(rows)
            warehouse.run("--select", "+fct_llm_turns", "+mart_dedupe_ledger")
        assert warehouse.query("select count(*), sum(input_tokens) from marts.fct_llm_turns") == [(5, 100)]
        collapsed = "select collapsed_in_warehouse, collapsed_tokens from marts.mart_dedupe_ledger"
        assert warehouse.query(collapsed) == [(2, 82)]


def test_the_rules_for_pairs(warehouse: Warehouse) -> None:
    select = "stg_wire__superseded_records,test_type:unit mart_dedupe_ledger,test_type:unit"
    warehouse.run("--select", "+mart_dedupe_ledger")
    assert warehouse.dbt("test", "--select", *select.split()).success
