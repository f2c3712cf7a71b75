"""The answers in docs/questions.md and the pictures of the README, of the demo as of one day: `make demo-pages` writes
them.

Does not belong here: the questions and their queries, which people write into the page.
"""

import contextlib
import io
import re
import shutil
import sys
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import duckdb
import pytest

from pipelines.commands.tables import render, texts
from pipelines.commands.warehouse import usage_table
from pipelines.serve import report
from pipelines.warehouse import reading, usage
from tests import demo

ROOT = Path(__file__).resolve().parents[1]
PAGE, README, PICTURE = ROOT / "docs" / "questions.md", ROOT / "README.md", ROOT / "docs" / "images" / "overview.png"
TERMINAL = re.compile(r"(```\n\$ apiary usage --by model\n).*?^```\n", re.MULTILINE | re.DOTALL)
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


def readme(published: Path) -> str:
    """README.md with the terminal as it is now."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said):
        patch.setenv("COLUMNS", "100")
        usage_table(usage.usage(published, "model"), limit=ROWS)
    shown = "\n".join(line.rstrip() for line in said.getvalue().splitlines())
    return TERMINAL.sub(lambda match: f"{match[1]}{shown}\n```\n", README.read_text("utf-8"))


def picture(published: Path, path: Path) -> None:
    """The beginning of the report's first page, as Chromium shows it."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        sys.exit("docs/images/overview.png was not written: install chromium and run make again")
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        index = report.write(published, Path(folder) / "site")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        shown = browser.new_page(viewport={"width": 1100, "height": 800}, color_scheme="light")
        shown.goto((index.parent / "all" / "overview.html").as_uri())
        shown.screenshot(path=path)
        browser.close()


def main() -> None:
    """Write them."""
    with TemporaryDirectory() as folder:
        published = demo.build(Path(folder) / "home").published
        with reading.connect(published) as connection:
            PAGE.write_text(page(connection), "utf-8")
        README.write_text(readme(published), "utf-8")
        picture(published, PICTURE)
    sys.stdout.write("wrote docs/questions.md, README.md and docs/images/overview.png\n")


if __name__ == "__main__":
    main()
