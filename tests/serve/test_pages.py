"""The pages in a browser: whole at both widths, light and dark, readable for everybody, and they load nothing.

Drives the system's Chromium (Debian's package `chromium`); skipped where there is none.
Does not belong here: what the pages say (test_report.py, test_api.py).
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, sync_playwright
from starlette.testclient import TestClient

from pipelines.home import Home
from pipelines.serve import report, report_pages
from pipelines.serve.app import make_app

pytestmark = pytest.mark.services

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WIDTHS = (400, 1400)

# Elements whose text is cut off: what they hold is wider or higher than they show, and nothing scrolls it. Bars have no
# text; what is hidden until it is focused or opened is not cut off.
CLIPPED = """() => [...document.querySelectorAll('body *')].filter(element => {
    const style = getComputedStyle(element);
    if (!element.innerText || !element.checkVisibility() || element.closest('svg, .skip')) return false;
    const hides = value => value === 'hidden' || value === 'clip';
    return (hides(style.overflowX) && element.scrollWidth > element.clientWidth + 1)
        || (hides(style.overflowY) && element.scrollHeight > element.clientHeight + 1);
}).map(element => element.outerHTML.slice(0, 200))"""
# Elements that stand out of the page and are not in a box that scrolls by itself.
OUTSIDE = """() => [...document.querySelectorAll('body *')].filter(element =>
    element.checkVisibility() && !element.closest('.wide, .skip')
    && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1
).map(element => element.outerHTML.slice(0, 200))"""
SIDEWAYS = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
UNFOLD = "() => document.querySelectorAll('details').forEach(element => { element.open = true })"
STOPS = "a:not(.skip), summary, .wide"
TINY = """() => [...document.querySelectorAll('main text, main td, main th, main li, main p, main dd, main dt')]
    .filter(element => element.checkVisibility() && parseFloat(getComputedStyle(element).fontSize) < 11)
    .map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium: install the Debian package chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture(scope="module")
def pages(published_home: Home, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Every page of one tenant, one of all, and the page that describes the API."""
    out = tmp_path_factory.mktemp("pages") / "report"
    report.write(published_home.published, out)
    described = out / "docs.html"
    described.write_text(TestClient(make_app(published_home)).get("/docs").text, "utf-8")
    found = [out / "tenant-tree" / report.file_name(page, report.ALL) for page in report_pages.PAGES]
    return [*found, out / "all" / "overview-all.html", described]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_pages_are_whole_and_readable(browser: Browser, pages: list[Path], width: int, scheme: Any) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page = context.new_page()
    requested: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: requested.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    for path in pages:
        page.goto(path.as_uri())
        for is_unfolded in (False, True):
            if is_unfolded:
                page.evaluate(UNFOLD)
            where = (path.name, width, scheme, is_unfolded)
            assert page.evaluate(SIDEWAYS) <= 0, where
            assert page.evaluate(OUTSIDE) == [], where
            assert page.evaluate(CLIPPED) == [], where
            assert page.evaluate(TINY) == [], where
        found = Axe().run(page)
        assert found.violations_count == 0, (where, found.generate_report())
    assert requested == [path.as_uri() for path in pages]
    assert said == []
    context.close()


def test_pages_are_used_by_keyboard(browser: Browser, pages: list[Path]) -> None:
    """The first stop leads to the content; then every link, summary and table, in the order of the page."""
    page = browser.new_page()
    page.goto(pages[0].as_uri())
    page.keyboard.press("Tab")
    assert page.evaluate("() => document.activeElement.getAttribute('href')") == "#main"
    stops = page.evaluate(f"() => document.querySelectorAll('{STOPS}').length")
    reached = []
    for _ in range(stops):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.tagName") == "SUMMARY":
            page.keyboard.press("Enter")
        reached.append(
            page.evaluate(f"() => [...document.querySelectorAll('{STOPS}')].indexOf(document.activeElement)")
        )
    assert reached == list(range(stops))
    page.close()


def test_a_printed_page_has_its_tables(browser: Browser, pages: list[Path]) -> None:
    page = browser.new_page()
    page.goto(pages[0].as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("() => [...document.querySelectorAll('table')].every(element => element.checkVisibility())")
    assert page.evaluate("() => [...document.querySelectorAll('nav')].every(element => !element.checkVisibility())")
    page.close()
