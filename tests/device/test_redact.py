"""Redaction: for whatever a source holds, a row fits the contract, and nothing of a person's words is in it."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.contract import wire
from pipelines.contract.keys import KEYED, is_generated, record_id
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.vocabulary import is_public, names
from pipelines.device.clock import Clock, LogClock
from pipelines.device.lines import loads
from pipelines.device.readers.base import Record
from pipelines.device.readers.hive import events as hive_events
from pipelines.device.readers.hive import logs as hive_logs
from pipelines.device.readers.hive import state as hive_state
from pipelines.device.readers.hive.layout import ColonyFolder, SessionFolder
from pipelines.device.redact import Redactor, error_class, money

KEY = bytes(range(32))
REDACTOR = Redactor(KEY)
CLOCK = Clock("Europe/Berlin")
AT = datetime(2026, 5, 4, tzinfo=UTC)
ID = "0" * 32
Json = dict[str, Any]
PUBLIC = {value for table in wire.TABLES for column in table.columns for value in column.values} | {
    name for vocabulary in ("models", "providers", "tools", "queens", "nodes", "streams") for name in names(vocabulary)
}


def fits(column: Column, value: Any) -> bool:
    """Whether a value obeys the rule of its column, said once more and apart from the code that makes it so."""
    if value is None:
        return not column.required
    match column.type:
        case "int64" | "double" | "decimal":
            kind = {"int64": int, "double": float, "decimal": Decimal}[column.type]
            if type(value) is not kind:
                return False
            low = column.minimum is None or value >= column.minimum
            return low and (column.maximum is None or value <= column.maximum)
        case "bool":
            return type(value) is bool
        case "timestamp":
            return isinstance(value, datetime) and value.utcoffset() == timedelta()
    if not isinstance(value, str) or not value.isascii():
        return False
    if re.fullmatch(KEYED, value, re.ASCII):
        return column.keep in (Keep.KEYED_HASH, Keep.ID) or column.name == "source_key"
    match column.keep:
        case Keep.KEYED_HASH | Keep.ID if value in PUBLIC or column.vocabulary == "models":
            return True
        case Keep.ID:
            return bool(re.fullmatch(column.pattern, value, re.ASCII))
        case Keep.KEYED_HASH:
            return False
    return value in column.values if column.values else bool(re.fullmatch(column.pattern, value, re.ASCII))


def strings(value: Any) -> set[str]:
    match value:
        case str():
            return {value}
        case dict():
            return {text for key, inner in value.items() for text in (key, *strings(inner))}
        case list():
            return {text for inner in value for text in strings(inner)}
    return set()


def check(records: list[Record | hive_state.Item | None], document: Any, names_of_folders: set[str]) -> None:
    private = {
        text
        for text in strings(document) | names_of_folders
        if len(text) >= 6 and text not in PUBLIC and not is_generated(text) and not re.fullmatch(r"[0-9]{1,9}", text)
    }
    for found in records:
        if found is None:
            continue
        row = REDACTOR.row(found.table, {**found.values, "record_id": ID})
        if row is None:
            continue
        assert tuple(row) == found.table.names
        for column in found.table.columns:
            value = row[column.name]
            assert fits(column, value), (found.table.name, column.name, value)
            if isinstance(value, str) and value not in column.values:
                assert not any(text in value for text in private), (found.table.name, column.name, value)


# Documents -----------------------------------------------------------------------------------------------------------

secret = st.sampled_from([
    "ada.lovelace@example.com", "Bearer abcdef123456", "/Users/ada/Clients/acme", "k1_" + "f" * 31 + "g",
    "anthropic/claude-opus-4-6 for acme", "claude-opus-4-6-acme", "session_20260504_101500_0a1b2c3d.acme",
    "queen\nacme",
    "429 rate limit for acme-corp", "worker:acme-1", "success acme", "gpt-4o:acme", "٢٠٢٦٠٥٠٤١٢٣٤", "\udce9acme\x00",
    "4111111111111111",
    "491701234567", "llama3.1:4917012345678b", "gpt-4o-2024acme",
])  # fmt: skip
public = st.sampled_from([
    "anthropic/claude-opus-4-6", "queen", "read_file", "queen_technology", "success", "failed", "ACCEPT", "stop",
    "worker",
    "session_20260504_101500_0a1b2c3d", "worker:session_20260504_101500_0a1b2c3d", "0a1b2c3d4e5f", "timer", "done",
    "17",
    "2026-05-04T10:15:00", "2026-05-04T10:15:00+00:00", "active",
])  # fmt: skip
odd = st.sampled_from([
    0, -1, 1, 2**63, -(2**63), 10**30, True, False, None, [], {}, Decimal("0.1"), Decimal("-0.5"), Decimal("1E+400"),
    Decimal("1E-400"), Decimal("1E+30"), 1_777_892_399, Decimal("1777892399.5"), "",
])  # fmt: skip
leaf = secret | public | odd | st.text(max_size=12) | st.integers()
value = st.recursive(
    leaf, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(secret | st.text(max_size=6), inner, max_size=3)
)
FIELDS = sorted({
    *["type", "stream_id", "node_id", "execution_id", "data", "timestamp", "correlation_id", "colony_id", "run_id",
      "seq"],
    *["stop_reason", "model", "input_tokens", "output_tokens", "cached_tokens", "cache_creation_tokens", "cost_usd",
      "credits", "iteration"],
    *["tool_use_id", "tool_name", "result", "is_error", "phase", "action", "error", "reason", "retry_count",
      "ttft_seconds", "worker_id", "status"],
    *["tokens_used", "tool_calls_used", "duration_seconds", "trigger_id", "trigger_type", "trigger_config",
      "queen_session_id"],
    *["colony_name", "interval_minutes", "step_index", "span_id", "trace_id", "tool_calls", "start_timestamp",
      "duration_s", "verdict"],
    *["latency_ms", "is_partial", "node_type", "exit_status", "success", "total_steps", "attempt", "accept_count",
      "attention_reasons"],
    *["needs_attention", "agent_id", "goal_id", "execution_quality", "total_nodes_executed", "total_input_tokens",
      "started_at"],
    *["duration_ms", "event", "timestamps", "progress", "updated_at", "completed_at", "stream_id", "spawned_at",
      "created_at", "queen_id"],
    *["queen_name", "profile_name", "forked_from", "colony_fork", "agent_path", "batch_size", "batch_index",
      "steps_executed", "tasks"],
    *["id", "owner", "blocks", "blocked_by", "metadata", "workers", "max_concurrent_workers", "source_session_id"],
})  # fmt: skip
fields = st.dictionaries(st.sampled_from(FIELDS) | secret, value, max_size=14)
documents = st.builds(
    lambda outer, inner: {**outer, **{k: inner for k in ("data",) if "data" in outer}}, fields, fields
)
name = secret | public
ODDLY = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def folder_of(names_: list[str], kind: str = "queen") -> SessionFolder:
    session, queen, agent, colony = names_
    return SessionFolder(Path("/x"), session, kind, queen, agent, colony, session)


@ODDLY
@given(
    document=documents, kind=st.sampled_from(sorted(hive_events.WANTED)), names_=st.lists(name, min_size=4, max_size=4)
)
def test_nothing_of_an_event_gets_past(document: Json, kind: str, names_: list[str]) -> None:
    """Test 67: whatever JSON an event is, its row has columns and values of the contract only."""
    event = {"data": {}, "timestamp": "2026-05-04T10:00:00", **document, "type": kind}
    record = hive_events.read(event, hive_events.Context(folder_of(names_), LogClock(CLOCK)))
    check([record], event, set(names_))


@ODDLY
@given(document=documents, calls=st.lists(fields, max_size=3), names_=st.lists(name, min_size=4, max_size=4))
def test_nothing_of_a_runtime_log_gets_past(document: Json, calls: list[Json], names_: list[str]) -> None:
    place = hive_logs.Place(folder_of(names_), 3, AT)
    line = {**document, "tool_calls": document.get("tool_calls", calls)}
    found: list[Record | hive_state.Item | None] = [
        *hive_logs.steps(line, place),
        hive_logs.detail(line, place),
    ]
    found.append(hive_logs.summary(line, place.folder))
    found.append(hive_logs.run({**line, "event": "run_failed"}, place, CLOCK))
    check(found, line, set(names_))


@ODDLY
@given(
    meta=fields, state=fields, names_=st.lists(name, min_size=4, max_size=4),
    kind=st.sampled_from(["queen", "other", "worker", "agent_session", "graph_run"]),
)  # fmt: skip
def test_nothing_of_a_small_file_gets_past(meta: Json, state: Json, names_: list[str], kind: str) -> None:
    session = hive_state.session(folder_of(names_, kind), meta, state, CLOCK)
    colony = hive_state.colony(ColonyFolder(Path("/x"), names_[3]), meta, meta, has_progress_db=True)
    listed = {"tasks": [meta, state, 5], **meta}
    tasks = list(hive_state.task_list(listed, list_id=names_[0], list_kind="session", colony_name=names_[3]))
    check([session, colony, *tasks], [meta, state], set(names_))


@ODDLY
@given(table=st.sampled_from(wire.TABLES), data=st.data())
def test_every_value_of_a_row_fits_its_column_whatever_the_source_holds(table: Table, data: st.DataObject) -> None:
    values = data.draw(st.fixed_dictionaries(dict.fromkeys(table.names, value)))
    row = REDACTOR.row(table, values)
    if row is not None:
        assert all(fits(column, row[column.name]) for column in table.columns)


def test_every_clear_reading_of_documents_is_json_of_hive() -> None:
    """The documents above go through the same decoder as a file: what it makes of numbers is what the readers see."""
    assert loads(json.dumps({"a": 1.5}).encode()) == {"a": Decimal("1.5")}


# Single rules --------------------------------------------------------------------------------------------------------


def column_of(table: Table, name_: str) -> Any:
    return REDACTOR.check(table.by_name[name_])


@pytest.mark.parametrize(
    "model",
    [
        "anthropic/glm-5.1", "openrouter/z-ai/glm-5.1", "ollama_chat/llama3.1:8b",
        "anthropic/claude-haiku-4-5-20251001",
        "gpt-5.5", "openai/gpt-5.5", "gemini/gemini-3-flash-preview",
    ],
)  # fmt: skip
def test_a_public_model_travels_exactly_as_it_is_written(model: str) -> None:
    assert column_of(wire.LLM_TURNS, "model")(model) == model


@pytest.mark.parametrize(
    ("model", "listed"),
    [
        (" gpt-5.5", "gpt-5.5"), ("gpt-5.5 \t", "gpt-5.5"), ("GPT-5.5", "gpt-5.5"),
        ("OpenAI/Gpt-5.5 ", "openai/gpt-5.5"),
        ("Ollama_Chat/LLAMA3.1:8B", "ollama_chat/llama3.1:8b"), ("gpt-4o@LATEST", "gpt-4o@latest"),
        ("Claude-Haiku-4-5-20251001", "claude-haiku-4-5-20251001"), ("bespoke-nimble-9b", "Bespoke-Nimble-9B"),
    ],
)  # fmt: skip
def test_a_public_model_in_another_case_or_with_blanks_travels_as_it_is_listed(model: str, listed: str) -> None:
    assert column_of(wire.LLM_TURNS, "model")(model) == listed


BLANKS = "\t" + "".join(c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c) == "Zs")


@example("\u00a0", "gpt-5.5")
@example("\u2028", "gpt-5.5")
@given(st.text(max_size=40), st.sampled_from(["gpt-5.5", "openai/gpt-5.5", "llama3.1:8b", "claude-opus-4-6"]))
def test_no_text_beside_a_public_model_comes_along(text: str, model: str) -> None:
    """Whatever stands around or within a model's name: what travels in clear is public as it stands, or a hash."""
    for written in (text, text + model, model + text, model.swapcase() + text):
        kept = column_of(wire.LLM_TURNS, "model")(written)
        if kept is not None and not re.fullmatch(KEYED, kept):
            assert is_public("models", kept), written
            assert kept.casefold() == written.strip(BLANKS).casefold()


