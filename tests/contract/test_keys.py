"""Identities and object keys: equal on every device, and never ambiguous."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.contract.keys import Prefix, is_generated, is_slug, parse_manifest_key, record_id

PREFIX = Prefix("eu", "acme", "0" * 32, "1" * 16)


def test_an_identity_is_a_promise_for_ever() -> None:
    """Pinned: another formula would count every turn that is in the warehouse once more."""
    assert record_id("acme", "llm_turns", "s", "queen", "2026-05-04T10:00:00", 3) == "bd112f5024a62397610507ab67cdfe65"


def test_an_identity_does_not_depend_on_the_process() -> None:
    program = "from pipelines.contract.keys import record_id; print(record_id('t', 'k', {'a': 1}, None, '\\udce9'))"
    seen = {
        subprocess.run(
            [sys.executable, "-c", program], capture_output=True, env={"PYTHONHASHSEED": seed}, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert seen == {record_id("t", "k", {"a": 1}, None, "\udce9").encode() + b"\n"}


@given(st.lists(st.none() | st.integers() | st.text(), min_size=1, max_size=4), st.integers(0, 3), st.text(min_size=1))
def test_another_part_is_another_identity(parts: list[object], place: int, other: str) -> None:
    place %= len(parts)
    changed = [*parts]
    changed[place] = f"{parts[place]}{other}"
    text = ["" if part is None else str(part) for part in parts]
    if "\x1f" not in "".join([*text, other]) and text[place] != changed[place]:
        assert record_id("t", "k", *changed) != record_id("t", "k", *parts)
    assert record_id("t2", "k", *parts) != record_id("t", "k", *parts) != record_id("t", "k2", *parts)


@pytest.mark.parametrize("text", ["acme", "a", "0", "a-b_c9", "a" * 63])
def test_a_short_plain_name_is_a_slug(text: str) -> None:
    assert is_slug(text)


@pytest.mark.parametrize(
    "text", ["", "A", "ada@example.com", "-a", "_a", "a" * 64, "a b", "a\n", "a/b", "..", "é", "a.b", "٣"]
)
def test_anything_else_is_none(text: str) -> None:
    assert not is_slug(text)


@pytest.mark.parametrize(
    "text",
    [
        "session_20260504_101500_0a1b2c3d", "worker:session_20260504_101500_0a1b2c3d", "20260504T101500_0a1b2c3d",
        "0a1b2c3d4e5f",
        "0a1b2c3d4e5f6a7b", "0a" * 16, "1b4e28ba-2fa1-11d2-883f-0016d3cca427",
    ],
)  # fmt: skip
def test_what_a_program_made(text: str) -> None:
    assert is_generated(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "nightly", "session_20260504_101500_0a1b2c3", "session_20260504_101500_0A1B2C3D", "exec_acme_0a1b2c3d",
        "0a1b2c3d4e5f ", "0a1b2c3d4e5f\n", "acme", "session_20260504_101500_0a1b2c3d/x",
        "session_٢٠٢٦٠٥٠٤_101500_0a1b2c3d",
        "491701234567", "4111111111111111", "DEADBEEFCAFE",
    ],
)  # fmt: skip
def test_what_a_person_may_have_chosen(text: str) -> None:
    assert not is_generated(text)


def test_keys_of_a_batch() -> None:
    digest = "ab" * 32
    base = f"landing/v1/eu/acme/{'0' * 32}/{'1' * 16}"
    assert PREFIX.data(7, "llm_turns", digest) == f"{base}/d/0000000007-llm_turns-{'ab' * 8}.parquet"
    assert PREFIX.manifest(7, digest) == f"{base}/m/0000000007-{'ab' * 8}.json"
    found = parse_manifest_key(PREFIX.manifest(7, digest))
    assert found is not None
    assert (found.prefix, found.seq, found.sha16) == (PREFIX, 7, "ab" * 8)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("/m/", "/d/"),
        ("acme", "../acme"),
        ("acme", "Acme"),
        ("v1", "v2"),
        (".json", ".json\n"),
        ("0000000007", "7"),
        ("eu", ""),
    ],
)
def test_what_is_no_manifest(old: str, new: str) -> None:
    assert parse_manifest_key(PREFIX.manifest(7, "ab" * 32).replace(old, new)) is None
