"""The report: the marts' numbers, nothing loaded from elsewhere, links that lead somewhere, and no tenant in another
one's pages.
"""

import re
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urljoin

import duckdb
import pytest

from pipelines import cli
from pipelines.contract.numbers import money, plain
from pipelines.contract.pseudonyms import pseudonym
from pipelines.home import Home
from pipelines.serve import report, report_pages
from pipelines.serve.cells import cell
from pipelines.warehouse.metrics import metrics
from pipelines.warehouse.reading import connect


class Page(HTMLParser):
    """What a reader finds: tables by the title of their section, headline numbers, and attributes of tags."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.headlines: dict[str, str] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.h2: list[str] = []
        self._inside: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self._inside.append((tag, dict(attrs)))
        if tag == "tr":
            self.tables.setdefault(self.h2[-1], []).append([])
        if tag in ("td", "th"):
            self.tables[self.h2[-1]][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag in ("td", "th"):
            self.tables[self.h2[-1]][-1][-1] += data
        elif tag == "data":
            self.headlines[str(self._inside[-2][1]["data-metric"])] = data
        elif tag == "dd" and "data-metric" in attributes:
            self.headlines[str(attributes["data-metric"])] = data
        elif tag == "h2":
            self.h2.append(data)


@pytest.fixture(scope="module")
def site(published_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of all tenants."""
    out = tmp_path_factory.mktemp("report") / "report"
    assert report.write(published_home.published, out) == out / "index.html"
    return out


def page(site: Path, name: str, folder: str = "tenant-tree") -> Page:
    return Page((site / folder / f"{name}.html").read_text("utf-8"))


def test_headlines_are_the_metrics(site: Path, published_home: Home) -> None:
    found = page(site, "overview-all").headlines
    text = (site / "tenant-tree" / "overview-all.html").read_text("utf-8")
    assert set(found) == set(report_pages.HEADLINES)
    with connect(published_home.published) as connection:
        for name, shown in found.items():
            metric = metrics()[name]
            ((value,),) = connection.execute(
                f"SELECT {metric.formula} FROM {metric.of} WHERE tenant_id = 'tree'"
            ).fetchall()
            if value is None:
                assert shown == "unknown", name
            else:
                assert shown == (money(value) if metric.unit == "USD" else f"{value:,}"), name
                assert metric.unit != "USD" or f'title="{plain(value)}"' in text, "exact for whoever asks"


def test_tables_hold_the_numbers_of_the_marts(site: Path) -> None:
    models = page(site, "models-all").tables["Which models are used?"]
    assert models[0] == [
        "model", "turns", "total tokens", "rated cost (USD)", "tokens without a price", "reported cost (USD)"
    ]  # fmt: skip
    assert models[1:] == [["m", "12", "15,425", "unknown", "15,425", "16.65"]], "no price: all tokens are unpriced"
    spend = page(site, "spend-all").tables
    waste = {row[0]: row[1:] for row in spend["What was wasted?"][1:]}
    assert [waste["cancelled"][place] for place in (0, 1, 4)] == ["2", "3,118", "8.60"]
    inherited = spend["What does inherited context cost?"][1:]
    assert inherited == [
        ["fork", "1", "4,700", "4,200", "3,600", "0.3000"],
        ["worker", "3", "7,100", "5,300", "0", "1.05"],
    ]
    assert spend["What has no price?"][1:] == [["m", "12", "15,425"]]
    assert spend["Will the budgets last?"][1][0] == "b"
    sessions = page(site, "sessions").tables
    assert [row[0] for row in sessions["Which sessions used most, with everything they started?"][1:]] == [
        "queen",
        "stray",
    ]
    tree = sessions["What does the tree of the largest sessions look like?"][1:]
    assert tree[0][0] == "queen"
    assert {"· w1", "· w2"} <= {row[0] for row in tree}
    days = spend["How many tokens per day?"]
    assert sum(int(row[2].replace(",", "")) for row in days[1:]) == 15_425
    users = page(site, "users-all").tables
    assert [row[0] for row in users["At which hours of the day?"][1:]] == [str(hour) for hour in range(24)]
    assert sum(int(row[2].replace(",", "")) for row in users["Which users use most?"][1:]) == 15_425
    agents = page(site, "agents-all").tables["Which agents use most?"][1:]
    assert sum(int(row[2].replace(",", "")) for row in agents) == 15_425


def test_a_period_has_its_days_only(site: Path, published_home: Home) -> None:
    with connect(published_home.published) as connection:
        for name, length in report.PERIODS.items():
            ((turns,),) = connection.execute(
                "SELECT sum(turns) FROM agg_usage_quarter_hourly WHERE tenant_id = 'tree' AND ($length IS NULL OR"
                " zone_date > (SELECT max(zone_date) FROM agg_usage_quarter_hourly WHERE tenant_id = 'tree')"
                " - $length)",
                {"length": length},
            ).fetchall()
            file = report.file_name(report_pages.PAGES[0], name).removesuffix(".html")
            assert page(site, file).headlines["turns"] == f"{turns:,}"