@pytest.mark.parametrize(
    "model",
    [
        "openai/acme-internal", "acme/gpt-5.5", "openai/acme/gpt-5.5", "gpt-5.5-acme", "llama3.1:acme", "gpt-5.5 acme",
        "GPT-5.5 for acme", "ft:gpt-4o:acme::abc", "gpt-4o-2024-acme", "gpt-4o-20241332x", "llama3.1:8b-acme",
        "llama3.1:4917012345678b", "llama3.1:8b\n", "gpt-5.5-٢٠٢٦٠٥٠٤", "llama3.1:٨b", "/gpt-5.5", "openai//gpt-5.5",
        "openai/",
        "", "gpt-4o@acme.example", "openai/" * 40 + "gpt-5.5",
    ],
)  # fmt: skip
def test_a_private_model_is_keyed_whole(model: str) -> None:
    kept = column_of(wire.LLM_TURNS, "model")(model)
    assert kept is None if not model else re.fullmatch(KEYED, kept)


def test_a_name_outside_the_public_lists_is_keyed_and_equal_names_are_equal() -> None:
    keep = column_of(wire.TOOL_CALLS, "tool_name")
    assert keep("read_file") == "read_file"
    assert keep("acme_crm_push") == keep("acme_crm_push") == REDACTOR.keyed("acme_crm_push") != keep("acme_crm_pull")
    assert Redactor(b"another key of the tenant").keyed("acme_crm_push") != keep("acme_crm_push")


