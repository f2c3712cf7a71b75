"""Mutants: each still has its place in the package, and a sample of them is found.

Does not belong here: all of them (make mutants).
"""

import pytest

from bench import mutants


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_has_its_place(mutant: mutants.Mutant) -> None:
    text = (mutants.REPOSITORY / mutant.file).read_text("utf-8")
    assert mutants.patched(text, mutant) != text
    assert (mutants.REPOSITORY / mutant.found_by.partition("::")[0]).exists()


def test_there_are_enough_and_each_has_a_name() -> None:
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS) >= 80


QUICK = ("fingerprint of the head only", "rows deleted when sealed", "the last story to arrive stays")


@pytest.mark.services
@pytest.mark.parametrize("name", QUICK)
def test_a_sample_is_found(name: str) -> None:
    (mutant,) = [mutant for mutant in mutants.MUTANTS if mutant.name == name]
    verdict, said, _ = mutants.hunt(mutant)
    assert verdict == "killed", said
