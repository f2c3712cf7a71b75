"""What the repository can check of itself is a test here, not a sentence in a document.

Does not belong here: derived files (tests/contract), the dbt project's rules (tests/dbt), notebooks (tests/notebooks),
import rules (pyproject.toml).
"""

import ast
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from pipelines.cli import _parser
from tests import commands_page

REPOSITORY = Path(__file__).resolve().parents[1]
MODULES = sorted((REPOSITORY / "pipelines").rglob("*.py"))
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
TARGETS = (
    "help",
    "setup",
    "run",
    "dev",
    "test",
    "coverage",
    "test-services",
    "test-engines",
    "test-long",
    "torture",
    "bench",
    "bench-quick",
    "power-loss",
    "mutants",
    "lint",
    "contract",
    "docs",
    "wheels",
    "services",
    "audit",
)

# SQL text with names in it is put together here and nowhere else: the names are columns and tables of the contract,
# of the published schema or of the module's own schema. Values are always bound.
SQL_BUILDERS = {
    "pipelines/billing/books.py",
    "pipelines/billing/closing.py",
    "pipelines/billing/exports.py",
    "pipelines/billing/ledger.py",
    "pipelines/billing/what_if.py",
    "pipelines/contract/ddl.py",
    "pipelines/device/readers/openclaw/databases.py",
    "pipelines/device/readers/sqlite.py",
    "pipelines/device/migrations.py",
    "pipelines/device/state.py",
    "pipelines/device/usage.py",
    "pipelines/warehouse/analyst_views.py",
    "pipelines/warehouse/arrivals.py",
    "pipelines/warehouse/definitions.py",
    "pipelines/warehouse/ducklake.py",
    "pipelines/warehouse/ducklake_copy.py",
    "pipelines/warehouse/book_changes.py",
    "pipelines/warehouse/erase.py",
    "pipelines/warehouse/budgets.py",
    "pipelines/warehouse/exclusion.py",
    "pipelines/warehouse/isolation.py",
    "pipelines/warehouse/kept.py",
    "pipelines/serve/agents.py",
    "pipelines/serve/operation.py",
    "pipelines/serve/report.py",
    "pipelines/serve/report_pages.py",
    "pipelines/serve/tenant_data.py",
    "pipelines/warehouse/load.py",
    "pipelines/warehouse/publish.py",
    "pipelines/warehouse/rebuild.py",
    "pipelines/warehouse/renewal.py",
    "pipelines/warehouse/retention.py",
    "pipelines/warehouse/shadow.py",
    "pipelines/warehouse/usage.py",
}
SQL = re.compile(
    r"\b(SELECT\b.*|INSERT (OR \w+ )?INTO|UPDATE \S+ SET|DELETE FROM|(CREATE|DROP) .*TABLE|ATTACH|COPY|PRAGMA) "
)
SAYS_WHAT_IS_ELSEWHERE = re.compile(r"Does not belong here")
# A simulated home knows nothing of the house; its modules say in their own words what they leave to each other.
SIMULATOR_SAYS = re.compile(r"\b(nothing|never|does not|makes no|in the modules beside)\b", re.IGNORECASE)
TRIVIAL = {"pipelines/__init__.py", "pipelines/definitions.py"}
MAX_BYTES = 1 << 20
FROZEN_HOMES, MAX_HOME_BYTES = "tests/end_to_end/releases/", 4 << 20  # each holds a warehouse with all public prices


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@cache
def files() -> list[Path]:
    """Files that git has, or would take with the next commit."""
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        pytest.skip("not a git checkout: there is no list of files")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=True).stdout.decode().split("\0")
    return [path for path in sorted(REPOSITORY / line for line in set(listed) if line) if path.is_file()]


def texts() -> Iterator[tuple[str, str]]:
    """The files that hold text, by their names; links are read where they point."""
    for path in files():
        if path.is_symlink():
            continue
        try:
            yield name(path), path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


def docstring(path: Path) -> str:
    return " ".join((ast.get_docstring(ast.parse(path.read_text("utf-8"))) or "").split())


# files ---------------------------------------------------------------------------------------------------------------


def test_nothing_is_left_for_later() -> None:
    later = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b")
    assert [where for where, text in texts() if later.search(text)] == []


def test_no_file_is_large() -> None:
    sizes = {name(path): path.lstat().st_size for path in files()}
    limits = {where: MAX_HOME_BYTES if where.startswith(FROZEN_HOMES) else MAX_BYTES for where in sizes}
    assert [where for where, size in sizes.items() if size > limits[where]] == []


def test_no_path_of_a_machine() -> None:
    """Neither this checkout's own place and this user's home, nor the usual places of others."""
    places = {f"{REPOSITORY}/", f"{Path.home()}/"}
    usual = re.compile(r"(?<![\w.$}/~-])/(work|root|tmp|mnt|opt|home/\w+)/")
    made_up = ("tests/", "pipelines/simulate/")  # homes, users and leaks are invented there
    for where, text in texts():
        assert not any(place in text for place in places if place.count("/") > 1), where
        assert where.startswith(made_up) or not usual.search(text), f"{where}: {usual.search(text)}"


