"""What all commands share: options, help, bars, sentences on a terminal, and how a command says that it could not.

Does not belong here: commands (the modules beside), how a table is drawn (tables.py).
"""

import argparse
import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, NoReturn

from pipelines import log_format
from pipelines.commands.examples import EXAMPLES
from pipelines.home import Home

Command = Callable[[argparse.Namespace], int]


class Stop(Exception):  # noqa: N818 - it carries an exit code, it is no error of its own
    """Ends a command: an exit code and the one line that says what is wrong and what to do."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class _Commands(argparse._SubParsersAction):  # type: ignore[type-arg]
    """Subcommands whose own help begins with the sentence that the list of them has."""

    def add_parser(self, name: str, **settings: Any) -> Any:
        return super().add_parser(name, **{"description": settings.get("help"), **settings})


class _Help(argparse.HelpFormatter):
    """Help whose paths and options are not broken at hyphens: people copy them."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return textwrap.fill(
            " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent, break_long_words=False,
            break_on_hyphens=False,
        )  # fmt: skip


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, and which prints its help where a subcommand is missing."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"formatter_class": _Help, **settings})

    def error(self, message: str) -> NoReturn:
        """Say it and leave with 2."""
        lacking = message.removeprefix("the following arguments are required: ")
        if lacking != message:
            message = f"{self._written(lacking.split(', '))} is required"
        raise SystemExit(tell(2, f"{message}; see `{self.prog} --help`"))

    def _written(self, names: Sequence[str]) -> str:
        """Required arguments as they are typed, with their choices."""
        actions = {
            "/".join(action.option_strings) or str(action.metavar or action.dest): action for action in self._actions
        }
        found = []
        for name in names:
            action = actions.get(name)
            value = action.metavar if action and action.metavar else name.lstrip("-").upper()
            if action and action.choices:
                value = f"{{{','.join(map(str, action.choices))}}}"
            found.append(f"{name} {value}" if name.startswith("-") else str(value))
        return " ".join(found)

    def add_subparsers(self, **settings: Any) -> Any:
        """Subcommands; without one the help is printed, as a question and not as an error."""
        self.set_defaults(command=self._print_help, debug=False)
        return super().add_subparsers(**settings | {"required": False, "action": _Commands})

    def _print_help(self, _: argparse.Namespace) -> int:
        self.print_help()
        return 0

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        choices = [str(choice) for choice in action.choices]
        near = difflib.get_close_matches(str(value), choices, n=1)
        if near:
            raise argparse.ArgumentError(action, f"{value!r} is unknown: did you mean {near[0]!r}?")
        raise argparse.ArgumentError(action, f"{value!r} is unknown: choose from {', '.join(choices)}")


def tell(code: int, text: str) -> int:
    """Say one line on standard error, wrapped between words on a terminal; the exit code."""
    if log_format.is_json():
        log_format.write(text, level="error" if code else "info")
        return code
    sys.stderr.write("\n".join(wrapped(f"apiary: {text}", _error_width())) + "\n")
    return code


def note(text: str) -> None:
    """Say what is going on, on standard error."""
    log_format.write(text)


def agrees(question: str) -> bool:
    """Ask on standard error, which is seen although the output is piped; whatever is not `y` or `yes` is no."""
    sys.stderr.write("\n".join(wrapped(f"{question} [y/N]", _error_width())) + " ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def say(*texts: object) -> None:
    """Print sentences, each on as many lines as the terminal needs; words, numbers and paths are not broken."""
    for text in texts:
        print("\n".join(wrapped(str(text), terminal_width())))


def terminal_width() -> int | None:
    """Columns of the terminal that standard output is; None where there is no edge."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(20, shutil.get_terminal_size().columns)
    return None


def _error_width() -> int | None:
    return max(20, shutil.get_terminal_size().columns) if sys.stderr.isatty() else None


def wrapped(text: str, width: int | None) -> list[str]:
    """A sentence on lines of at most `width` columns; only a single word that is wider is longer."""
    if width is None or len(text) <= width:
        return [text]
    words = text.lstrip()
    start = text[: len(text) - len(words)]
    # Two columns: what follows "- " stands under its text. An empty line above is no level.
    following = start.replace("\n", "") + "  "
    return textwrap.wrap(
        words, width, initial_indent=start, subsequent_indent=following, break_long_words=False, break_on_hyphens=False
    )


def homes_of(
    options: argparse.Namespace, *, consented: bool = False, needed: bool = True, strict: bool = False
) -> list[Path]:
    """The agents' homes that were named, else those of the grant, else those in the usual places.

    A named folder that is no agent's home is told and left out; `strict`: it ends the command.
    """
    from pipelines.device import consent, enrolment
    from pipelines.device import homes as agent_homes

    home = Home.from_environment()
    if consented:
        # Without consent the homes are not even looked for.
        enrolment.require(home)
        with consent.open_state(home) as state:
            consent.require(state)
    homes, problems = agent_homes.chosen(home, options.home or ())
    for problem in problems:
        if strict:
            raise Stop(2, problem)
        tell(0, problem)
    if needed and not homes:
        raise Stop(2, "no agent home was found in the usual places: name one with --home")
    return homes


def store_of(options: argparse.Namespace) -> str:
    """The store's address: flag, `APIARY_STORE`, what this device was enrolled with, the default."""
    from pipelines.device import enrolment
    from pipelines.store import open_store

    home = Home.from_environment()
    enrolled = enrolment.load(home)
    url = options.store or os.environ.get("APIARY_STORE") or (enrolled.store if enrolled else "") or home.store_url
    try:
        open_store(url)
    except ValueError as error:
        raise Stop(2, str(error)) from None
    return str(url)


@contextmanager
def progress(title: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on standard error while somebody watches."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def seconds(text: str) -> float:
    """An interval like `15m`, in seconds."""
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match is None or int(match[1]) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no interval: write 15m, 1h or 1d")
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def day(text: str) -> date:
    """A day like `2026-11-20`."""
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no day: write YYYY-MM-DD") from None


class Shared:
    """Options that several commands take."""

    def __init__(self) -> None:
        self.always = argparse.ArgumentParser(add_help=False)
        self.always.add_argument("--debug", action="store_true", help="show where an error comes from")
        self.store = argparse.ArgumentParser(add_help=False)
        self.store.add_argument("--store", metavar="URL", help="file:///folder or s3://bucket/prefix (or APIARY_STORE)")
        self.exact = argparse.ArgumentParser(add_help=False)
        self.exact.add_argument("--exact", action="store_true", help="amounts in all their digits")
        self.homes = argparse.ArgumentParser(add_help=False)
        self.homes.add_argument(
            "--home", type=Path, action="append", metavar="PATH", help="an agent's home; may be given several times"
        )

    def add(self, group: Any, name: str, text: str, command: Command, *parents: argparse.ArgumentParser) -> Any:
        """A command under a group."""
        added = group.add_parser(name, help=text, parents=[self.always, *parents])
        if example := EXAMPLES.get(added.prog.partition(" ")[2]):
            added.epilog = f"example: {example}"
        added.set_defaults(command=command)
        return added