def test_queries_of_the_pages_run_as_they_are_shown(published_home: Home) -> None:
    """In the marts of everybody, and no statement of one page ends at another's tenant."""
    with connect(published_home.published) as connection:
        for shown in report_pages.PAGES:
            for section in shown.sections:
                names = [
                    column[0]
                    for column in connection.execute(section.sql.format(days=report._Days(None, None))).description
                ]
                assert len(set(names)) == len(names), section.title
                assert section.chart is None or section.chart.value in names, section.title


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    rows = [(f"k1_{number:032x}", number) for number in range(60)]
    section = report_pages.Section("Which?", "", "t", "SELECT name, tokens FROM t ORDER BY tokens")
    with duckdb.connect() as connection:
        connection.execute("CREATE TABLE t (name VARCHAR, tokens BIGINT)")
        connection.executemany("INSERT INTO t VALUES (?, ?)", rows)
        days = report._Days(None, None)
        names, found = report._answer(connection, section, days)
        shown = report._section(
            section,
            days,
            names,
            found,
            scope=report.Scope("acme"),
            rename=pseudonym,
            meanings={("t", "name"): "Whose."},
        )
    assert len(shown["rows"]) == report_pages.ROWS == 50
    assert "query below has all" in shown["more"]
    assert shown["definitions"] == [("name", "Whose.")]
    assert shown["rows"][7][0] == (pseudonym(rows[7][0]), rows[7][0], False)


@pytest.mark.parametrize(
    ("shares", "drawn", "whole"),
    [((0.5, 1.25, 0.25), [100.0, 40.0, 20.0], 80.0), ((0.5, 0.25), [50.0, 25.0], None)],
)
def test_bars_of_shares_are_of_the_whole_and_the_longest_first(
    shares: tuple[float, ...], drawn: list[float], whole: float | None
) -> None:
    records = [{"budget": f"b{share}", "used_share": share} for share in shares]
    cells = [{name: cell(name, value) for name, value in record.items()} for record in records]
    chart = report._chart(report_pages.Chart("bars", "used_share", "budget"), records, cells, is_of_all=False)
    assert chart is not None
    assert [mark.share for mark in chart["marks"]] == drawn
    assert chart["whole"] == whole


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("wall_seconds", 0.25, "0.2 s"), ("wall_seconds", 59, "59 s"), ("wall_seconds", 3600, "1 h 0 min"),
        ("wall_seconds", 200_000, "2 d 7 h"), ("error_share", 0.125, "12.5 %"),
        ("cost_usd", Decimal("0.00012345"), "0.000123"),
        ("turns", 1234567, "1,234,567"), ("cost_usd", None, "unknown"), ("reason", None, "-"),
        ("is_clear", True, "yes"),
    ],
)  # fmt: skip
def test_values_are_written_for_people(name: str, value: object, text: str) -> None:
    assert cell(name, value).text == text


def test_every_link_leads_to_a_page(site: Path) -> None:
    files = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {"index.html", "all/overview.html", "tenant-bolt/status.html", "tenant-tree/spend-7d.html"} <= files
    reached = set()
    for file in files:
        for tag, name, value in Page((site / file).read_text("utf-8")).attributes:
            if (tag, name) == ("a", "href") and not str(value).startswith("#"):
                reached.add(urljoin(file, str(value)))
    assert reached == files - {"index.html"}


def test_pages_load_nothing(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text("utf-8")
        assert path.name == "index.html" or "default-src 'none'" in text
        loads = [(t, v) for t, n, v in Page(text).attributes if n in ("src", "data", "action", "xlink:href", "onclick")]
        assert loads == []
        assert not re.search(r"<script|<link|@import|url\(|https?://", text)


def test_pages_can_be_read_without_seeing_them(site: Path) -> None:
    for path in (site / "tenant-tree").glob("*.html"):
        text = path.read_text("utf-8")
        found = Page(text)
        assert ("html", "lang", "en") in found.attributes
        assert "prefers-color-scheme: dark" in text
        ids = [value for _, name, value in found.attributes if name == "id"]
        assert len(set(ids)) == len(ids)
        for tag, name, value in found.attributes:
            assert name != "aria-labelledby" or value in ids, (path, tag)
        drawings = [value for tag, name, value in found.attributes if (tag, name) == ("svg", "aria-label")]
        assert len(drawings) == text.count('<svg class="columns" role="img"')
        assert all(title.endswith("?") for title in found.h2)


def test_a_tenants_pages_name_nobody_else(site: Path, published_home: Home, tmp_path: Path) -> None:
    for path in (site / "tenant-tree").glob("*.html"):
        body = re.sub(r'<nav aria-label="Tenants">.*?</nav>', "", path.read_text("utf-8"), flags=re.DOTALL)
        assert "bolt" not in body, path
    alone = tmp_path / "alone"
    report.write(published_home.published, alone, tenant="tree")
    assert {path.name for path in alone.iterdir()} == {"index.html", report.MARKER, "tenant-tree"}
    assert not any("bolt" in path.read_text("utf-8") for path in alone.rglob("*.html"))
    everybody = (site / "all" / "overview.html").read_text("utf-8")
    assert "(bolt)" in everybody
    assert "(tree)" in everybody


def test_the_command(
    published_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(published_home.root))
    out = tmp_path / "pages"
    assert cli.main(["report", "--out", str(out), "--tenant", "bolt"]) == 0
    assert capsys.readouterr().out.strip() == str(out / "index.html")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (out, *out.rglob("*")))
    (out / "tenant-gone").mkdir()
    assert cli.main(["report", "--out", str(out), "--tenant", "bolt"]) == 0
    assert not (out / "tenant-gone").exists(), "of an earlier report nothing stays"
    assert cli.main(["report", "--out", str(out), "--tenant", "nobody"]) == 2
    assert "nothing is published of tenant" in capsys.readouterr().err
    assert (out / "index.html").exists()


def test_nothing_but_a_report_is_replaced(
    published_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(published_home.root))
    (tmp_path / "letters").mkdir()
    kept = tmp_path / "letters" / "index.html"
    kept.write_text("mine")
    assert cli.main(["report", "--out", str(tmp_path / "letters")]) == 2
    assert "holds something else" in capsys.readouterr().err
    assert kept.read_text() == "mine"
    assert cli.main(["report", "--out", str(kept)]) == 2
    assert "name a folder" in capsys.readouterr().err
