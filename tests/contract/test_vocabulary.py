"""The lists of public names: what is on them travels as written, and nothing can be smuggled in beside it."""

from __future__ import annotations

from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contract import vocabulary, wire
from pipelines.contract.vocabulary import is_public, names, public_form

LISTS = ("models", "providers", "tools", "queens", "nodes", "streams", "agent_types")


@pytest.mark.parametrize("name", LISTS)
def test_a_list_is_plain_sorted_and_without_doubles(name: str) -> None:
    text = files(vocabulary).joinpath(f"{name}.txt").read_text("ascii")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines == sorted(set(lines))
    assert lines
    assert all(line == line.strip() and " " not in line for line in lines)


def test_every_list_is_used_and_every_used_list_is_there() -> None:
    used = {column.vocabulary for table in wire.TABLES for column in table.columns if column.vocabulary}
    assert used | {"providers"} == set(LISTS)
    assert {
        path.name.removesuffix(".txt") for path in files(vocabulary).iterdir() if path.name.endswith(".txt")
    } == set(LISTS)


@pytest.mark.parametrize("name", sorted(names("models"))[::37])
@pytest.mark.parametrize("route", ["", "anthropic/", "openrouter/z-ai/"])
def test_a_public_model_is_public_behind_public_segments(name: str, route: str) -> None:
    assert is_public("models", route + name)
    assert not is_public("models", f"acme/{route}{name}")
    assert not is_public("models", f"{route}{name}-acme")


@pytest.mark.parametrize(
    "tag", [":latest", ":8b", ":70b", ":8x7b", ":0.5b", ":8b-instruct", ":8b-instruct-q4_K_M", ":free"]
)
def test_a_published_tag_is_public(tag: str) -> None:
    assert is_public("models", f"ollama_chat/llama3.1{tag}")


@pytest.mark.parametrize("date", ["-20250514", "@20250514", "-2025-05-14", "-latest"])
def test_a_date_is_public(date: str) -> None:
    assert is_public("models", f"anthropic/claude-opus-4-6{date}")


@pytest.mark.parametrize(
    "end",
    [
        ":acme", ":8b-acme", ":4917012345678b", ":8b\n", "-2025051", "-20250514-acme", "-19990514", "-20257799",
        ":q4 acme", ":8b:8b",
        "-20250514-20250514", ":\u0668b", "-\u0662\u0660\u0662\u06650514", ":12345678", " ", "-2025-05-14x",
        ":0.123456789b",
    ],
)  # fmt: skip
def test_nothing_hides_in_a_tag_or_a_date(end: str) -> None:
    assert not is_public("models", f"llama3.1{end}")
    assert not is_public("models", f"anthropic/claude-opus-4-6{end}")


@given(st.text(max_size=20))
def test_a_text_is_public_only_if_a_list_has_it(text: str) -> None:
    for name in LISTS[1:]:
        assert is_public(name, text) == (text in names(name))


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u3000", "\u202f", " \u00a0\t"])
def test_blanks_around_a_public_model_do_not_hide_it(blank: str) -> None:
    for written in (f"claude-opus-4-6{blank}", f"{blank}claude-opus-4-6", f"{blank}Claude-Opus-4-6{blank}"):
        assert public_form("models", written) == "claude-opus-4-6"
    assert public_form("models", f"claude-opus{blank}-4-6") is None
    assert public_form("models", f"claude-opus-4-6{blank}acme") is None
    assert public_form("models", "claude-opus-4-6\n") is None
    assert public_form("tools", f"read_file{blank}") is None


def test_case_is_as_published() -> None:
    assert not is_public("tools", "READ_FILE")
    assert not is_public("models", "ANTHROPIC/claude-opus-4-6")
