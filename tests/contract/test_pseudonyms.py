"""Pseudonyms: from the hash alone, the same everywhere, different where the hashes of a table are."""

import re

from hypothesis import given
from hypothesis import strategies as st

from pipelines.contract import pseudonyms
from pipelines.contract.pseudonyms import pseudonym, pseudonym_of, renaming

KEYED = st.integers(0, 2**128 - 1).map(lambda number: f"k1_{number:032x}")


def test_words_are_many_and_plain() -> None:
    for words in (pseudonyms.ADJECTIVES, pseudonyms.NOUNS):
        assert len(set(words)) == len(words) == 128
        assert all(re.fullmatch("[a-z]{3,8}", word) for word in words)


def test_a_pseudonym_never_changes() -> None:
    """People remember them: these were printed by the first release that had any."""
    assert pseudonym("k1_" + "0" * 32) == "able-acorn-00"
    assert pseudonym("k1_" + "8a33e92c" * 4) == "fine-linden-11"


@given(st.sets(KEYED, min_size=1, max_size=30))
def test_different_hashes_have_different_names(keyed: set[str]) -> None:
    rename = renaming(keyed)
    names = {rename(one) for one in keyed}
    assert len(names) == len(keyed)
    for one in keyed:
        assert re.fullmatch(r"[a-z]+-[a-z]+-\d{2,35}", rename(one))
        assert rename(one).startswith(pseudonym(one)), "a longer number begins with the shorter"


@given(KEYED, st.integers(1, 2**30))
def test_hashes_of_one_pseudonym_get_longer_numbers(one: str, step: int) -> None:
    """The same words and last digits of the number, whatever stands before them."""
    other = f"k1_{(int(one[3:], 16) + step * 100 * 2**14) % 2**128:032x}"
    if other != one and pseudonym(one) == pseudonym(other):
        rename = renaming([f"queen:{one}", other])
        assert rename(one) != rename(other)
        assert rename(f"queen:{one}") == f"queen:{rename(one)}"


@given(KEYED, KEYED, st.integers(2, 35))
def test_a_pseudonym_is_known_whatever_its_length(one: str, other: str, digits: int) -> None:
    assert pseudonym_of(pseudonym(one, digits), one)
    assert pseudonym_of(pseudonym(one, 35), other) == (one == other)
    assert not pseudonym_of(one, one)


def test_nothing_but_keyed_hashes_is_renamed() -> None:
    rename = renaming([])
    for text in (
        "k1_",
        "k1_12",
        "session_20260301_101112_0a1b2c3d",
        "gpt-5",
        "0" * 32,
        "k1_" + "0" * 33,
        "k1_" + "g" * 32,
    ):
        assert rename(text) == text
