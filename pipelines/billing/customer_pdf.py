"""The page of an account's month as PDF: the texts of the HTML page on A4, for who sends it without a browser.

Texts are set in fonts that every reader has and are not compressed: the search of an erasure finds a name in them.
Does not belong here: what stands on the page (customer_page.py).
"""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfbase.pdfmetrics import stringWidth
from reportlab.platypus import Flowable, Paragraph, SimpleDocTemplate, Table

from pipelines.billing.customer_page import content, texts
from pipelines.contract.pseudonyms import renaming

if TYPE_CHECKING:
    from pipelines.billing.current import Month

MARGIN = 18 * mm
WIDTH = A4[0] - 2 * MARGIN
PLAIN, BOLD, SIZE = "Helvetica", "Helvetica-Bold", 9.5
REPLACED = "A question mark in a name stands for a character that this file cannot show; the HTML page has it."


def pdf(month: "Month") -> bytes:
    """The page as PDF, the same bytes for the same statement."""
    said = content(month)
    sink = io.BytesIO()
    # invariant: else the file holds the time it was made.
    document = SimpleDocTemplate(
        sink, pagesize=A4, pageCompression=0, invariant=1, lang="en", author="apiary",
        title=_shown(f"{said['account']}, {said['period']}"),
        leftMargin=MARGIN, rightMargin=MARGIN, topMargin=MARGIN, bottomMargin=MARGIN,
    )  # fmt: skip
    document.build(list(_flow(said)), onFirstPage=_number, onLaterPages=_number)
    return sink.getvalue()


def _flow(said: dict[str, Any]) -> Iterator[Flowable]:
    rename = renaming(texts(said))
    yield _text(f"{said['account']}, {said['period']}", size=18)
    yield _text(said["state"])
    yield from map(_text, said["rates"])
    for invoice in said["invoices"]:
        lines = [(line["charge"], rename(line["model"] or ""), line["amount"]) for line in invoice["lines"]]
        total = ("Payable, before tax", "", invoice["payable"])
        tax = ("Tax", "to be filled in by the sender", "")
        yield _text(f"Invoice {invoice['id']}", size=13)
        yield _table(("Charge", "Model", invoice["currency"]), [*lines, total, tax], total=len(lines) + 1)
    for share in said["shares"]:
        rows = [(rename(row["name"]), row["tokens"], row["amount"], row["share"]) for row in share["rows"]]
        yield from _section(share["title"], "", (share["name"], "Tokens", "Amount", "Share"), rows)
    corrections = [(row["month"], row["cause"], row["amount"]) for row in said["corrections"]]
    yield from _section("Corrections of earlier months", "", ("Month", "Cause", "Amount"), corrections)
    unpriced = [(rename(row["name"]), row["tokens"]) for row in said["unpriced"]]
    yield from _section("Usage without a price", said["unpriced_note"], ("Model", "Tokens"), unpriced)
    yield _text("How to check it", size=13)
    yield _text(
        "Each amount is the sum of rows in costs.csv beside this page, to the last digit; an invoice is rounded once. "
        "The statement that the page was made from has the manifest"
    )
    yield _text(said["manifest"], font="Courier")
    yield _text(
        "Ask for it: apiary verify says whether its files are what was signed. Its file focus_cost_and_usage.csv has "
        "the rows that these amounts are sums of; apiary prove ROW shows where the one with this x_RowKey comes from."
    )
    if any(_shown(text) != text for text in texts(said)):
        yield _text(REPLACED)


def _section(title: str, note: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[Flowable]:
    if rows:
        yield _text(title, size=13)
        if note:
            yield _text(note)
        yield _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], *, total: int | None = None) -> Flowable:
    """A table as wide as the page: the first column has what the others leave. `total`: a row in bold."""
    shown = [[_shown(text) for text in row] for row in (header, *rows)]
    widths = [max(stringWidth(row[n], BOLD, SIZE) for row in shown) + 14 for n in range(1, len(header))]
    widest = WIDTH / 2 / len(widths)
    widths = [WIDTH - sum(min(width, widest) for width in widths), *(min(width, widest) for width in widths)]
    cells = [["\n".join(_lines(text, width - 12)) for text, width in zip(row, widths, strict=True)] for row in shown]
    numbers = [n for n, name in enumerate(header) if n and name not in ("Model", "Cause")]
    rules: list[tuple[Any, ...]] = [
        ("FONT", (0, 0), (-1, -1), PLAIN, SIZE),
        ("FONT", (0, 0), (-1, 0), BOLD, SIZE),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.lightgrey),
        ("LEFTPADDING", (0, 0), (0, -1), 0),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        *(("ALIGN", (n, 0), (n, -1), "RIGHT") for n in numbers),
    ]
    if total is not None:
        rules += [
            ("FONT", (0, total), (-1, total), BOLD, SIZE),
            ("LINEABOVE", (0, total), (-1, total), 1, colors.black),
        ]
    return Table(cells, colWidths=widths, repeatRows=1, style=rules, hAlign="LEFT", spaceBefore=4, spaceAfter=10)


def _lines(text: str, width: float) -> Iterator[str]:
    """A text of a cell in as many lines as it needs, cut at blanks, or within a word that is wider than its column."""
    line = ""
    for letter in text:
        if line and stringWidth(line + letter, BOLD, SIZE) > width:
            head, blank, tail = line.rpartition(" ")
            yield head if blank else line
            line = tail if blank else ""
        line += letter
    yield line


def _text(text: str, *, size: float = 10, font: str = PLAIN) -> Flowable:
    is_heading = size > 10
    style = ParagraphStyle(
        str(size), fontName=BOLD if is_heading else font, fontSize=size, leading=size * 1.35,
        spaceBefore=8 if is_heading else 2, spaceAfter=3, keepWithNext=int(is_heading), splitLongWords=1,
    )  # fmt: skip
    return Paragraph(escape(_shown(text)), style)


def _shown(text: str) -> str:
    """A text in the characters that the standard fonts of PDF have."""
    return text.encode("cp1252", "replace").decode("cp1252")


def _number(canvas: Any, document: Any) -> None:
    canvas.setFont(PLAIN, 8)
    canvas.drawRightString(MARGIN + WIDTH, MARGIN / 2, f"page {document.page}")
