"""The answers in docs/questions.md, of the demo as of one evening: `python -m tests.questions_page` writes them.

Does not belong here: the questions and their queries, which people write into the page.
"""

import re
import sys
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb

from pipelines.commands.tables import render, texts
from pipelines.warehouse import reading
from tests import demo

PAGE = Path(__file__).resolve().parents[1] / "docs" / "questions.md"
QUESTION = re.compile(r"^## (\d+)\. ([^\n]+)\n\n```sql\n(.*?)^```\n(?:\n```\n.*?^```\n)?", re.MULTILINE | re.DOTALL)
WIDTH = 140
ROWS = 8  # of an answer that are shown


def answer(connection: duckdb.DuckDBPyConnection, query: str) -> str:
    """The first rows that a query gives, as text."""
    found = connection.execute(query)
    names = [column[0] for column in found.description]
    rows = found.fetchall()
    lines = render(names, texts([[_plain(value) for value in row] for row in rows[:ROWS]]), width=WIDTH)
    if len(rows) > ROWS:
        lines.append(f"… and {len(rows) - ROWS} more")
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """A time to the minute, a ratio to four digits."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M}"
    return f"{value:.4g}" if isinstance(value, float) else value


def page(connection: duckdb.DuckDBPyConnection) -> str:
    """docs/questions.md with the answers as they are now."""

    def answered(match: re.Match[str]) -> str:
        number, question, query = match.groups()
        return f"## {number}. {question}\n\n```sql\n{query}```\n\n```\n{answer(connection, query)}\n```\n"

    return QUESTION.sub(answered, PAGE.read_text("utf-8"))


def main() -> None:
    """Write them."""
    with TemporaryDirectory() as folder, reading.connect(demo.build(Path(folder) / "home").published) as connection:
        PAGE.write_text(page(connection), "utf-8")
    sys.stdout.write("wrote docs/questions.md\n")


if __name__ == "__main__":
    main()
