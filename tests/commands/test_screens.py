"""What commands print for people: at any width no number and no name is broken and nothing is wider than the terminal.

The commands are taken from the parser: one that is in neither list below fails the first test.
"""

import argparse
import ast
import os
import pty
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands.terminal import wrapped
from pipelines.home import Home
from pipelines.simulate.homes import HomeSpec, write_home
from tests.commands_page import leaves

ROOT = Path(__file__).parents[2]
COMMANDS = ROOT / "pipelines" / "commands"
WIDTHS = (80, 120, 200)
KEYED = ["k1_" + digit * 32 for digit in "01"]

SCREENS = {
    "me": ["me --period all --home AGENTS"],
    "device consent status": ["device consent status"],
    "device preview": ["device preview"],
    "device receipts": ["device receipts", "device receipts verify"],
    "device resolve": [f"device resolve {' '.join(KEYED)}"],
    "device status": ["device status"],
    "quota check": ["quota check"],
    "usage": [
        *(f"usage --by {by}"
          for by in ("model", "tenant", "user", "colony", "session", "agent", "kind", "runtime", "day")),
        "usage --by session --limit 2", "usage --by model --exact",
    ],
    "doctor": ["doctor"],
    "quarantine list": ["quarantine list"],
    "devices list": ["devices list"],
    "held list": ["held list"],
    "landing verify": ["landing verify"],
    "retention apply": ["retention apply --dry-run"],
    "retain": ["retain --dry-run"],
    "period status": ["period status"],
    "month-end": ["month-end 2026-05"],
    "reconcile show": ["reconcile show"],
    "account list": ["account list"],
    "seat list": ["seat list"],
    "plan list": ["plan list"],
    "contract list": ["contract list"],
    "credit list": ["credit list"],
    "fx-rate list": ["fx-rate list"],
    "budget list": ["budget list"],
    "model-policy list": ["model-policy list"],
    "session-user open": ["session-user open"],
    "session-user list": ["session-user list"],
    "prices coverage": ["prices coverage --all"],
    "prices show": ["prices show --model claude-opus-4-6", "prices show --undecided"],
    "prices diff": ["prices diff"],
    "prices cache-convention": ["prices cache-convention"],
    "agent list": ["agent list"],
}  # fmt: skip
"""Commands that show something, and how they are called."""

OTHERS = {
    "they change something, and say so in sentences": {
        "device enroll", "device consent grant", "device consent pause", "device consent resume",
        "device consent withdraw", "device ship", "device export", "device install", "device uninstall", "ingest",
        "quarantine replay", "devices admit", "devices revoke", "devices expel", "devices readmit", "devices close",
        "devices open", "held release", "period close", "period reopen", "period settle", "account open",
        "account change", "account close", "seat hold", "seat end", "plan set", "plan end", "contract set",
        "contract end", "budget set", "budget end", "credit grant",
        "fx-rate set", "model-policy set", "session-user set", "prices import", "prices propose",
        "prices approve", "prices alias", "prices settle", "agent fire", "agent note", "completion",
        "report", "verify", "prove", "export days",
        "export month", "export alerts", "reconcile import", "reconcile fetch", "backup", "restore",
    },
    "they take minutes, and print by `table` and `show` like those above": {
        "run", "demo", "simulate", "rebuild", "shadow", "erase", "what-if", "prices preview", "compare", "upgrade",
        "quarantine show", "export restatement",
    },
    "they do not end": {"serve", "dev", "webserver", "daemon"},
}  # fmt: skip

SIGNED = ["--by", "ada", "--approved-by", "grace"]
PREPARED = [
    ["device", "enroll", "--tenant", "tree", "--user", "ada", "--timezone", "UTC"],
    ["device", "consent", "grant", "--yes", "--history", "include", "--home", "AGENTS"],
    ["device", "ship"],
    ["account", "open", "--account", "an-account-with-a-name", "--tenant", "tree", "--from", "2026-01-01", *SIGNED],
    ["seat", "hold", "--account", "an-account-with-a-name", "--user", "ada", "--from", "2026-01-01", *SIGNED],
    ["plan", "set", "--id", "seats", "--account", "an-account-with-a-name", "--item", "seat", "--pricing",
     "per_unit", "--unit-price", "19.95", "--note", "as agreed with the customer in the meeting of January", "--from",
     "2026-01-01", *SIGNED],
    ["contract", "set", "--id", "discount", "--account", "an-account-with-a-name", "--factor", "0.9", "--from",
     "2026-01-01", *SIGNED],
    ["credit", "grant", "--id", "welcome", "--account", "an-account-with-a-name", "--amount", "1234.5", "--reason",
     "goodwill after the outage", "--from", "2026-01-01", *SIGNED],
    ["budget", "set", "--id", "month-of-the-whole-tenant", "--tenant", "tree", "--period", "month", "--measure",
     "tokens", "--limit", "123456789", "--from", "2026-01-01", *SIGNED],
    ["fx-rate", "set", "--pair", "USD/EUR", "--rate", "0.9215", "--source", "European Central Bank, reference rate",
     "--from", "2026-01-01", *SIGNED],
    ["model-policy", "set", "--rule", "unknown", "--from", "2026-01-01", *SIGNED],
    ["session-user", "set", "--tenant", "tree", "--session", "queen", "--user", "ada", *SIGNED],
]  # fmt: skip

SLOW = ("me ", "month-end", "retain")  # at one width only
RULE = re.compile(r"─+")
# Ids and times of the report that a preview would send; when `me` read the homes.
NEW_EACH_TIME = re.compile(r"[0-9a-f]{32}|[\d:.+-]{15,}|\d\d:\d\d:\d\d")
MANY_DIGITS = re.compile(r"(?<![\d.])\d[\d,]*\.\d{7,}(?![\d.])")
ESCAPE = "\x1b"


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from parsers(child)


