"""The list of every command in docs/commands.md, from the texts of the parser. `make contract` writes it.

Does not belong here: the table above it, which people write.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.cli import _parser
from pipelines.commands.examples import EXAMPLES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "commands.md"
HEADING = "## Every command\n"


def leaves(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = ()
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Every command that does something, by its words."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not groups:
        yield " ".join(path), parser
    for group in groups:
        for name, child in group.choices.items():
            yield from leaves(child, (*path, name))


def page() -> str:
    """docs/commands.md with the list as it is now."""
    above, _, _ = PAGE.read_text("utf-8").partition(HEADING)
    lines = [
        HEADING, "Generated from the program's own help by `make contract`; do not edit.", "",
        "| command | does | example |",
        "|---|---|---|",
        *(f"| `{name}` | {(parser.description or '').replace('|', ' ')} | `{EXAMPLES.get(name, name)}` |"
          for name, parser in leaves(_parser())),
    ]  # fmt: skip
    return above + "\n".join(lines) + "\n"


def main() -> None:
    """Write it."""
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write("wrote docs/commands.md\n")


if __name__ == "__main__":
    main()
