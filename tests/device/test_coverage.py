"""Every line is accounted for: seen = staged + duplicate + skipped + rejected (by reason) + before consent, exactly.

The counts are compared with what a generator of damaged files says it wrote, never with what the reader says it saw.
"""

from __future__ import annotations

import json
import math
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.contract.wire import MAX_TOKENS
from pipelines.device import limits, lines
from pipelines.device.collect import Collector
from pipelines.device.errors import DeviceError
from pipelines.device.spool import Spool
from pipelines.store import FolderStore, Put, StoreUnavailableError
from tests.device.driving import Device, append, dump, event, flat_folder, granted, queen_folder, step, turn

REASONS = ("torn", "nul_fill", "bad_utf8", "too_long", "bad_type", "tail_abandoned")


def whole(number: int) -> tuple[bytes, str]:
    return dump(turn(number)), "staged"


KINDS: dict[str, Callable[[int], tuple[bytes, str]]] = {
    "whole": whole,
    "copy": lambda number: (dump(turn(0)), "copy"),  # staged once, then a duplicate
    "skipped": lambda number: (dump(event("llm_text_delta", {"content": f"x{number}"})), "skipped"),
    "torn": lambda number: (dump(turn(number))[: 40 + number % 60].rstrip(b"\n") + b"\n", "torn"),
    "nul": lambda number: (b"\0" * (1 + number % 50) + b"\n", "nul_fill"),
    "nul_within": lambda number: (b'{"type": "llm_turn_complete", ' + b"\0" * 9 + b"\n", "nul_fill"),
    "bad_utf8": lambda number: (b'{"type": "llm_turn_complete", "data": "\xff\xfe"}\n', "bad_utf8"),
    "bad_type": lambda number: (b'["llm_turn_complete", %d]\n' % number, "bad_type"),
    "unfit": lambda number: (dump(turn(number, input_tokens=-number - 1)), "bad_type"),
    "too_long": lambda number: (b'{"type": "llm_turn_complete", "x": "' + b"y" * 9000 + b'"}\n', "too_long"),
    "blank": lambda number: (b"   \n", "blank"),
    "crlf": lambda number: (dump(turn(number)).replace(b"\n", b"\r\n"), "staged"),
}


def expected(outcomes: list[str]) -> Counter[str]:
    """What the counters must say."""
    found = Counter(outcome for outcome in outcomes if outcome != "blank")
    copies = found.pop("copy", 0)
    if copies:
        found["staged"] += 1
        found["duplicate"] += copies - 1
    return +found


def counted(made: Device, kind: str | None = None) -> Counter[str]:
    """What all runs said of their sources, by the names above."""
    total: Counter[str] = Counter()
    for row in made.sources(kind):
        total["seen"] += row["lines_seen"]
        for name in ("staged", "duplicate", "skipped", "before_consent"):
            total[name] += row[f"lines_{name}"]
        total["rejected"] += row["lines_rejected"]
        total["salvaged"] += row["lines_salvaged"]
        total["lost"] += row["source_lost_bytes"] or 0
        for reason in REASONS:
            total[reason] += row[f"lines_rejected_{reason}"]
    return +total


def balanced(made: Device) -> None:
    """The identity, per source and run, per run, and over the manifests of the chain."""
    reports = made.delivered("device_reports")
    for row in (*made.sources(), *reports):
        parts = ("staged", "duplicate", "skipped", "rejected", "before_consent")
        assert row["lines_seen"] == sum(row[f"lines_{part}"] for part in parts)
        assert row["lines_rejected"] == sum(row[f"lines_rejected_{reason}"] for reason in REASONS)
    names = [name for name in reports[0] if name.startswith("lines_")] + ["source_lost_bytes"]
    manifests: Counter[str] = Counter()
    for manifest in made.manifests():
        manifests.update(manifest["counters"])
    for name in names:
        of_files = sum(row[name] for row in made.sources())
        assert of_files == sum(row[name] for row in reports) == manifests[name], name


