"""What the warehouse should hold by the writer's ledger alone, against what it holds.

Nothing of the package is used: a number stands in each record, and the wire's tables are read with plain SQL.
Does not belong here: writing, lives, deciding what follows from a difference.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import duckdb

from bench.torture.writer import DAY, STEP_MS, Range, output_tokens

_BY_TIME = f"(epoch_us(occurred_at) - epoch_us(TIMESTAMPTZ '{DAY} 00:00:00+00')) / {STEP_MS * 1000}"
WHERE: dict[str, tuple[str, str, str]] = {
    "turn": ("llm_turns", "input_tokens", "true"),
    "call": ("tool_calls", _BY_TIME, "origin = 'event'"),
    "step_call": ("tool_calls", _BY_TIME, "origin = 'step'"),
    "status": ("status_events", _BY_TIME, "true"),
    "step": ("node_steps", "input_tokens", "true"),
    "detail": ("node_details", "input_tokens", "true"),
    "run": ("agent_runs", _BY_TIME, "true"),
    "summary": ("run_summaries", "total_input_tokens", "true"),
}
"""Kind of record -> the table of the wire, the record's number in it, which of its rows."""
WRONG = (
    "lost", "doubled", "phantom", "wrong_sums", "wrong_sessions", "conflicts", "quarantined", "uncounted",
    "broken_publications",
)  # fmt: skip
"""What must be 0 in a verdict."""
SUMMED = ("turn", "step", "detail")


@dataclass
class Verdict:
    """What is wrong; nothing should be."""

    lost: int = 0
    doubled: int = 0
    phantom: int = 0
    wrong_sums: int = 0
    wrong_sessions: int = 0
    conflicts: int = 0
    quarantined: int = 0
    uncounted: int = 0
    """Sources whose lines seen are not the sum of what became of them, and batches whose rows are not."""
    broken_publications: int = 0
    present: int = 0
    excused: int = 0
    """Records that may be missing and are: destroyed unread by their owner, or refused by the store for good."""
    details: list[str] = field(default_factory=list)


def expected(ranges: Iterable[Range]) -> tuple[dict[str, set[int]], dict[str, set[int]]]:
    """Numbers by kind that must be there, and those that may be."""
    must: dict[str, set[int]] = {kind: set() for kind in WHERE}
    may: dict[str, set[int]] = {kind: set() for kind in WHERE}
    for found in ranges:
        numbers = range(found.start, found.stop)
        (may if found.is_optional else must)[found.kind].update(numbers)
        if found.kind == "step":
            calls = (number for number in numbers if number % 4 == 0)
            (may if found.is_optional else must)["step_call"].update(calls)
    return must, may


def judge(
    warehouse: Path, published: Path, ranges: list[Range], *, summaries: tuple[set[int], set[int]], refused: Path
) -> Verdict:
    """Compare a warehouse at rest with the ledger."""
    must, may = expected(ranges)
    must["summary"], may["summary"] = summaries  # those that stand now, and all that ever stood
    if refused.exists():
        for line in refused.read_text().splitlines():
            kind, number = line.split()
            if number != "None":
                may[kind].add(round(float(number)))
    verdict = Verdict()
    with duckdb.connect(str(warehouse), read_only=True, config={"threads": 1}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for kind, (table, number, where) in WHERE.items():
            rows = connection.execute(f"SELECT {number} FROM wire.{table} WHERE {where}").fetchall()
            _compare(verdict, kind, [round(value) for (value,) in rows], must[kind], may[kind])
        for kind in SUMMED:
            table = WHERE[kind][0]
            rows = connection.execute(f"SELECT input_tokens, output_tokens FROM wire.{table}").fetchall()
            known = must[kind] | may[kind]
            wrote = sum(tokens for number, tokens in rows if number in known)
            if wrote != sum(output_tokens(number) for number, _ in rows if number in known):
                verdict.wrong_sums += 1
        _compare_sessions(verdict, connection, ranges)
        (verdict.conflicts,) = connection.execute("SELECT count(*) FROM wire.conflicts").fetchone() or (0,)
        reasons = connection.execute(
            "SELECT reason, count(*) FROM wire.batches WHERE status = 'quarantined' GROUP BY reason"
        ).fetchall()
        verdict.quarantined = sum(count for _, count in reasons)
        verdict.details += [f"quarantined: {reasons}"] if reasons else []
        (sources,) = connection.execute(
            "SELECT count(*) FROM wire.source_files WHERE lines_seen <> lines_staged + lines_duplicate + lines_skipped"
            " + lines_rejected + lines_before_consent"
        ).fetchone() or (0,)
        (batches,) = connection.execute(
            "SELECT count(*) FROM wire.batches WHERE rows_in <> rows_new + rows_duplicate + rows_conflict"
        ).fetchone() or (0,)
        verdict.uncounted = sources + batches
    verdict.broken_publications = _broken(published)
    return verdict


def _compare(verdict: Verdict, kind: str, found: list[int], must: set[int], may: set[int]) -> None:
    numbers = set(found)
    lost, phantom = must - numbers - may, numbers - must - may
    doubled = len(found) - len(numbers)
    verdict.lost += len(lost)
    verdict.doubled += doubled
    verdict.phantom += len(phantom)
    verdict.present += len(numbers)
    if kind != "summary":
        verdict.excused += len((must | may) - numbers)
    if lost or phantom or doubled:
        twice = [number for number, times in Counter(found).items() if times > 1]
        for name, which in (("lost", lost), ("phantom", phantom), ("doubled", twice)):
            if which:
                verdict.details.append(f"{kind}: {len(which)} {name}, such as {sorted(which)[:5]}")


def _compare_sessions(verdict: Verdict, connection: duckdb.DuckDBPyConnection, ranges: list[Range]) -> None:
    """Records whose first file was there all the time belong to the session of that file, however many copies."""
    sessions = {
        (found.kind, number): found.session
        for found in ranges
        if found.kind in SUMMED and found.copies and not found.is_moved
        for number in range(found.start, found.stop)
    }
    for kind in SUMMED:
        rows = connection.execute(f"SELECT input_tokens, session_id FROM wire.{WHERE[kind][0]}").fetchall()
        wrong = [number for number, session in rows if sessions.get((kind, number), session) != session]
        verdict.wrong_sessions += len(wrong)
        verdict.details += [f"{kind}: {len(wrong)} in another session, such as {wrong[:5]}"] if wrong else []


def _broken(published: Path) -> int:
    """Whether what is published is not whole: a reader follows one link and finds what its manifest promises."""
    current = published / "current"
    if not current.exists():
        return 0
    marts = json.loads((current / "manifest.json").read_text())["marts"]
    return sum(
        hashlib.sha256((current / f"{mart}.parquet").read_bytes()).hexdigest() != said["sha256"]
        for mart, said in marts.items()
    )