def test_an_identity_depends_on_the_key_exactly_if_a_name_is_in_it() -> None:
    """Whoever has not the tenant's key cannot make it of a list of words."""
    other = Redactor(b"another key of the tenant")
    for key, is_keyed in ((("0a" * 8, 1, None), False), (("nightly", 1), True), (("0a" * 8, "ada@acme.example"), True)):
        made = REDACTOR.record_id("acme", "tasks", *key)
        assert made == REDACTOR.record_id("acme", "tasks", *key)
        assert (made != other.record_id("acme", "tasks", *key)) is is_keyed
        assert (made != record_id("acme", "tasks", *key)) is is_keyed


def test_a_generated_id_travels_and_a_chosen_one_is_keyed() -> None:
    keep = column_of(wire.LLM_TURNS, "session_id")
    generated = ["session_20260504_101500_0a1b2c3d", "20260504T101500_0a1b2c3d"]
    assert [keep(name_) for name_ in generated] == generated
    chosen = ["nightly", "exec_acme_0a1b2c3d", "session_20260504_101500_0a1b2c3d ", "491701234567", "4111111111111111"]
    assert all(re.fullmatch(KEYED, keep(name_)) for name_ in chosen)
    assert re.fullmatch(KEYED, keep("session_٢٠٢٦٠٥٠٤_101500_0a1b2c3d")), (
        "digits of another script are no digits of ours"
    )