@given(
    good=st.lists(st.integers(0, MAX_TOKENS), max_size=6),
    bad=st.lists(
        st.one_of(
            st.integers(MAX_TOKENS + 1),
            st.integers(max_value=-1),
            st.sampled_from([0.5, 1e300, "7", True, None, [], math.nan, math.inf, -math.inf]),
        ),
        max_size=6,
    ),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_number_of_tokens_counts_and_what_is_none_is_told(
    tmp_path_factory: pytest.TempPathFactory, good: list[int], bad: list[object]
) -> None:
    made, home = granted(tmp_path_factory.mktemp("device")), tmp_path_factory.mktemp("home")
    tokens = [*good, *bad]
    lines_of_log = [dump(turn(n, input_tokens=count, cached_tokens=0)) for n, count in enumerate(tokens)]
    append(queen_folder(home) / "events.jsonl", b"".join(lines_of_log))
    steps = [dump(step(n, output_tokens=count)) for n, count in enumerate(tokens)]
    append(flat_folder(home) / "logs" / "tool_logs.jsonl", b"".join(steps))
    made.ship(home)
    assert sorted(row["input_tokens"] for row in made.delivered("llm_turns")) == sorted(good)
    assert sorted(row["output_tokens"] for row in made.delivered("node_steps")) == sorted(good)
    assert sum(row["turn_lines_rejected"] for row in made.sources()) == 2 * len(bad)
    balanced(made)


@given(choices=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.booleans()), min_size=1, max_size=40))
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lines_seen_are_all_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, choices: list[tuple[str, bool]]
) -> None:
    """Over random files, in as many runs as a coin says."""
    root = tmp_path_factory.mktemp("coverage")
    home = root / "hive"
    path = queen_folder(home) / "events.jsonl"
    outcomes: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "MAX_LINE", 8000)
        patch.setattr(lines, "CHUNK", 4000)
        made = granted(root / "apiary", home)
        for number, (kind, ships) in enumerate(choices, 1):
            data, outcome = KINDS[kind](number)
            append(path, data)
            outcomes.append(outcome)
            if ships and number % 5 == 0:
                made.ship(home)
        made.ship(home)
    found = counted(made, "events")
    want = expected(outcomes)
    assert found.pop("seen", 0) == want.total()
    assert found.pop("rejected", 0) == sum(want[reason] for reason in REASONS)
    assert found == want
    balanced(made)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(200))
