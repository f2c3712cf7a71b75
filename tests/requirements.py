"""The table of requirements: each thing that was asked for, where it is served and which test shows it.

`docs/requirements/ids.csv` lists what was asked for; the other files beside it map every id. `make contract` writes
docs/requirements.md from them. Does not belong here: what makes a mapping wrong (test_requirements.py).
"""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "requirements"
PAGE = ROOT / "docs" / "requirements.md"
CLASSES = {"D": "served", "T": "a rule", "L": "live, or for hours, only: the nearest is named", "O": "outside"}


class Line(NamedTuple):
    """One requirement and where it is served: `mart.column`, `test:path::name`, `setting:name` or `reason:text`."""

    id: str
    class_: str
    served_by: str
    test: str
    note: str


def asked() -> dict[str, tuple[str, str]]:
    """Class and title of everything that was asked for, by id."""
    with (FOLDER / "ids.csv").open(encoding="utf-8", newline="") as file:
        return {row["id"]: (row["class"], row["title"]) for row in csv.DictReader(file)}


def lines() -> list[Line]:
    """Every mapping, in the order of the files."""
    found = []
    for path in sorted(FOLDER.glob("*.csv")):
        if path.name != "ids.csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
            found += [Line(row["id"], row["class"], row["served_by"], row["test"], row["note"] or "") for row in rows]
    return found


def page() -> str:
    """docs/requirements.md."""
    mapped = {line.id: line for line in lines()}
    text = [
        "# Requirements",
        "",
        "Generated from docs/requirements by `make contract`; do not edit.",
        "",
        "What was asked for, where it is, and the test that shows it. Classes: "
        + "; ".join(f"{name}: {words}" for name, words in CLASSES.items())
        + ".",
        "",
        "| id | class | asked for | served by | shown by | note |",
        "|---|---|---|---|---|---|",
    ]
    for name, (class_, title) in asked().items():
        line = mapped.get(name)
        served, test, note = (line.served_by, line.test, line.note) if line else ("", "", "")
        served = served.removeprefix("reason:") if served.startswith("reason:") else f"`{served}`"
        shown = f"`{test.removeprefix('test:')}`" if test else ""
        text.append(f"| {name} | {class_} | {title} | {served} | {shown} | {note} |".replace("``", ""))
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"written: {PAGE.relative_to(ROOT)}\n")
