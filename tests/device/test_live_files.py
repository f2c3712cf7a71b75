"""Files that their agents write, rewrite and replace while a shipping reads them: everything once, nothing torn.

Does not belong here: files that change between two passes only (test_lines.py, test_collect.py).
"""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pipelines.device import lines
from tests.device.driving import LATER, SESSION, Device, append, dump, event, flat_folder, granted, queen_folder, turn


def shipped_meanwhile(
    made: Device, home: Path, act: Callable[[int], None], until: Callable[[], bool] = lambda: True
) -> int:
    """Ship six times and `until` it is so, while `act` is called with 0, 1, 2, ..., and once more at rest; how often it
    was called."""
    is_over = threading.Event()

    def run() -> int:
        for number in itertools.count():
            if is_over.is_set():
                return number
            act(number)
        raise AssertionError

    with ThreadPoolExecutor(1) as pool:
        writer = pool.submit(run)
        try:
            for shippings in itertools.count(1):
                made.ship(home)
                if shippings >= 200 or (shippings >= 6 and until()):
                    break
        finally:
            is_over.set()
        times = writer.result()
    made.ship(home)
    return times


def iterations(made: Device) -> list[int]:
    return sorted(row["iteration"] for row in made.delivered("llm_turns", newest=False))


def total(made: Device, column: str) -> int:
    return sum(int(row[column]) for row in made.sources())


def test_a_line_written_in_pieces_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """Test 13: each line in one to seven writes with pauses between them, and no torn record is staged."""
    home, rng = tmp_path / "hive", random.Random(13)
    path = queen_folder(home) / "events.jsonl"

    def write(number: int) -> None:
        line = dump(turn(number))
        cuts = sorted(rng.sample(range(1, len(line)), rng.randrange(7)))
        for start, end in zip([0, *cuts], [*cuts, len(line)], strict=True):
            append(path, line[start:end])
            time.sleep(rng.uniform(0, 0.004))

    made = granted(tmp_path / "apiary", home)
    written = shipped_meanwhile(made, home, write, until=lambda: len(iterations(made)) > 1)
    assert iterations(made) == [*range(written)]
    assert (total(made, "lines_rejected"), total(made, "lines_salvaged")) == (0, 0)


def test_a_janitor_rewrites_a_file_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Test 15: telemetry is dropped and the file replaced, again and again: nothing is lost. That a reader which looks
    at the head only would lose some is shown by a mutant (bench/mutants.py)."""
    monkeypatch.setattr(lines, "CHUNK", 4000)  # many transactions to a pass: a rewrite falls between them too
    home = tmp_path / "hive"
    path = queen_folder(home) / "events.jsonl"
    append(path, dump(*(event("execution_started", {}) for _ in range(8))))

    def write(number: int) -> None:
        append(path, dump(event("context_usage_updated", {"usage": number}), turn(number)))
        if number % 20 == 19:
            kept = [line for line in path.read_bytes().splitlines(keepends=True) if b"context_usage" not in line]
            path.with_name("events.tmp").write_bytes(b"".join(kept))
            path.with_name("events.tmp").replace(path)
        time.sleep(0.002)

    made = granted(tmp_path / "apiary", home)

    def was_rewritten() -> bool:
        return max(row["generation"] for row in made.sources("events")) > 1

    written = shipped_meanwhile(made, home, write, until=was_rewritten)
    assert iterations(made) == [*range(written)]
    assert was_rewritten()


def test_a_file_that_got_anothers_inode_is_another_file(tmp_path: Path) -> None:
    """Test 17: deleted and created again within a second; an inode that now lies under another path."""
    home = tmp_path / "hive"
    first, second = (queen_folder(home, session) / "events.jsonl" for session in (SESSION, LATER))
    append(first, dump(*map(turn, range(3))))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    inode = first.stat().st_ino
    first.rename(second)
    with second.open("r+b") as file:  # longer than what was read of it under its other name
        file.truncate(0)
        file.write(dump(*(turn(number, session=LATER) for number in range(10, 15))))
    assert second.stat().st_ino == inode
    append(first, dump(*map(turn, range(3, 8))))
    made.ship(home)
    first.unlink()
    append(first, dump(turn(8)))
    made.ship(home)
    assert iterations(made) == [*range(9), *range(10, 15)]


def test_files_with_the_same_beginning_are_two(tmp_path: Path) -> None:
    """Test 20: the first four KiB are identical, what follows is not: both are read to their ends, also later."""
    home = tmp_path / "hive"
    head = dump(*(event("context_usage_updated", {"usage": 1}, session=None) for _ in range(30)))
    assert len(head) > 4096
    paths = [queen_folder(home, session) / "events.jsonl" for session in (SESSION, LATER)]
    made = granted(tmp_path / "apiary", home)
    for start in (0, 10):
        for path, session, add in zip(paths, (SESSION, LATER), (0, 5), strict=True):
            if not start:
                append(path, head)
            append(path, dump(*(turn(number + add, session=session) for number in range(start, start + 5))))
        made.ship(home)
    assert iterations(made) == [*range(20)]
    assert {row["generation"] for row in made.sources("events")} == {0}


def test_a_summary_that_is_replaced_while_it_is_read(tmp_path: Path) -> None:
    """Test 22: whatever is sent was written like that; the last version arrives; one that a power cut emptied leaves
    what was known before, and is counted."""
    home = tmp_path / "hive"
    path = flat_folder(home) / "logs" / "summary.json"
    start: dict[str, Any] = {"run_id": SESSION, "status": "success", "started_at": "2026-05-04T10:00:00+00:00"}

    def replace(number: int) -> None:
        content = {**start, "total_input_tokens": number, "total_output_tokens": 9 * number, "padding": "x" * 20_000}
        path.with_suffix(".tmp").write_text(json.dumps(content))
        path.with_suffix(".tmp").replace(path)
        time.sleep(0.001)

    replace(0)
    made = granted(tmp_path / "apiary", home)
    last = shipped_meanwhile(made, home, replace) - 1
    rows = made.delivered("run_summaries")
    assert len(rows) > 1
    assert all(row["total_output_tokens"] == 9 * row["total_input_tokens"] for row in rows)
    assert max(row["total_input_tokens"] for row in rows) == last
    path.write_bytes(b"")
    made.ship(home)
    assert made.delivered("run_summaries") == rows
    assert made.sources("l1")[-1]["outcome"] == "corrupt"