def test_lines_seen_are_all_accounted_for_in_many_files(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    rng = random.Random(seed)
    choices = [(rng.choice(sorted(KINDS)), rng.random() < 0.1) for _ in range(rng.randint(1, 300))]
    test_lines_seen_are_all_accounted_for.hypothesis.inner_test(tmp_path_factory, choices)


def test_glued_lines_are_counted_as_what_they_hold(tmp_path: Path) -> None:
    """Test 14: a torn line with the next one glued to it, two whole ones in one line, no last line end."""
    home = tmp_path / "hive"
    path = queen_folder(home) / "events.jsonl"
    append(
        path, dump(turn(1))[:80] + dump(turn(2)) + dump(turn(3), turn(4), ending="") + b"\n" + dump(turn(5), ending="")
    )
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    found = counted(made, "events")
    assert (found["seen"], found["staged"], found["salvaged"], found["rejected"]) == (4, 4, 1, 0)
    balanced(made)


def test_a_torn_end_is_counted_after_a_day(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    path = append(queen_folder(home) / "events.jsonl", dump(turn(1)) + dump(turn(2))[:70])
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made, "events") == Counter(seen=1, staged=1)
    os.utime(path, (path.stat().st_mtime - lines.TAIL_PATIENCE_SECONDS - 60,) * 2)
    made.ship(home)
    assert counted(made, "events") == Counter(seen=2, staged=1, rejected=1, tail_abandoned=1)
    path.unlink()
    made.ship(home)
    assert counted(made, "events")["lost"] == 0, "it was counted already"
    balanced(made)


def test_what_consent_does_not_cover_is_counted_too(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    path = append(flat_folder(home) / "logs" / "tool_logs.jsonl", dump(*map(step, range(3))))
    made = granted(tmp_path / "apiary", home, history="exclude")
    append(path, dump(step(3)) + b"{torn\n")
    made.ship(home)
    assert counted(made, "l3") == Counter(seen=5, staged=1, before_consent=3, rejected=1, torn=1)
    balanced(made)


# What was seen and is gone -------------------------------------------------------------------------------------------


def full(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(limits, "SPOOL_BYTES", 0)


def test_a_file_deleted_while_unread_is_lost_and_counted_to_the_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 23: while the spool is full nothing is read; what its owner deletes meanwhile is the loss, and all of it."""
    home = tmp_path / "hive"
    read = append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    with monkeypatch.context() as patch:
        full(patch)
        later = dump(turn(2), turn(3))
        append(read, later)
        fresh = append(flat_folder(home) / "logs" / "tool_logs.jsonl", dump(step(1)))
        size = fresh.stat().st_size
        assert made.ship(home).paused
        read.unlink()
        fresh.unlink()
        assert made.ship(home).paused
    made.ship(home)
    assert counted(made)["lost"] == len(later) + size
    assert counted(made, "events")["lost"] == len(later)
    balanced(made)


def test_a_file_cut_off_while_unread_is_lost_from_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test 23: a file cut off while unread is lost from there, to the byte."""
    home = tmp_path / "hive"
    path = append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    with monkeypatch.context() as patch:
        full(patch)
        append(path, dump(turn(2)) + dump(turn(3)))
        made.ship(home)
    with path.open("r+b") as file:
        file.truncate(len(dump(turn(1), turn(2))))
    made.ship(home)
    assert counted(made)["lost"] == len(dump(turn(3)))
    assert len(made.delivered("llm_turns")) == 2
    balanced(made)


def test_a_session_that_was_moved_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test 18: a session that moved is read on, and nothing of it counts as lost."""
    home = tmp_path / "hive"
    path = append(queen_folder(home) / "events.jsonl", dump(turn(1)))
    made = granted(tmp_path / "apiary", home)
    with monkeypatch.context() as patch:
        full(patch)
        made.ship(home)
    target = home / "agents" / "queens" / "another" / "sessions"
    target.mkdir(parents=True)
    path.parent.rename(target / path.parent.name)
    made.ship(home)
    assert counted(made)["lost"] == 0
    assert len(made.delivered("llm_turns")) == 1
    balanced(made)


def test_what_was_held_back_and_read_later_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    path = append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(9))))
    made = granted(tmp_path / "apiary", home)
    with monkeypatch.context() as patch:
        full(patch)
        made.ship(home)
        made.ship(home)
    made.ship(home)
    path.unlink()
    made.ship(home)
    assert counted(made)["lost"] == 0
    assert len(made.delivered("llm_turns")) == 9
    balanced(made)


def test_seven_days_offline_with_a_small_quota_pause_and_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Test 40: a spool of some kilobytes is full after a day; what was not read stays at home and drains after."""
    home = tmp_path / "hive"
    path = queen_folder(home) / "events.jsonl"
    made = granted(tmp_path / "apiary", home)
    paused = 0
    with monkeypatch.context() as patch:
        patch.setattr(limits, "SPOOL_BYTES", 20_000)
        patch.setattr(FolderStore, "put", unreachable)
        for day in range(7):
            append(path, dump(*(turn(day * 100 + number) for number in range(100))))
            for _ in range(2):
                try:
                    made.ship(home)
                except DeviceError:
                    paused += limits.why_full(made.home.device, Spool(made.home.device / "spool").size()) is not None
    assert paused
    made.ship(home)
    made.ship(home)
    assert len(made.delivered("llm_turns")) == 700
    assert not any(manifest.get("tombstone") for manifest in made.manifests())
    balanced(made)


def unreachable(*_: Any) -> Put:
    raise StoreUnavailableError("the store does not answer")


def test_a_run_that_died_is_reported_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(*map(turn, range(4))) + b"{torn\n")
    made = granted(tmp_path / "apiary", home)
    with monkeypatch.context() as patch:
        patch.setattr(Collector, "_report", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            made.ship(home)
    made.ship(home)
    assert counted(made) == Counter(seen=5, staged=4, rejected=1, torn=1)
    assert len(made.delivered("device_reports")) == 2
    assert json.loads(json.dumps(made.manifests()[0]["counters"]))["lines_seen"] == 5
    balanced(made)
