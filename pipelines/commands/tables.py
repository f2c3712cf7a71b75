"""Tables on a terminal: no wider than the terminal, no number and no name broken.

Does not belong here: what a table holds (the commands), bars and messages (terminal.py).
"""

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import zip_longest
from textwrap import wrap

from pipelines.commands.terminal import say, terminal_width
from pipelines.contract.numbers import money, plain, words
from pipelines.contract.pseudonyms import renaming

GAP = "  "
FEW_WORDS = 3  # a cell of more is a sentence
NARROWEST = 24  # columns that a sentence needs
SHORT = 8  # characters of an id that are shown at least
Optional = str | tuple[str, ...]
"""A column that a narrow terminal does without, or several that say nothing without each other."""
NO_PRICE = "no price"
_NUMBER = re.compile(rf"-|{NO_PRICE}|<?-?\d[\d,]*(\.\d+)?%?")
_LONG_ID = re.compile(r"(?P<prefix>([a-z]+:)?(k1_|session_\d{8}_\d{6}_)?)(?P<digits>[0-9a-f]{8,64})")


def show(
    rows: Sequence[Mapping[str, object]], *, nothing: str, is_json: bool = False, optional: Sequence[Optional] = (),
    is_exact: bool = False,
) -> None:  # fmt: skip
    """Print rows as one JSON array, exact, or as a table; the sentence `nothing` where there is none."""
    if is_json:
        print(as_json(rows))
    elif rows:
        names = [words(name) for name in rows[0]]
        table(names, [list(row.values()) for row in rows], optional=optional, is_exact=is_exact)
    else:
        say(nothing)


def as_json(value: object) -> str:
    """JSON text; amounts in all their digits and times in ISO 8601, as strings."""
    return json.dumps(value, default=_exact)


def _exact(value: object) -> str:
    if isinstance(value, Decimal):
        return plain(value)
    return value.isoformat() if isinstance(value, date) else str(value)


def table(
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    optional: Sequence[Optional] = (),
    is_exact: bool = False,
) -> None:
    """Print rows under their column names on standard output.

    Numbers stand to the right with their decimal points below each other, counts with thousands separators, amounts
    (Decimal) with the digits that people read and keyed hashes as their pseudonyms or, `is_exact`, in full; times in
    UTC, None as `-`.

    On a terminal too narrow for all columns long ids are shortened as far as they stay different, then the columns in
    `optional` are left out in its order and named below the table, then sentences stand on several lines; if that is
    not enough, each row becomes a block of lines `name  value`. A pipe or a file has no width, unless COLUMNS says one.
    """
    cells = texts(rows, is_exact=is_exact)
    print("\n".join(render(names, cells, width=terminal_width(), optional=optional, is_bold=_is_coloured())))


def texts(rows: Sequence[Sequence[object]], *, is_exact: bool = False) -> list[list[object]]:
    """Values as `table` prints them."""
    cells = [[_text(value, is_exact=is_exact) for value in row] for row in rows]
    if is_exact:
        return cells
    rename = renaming(value for row in cells for value in row if isinstance(value, str))
    return [[rename(value) if isinstance(value, str) else value for value in row] for row in cells]


def _text(value: object, *, is_exact: bool) -> object:
    if isinstance(value, Decimal):
        return plain(value) if is_exact else money(value)
    if isinstance(value, datetime):
        return f"{value if value.tzinfo is None else value.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    return value


def render(
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None,
    optional: Sequence[Optional] = (),
    is_bold: bool = False,
) -> list[str]:
    """The lines of a table of at most `width` columns; only a single value wider than that is longer."""
    columns = {name: _aligned([_cell(row[number]) for row in rows]) for number, name in enumerate(names)}
    if width is None or _width(columns) <= width:
        return _grid(columns, is_bold=is_bold)
    columns = {name: _shortened(cells) for name, cells in columns.items()}
    left_out: list[str] = []
    for entry in optional:
        if _width(columns) <= width:
            break
        for name in [name for name in ([entry] if isinstance(entry, str) else entry) if name in columns]:
            del columns[name]
            left_out.append(name)
    if _width(columns) > width and (narrowed := _narrowed(columns, width)) is not None:
        note = wrap(f"not shown in {width} columns: {', '.join(left_out)}", width) if left_out else []
        return [*_grid(narrowed, is_bold=is_bold), *note]
    if _width(columns) > width:
        columns = {name: _shortened([_cell(row[number]) for row in rows]) for number, name in enumerate(names)}
        return _blocks(columns, width, is_bold=is_bold)
    note = wrap(f"not shown in {width} columns: {', '.join(left_out)}", width) if left_out else []
    return [*_grid(columns, is_bold=is_bold), *note]


