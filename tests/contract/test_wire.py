"""The published tables: pinned, justified, and without a place for free text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from pipelines.contract import wire
from pipelines.contract.keys import KEYED
from pipelines.contract.table import Column, Keep, Table
from pipelines.contract.vocabulary import names

# A consent covers this hash. It changes when the contract lets out something else: then people are asked again.
PUBLISHED = "132914c50663e3290c5274598275565dd92b52624176a57d640a5291202d8df4"
COLUMNS = [
    pytest.param(table, column, id=f"{table.name}.{column.name}") for table in wire.TABLES for column in table.columns
]
TEXTS = (
    "please find the pears of acme attached", "ada.lovelace@example.com", "/Users/ada/Clients/acme/list.csv",
    "acme_leads",
    "KeyError: 'acme'", "Ada", "4917012345678", "a b", "x" * 200, "acme-internal\n", "192.168.0.12 acme",
)  # fmt: skip


def test_the_published_contract_is_pinned() -> None:
    """Test 74: another list of columns has another hash, which no grant of before covers."""
    assert wire.contract_hash() == PUBLISHED, (
        "a wider contract needs a new consent: say so in CHANGELOG and pin it anew"
    )


def test_the_hash_covers_everything_that_decides_what_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    table = wire.LLM_TURNS
    first, *rest = table.columns
    hashes = {wire.contract_hash()}
    for change in (
        {"name": "y"}, {"type": "int64"}, {"keep": Keep.KEYED_HASH}, {"values": ("z",)}, {"pattern": "z"},
        {"vocabulary": "tools"}, {"minimum": 7}, {"maximum": 7}, {"required": False},
    ):  # fmt: skip
        changed = replace(first, **change)
        other = Table(name=table.name, grain="g", source="s", identity="i", columns=(changed, *rest))
        monkeypatch.setattr(wire, "TABLES", (other, *wire.TABLES[1:]))
        hashes.add(wire.contract_hash())
    assert len(hashes) == 10


@pytest.mark.parametrize("table", wire.TABLES, ids=lambda table: table.name)
def test_every_table_says_what_its_identity_rests_on(table: Table) -> None:
    assert len(table.identity) > 20
    assert table.is_keyless == (table.by_name.keys() >= {"input_tokens", "output_tokens", "identity_version"})


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_every_column_has_a_reason(table: Table, column: Column) -> None:
    assert len(column.why) > 3


@pytest.mark.parametrize(("table", "column"), COLUMNS)
def test_no_column_can_hold_free_text(table: Table, column: Column) -> None:
    if column.type != "string":
        return
    if column.keep in (Keep.KEYED_HASH, Keep.ID):
        assert not column.vocabulary or names(column.vocabulary)
        assert not any(re.fullmatch(column.pattern, text, re.ASCII) for text in TEXTS if column.pattern)
        return
    assert column.keep in (Keep.VERBATIM, Keep.CLASS)
    if column.values:
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value) for value in column.values), (
            "a list of words, not of texts"
        )
        return
    # As enrolled or made by the uploader itself, never from a source.
    allowed = {"record_id", "step_record_id", "source_key", "user_id", "consent_id", "uploader_version", "timezone"}
    assert column.name in allowed, "a pattern in clear is for what the uploader makes itself"
    assert not any(re.fullmatch(column.pattern, text, re.ASCII) for text in TEXTS if " " in text or "@" in text)


def test_numbers_are_bounded_so_that_none_can_carry_a_text() -> None:
    loose = [
        f"{table.name}.{column.name}"
        for table in wire.TABLES
        for column in table.columns
        if column.type in ("int64", "double", "decimal") and (column.minimum is None or column.maximum is None)
    ]
    assert loose == []


def test_the_identity_comes_first_and_names_are_words() -> None:
    for table in wire.TABLES:
        assert table.names[0] == "record_id"
        assert table.columns[0].required
        assert len(set(table.names)) == len(table.names)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in (table.name, *table.names))
    assert set(wire.BY_NAME) == {table.name for table in wire.TABLES}
    assert len(wire.TABLES) == len(wire.BY_NAME)


def test_keyed_names_are_never_facts() -> None:
    """Two devices of a tenant may hash under two keys: that is no conflict of the record they share."""
    for table in wire.TABLES:
        for column in table.columns:
            if column.keep is Keep.KEYED_HASH or column.pattern == KEYED:
                assert not column.fact, f"{table.name}.{column.name}"


def test_money_is_never_a_float() -> None:
    for table in wire.TABLES:
        for column in table.columns:
            if "usd" in column.name or "credits" in column.name or "cost" in column.name:
                assert column.type == "decimal"