@pytest.mark.parametrize(
    ("table", "column", "clear", "keyed"),
    [
        (wire.LLM_TURNS, "session_id", "session_20260504_101500_0a1b2c3d", ("0a1b2c3d4e5f", "a" * 32, "0a" * 8)),
        (wire.LLM_TURNS, "stream_id", "worker:session_20260504_101500_0a1b2c3d", ("worker:acme", "0a1b2c3d4e5f")),
        (wire.NODE_STEPS, "trace_id", "0a" * 16, ("0a" * 8, "0a1b2c3d4e5f", "1" * 32)),
        (wire.NODE_STEPS, "span_id", "0a" * 8, ("0a" * 16, "4111111111111111")),
        (wire.AGENT_RUNS, "run_id", "0a1b2c3d4e5f", ("0a" * 16, "491701234567")),
        (wire.TASKS, "task_id", "123456", ("491701234", "0a" * 16, "1234567")),
        (wire.TASKS, "item_id", "0a1b2c3d-4e5f-4a1b-8c3d-0a1b2c3d4e5f", ("12", "0a" * 16)),
        (wire.TASKS, "worker_id", "session_20260504_101500_0a1b2c3d", ("491701234", "0a" * 16)),
        (wire.TASKS, "blocks_ids", "1,23", ("491701234", "1,491701234")),
    ],
)
def test_an_id_is_clear_only_in_the_form_that_a_source_makes_for_its_column(
    table: Table, column: str, clear: str, keyed: tuple[str, ...]
) -> None:
    keep = column_of(table, column)
    assert keep(clear) == clear
    assert [text for text in keyed if not re.fullmatch(KEYED, keep(text))] == []


