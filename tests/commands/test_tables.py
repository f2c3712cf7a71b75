"""Tables: whatever the width, no number and no name is broken."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.commands import tables

WORDS = st.text(alphabet="abcdefgh", min_size=1, max_size=12)
VALUES = st.one_of(
    st.none(), st.integers(-(10**12), 10**12), st.lists(WORDS, min_size=1, max_size=3).map("-".join),
    st.lists(WORDS, min_size=1, max_size=4).map(" ".join),
    st.text(alphabet="0123456789abcdef", min_size=32, max_size=32).map("k1_{}".format),
)  # fmt: skip


@st.composite
def drawn(draw: st.DrawFn) -> tuple[list[str], list[list[object]], list[str]]:
    names = draw(st.lists(st.lists(WORDS, min_size=1, max_size=3).map(" ".join), min_size=1, max_size=9, unique=True))
    rows = draw(st.lists(st.lists(VALUES, min_size=len(names), max_size=len(names)), max_size=6))
    return names, rows, draw(st.lists(st.sampled_from(names), unique=True))


@given(drawn(), st.sampled_from([40, 80, 120, 200, None]))
def test_nothing_is_wider_than_the_terminal_and_nothing_is_broken(
    given_table: tuple[list[str], list[list[object]], list[str]], width: int | None
) -> None:
    names, rows, optional = given_table
    lines = tables.render(names, rows, width=width, optional=optional)
    words = {word for line in lines for word in line.split()}
    longest_word = max(map(len, words), default=0)
    if width is not None:
        label = max(map(len, names)) + len(tables.GAP)
        assert all(len(line) <= max(width, label + longest_word, label + 10) for line in lines)
    left_out = " ".join(lines).partition("not shown in")[2]
    for number, name in enumerate(names):
        if name in optional and name in " ".join(left_out.split()):
            continue
        for row in rows:
            for word in tables._cell(row[number]).split():
                shown = word in words or any(w.endswith("…") and word.startswith(w[:-1]) for w in words)
                assert shown, (word, lines)


def test_shortened_ids_stay_different() -> None:
    ids = [f"k1_{'ab' * 6}{number}{'cd' * 9}0" for number in range(3)]
    _, _, *lines = tables.render(["id", "n"], [[i, 1] for i in ids], width=25)
    assert [line.split() for line in lines] == [[f"k1_{'ab' * 6}{number}…", "1"] for number in range(3)]


def test_numbers_stand_below_each_other() -> None:
    names, rows = ["name", "n", "cost"], [["a", 1234567, "0.25"], ["b", 1, None], ["c1.5", 20, "-100"]]
    head, _, *lines = tables.render(names, rows, width=None)
    assert [line.split() for line in lines] == [["a", "1,234,567", "0.25"], ["b", "1", "-"], ["c1.5", "20", "-100"]]
    assert head.index("n ", 5) == lines[0].index("7 ") == lines[1].index("1 ") == lines[2].index("0 ")
    assert lines[0].index(".") == lines[1].index("-") + 1 == lines[2].index("-100") + 4


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, "-"), ("0", "0.00"), ("0.3972747399999999755", "0.3973"), ("1500000", "1,500,000.00"),
        ("2.005", "2.00"), ("-3.1", "-3.10"), ("0.00001234", "0.000012"), ("0.0000000001", "<0.000001"),
        (Decimal("0E-20"), "0.00"),
    ],
)  # fmt: skip
def test_money_has_the_digits_that_people_read(amount: Decimal | str | None, text: str) -> None:
    assert tables.money(amount) == text
