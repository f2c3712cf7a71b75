"""Tables on a terminal: no wider than the terminal, no number and no name broken.

Does not belong here: what a table holds (the commands), bars and messages (terminal.py).
"""

import os
import re
import shutil
import sys
from collections.abc import Sequence
from decimal import ROUND_HALF_EVEN, Decimal
from textwrap import wrap

GAP = "  "
SHORT = 8  # characters of an id that are shown at least
_NUMBER = re.compile(r"-|no price|<?-?\d[\d,]*(\.\d+)?%?")
_LONG_ID = re.compile(r"(?P<prefix>([a-z]+:)?(k1_|session_\d{8}_\d{6}_)?)(?P<digits>[0-9a-f]{8,64})")


def table(names: Sequence[str], rows: Sequence[Sequence[object]], *, optional: Sequence[str] = ()) -> None:
    """Print rows under their column names on standard output.

    Numbers stand to the right with their decimal points below each other, counts with thousands separators, None as
    `-`. On a terminal too narrow for all columns long ids are shortened as far as they stay different, then the columns
    in `optional` are left out in its order and named below the table; if that is not enough, each row
    becomes a block of lines `name  value`. A pipe or a file has no width, unless COLUMNS says one.
    """
    width = terminal_width()
    print("\n".join(render(names, rows, width=width, optional=optional, is_bold=_is_coloured())))


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where there is no edge."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(20, shutil.get_terminal_size().columns)
    return None


def money(amount: Decimal | str | None) -> str:
    """An amount for people: cents from 1 on, four significant digits below; `-` where there is none.

    The exact amount is what `--json` prints.
    """
    if amount is None:
        return "-"
    exact = Decimal(amount)
    if abs(exact) >= 1 or not exact:
        return f"{exact.quantize(Decimal('0.01'), ROUND_HALF_EVEN):,}"
    if abs(exact) < Decimal("0.000001"):
        return "<0.000001"
    digits = min(-exact.adjusted() + 3, 6)
    return f"{exact.quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN):f}"


def render(
    names: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    width: int | None,
    optional: Sequence[str] = (),
    is_bold: bool = False,
) -> list[str]:
    """The lines of a table of at most `width` columns; only a single value wider than that is longer."""
    columns = {name: _aligned([_cell(row[number]) for row in rows]) for number, name in enumerate(names)}
    if width is None or _width(columns) <= width:
        return _grid(columns, is_bold=is_bold)
    columns = {name: _shortened(cells) for name, cells in columns.items()}
    left_out: list[str] = []
    for name in [name for name in optional if name in columns]:
        if _width(columns) <= width:
            break
        del columns[name]
        left_out.append(name)
    if _width(columns) > width:
        columns = {name: _shortened([_cell(row[number]) for row in rows]) for number, name in enumerate(names)}
        return _blocks(columns, width, is_bold=is_bold)
    note = wrap(f"not shown in {width} columns: {', '.join(left_out)}", width) if left_out else []
    return [*_grid(columns, is_bold=is_bold), *note]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return " ".join(text.split()) or "-"


def _aligned(cells: list[str]) -> list[str]:
    """Cells of one width: numbers to the right, with their points below each other; all else to the left."""
    if cells and all(_NUMBER.fullmatch(cell) for cell in cells):
        behind = max(len(_fraction(cell)) for cell in cells)
        cells = [cell + " " * (behind - len(_fraction(cell))) for cell in cells]
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
    return _aligned([
        (match["prefix"] or "") + match["digits"][:length] + ("…" if len(match["digits"]) > length else "")
        if match else cell.strip()
        for match, cell in zip(matches, cells, strict=True)
    ])  # fmt: skip


def _heads(name: str, cells: list[str]) -> list[str]:
    """A column's name on as many lines as keep it no wider than it must be: words are not broken."""
    longest = max([*map(len, name.split()), *map(len, cells[:1])], default=1)
    return wrap(name, max(longest, 1), break_long_words=False, break_on_hyphens=False) or [""]


def _widths(columns: dict[str, list[str]]) -> dict[str, int]:
    return {
        name: max([*map(len, _heads(name, cells)), *map(len, cells[:1])], default=0) for name, cells in columns.items()
    }


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
        parts = []
        for name, head in heads.items():
            text = head[level - (height - len(head))] if level >= height - len(head) else ""
            parts.append(text.rjust(widths[name]) if is_number[name] else text.ljust(widths[name]))
        line = GAP.join(parts).rstrip()
        lines.append(f"\x1b[1m{line}\x1b[0m" if is_bold else line)
    lines.append("─" * (sum(widths.values()) + len(GAP) * (len(widths) - 1)))
    for row in zip(*columns.values(), strict=True):
        cells = (
            cell.rjust(widths[name]) if is_number[name] else cell.ljust(widths[name])
            for name, cell in zip(columns, row, strict=True)
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