def test_an_enum_takes_only_its_list() -> None:
    stop = column_of(wire.LLM_TURNS, "stop_reason")
    assert (stop("stop"), stop("because acme"), stop(5), stop(["stop"])) == ("stop", "other", None, None)
    assert column_of(wire.SESSIONS, "session_kind")("made up") == "other"
    assert column_of(wire.STATUS_EVENTS, "kind")("made up") is None, "a list without `other` has no place for it"


def test_a_list_or_a_text_becomes_its_length() -> None:
    keep = column_of(wire.NODE_DETAILS, "attention_count")
    assert (keep(["a", "b"]), keep("text"), keep({}), keep(None)) == (2, 4, 0, None)


@pytest.mark.parametrize(
    "value_", [True, 1.0, Decimal("1.5"), Decimal("1E+400"), Decimal("NaN"), "1", -1, wire.MAX_TOKENS + 1, None, [1]]
)
def test_tokens_are_integers_within_bounds(value_: object) -> None:
    assert column_of(wire.LLM_TURNS, "input_tokens")(value_) is None


def test_a_whole_number_written_with_a_point_counts() -> None:
    assert column_of(wire.LLM_TURNS, "input_tokens")(Decimal("100.0")) == 100


def test_money_keeps_every_digit_and_nothing_is_free() -> None:
    assert money(Decimal("0.00123456789012345678")) == Decimal("0.00123456789012345678")
    assert money(Decimal("1.348615189999999990")) == Decimal("1.34861518999999999000")
    for unreported in (Decimal("0.0"), 0, None, True, 0.5, "1", Decimal("-1"), Decimal("NaN"), Decimal("1E-400")):
        assert money(unreported) is None
    cost = column_of(wire.LLM_TURNS, "reported_cost_usd")
    assert (cost(Decimal("0.5")), cost(Decimal(1_000_001)), cost(Decimal("1E+400"))) == (Decimal("0.5"), None, None)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Error 429: slow down, ada@example.com", "rate_limit"), ("upstream timed out after 60s", "timeout"),
        ("exceeded max_retries after stale claim", "stale_claim"), ("prompt is too long", "context_length"),
        ("401 Unauthorized", "auth"), ("KeyError: 'acme'", "type_or_value"), ("the acme thing", "other"),
        ("", None), ("  ", None), (None, None), (5, None),
    ],
)  # fmt: skip
def test_an_error_becomes_its_class(text: object, kind: str | None) -> None:
    assert error_class(text) == kind
    assert kind is None or kind in wire.ERROR_CLASSES


def test_a_row_without_a_required_value_is_refused() -> None:
    good = {"record_id": ID, "session_id": "nightly", "agent_role": "queen", "input_tokens": 1, "output_tokens": 1}
    assert REDACTOR.row(wire.LLM_TURNS, good) is not None
    for name_ in good:
        assert REDACTOR.row(wire.LLM_TURNS, {**good, name_: None}) is None


@pytest.mark.parametrize("value", ["x", None])
def test_a_reader_cannot_bring_a_column_that_the_contract_does_not_name(value: str | None) -> None:
    for made in (REDACTOR.row, REDACTOR.values):
        with pytest.raises(KeyError, match=r"has no column .*prompt"):
            made(wire.LLM_TURNS, {"prompt": value})


def test_a_naive_time_is_refused() -> None:
    assert column_of(wire.LLM_TURNS, "occurred_at")(datetime(2026, 5, 4)) is None  # noqa: DTZ001