def _narrowed(columns: dict[str, list[str]], width: int) -> dict[str, list[str]] | None:
    """The columns with their sentences on lines (joined by newlines) that let them fit; None if they cannot."""
    sentences = {name: cells for name, cells in columns.items() if any(len(cell.split()) > FEW_WORDS for cell in cells)}
    rest = {name: cells for name, cells in columns.items() if name not in sentences}
    left = width - (_width(rest) + len(GAP) if rest else 0) - len(GAP) * (len(sentences) - 1)
    share = left // len(sentences) if sentences else 0
    words = [word for name, cells in sentences.items() for cell in (name, *cells) for word in cell.split()]
    if share < NARROWEST or any(len(word) > share for word in words):
        return None
    return {
        name: ["\n".join(wrap(cell, share, break_long_words=False, break_on_hyphens=False)) for cell in cells]
        if name in sentences
        else cells
        for name, cells in columns.items()
    }


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.split()) or "-"


def _aligned(cells: list[str]) -> list[str]:
    """Cells of one width: numbers to the right, with their points below each other; all else to the left."""
    if cells and all(_NUMBER.fullmatch(cell) for cell in cells):
        behind = max(len(_fraction(cell)) for cell in cells)
        cells = [cell if cell == NO_PRICE else cell + " " * (behind - len(_fraction(cell))) for cell in cells]
        longest = max(map(len, cells))
        return [cell.rjust(longest) for cell in cells]
    longest = max(map(len, cells), default=0)
    return [cell.ljust(longest) for cell in cells]


def _fraction(number: str) -> str:
    return "".join(number.partition(".")[1:]).rstrip("%")


def _shortened(cells: list[str]) -> list[str]:
    """Ids cut to as many of their characters as tell them apart; other cells as they are."""
    matches = [_LONG_ID.fullmatch(cell.strip()) for cell in cells]
    digits = {match["digits"] for match in matches if match}
    if not digits:
        return cells
    length = next(n for n in range(SHORT, 65) if len({text[:n] for text in digits}) == len(digits))
    return _aligned(
        [
            (match["prefix"] or "") + match["digits"][:length] + ("…" if len(match["digits"]) > length else "")
            if match
            else cell.strip()
            for match, cell in zip(matches, cells, strict=True)
        ]
    )


def _heads(name: str, cells: list[str]) -> list[str]:
    """A column's name on as many lines as keep it no wider than it must be: words are not broken."""
    longest = max([*map(len, name.split()), *map(len, cells[:1])], default=1)
    return wrap(name, max(longest, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _widths(columns: dict[str, list[str]]) -> dict[str, int]:
    widths = {}
    for name, cells in columns.items():
        lines = [line for cell in cells for line in cell.split("\n")]
        widths[name] = max(map(len, [*_heads(name, cells), *lines]), default=0)
    return widths


def _width(columns: dict[str, list[str]]) -> int:
    widths = _widths(columns)
    return sum(widths.values()) + len(GAP) * (len(widths) - 1)


def _grid(columns: dict[str, list[str]], *, is_bold: bool) -> list[str]:
    widths = _widths(columns)
    heads = {name: _heads(name, cells) for name, cells in columns.items()}
    height = max(map(len, heads.values()), default=1)
    lines = []
    is_number = {
        name: bool(cells) and all(_NUMBER.fullmatch(cell.strip()) for cell in cells) for name, cells in columns.items()
    }
    for level in range(height):
        titles = []
        for name, head in heads.items():
            text = head[level - (height - len(head))] if level >= height - len(head) else ""
            titles.append(text.rjust(widths[name]) if is_number[name] else text.ljust(widths[name]))
        line = GAP.join(titles).rstrip()
        lines.append(f"\x1b[1m{line}\x1b[0m" if is_bold else line)
    lines.append("─" * (sum(widths.values()) + len(GAP) * (len(widths) - 1)))
    for row in zip(*columns.values(), strict=True):
        for parts in zip_longest(*(cell.split("\n") for cell in row), fillvalue=""):
            cells = (
                part.rjust(widths[name]) if is_number[name] else part.ljust(widths[name])
                for name, part in zip(columns, parts, strict=True)
            )
            lines.append(GAP.join(cells).rstrip())
    return lines


def _blocks(columns: dict[str, list[str]], width: int, *, is_bold: bool) -> list[str]:
    """A block of lines for each row."""
    longest = max(map(len, columns))
    lines: list[str] = []
    for row in zip(*columns.values(), strict=True):
        if lines:
            lines.append("")
        for name, cell in zip(columns, row, strict=True):
            head, *rest = wrap(
                cell.strip(), max(width - longest - len(GAP), 10), break_long_words=False, break_on_hyphens=False
            ) or ["-"]
            label = name.ljust(longest)
            lines.append(f"\x1b[1m{label}\x1b[0m{GAP}{head}" if is_bold else f"{label}{GAP}{head}")
            lines += [" " * (longest + len(GAP)) + text for text in rest]
    return lines


def _is_coloured() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"
