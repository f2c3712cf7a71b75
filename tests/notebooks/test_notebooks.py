"""Every notebook runs on published data alone, shows charts that hold all of it, and is kept without outputs.

Does not belong here: whether the marts are right (tests/dbt, tests/end_to_end).
"""

import re
from html import unescape
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import nbformat
import pytest
import yaml
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbclient import NotebookClient
from traitlets.config import Config

from pipelines.contract.numbers import plain
from pipelines.home import Home
from pipelines.warehouse import publish
from tests import marts

pytestmark = pytest.mark.services

REPOSITORY = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
MARTS = (
    "agg_usage_session_daily", "agg_usage_model_daily", "agg_usage_tenant_daily", "dim_colonies", "fct_llm_turns",
    "fct_rated_turns",
)  # fmt: skip
SVG = "image/svg+xml"

FIRST, LAST = date(2026, 3, 1), date(2026, 3, 4)
# day, tenant, session, user, colony, model, turns, unpriced turns, input, cache read, output, cost
USAGE = (
    (FIRST, "acme", "s1", "ada", "c1", "openai/gpt-5.5", 3, 0, 900, 100, 90, "0.12345678901234567891"),
    (FIRST, "acme", "s1", "ada", "c1", "unknown", 5, 5, 500, 0, 50, None),
    (FIRST, "bolt", "s2", "bob", None, "k1_00000000000000000000000000000000", 2, 2, 300, 0, 30, None),
    (LAST, "acme", "s3", "ada", None, "openai/gpt-5.5", 4, 1, 800, 200, 80, "0.2"),
    (LAST, "bolt", "s4", "eve", None, "anthropic/glm-5.1", 1, 0, 100, 0, 10, "0.00000000000000000001"),
)
NAMES = (
    "usage_date", "tenant_id", "session_id", "user_id", "colony_id", "model", "turns", "unpriced_turns",
    "input_tokens", "cache_read_input_tokens", "output_tokens", "rated_cost_usd",
)  # fmt: skip
# What a notebook must say of the tree of tests/dbt/test_usage.py, once as it is and once ten times as large.
SAID = {
    "02_inheritance": ("inheritance kind|sessions|input tokens|inherited|", "fork|2|51,700|46,200|"),
    "03_stalls": ("waste kind|turns|tokens|reported cost (USD)|", "stalled|2|484|8."),
    "05_tools": ("tool name|calls|errors|", "web_search|4|0|", "several|2|"),
    "06_what_if": ("of turns: 24", "without a price: none"),
}
COST = sum((Decimal(row[-1]) for row in USAGE if row[-1]), Decimal(0))


def publish_marts(home: Home, usage: tuple[tuple[Any, ...], ...]) -> None:
    """A published folder with a few rows in the marts that notebooks read."""
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA marts")
        for mart in MARTS:
            typed = ", ".join(f"{name} {kind}" for name, kind in marts.types()[mart].items())
            connection.execute(f"CREATE TABLE marts.{mart} ({typed})")
        marks = ", ".join("?" * len(NAMES))
        for row in usage:
            connection.execute(
                f"INSERT INTO marts.agg_usage_session_daily ({', '.join(NAMES)}) VALUES ({marks})", list(row)
            )
        connection.execute("UPDATE marts.agg_usage_session_daily SET cache_write_input_tokens = 0, tool_calls = 0")
        for mart, key in (("agg_usage_model_daily", "model, "), ("agg_usage_tenant_daily", "")):
            numbers = [name for name, kind in marts.types()[mart].items() if kind in ("bigint", "decimal(38,20)")]
            measures = [name for name in numbers if not name.startswith("_")]
            sums = ", ".join(f"sum({name}) AS {name}" for name in measures)
            connection.execute(
                f"INSERT INTO marts.{mart} BY NAME SELECT tenant_id, {key}usage_date, {sums}"
                " FROM marts.agg_usage_session_daily GROUP BY ALL"
            )
        if usage:
            connection.execute(
                "INSERT INTO marts.dim_colonies (colony_id, tenant_id, colony_name)"
                " VALUES ('c1', 'acme', 'k1_11111111111111111111111111111111')"
            )
        publish.publish(connection, home.published)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """An empty home; what Jupyter keeps for itself goes there too."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "jupyter"))
    return Home(tmp_path / "apiary")


def as_kept(path: Path) -> nbformat.NotebookNode:
    """A notebook as it lies in the repository."""
    notebook: nbformat.NotebookNode = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    return notebook


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with the outputs of a run; raises if a cell does."""
    notebook = as_kept(path)
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(o.text for cell in notebook.cells for o in cell.get("outputs", ()) if o.output_type == "stream")