def test_every_command_is_in_a_list() -> None:
    listed = [*SCREENS, *(name for names in OTHERS.values() for name in names)]
    assert sorted(listed) == sorted(name for name, _ in leaves(cli._parser()))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("one two three", ["one two", "  three"]),
        ("  - one two three", ["  - one", "    two", "    three"]),
        ("    one two three", ["    one", "      two", "      three"]),
        ("\none two three", ["\none two", "  three"]),
    ],
)
def test_what_is_wrapped_stays_on_its_level(text: str, lines: list[str]) -> None:
    assert wrapped(text, 9) == lines


def printing(path: Path) -> list[int]:
    """Lines that print a text which nothing wraps: everything but JSON, a key and an empty line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print" and node.args:
            text = ast.unparse(node.args[0])
            if not text.startswith(("json.dumps(", "as_json(")) and text != "key":
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", sorted(COMMANDS.glob("*.py")), ids=lambda path: path.name)
def test_commands_print_through_what_fits_the_terminal(path: Path) -> None:
    if path.name not in ("tables.py", "terminal.py"):
        assert printing(path) == []


@pytest.mark.parametrize("columns", WIDTHS)
def test_help_fits(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for parser in parsers(cli._parser()):
        lines = parser.format_help().splitlines()
        assert max(map(len, lines)) <= columns, parser.prog
        assert parser.description, f"{parser.prog} says what it does"


@pytest.fixture(scope="module")
def home(published_home: Home, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with a warehouse, publications, books, and a device that has shipped."""
    root = tmp_path_factory.mktemp("screens")
    shutil.copytree(published_home.published, root / "published", symlinks=True)
    shutil.copytree(published_home.warehouse.parent, root / "warehouse")
    agents = root / "agents"
    write_home(agents, HomeSpec(layout="v2", seed=3, timezone="UTC", first_day=date(2026, 3, 1), days=1))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("APIARY_STORE", "APIARY_TENANT_KEY", "HIVE_HOME", "COLUMNS"):
            patch.delenv(name, raising=False)
        patch.setenv("APIARY_HOME", str(root))
        patch.setenv("HOME", str(root / "person"))
        for arguments in PREPARED:
            assert cli.main([str(agents) if word == "AGENTS" else word for word in arguments]) == 0, arguments
        yield Home(root)


def screen(command: str, home: Home, capsys: pytest.CaptureFixture[str]) -> str:
    words = [str(home.root / "agents") if word == "AGENTS" else word for word in command.split()]
    capsys.readouterr()
    cli.main(words)
    return capsys.readouterr().out


@pytest.mark.parametrize("command", [command for commands in SCREENS.values() for command in commands])
def test_a_screen_fits_and_breaks_nothing(
    command: str, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    piped = screen(command, home, capsys)
    whole = set(piped.split())
    assert ESCAPE not in piped, "colour on terminals only"
    assert "--exact" in command or not MANY_DIGITS.search(piped), MANY_DIGITS.search(piped)
    for columns in WIDTHS[: 1 if command.startswith(SLOW) else None]:
        with monkeypatch.context() as patch:
            patch.setenv("COLUMNS", str(columns))
            lines = screen(command, home, capsys).splitlines()
        for line in lines:
            assert len(line) <= columns or len(line.split()) <= 2, f"{columns}: {line}"  # a path, an id: with its name
        known = whole | {"not", "shown", "in", str(columns), "columns:"}  # of columns that are left out
        for word in " ".join(lines).split():
            is_cut = word.endswith("…") or word.startswith("…")
            part = word.strip("…")
            assert (
                word in known
                or word.rstrip(",") in known
                or RULE.fullmatch(word)
                or (command.startswith(("device preview", "me ")) and NEW_EACH_TIME.fullmatch(word))
                or (is_cut and any(part in other for other in whole))
            ), f"{columns}: {word} is broken"


@pytest.mark.parametrize(
    ("command", "title"),
    [
        ("month-end 2026-05", "checking what is billed"),
        ("export month 2026-05 --as-of 2026-06-01T00:00:00Z", "checking what is billed"),
        ("period settle 2026-05 --account A --late --actor a --reason r", "looking for usage without a price"),
        (f"prove {'0' * 64}", "following the chain"),
    ],
)
@pytest.mark.usefixtures("home")
def test_what_takes_long_says_what_it_does_on_a_terminal(
    command: str, title: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(command.split()) > 0, "these marts are of no billing"
    assert title not in capsys.readouterr().err
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    cli.main(command.split())
    assert title in capsys.readouterr().err


def test_a_real_terminal_gets_colour_and_its_width(home: Home) -> None:
    controller, terminal = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "COLUMNS")}
    program = [sys.executable, "-m", "pipelines.cli", "device", "receipts"]
    with subprocess.Popen(
        program, stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT, env=environment | {"TERM": "xterm"}
    ):
        os.close(terminal)
        said = b""
        try:
            while part := os.read(controller, 4096):
                said += part
        except OSError:  # the other end was closed
            pass
    os.close(controller)
    assert "\x1b[1m" in said.decode()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["usage"], "--by {model,tenant,user,colony,session,agent,kind,runtime,day} is required"),
        (["prove"], "ROW is required"),
        (["seat", "end", "--by", "ada"], "--approved-by NAME --seat ID --to D is required"),
    ],
)
def test_an_error_says_what_to_type(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