def test_models_are_reached_by_a_relative_link() -> None:
    link = REPOSITORY / "dbt_project" / "models"
    assert link.is_symlink()
    assert link.readlink() == Path("../models")
    assert link.resolve(strict=True) == REPOSITORY / "models"


def test_the_lock_pins_by_hash_and_names_no_registry() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text("utf-8").splitlines()
    pins: dict[str, int] = {}
    for line in lines:
        if line and not line.startswith((" ", "#")):
            assert re.match(r"[a-z0-9][a-z0-9._-]*(\[[a-z0-9,_-]+\])?==\S+", line), line
            pins[line] = 0
        elif re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line):
            pins[next(reversed(pins))] += 1
        else:
            assert line.lstrip().startswith("#"), line
    assert len(pins) > 50
    assert [pin for pin, hashes in pins.items() if not hashes] == []
    assert not re.search(r"://|--(extra-)?index|--find-links|--trusted-host", "\n".join(lines))


# code ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_modules_say_what_does_not_belong_in_them(path: Path) -> None:
    said = docstring(path)
    assert said, "a module begins with a docstring"
    if name(path) not in TRIVIAL:
        pattern = SIMULATOR_SAYS if "simulate" in path.parts else SAYS_WHAT_IS_ELSEWHERE
        assert pattern.search(said), said


def sql_with_holes(path: Path) -> list[int]:
    """Lines of f-strings that read like SQL: text with something put into it."""
    tree = ast.parse(path.read_text("utf-8"))
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr) and any(isinstance(part, ast.FormattedValue) for part in node.values):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "?" for part in node.values)
            if SQL.search(" ".join(text.split()) + " "):
                found.append(node.lineno)
    return found


def test_sql_is_put_together_in_few_places() -> None:
    assert {name(path) for path in MODULES if sql_with_holes(path)} == SQL_BUILDERS


def test_sql_is_never_made_by_other_means() -> None:
    made = re.compile(r"""execute\w*\(\s*[^)]*?(["']\s*%\s*[\w(]|\.format\()""")
    assert [name(path) for path in MODULES if made.search(path.read_text("utf-8"))] == []


VERBS = {
    "is", "was", "us", "has", "does", "its", "as", "this", "names", "holds", "waits", "needs", "knows", "says",
    "stands",
    "differs", "pays", "offers", "lacks", "comes", "costs", "takes", "opens", "times", "writes", "lies",
}  # fmt: skip


def numbers_without_their_noun(path: Path) -> list[str]:
    """Places in texts where a noun in the plural follows a value: `1 rows` is what a person would read one day."""
    found = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(node, ast.JoinedStr):
            continue
        for value, after in zip(node.values, node.values[1:], strict=False):
            if not (isinstance(value, ast.FormattedValue) and isinstance(after, ast.Constant)):
                continue
            word = re.match(r" (?:[a-z]+ ){0,1}?([a-z]+s)\b(?! of )", str(after.value))
            text = ast.unparse(value.value)
            if word and word[1] not in VERBS and not re.fullmatch(r"[\w.]*[A-Z_]{4,}( .*)?", text):
                found.append(f"{name(path)}: {{{text}}}{after.value[:40]}")
    return found


NO_COUNTS = (
    "prices need", "digits before the point", "without tokens",
    "component", "TokenType", "quantity}", "limit} bytes", "width} columns",
)  # fmt: skip
"""What the words above are taken for a number in: kinds of pricing, kinds of tokens."""


def test_one_is_not_many() -> None:
    """A number and its noun come from `pluralize`."""
    modules = [path for path in MODULES if "simulate" not in path.parts]
    found = [text for path in modules for text in numbers_without_their_noun(path)]
    assert [text for text in found if not any(word in text for word in NO_COUNTS)] == []


# make ----------------------------------------------------------------------------------------------------------------


