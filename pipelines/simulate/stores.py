"""The private stores of a home: conversations, artifacts, keys, memories, failed requests, debug copies.

Nothing written here may ever be collected, and nothing here is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pipelines.simulate.disk import JsonLines
from pipelines.simulate.home_context import HomeContext
from pipelines.simulate.turns import Turn
from pipelines.simulate.words import Json


def conversation(context: HomeContext, base: str, positions: Sequence[str], at: datetime, *, node: str) -> None:
    """Messages, cursor and system prompt."""
    words = context.words
    for number, position in enumerate(positions):
        role = "user" if number % 2 == 0 else "assistant"
        part: Json = {"seq": number, "role": role, "content": words.text(f"part-{position}", rich=True)}
        context.disk.json(f"{base}/parts/{number:010d}.json", part, at, indent=None)
    said = words.text("conversation-recent")
    cursor = {"next_seq": len(positions), "iteration": len(positions), "node_id": node, "recent_responses": [said]}
    context.disk.json(f"{base}/cursor.json", cursor, at, indent=None)
    prompt = {"system_prompt": words.text("system-prompt"), "max_context_tokens": 180000, "compaction_threshold": 0.8}
    context.disk.json(f"{base}/meta.json", prompt, at, indent=None)


def sidebar_cache(context: HomeContext, folder: str, at: datetime) -> None:
    """summary.json at a session's root: a cache of the chat, with the name of an L1 file."""
    cache = {
        "message_count": context.rng.randint(3, 40),
        "last_message": context.words.text("sidebar-message")[:120],
        "last_active_at": at.timestamp(),
        "last_part_seq": context.rng.randint(3, 40),
    }
    context.disk.json(f"{folder}/summary.json", cache, at, indent=None)


def llm_log_line(context: HomeContext, execution: str, stream: str, iteration: int, turn: Turn) -> Json:
    """One line of the debug log of LLM calls, with everything in it."""
    words = context.words
    return {
        "_kind": "turn",
        "timestamp": turn.at.isoformat(),
        "execution_id": execution,
        "node_id": "queen",
        "stream_id": stream,
        "iteration": iteration,
        "new_messages": {context.hex(16): {"role": "user", "content": words.text("llm-log-prompt", rich=True)}},
        "assistant_text": turn.text,
        "tool_calls": [{"name": call.name, "input": call.arguments} for call in turn.tools],
        "token_counts": {
            "input": turn.input_tokens,
            "output": turn.output_tokens,
            "cached": turn.cache_read,
            "cache_creation": turn.cache_write,
            "cost": turn.cost,
            "stop_reason": turn.stop_reason,
            "model": turn.model,
        },
    }


def debug_copies(context: HomeContext, events: JsonLines, turns: JsonLines, started: datetime, at: datetime) -> None:
    """A second copy of events and turns, which must not count again."""
    stamp = context.calendar.stamp(started)
    context.disk.write(f"event_logs/{stamp}.jsonl", events.content(), at)
    context.disk.write(f"llm_logs/{stamp}.jsonl", turns.content(), at)


def home_files(context: HomeContext, at: datetime) -> None:
    """What lies at the top of a home."""
    words, disk = context.words, context.disk
    login = {"provider": "anthropic", "model": "claude-opus-4-6", "api" + "_key": words.key()}
    disk.json("configuration.json", {"llm": login}, at)
    disk.json("credentials/store.json", words.everything_kept(), at)
    registry = {"tools": [context.mill.custom_tool], "aliases": [context.mill.private_model]}
    disk.json("mcp_registry/installed.json", registry, at)
    disk.write("memories/global/user.md", words.text("memory", foreign=True).encode(), at)
    request = {
        "timestamp": context.calendar.naive(at),
        "model": "anthropic/claude-opus-4-6",
        "error_type": "rate_limit",
        "messages": [{"role": "user", "content": words.text("failed-request", rich=True)}],
        "curl": f"curl -H 'x-api-key: {words.key()}' https://llm.example/v1",
    }
    disk.json(f"failed_requests/rate_limit_anthropic_{context.calendar.stamp(at)}.json", request, at)
    if context.layout == "v2":
        disk.write(".migrated-v2", b"", at)
    if context.layout == "v3":
        disk.write(".migrated-v3", b"", at)
        disk.write("runtime_id", f"local-{context.task_id()}".encode(), at)
        disk.json(".message_index/index.json", {"last": words.text("message-index")}, at)
        disk.write("colonies/.migrations/colony_sessions_v1", b"", at)
