"""The folder that finance works with: valid versions only, an account apart, no sessions, numbers as numbers."""

import csv
import io
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime
from decimal import Decimal
from html import unescape
from pathlib import Path

import duckdb
import openpyxl
import pytest
from pypdf import PdfReader

from pipelines.billing import current
from pipelines.billing.exports import export_days, export_month
from pipelines.billing.statements import StatementStore
from pipelines.contract.pseudonyms import pseudonym
from tests.billing.ledgers import Ledger, charge, line

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
AT = datetime(2025, 3, 2, tzinfo=UTC)
BOLT = {"tenant_id": "bolt", "billing_account_id": "acct/bolt", "currency": "JPY", "user_id": "=HYPERLINK(1)"}
NAMES = ("session_20250103_120000_0a1b2c3d", "colony_of_ada", "queen_of_ada")
KEYED = "k1_" + "5" * 32
THEIRS = {"session_id": NAMES[0], "root_session_id": NAMES[0], "colony_id": NAMES[1]}


@pytest.fixture(scope="module")
def exported(new_ledger: Callable[[], Ledger]) -> Path:
    """Two accounts, two months, a version that was superseded, a correction, a charge, usage without a price."""
    nothing = dict.fromkeys(("list_unit_price", "contracted_unit_price", "list_cost", "contracted_cost", "billed_cost"))
    ledger = new_ledger()
    ledger.tell([
        line("a", date(2025, 1, 3), 333_333, "0.075", **THEIRS), line("b", date(2025, 1, 4), 1, "3", **THEIRS),
        line("c", date(2025, 1, 5), 999_999, "2", **BOLT), line("d", date(2025, 2, 5), 77, "15"),
        line("n", date(2025, 2, 5), 5, **nothing | {"model": "unknown", "rating_status": "unpriced"}),
        line("k", date(2025, 2, 6), 7, model=KEYED),
        line("o", date(2025, 2, 7), 5, **nothing | {"model": KEYED, "rating_status": "unpriced"}),
    ])  # fmt: skip
    ledger.charge([charge("credit", JANUARY, "-0.01", "credit")])
    ledger.build()
    export_month(ledger.export(datetime(2025, 1, 20, tzinfo=UTC)), JANUARY, "acct-acme")
    ledger.tell([line("a", date(2025, 1, 3), 444_444, "0.075", **THEIRS)])
    ledger.close(JANUARY)
    ledger.tell([line("b", date(2025, 1, 4), 2, "3", **THEIRS)])
    ledger.build()
    for month in (JANUARY, FEBRUARY):
        for account in ("acct-acme", "acct/bolt"):
            export_month(ledger.export(AT), month, account)
    export_days(ledger.export(AT))
    current.refresh(StatementStore.open(ledger.exports))
    return ledger.exports


@pytest.fixture
def finance(exported: Path, tmp_path: Path) -> Path:
    """The same in a folder of the test's own."""
    return shutil.copytree(exported, tmp_path / "exports", symlinks=True)


def printed(pdf: bytes) -> str:
    """What somebody who opens a PDF reads, blanks apart."""
    return "".join("".join(page.extract_text().split()) for page in PdfReader(io.BytesIO(pdf)).pages)


def totals(folder: Path) -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(Decimal)
    with (folder / "costs.csv").open(encoding="utf-8-sig", newline="") as file:
        for row in csv.DictReader(file):
            found[row["currency"]] += Decimal(row["billed_cost"])
    return found


def payables(exports: Path, account: str, month: str) -> dict[str, Decimal]:
    folder = exports / "monthly" / f"billing_period={month}" / f"account={account}"
    manifest = StatementStore.open(exports).newest[folder].manifest
    found: dict[str, Decimal] = defaultdict(Decimal)
    for said in manifest["payable"].values():
        found[said["currency"]] += Decimal(said["payable"])
    return found


def folders(exports: Path) -> Iterable[tuple[str, str, Path]]:
    for folder in sorted((exports / "current").glob("*/*")):
        yield folder.parent.name, folder.name, folder


def test_each_file_ties_to_the_invoice_to_the_cent(finance: Path) -> None:
    """And of each account's month there is one, however many versions were written."""
    found = list(folders(finance))
    assert [(account, month) for account, month, _ in found] == [
        ("acct%2Fbolt", "2025-01"), ("acct%2Fbolt", "2025-02"), ("acct-acme", "2025-01"), ("acct-acme", "2025-02"),
    ]  # fmt: skip
    for account, month, folder in found:
        expected = payables(finance, account, month)
        assert totals(folder) == expected
        sql = f"select currency, sum(payable) from read_parquet('{folder}/invoice.parquet') group by all"
        assert dict(duckdb.sql(sql).fetchall()) == expected
    everything = f"select sum(payable) from read_parquet('{finance}/current/acct-acme/*/invoice.parquet')"
    assert duckdb.sql(everything).fetchone() == (Decimal("0.02"),), "nothing is there twice"