def make(*arguments: str, **environment: str) -> str:
    """What make would do; the make that may have started these tests has no say."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "HIVE_"))}
    clean.pop("CONSENT", None)
    result = subprocess.run(
        ["make", "-n", *arguments], cwd=REPOSITORY, env=clean | environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("target", TARGETS)
def test_make_has_the_targets(target: str) -> None:
    make(target)
    listed = [line for line in (REPOSITORY / "Makefile").read_text("utf-8").splitlines() if "##" in line]
    assert any(line.startswith(f"{target}:") for line in listed), "make help shows it"


def test_only_makes_own_command_line_names_a_home() -> None:
    assert "--home" not in make("run")
    exported = make("run", HIVE_HOME="/a/home", CONSENT="include")
    assert "/a/home" not in exported
    assert "--home" not in exported
    assert '--home "/a/home"' in make("run", "HIVE_HOME=/a/home")
    assert "--consent" not in make("run", "HIVE_HOME=/a/home")
    assert '--home "/a/home" --consent "include"' in make("run", "HIVE_HOME=/a/home", "CONSENT=include")


def test_a_clean_machine_runs_make_test() -> None:
    script = REPOSITORY / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = re.findall(r"^ *(?:exec )?(make [a-z-]+)", script.read_text("utf-8"), re.MULTILINE)
    assert commands == ["make setup", "make test", "make test-engines", "make test-services"]


# documents -----------------------------------------------------------------------------------------------------------


def section(document: Path, title: str) -> str:
    """The text under a heading."""
    text = document.read_text("utf-8")
    found = re.search(rf"^## {re.escape(title)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def test_readme_names_places_that_exist() -> None:
    rows = re.findall(
        r"^\| ([^|]+) \| ([^|]+) \|$", section(REPOSITORY / "README.md", "To change X, edit Y"), re.MULTILINE
    )
    places = [place for _, cell in rows for place in re.findall(r"`([^`]+)`", cell) if not place.startswith("make ")]
    assert len(places) >= 10
    assert [place for place in places if not (REPOSITORY / place).exists()] == []


def commands(document: Path, program: str) -> list[str]:
    """Command lines of a program in a document: lines of code blocks, and code within a sentence."""
    text = document.read_text("utf-8")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    start = re.compile(rf"(?:\w+=\S+ )*(?:\.venv/bin/)?({program} .*)")
    found = [match[1] for line in lines if (match := start.match(line))]
    return [re.split(r" (?:>|\||&&) ", command)[0] for command in found]


parser = cache(_parser)  # to make it takes as long as to parse a hundred commands


def parses(arguments: list[str]) -> bool:
    try:
        parser().parse_args(arguments)
    except SystemExit as stopped:
        return not stopped.code
    return True


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_commands_in_documents_are_commands(document: Path) -> None:
    for command in commands(document, "apiary"):
        _, *arguments = shlex.split(command, comments=True)
        assert parses(arguments), f"{name(document)}: {command}"
    for command in commands(document, "make"):
        target, *_ = [word for word in shlex.split(command, comments=True)[1:] if "=" not in word]
        assert f"\n{target}:" in (REPOSITORY / "Makefile").read_text("utf-8"), f"{name(document)}: {command}"


def test_a_page_shows_every_command() -> None:
    assert commands_page.PAGE.read_text("utf-8") == commands_page.page(), "run `make contract`"


def test_every_reader_has_a_page() -> None:
    text = (REPOSITORY / "README.md").read_text("utf-8")
    for page in ("owner", "analysts", "finance", "data-team", "commands", "questions"):
        assert f"](docs/{page}.md)" in text, page
    assert text.index("## What you get") < text.index("## Two commands") < text.index("## A page for each reader")


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_in_documents_lead_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


def test_decisions_are_numbered_and_whole() -> None:
    records = sorted((REPOSITORY / "docs" / "decisions").glob("*.md"))
    assert records
    assert len({record.name[:4] for record in records}) == len(records)
    for record in records:
        text = record.read_text("utf-8")
        headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert headings == ["Context", "Measured", "Decision", "Cost", "How to undo it"], record.name
        assert text.startswith(f"# {record.name[:4]} "), record.name


def test_every_page_is_in_the_site() -> None:
    said = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text("utf-8"))["nav"]
    named = re.findall(r"[a-z-]+\.md", str(said))
    assert sorted(named) == sorted(path.name for path in (REPOSITORY / "docs").glob("*.md"))


def _lists(node: ast.AST) -> bool:
    """Whether it is a table of values or a list of arguments."""
    match node:
        case ast.Dict():
            return len(node.keys) >= 3
        case ast.List() | ast.Tuple() | ast.Set():
            return len(node.elts) >= 3
        case ast.Call():
            return len(node.args) + len(node.keywords) >= 4
        case ast.arguments():
            return len(node.args) + len(node.kwonlyargs) >= 4
    return False


def _head(statement: ast.stmt) -> tuple[int, int]:
    """The first and the last line of a statement, without those of its body."""
    first = min([statement.lineno, *(decorator.lineno for decorator in getattr(statement, "decorator_list", []))])
    body = getattr(statement, "body", None)
    return first, body[0].lineno - 1 if body else statement.end_lineno or first


def test_formatting_is_skipped_for_tables_and_arguments_alone() -> None:
    """Decision 0106: what the formatter would write one literal a line; other code is as it writes it."""
    mark, wrong = re.compile(r"  # fmt: skip( |$)"), []
    for where, text in texts():
        marked = [n for n, line in enumerate(text.splitlines(), 1) if where.endswith(".py") and mark.search(line)]
        statements = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.stmt)] if marked else []
        for number in marked:
            around = [node for node in statements if _head(node)[0] <= number <= _head(node)[1]]
            innermost = max(around, key=lambda node: node.lineno)
            own = [child for child in ast.iter_child_nodes(innermost) if not isinstance(child, ast.stmt)]
            if not any(_lists(node) for child in own for node in ast.walk(child)):
                wrong.append(f"{where}:{number}")
    assert wrong == []
