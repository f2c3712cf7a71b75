"""What Claude Code's files claim was used: cost states of sessions, the cache of statistics of a home. Control totals.

They hold helper calls that no line has, and sessions whose transcripts are gone: compared with usage, never added.
Does not belong here: responses (transcripts.py).
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipelines.contract import wire
from pipelines.contract.keys import Constant
from pipelines.device.clock import epoch_time
from pipelines.device.readers.base import Item, Json, Record, count


def cost_state(found: Json, session: str) -> Iterator[Record]:
    """A cumulative statement of all that a session cost, with helper calls that stand on no line: never added up."""
    named = found.get("sessionId")
    session = named if isinstance(named, str) and named else session
    claims = _by_model(found)
    whole = _whole(claims) | {
        "reported_cost_usd": found.get("totalCostUSD"),
        "lines_added": found.get("totalLinesAdded"),
        "lines_removed": found.get("totalLinesRemoved"),
    }
    begun, took = count(found.get("startTime")), count(found.get("totalDuration"))
    started_at = epoch_time(Decimal(begun) / 1000) if begun is not None else None
    ended_at = started_at + timedelta(milliseconds=took) if started_at and took is not None and took < 10**12 else None
    for number, (model, claim) in enumerate([(None, whole), *claims]):
        values = {
            "session_id": session, "claimed_by": "cost_state", "model": model, "is_cumulative": True,
            "started_at": started_at, "ended_at": ended_at, **claim,
        }  # fmt: skip
        numbers = (claim.get("input_tokens"), claim.get("output_tokens"), claim.get("reported_cost_usd"))
        key = (Constant("cost_state"), session, begun, took, number, *numbers)
        # It sums up all since the start of the session.
        yield Record(
            wire.CONTROL_TOTALS, key, values, started_at or ended_at, totals=tuple(claim), totals_since=started_at
        )


def statistics(path: Path, found: Json) -> Iterator[Item]:
    """The cache of statistics: what a whole home used, by model, deleted sessions included."""
    claims = _by_model(found)
    for model, claim in [(None, _whole(claims)), *claims] if claims else []:
        values = {"claimed_by": "stats_cache", "model": model, "is_cumulative": True, **claim}
        yield Item(wire.CONTROL_TOTALS, (Constant("stats_cache"), str(path.absolute()), model), values)


def _by_model(found: Json) -> list[tuple[str, dict[str, Any]]]:
    by_model = found.get("modelUsage")
    models = by_model.items() if isinstance(by_model, dict) else ()
    return [(name, _claimed(usage)) for name, usage in models if isinstance(usage, dict)]


def _whole(claims: list[tuple[str, dict[str, Any]]]) -> dict[str, Any]:
    return {name: sum(claim[name] or 0 for _, claim in claims) for name in (claims[0][1] if claims else ())}


def _claimed(usage: Json) -> dict[str, Any]:
    uncached, read, written = (
        count(usage.get(name)) or 0 for name in ("inputTokens", "cacheReadInputTokens", "cacheCreationInputTokens")
    )
    return {
        "input_tokens": uncached + read + written,
        "cache_read_input_tokens": read,
        "cache_write_input_tokens": written,
        "output_tokens": count(usage.get("outputTokens")),
        "reasoning_output_tokens": count(usage.get("thinkingTokens")),
        "web_search_requests": count(usage.get("webSearchRequests")),
        "reported_cost_usd": usage.get("costUSD"),
    }
