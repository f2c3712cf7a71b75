"""What the notebooks share: questions to the published marts, tables and bars.

Does not belong here: what is asked (notebooks/).
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import altair as alt
from IPython.display import HTML, display

from pipelines.contract.pseudonyms import renaming
from pipelines.home import Home
from pipelines.serve.cells import Cell, cell, heading
from pipelines.serve.tenant_data import Row
from pipelines.warehouse import reading


def open_marts() -> Callable[[str], list[Row]]:
    """A function that answers a query on the published marts with its rows. Raises NothingPublishedError."""
    alt.renderers.enable("svg")  # drawn on this machine, without a browser and without a network
    marts = reading.connect(Home.from_environment().published)  # read-only

    def ask(sql: str) -> list[Row]:
        cursor = marts.execute(sql)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    return ask


def show(rows: Sequence[Row]) -> None:
    """Display rows as a table; an unknown value is `unknown`, not 0. The exact value stands in the title of a cell."""
    if not rows:
        display(HTML("<p>There is nothing to show.</p>"))
        return
    rename = renaming(value for row in rows for value in row.values() if isinstance(value, str))
    cells = [[cell(name, value, rename) for name, value in row.items()] for row in rows]
    is_number = [any(row[place].is_number for row in cells) for place in range(len(rows[0]))]
    head = "".join(f"<th>{escape(heading(name))}</th>" for name in rows[0])
    body = "".join("<tr>" + "".join(map(_cell, row, is_number)) + "</tr>" for row in cells)
    display(HTML(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"))


def _cell(one: Cell, is_number: bool) -> str:
    align = "right" if is_number else "left"
    return f'<td style="text-align: {align}" title="{escape(one.exact)}">{escape(one.text)}</td>'


def bars(rows: Sequence[Row], name: str, value: str, title: str | None = None) -> Any:
    """Bars in the order of the rows, named as in a table."""
    rename = renaming(str(row[name]) for row in rows)
    order = [rename(str(row[name])) for row in rows]
    shown = [{name: label, value: float(row[value] or 0)} for label, row in zip(order, rows, strict=True)]
    return (
        alt.Chart(alt.Data(values=shown))
        .mark_bar()
        .encode(
            y=alt.Y(f"{name}:N", sort=order, title=None, axis=alt.Axis(labelLimit=280)),
            x=alt.X(f"{value}:Q", title=title or heading(value), axis=alt.Axis(format="~s")),
        )
        .properties(width=420)
    )