def test_nobodys_session_is_in_it_and_no_other_account(finance: Path) -> None:
    for account, _, folder in folders(finance):
        for path in folder.iterdir():
            if path.suffix == ".parquet":
                text = str(duckdb.sql(f"select * from read_parquet('{path}')").fetchall())
            elif path.suffix == ".xlsx":
                text = str([[*sheet.values] for sheet in openpyxl.load_workbook(path).worksheets])
            elif path.suffix == ".pdf":
                text = printed(path.read_bytes())
            else:
                text = path.read_text("utf-8")
            assert not [name for name in NAMES if name in text], path
            other = "acct-acme" if account != "acct-acme" else "bolt"
            assert other not in text, path


def test_a_workbook_holds_numbers_and_a_summary(finance: Path) -> None:
    folder = finance / "current" / "acct-acme" / "2025-02"
    book = openpyxl.load_workbook(folder / "statement.xlsx")
    assert book.sheetnames == ["Summary", "Invoice", "Costs"]
    said = dict(book["Summary"].values)
    assert said["payable (USD)"] == 0.00
    assert said["tokens without a price"] == 10
    assert said["models without a price"] == f"{KEYED}, unknown"
    assert said["change to last month (USD)"] == pytest.approx(-0.02)
    assert said["corrections of earlier months"] == pytest.approx(0.000003)
    header, *rows = book["Costs"].values
    amounts = [row[header.index("billed_cost")] for row in rows]
    assert all(isinstance(amount, int | float) for amount in amounts)
    bolt = openpyxl.load_workbook(finance / "current" / "acct%2Fbolt" / "2025-01" / "statement.xlsx")
    cells = [value for row in bolt["Costs"].values for value in row]
    assert "'=HYPERLINK(1)" in cells
    assert not [cell for sheet in bolt for row in sheet for cell in row if cell.data_type == "f"]


def test_the_page_says_what_is_payable_and_what_was_corrected(finance: Path) -> None:
    text = (finance / "current" / "acct-acme" / "2025-02" / "statement.html").read_text()
    for part in ("INV-2025-02-acct-acme-USD", "Payable, before tax", "Corrections of earlier months", "unknown",
                 "apiary verify", "@media print"):  # fmt: skip
        assert part in text
    assert not [word for word in ("http:", "https:", "<script", "src=") if word in text]
    yen = (finance / "current" / "acct%2Fbolt" / "2025-01" / "statement.html").read_text()
    assert '<td class="n">2</td>' in yen, "yen have no digits behind the point"
    assert "&#39;=HYPERLINK" in yen or "=HYPERLINK" in yen


def test_a_keyed_model_has_the_name_that_screens_show(finance: Path) -> None:
    folder = finance / "current" / "acct-acme" / "2025-02"
    page, printable = (folder / "statement.html").read_text(), printed((folder / "statement.pdf").read_bytes())
    assert page.count(f'<td title="{KEYED}">{pseudonym(KEYED)}</td>') == page.count(pseudonym(KEYED)) == 3
    assert (pseudonym(KEYED) in printable, KEYED in printable) == (True, False)
    assert KEYED in (folder / "costs.csv").read_text(), "the files have the exact id"


def test_what_has_no_price_is_billed_in_an_open_month_if_the_price_comes_in_time(finance: Path) -> None:
    page = (finance / "current" / "acct-acme" / "2025-02" / "statement.html").read_text()
    assert "billed in this month if its price comes before the month is closed, else in a later one" in page


def test_the_pdf_says_what_the_page_says(finance: Path) -> None:
    compared = 0
    for _, _, folder in folders(finance):
        html, pdf = (folder / "statement.html").read_text(), (folder / "statement.pdf").read_bytes()
        cells = [unescape(cell) for cell in re.findall(r"<(?:td|th|h1|h2)[^>]*>([^<]*)<", html)]
        compared += len(cells)
        text = printed(pdf)
        assert [cell for cell in cells if "".join(cell.split()) not in text] == []
    assert compared > 60
    acme = (finance / "current" / "acct-acme" / "2025-01" / "statement.pdf").read_bytes()
    assert b"(ada)" in acme, "the search of an erasure reads it"


