"""Which steps of Hive's logs are turns of their own, and when they were."""

from __future__ import annotations

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.device.own_usage import dated_steps, input_with_cache, unmatched_steps

TOKENS = st.tuples(st.sampled_from(["s", "t"]), st.integers(1, 3), st.integers(1, 2))


def step(session: str, given_: int, output: int, *, index: int = 0, **other: Any) -> dict[str, Any]:
    return {
        "record_id": f"{index:032}", "session_id": session, "trace_id": "r", "step_index": index,
        "source_line": index + 1, "input_tokens": given_, "output_tokens": output, "is_partial": False, **other,
    }  # fmt: skip


def event(session: str, given_: int, output: int) -> dict[str, Any]:
    return {"session_id": session, "input_tokens": given_, "output_tokens": output}


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(TOKENS, max_size=12), events=st.lists(TOKENS, max_size=12))
def test_each_event_stands_for_one_step_of_its_session(
    steps: list[tuple[str, int, int]], events: list[tuple[str, int, int]]
) -> None:
    left = unmatched_steps([step(*each) for each in steps], [event(*each) for each in events], [])
    found = Counter((row["session_id"], row["input_tokens"], row["output_tokens"]) for row in left)
    assert found == Counter(steps) - Counter(events)


def test_a_copy_of_a_fork_gives_way_to_the_event_of_its_origin() -> None:
    ancestors = [{"session_id": "fork", "ancestor_id": "origin"}]
    assert unmatched_steps([step("fork", 5, 1)], [event("origin", 5, 1)], ancestors) == []
    assert len(unmatched_steps([step("fork", 5, 1)], [event("origin", 5, 1)], [])) == 1


def test_a_step_that_died_counts_only_where_no_events_are_written() -> None:
    died = step("s", 0, 0, index=1, is_partial=True)
    assert unmatched_steps([step("s", 5, 1), died], [event("s", 5, 1)], []) == []
    assert len(unmatched_steps([step("s", 5, 1), died], [], [])) == 2
    assert len(unmatched_steps([died], [event("s", 5, 1)], [])) == 1, "another run"


def test_a_compaction_is_no_turn() -> None:
    assert unmatched_steps([step("s", 5, 1, index=0) | {"step_index": -1}], [], []) == []


def test_steps_without_a_clock_are_dated_by_their_run() -> None:
    lines = [step("s", 1, 1, index=n, latency_ms=1000) for n in range(4)]
    lines[1]["tool_started_at"] = "2026-05-04T10:00:01+00:00"
    lines[3]["tool_started_at"] = "2026-05-04T10:01:00+00:00"
    seconds = [row["occurred_at"].minute * 60 + row["occurred_at"].second for row in dated_steps(lines, [])]
    assert seconds == [0, 1, 2, 60]
    bare = [step("s", 1, 1, index=n, latency_ms=1000) for n in range(2)]
    summary = {"session_id": "s", "trace_id": "r", "started_at": "2026-05-04T10:00:05+00:00"}
    assert [row["occurred_at"].second for row in dated_steps(bare, [summary])] == [5, 6]
    assert [row["occurred_at"] for row in dated_steps(bare, [])] == [None, None]


@given(uncached=st.integers(0, 9), read=st.integers(0, 9), written=st.integers(0, 9))
def test_input_that_includes_the_cache_is_kept_and_never_less_than_the_cache(
    uncached: int, read: int, written: int
) -> None:
    assert input_with_cache(uncached + read + written, read, written) == uncached + read + written
    assert input_with_cache(uncached, read, written) >= read + written
