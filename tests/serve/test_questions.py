"""docs/questions.md: every question is one short query that the published marts answer, and the page has the answer.

Does not belong here: what the numbers are (tests/dbt).
"""

from pathlib import Path

import pytest

from pipelines.home import Home
from pipelines.warehouse import reading
from tests import demo, questions_page
from tests.questions_page import PAGE, QUESTION

FOUND = QUESTION.findall(PAGE.read_text("utf-8"))
# What nobody of the tenants that are published here has.
EMPTY = {"Which triggers were missed?", "How far are the tasks?", "Is everything here that was sent?"}


def test_there_are_twenty() -> None:
    assert [int(number) for number, _, _ in FOUND] == list(range(1, 21))
    assert len({question for _, question, _ in FOUND}) == 20


@pytest.mark.parametrize(("question", "query"), [(question, query) for _, question, query in FOUND])
def test_a_short_query_answers_it(question: str, query: str, published_home: Home) -> None:
    assert len(query.strip().splitlines()) <= 8
    assert max(map(len, query.splitlines())) <= 120
    with reading.connect(published_home.published) as connection:
        answer = connection.execute(query)
        names = [column[0] for column in answer.description]
        rows = answer.fetchall()
    assert len(set(names)) == len(names) >= 3
    assert bool(rows) is (question not in EMPTY), question
    for position, name in enumerate(names):
        if name.endswith(("tokens", "turns", "seconds", "_usd", "_amount", "share")):
            assert all(row[position] is None or row[position] >= 0 for row in rows), name


@pytest.mark.services
def test_the_answers_on_the_page_and_the_terminal_of_the_readme_are_of_the_demo(tmp_path: Path) -> None:
    published = demo.build(tmp_path / "home").published
    with reading.connect(published) as connection:
        assert questions_page.page(connection) == PAGE.read_text("utf-8"), "`make demo-pages` writes them anew"
    assert questions_page.readme(published) == questions_page.README.read_text("utf-8")