@pytest.mark.parametrize(
    ("user", "shown"),
    [("m" * 300, "m" * 300), ("käthe & <b>", "käthe & <b>"), ("蜂 " * 60, "? " * 60), ("word " * 80, "word " * 80)],
)
def test_a_pdf_shows_every_name_whole(ledger: Ledger, user: str, shown: str) -> None:
    """However long it is, and on however many pages; what its fonts do not have is told."""
    ledger.tell([line(f"r{n}", date(2025, 1, 3), 1_000_000 + n, user_id=f"{user}{n}") for n in range(90)])
    ledger.build()
    export_month(ledger.export(AT), JANUARY, "acct-acme")
    current.refresh(StatementStore.open(ledger.exports))
    pdf = (ledger.exports / "current" / "acct-acme" / "2025-01" / "statement.pdf").read_bytes()
    text = printed(pdf)
    assert [n for n in range(90) if "".join(f"{shown}{n}".split()) not in re.sub(r"page\d+$", "", text)] == []
    assert ("Aquestionmark" in text) == ("?" in shown)


def test_it_is_replaced_when_a_statement_is_and_else_left_alone(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 3)), line("b", date(2025, 1, 3), **BOLT)])
    ledger.build()
    for account in ("acct-acme", "acct/bolt"):
        export_month(ledger.export(AT), JANUARY, account)
    assert len(current.refresh(StatementStore.open(ledger.exports))) == 2
    assert current.refresh(StatementStore.open(ledger.exports)) == []
    before = {path: path.read_bytes() for path in (ledger.exports / "current").rglob("*") if path.is_file()}
    ledger.tell([line("a", date(2025, 1, 3), 5)])
    ledger.build()
    export_month(ledger.export(AT), JANUARY, "acct-acme")
    assert [path.parent.name for path in current.refresh(StatementStore.open(ledger.exports))] == ["acct-acme"]
    after = {path: path.read_bytes() for path in (ledger.exports / "current").rglob("*") if path.is_file()}
    assert {path for path in before if before[path] != after[path]} == {
        path for path in before if "acct-acme" in path.parts and path.name != "nothing"
    }
    shutil.rmtree(ledger.exports / "current")
    current.refresh(StatementStore.open(ledger.exports))
    again = {path: path.read_bytes() for path in (ledger.exports / "current").rglob("*") if path.is_file()}
    assert again == after, "the same statement gives the same bytes"


@pytest.mark.long  # each conversion starts LibreOffice anew
@pytest.mark.skipif(shutil.which("soffice") is None, reason="LibreOffice is not installed: make spreadsheet-check")
def test_libreoffice_reads_the_same_totals(finance: Path, tmp_path: Path) -> None:
    for account, month, folder in folders(finance):
        for name in ("costs.csv", "invoice.csv", "statement.xlsx"):
            target = tmp_path / account / month / name.partition(".")[0]
            sheet = (
                "csv:Text - txt - csv (StarCalc):44,34,76,1,,0,false,true,false,false,false,3"
                if "x" in name
                else "xlsx"
            )
            subprocess.run(
                ["soffice", "--headless", f"-env:UserInstallation={(tmp_path / 'profile').as_uri()}", "--convert-to",
                 sheet, "--outdir", target, folder / name],
                check=True, capture_output=True, timeout=120,
            )  # fmt: skip
            (made,) = target.iterdir()
            if made.suffix == ".xlsx":
                header, *rows = openpyxl.load_workbook(made).active.values
                records = [dict(zip(header, row, strict=True)) for row in rows]
            else:
                with made.open(encoding="utf-8-sig", newline="") as file:
                    records = list(csv.DictReader(file))
            found: dict[str, Decimal] = defaultdict(Decimal)
            for record in records:
                found[record["currency"]] += Decimal(str(record["payable" if name == "invoice.csv" else "billed_cost"]))
            expected = payables(finance, account, month)
            assert {c: round(v, 9) for c, v in found.items()} == {c: round(v, 9) for c, v in expected.items()}


def test_the_rates_are_those_of_the_unit_prices() -> None:
    row = {"BillingCurrency": "EUR", "PricingCurrency": "USD", "PricingCurrencyListUnitPrice": Decimal("0.0000015")}
    dollars = row | {"BillingCurrency": "USD", "ListUnitPrice": Decimal("0.0000015")}
    nothing = row | {"PricingCurrencyListUnitPrice": None, "ListUnitPrice": None}
    rows = [row | {"ListUnitPrice": Decimal("0.000001305")}, dollars, nothing]
    assert current._rates(rows) == [("USD", "EUR", Decimal("0.87"))]
