"""No command of the runbook is there that nobody has executed in the situation that it is for.

Does not belong here: executing them (tests/end_to_end/test_job.py and the files that tests/runbook.py names).
"""

import pytest

from pipelines.commands.examples import EXAMPLES
from tests import runbook
from tests.end_to_end.rehearsal import REHEARSALS, WITHIN

WRITTEN = [
    (page, heading, command)
    for page in runbook.PAGES
    for heading, text in runbook.sections(page).items()
    for command in runbook.commands(text)
    if command not in {*runbook.RUNS, *runbook.MENTIONED}
]


@pytest.mark.parametrize(("page", "heading"), sorted({written[:2] for written in WRITTEN}), ids=str)
def test_every_section_with_a_command_is_rehearsed(page: str, heading: str) -> None:
    section = (page, heading)
    assert section in REHEARSALS or heading == WITHIN or section in runbook.ELSEWHERE


def test_what_is_rehearsed_stands_on_the_page() -> None:
    written = {written[:2] for written in WRITTEN}
    assert {*REHEARSALS, *runbook.ELSEWHERE} <= written


@pytest.mark.parametrize("section", runbook.ELSEWHERE, ids="-".join)
def test_what_is_rehearsed_elsewhere_is_executed_there(section: tuple[str, str]) -> None:
    """By the words of the command, or by the function behind it."""
    text = runbook.source(runbook.ELSEWHERE[section])
    for page, heading, command in WRITTEN:
        if (page, heading) == section:
            words = runbook.arguments(command)
            assert any(f'"{word}"' in text or f"{word}(" in text for word in words[:2]), command


def test_a_command_is_found_in_a_block_and_in_a_text() -> None:
    text = "Type `apiary run`, or\n`apiary quarantine list`:\n\n```\napiary doctor\nls\n```\n`apiary run` again"
    assert runbook.commands(text) == ["apiary run", "apiary quarantine list", "apiary doctor"]
    assert {runbook.arguments(command)[0] for *_, command in WRITTEN} <= {name.split()[0] for name in EXAMPLES} | {
        "dev"
    }
