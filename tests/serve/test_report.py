"""The report: the marts' numbers, nothing loaded from elsewhere, and no tenant in another one's page."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.contract.numbers import money, plain
from pipelines.home import Home
from pipelines.serve import report
from pipelines.warehouse.metrics import metrics
from pipelines.warehouse.reading import connect


class Page(HTMLParser):
    """What a reader finds: tables by caption, headline numbers, attributes, and tags that were left open."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.headlines: dict[str, str] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self.h2: list[str] = []
        self._inside: list[tuple[str, dict[str, str | None]]] = []
        self._rows: list[list[str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]
        if tag not in self.VOID:
            self._inside.append((tag, dict(attrs)))
        if tag == "tr":
            self._rows.append([])
        if tag in ("td", "th") and self._rows:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        tag, attributes = self._inside[-1] if self._inside else ("", {})
        if tag == "caption":
            self._rows = self.tables.setdefault(data, [])
        elif tag in ("td", "th") or (tag == "data" and self._inside[-2][0] == "td"):
            self._rows[-1][-1] += data
        elif tag == "data":
            self.headlines[str(self._inside[-2][1]["data-metric"])] = data
        elif tag == "dd":
            self.headlines[str(attributes["data-metric"])] = data
        elif tag == "h2":
            self.h2.append(data)


@pytest.fixture(scope="module")
def page(published_home: Home, tmp_path_factory: pytest.TempPathFactory) -> str:
    out = tmp_path_factory.mktemp("report") / "page.html"
    return report.write(published_home.published, out, tenant="tree").read_text("utf-8")


def test_headlines_are_the_metrics(page: str, published_home: Home) -> None:
    found = Page(page).headlines
    assert set(found) == set(report.HEADLINES)
    with connect(published_home.published) as connection:
        for name, text in found.items():
            metric = metrics()[name]
            ((value,),) = connection.execute(
                f"SELECT {metric.formula} FROM {metric.of} WHERE tenant_id = 'tree'"
            ).fetchall()
            if value is None:
                assert text == "unknown", name
            else:
                assert text == (money(value) if metric.unit == "USD" else f"{value:,}"), name
                assert metric.unit != "USD" or f'title="{plain(value)}"' in page, "exact for whoever asks"


def test_tables_hold_the_numbers_of_the_marts(page: str) -> None:
    tables = Page(page).tables
    models = {row[0]: row[1:] for row in tables["Which models are used?"][1:]}
    assert models == {"m": ["12", "15,425", "unknown", "15,425", "16.65"]}, "no price: all tokens are unpriced"
    waste = {row[0]: row[1:] for row in tables["What was for nothing?"][1:]}
    assert waste["cancelled"] == ["2", "3,118", "8.60"]
    inherited = tables["What does inherited context cost?"][1:]
    assert inherited == [
        ["fork", "1", "4,700", "4,200", "3,600", "0.3000"],
        ["worker", "3", "7,100", "5,300", "0", "1.05"],
    ]
    assert [row[1] for row in tables["Which trees of sessions are the largest?"][1:]] == ["queen", "stray"]
    assert tables["Will the budgets last?"][1][0] == "b"
    days = tables["How many tokens per day?"]
    assert days[0] == [
        "day", "turns", "tokens", "rated cost USD", "tokens without a price", "reported cost USD", "users", "colonies",
        "sessions",
    ]  # fmt: skip
    assert sum(int(row[2].replace(",", "")) for row in days[1:]) == 15_425
    assert [row[0] for row in tables["At which hours of the day?"][1:]] == [str(hour) for hour in range(24)]
    for many in ("users", "agents"):
        rows = tables[f"Which {many} use most?"][1:]
        assert sum(int(row[3].replace(",", "")) for row in rows) == 15_425, many


def test_the_zone_of_days_and_hours_is_named(page: str) -> None:
    assert page.count("of the zone UTC.") == 2


def test_the_page_loads_nothing(page: str) -> None:
    assert "default-src 'none'" in page
    loads = [(t, n, v) for t, n, v in Page(page).attributes if n in ("src", "href", "data", "action", "xlink:href")]
    assert [found for found in loads if not (found[2] or "").startswith("#")] == []
    assert not re.search(r"<script|@import|url\((?!#|&quot;#)", page)


def test_the_page_can_be_read_without_seeing_it(page: str) -> None:
    found = Page(page)
    assert ("html", "lang", "en") in found.attributes
    assert "width=device-width" in page
    assert "prefers-color-scheme: dark" in page
    pictures = [value for tag, name, value in found.attributes if (tag, name) == ("figure", "aria-label")]
    assert len(pictures) == page.count("<figure") == page.count("<svg")
    assert len(pictures) >= 4
    titles = {(value or "").split(":")[0] for value in pictures}
    assert titles <= set(found.tables), "each picture has its numbers below it"
    assert all(title.endswith("?") for title in found.h2)


def test_a_tenants_page_names_nobody_else(page: str, published_home: Home, tmp_path: Path) -> None:
    assert "bolt" not in page
    everybody = report.write(published_home.published, tmp_path / "all.html").read_text("utf-8")
    assert "bolt" in everybody
    assert "tree" in everybody


def test_the_command(
    published_home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(published_home.root))
    out = tmp_path / "page.html"
    assert cli.main(["report", "--out", str(out), "--tenant", "bolt"]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    assert out.stat().st_mode & 0o077 == 0
    assert cli.main(["report", "--out", str(out), "--tenant", "nobody"]) == 2
    assert "nothing is published of tenant" in capsys.readouterr().err