def charts(notebook: nbformat.NotebookNode) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.data[SVG] for output in outputs if SVG in output.get("data", {})]


def drawn(chart: str, title: str) -> Decimal:
    """The sum of what the bars of a chart stand for, by the words that the picture has for each of them."""
    found = re.findall(rf"{re.escape(title)}: ([\d.e+-]+)(k?);", chart)
    return sum((Decimal(number) * (1000 if thousands else 1) for number, thousands in found), Decimal(0))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_carry_no_outputs(path: Path) -> None:
    notebook = as_kept(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    for cell in notebook.cells:
        assert cell.cell_type == "markdown" or (cell.outputs == [] and cell.execution_count is None), cell.id


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_ask_one_question(path: Path) -> None:
    assert re.fullmatch(r"\d\d_[a-z_]+\.ipynb", path.name)
    title = as_kept(path).cells[0].source.splitlines()[0]
    assert title.startswith("# ")
    assert title.endswith("?")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_questions_are_numbered(path: Path) -> None:
    headings = re.findall(r"^## (.+)$", "\n".join(cell.source for cell in as_kept(path).cells), re.MULTILINE)
    assert [heading.split(". ")[0] for heading in headings] == [str(n + 1) for n in range(len(headings))]
    assert len(headings) >= 3
    assert all(heading.endswith("?") for heading in headings)


def run_here(path: Path) -> tuple[str, list[str]]:
    """What a notebook prints and draws, in this process: a kernel of its own takes seconds to start."""
    # Without a history: its database would be written when the process ends, long after its folder is gone.
    shell = InteractiveShell.instance(config=Config({"HistoryManager": {"enabled": False}}))
    said, drawn = [], []
    try:
        shell.reset()
        for cell in as_kept(path).cells:
            if cell.cell_type == "code":
                with capture_output() as captured:
                    result = shell.run_cell(cell.source)
                result.raise_error()
                tables = [output.data["text/html"] for output in captured.outputs if "text/html" in output.data]
                rows = re.sub("</t[dh]>", "|", "".join(tables)).replace("</tr>", "\n")
                said += [captured.stdout, unescape(re.sub("<[^>]*>", "", rows))]
                pictures, _ = shell.display_formatter.format(result.result)
                drawn += [pictures[SVG]] if SVG in pictures else []
    finally:
        InteractiveShell.clear_instance()
    return "".join(said), drawn


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run_on_published_data(
    path: Path, published_home: Home, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(published_home.root))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    before = {file: file.read_bytes() for file in published_home.published.rglob("*") if file.is_file()}
    said, drawn = run_here(path)
    assert drawn
    for words in SAID.get(path.stem, ()):
        assert words in said, words
    assert {file: file.read_bytes() for file in published_home.published.rglob("*") if file.is_file()} == before


def test_usage_adds_up(home: Home, tmp_path: Path) -> None:
    publish_marts(home, USAGE)
    notebook = executed(REPOSITORY / "notebooks" / "01_usage.ipynb", tmp_path)
    assert f"rated cost in USD: {plain(COST)}\n" in printed(notebook)
    assert "turns: 15, of which unpriced: 8\n" in printed(notebook)
    cost, tokens, top = charts(notebook)
    assert abs(drawn(cost, "rated cost (USD)") - COST) < Decimal("1e-6")  # a picture is drawn with floats
    assert drawn(cost, "unpriced turns") == 8
    assert drawn(tokens, "tokens") == 2600 + 260
    assert "2026-03-02" in cost, "a day without usage has its place"
    assert {"cost unknown", "0.12 USD + 5 unpriced turns"} <= set(re.findall(r">([^<>]*(?:unknown|turns))</text>", top))


def test_usage_of_nobody(home: Home, tmp_path: Path) -> None:
    publish_marts(home, ())
    notebook = executed(REPOSITORY / "notebooks" / "01_usage.ipynb", tmp_path)
    assert "rated cost in USD: nothing has a price\n" in printed(notebook)
