"""The consent book by itself: what a grant covers, what it says when it is read again, what lets nothing out.

Does not belong here: what a collection under a grant reads (test_consent.py), withdrawing (test_owner.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.contract.wire import AGENT_RUNTIMES
from pipelines.device import consent, grant
from pipelines.device.consent import SOURCES, Consent, Scope
from pipelines.device.state import MEMORY, State
from pipelines.errors import UsageError
from tests.device import claude_lines
from tests.device.driving import append, device, dump, queen_folder, turn

NOW = datetime(2026, 5, 4, 10, tzinfo=UTC)
HOMES = ("k1_a", "k1_b", "k1_c")
SCOPES = st.builds(
    Scope,
    homes=st.none() | st.frozensets(st.sampled_from(HOMES), min_size=1),
    sources=st.frozensets(st.sampled_from(sorted(SOURCES)), min_size=1),
    runtimes=st.frozensets(st.sampled_from(sorted(AGENT_RUNTIMES)), min_size=1),
)


def let_out(scope: Scope) -> set[tuple[str, ...]]:
    """Every (home, source, runtime) of a scope; without named homes there is always one more than anybody named."""
    homes = {*HOMES, "a home of tomorrow"} if scope.homes is None else scope.homes
    return set(product(homes, scope.sources, scope.runtimes))


@settings(deadline=None)
@given(before=SCOPES, after=SCOPES)
def test_a_scope_covers_what_it_lets_out(before: Scope, after: Scope) -> None:
    """If it does not, what was read and not sent is forgotten before the narrower grant counts."""
    assert after.covers(before) == (let_out(before) <= let_out(after))


@settings(max_examples=30, deadline=None)
@given(scope=SCOPES)
def test_a_grant_is_read_as_it_was_written(scope: Scope) -> None:
    state = State(MEMORY)
    with state.step():
        written = consent.grant(state, history="include", now=NOW, scope=scope)
    assert consent.current(state) == written
    assert written.scope == scope


def test_a_grant_from_before_there_were_runtimes_is_of_hive() -> None:
    state = State(MEMORY)
    with state.step():
        state.add_consent("c", "granted", NOW, "exclude", "h")
        state.set_scope("c", None, ["events", "logs"])
    assert consent.current(state) == Consent(
        "c", "granted", NOW, "exclude", "h", Scope(None, frozenset({"events", "logs"}), frozenset({"hive"}))
    )


def test_only_an_open_grant_lets_anything_out() -> None:
    with pytest.raises(UsageError, match="no consent"):
        consent.require(None)
    state = State(MEMORY)
    with pytest.raises(UsageError, match="no consent"):
        consent.require(state)
    with state.step():
        granted = consent.grant(state, history="include", now=NOW)
    assert consent.require(state) == granted
    for book_state in ("paused", "withdrawn", "deletion_requested", "confirmed"):
        with state.step():
            state.add_consent(granted.consent_id, book_state, NOW, "include", granted.contract_hash)
        with pytest.raises(UsageError, match="nothing was sent"):
            consent.require(state)


def test_a_runtime_outside_the_grant_is_not_read(tmp_path: Path) -> None:
    hive, claude = tmp_path / "hive", tmp_path / "claude"
    append(queen_folder(hive) / "events.jsonl", dump(turn(1)))
    session = claude_lines.session_id(0)
    append(claude_lines.transcript(claude, session), claude_lines.dump(claude_lines.response("r", session, 1)))
    made = device(tmp_path / "apiary")
    grant.grant(made.home, [hive, claude], history="include", sources=["hive"])
    shipped = made.ship(hive, claude)
    assert [problem for problem in shipped.problems if "does not cover Claude Code" in problem]
    assert len(made.delivered("llm_turns")) == 1
    grant.grant(made.home, [hive, claude], history="include")
    made.ship(hive, claude)
    assert len(made.delivered("llm_turns")) == 2
