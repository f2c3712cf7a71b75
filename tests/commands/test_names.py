"""Names of models as people type them: a pseudonym is its hash, any other name is what it says."""

from pathlib import Path

import duckdb
import pytest

from pipelines import cli
from pipelines.billing import books
from pipelines.commands.names import model_named
from pipelines.commands.terminal import Stop
from pipelines.contract.pseudonyms import pseudonym

KEYED = [f"k1_{number:032x}" for number in (7, 2**100)]
SIGNED = ("--means", "anthropic/claude-sonnet-4-6", "--by", "ada", "--approved-by", "eve", "--reason", "r")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home whose published usage is of two private models."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    current = tmp_path / "published" / "current"
    current.mkdir(parents=True)
    with duckdb.connect(str(current / "marts.duckdb")) as connection:
        connection.execute("CREATE TABLE agg_usage_session_daily AS SELECT unnest(?) AS model", [[*KEYED, "gpt-5"]])
    return tmp_path


@pytest.mark.usefixtures("home")
def test_a_pseudonym_is_the_hash_that_it_stands_for() -> None:
    assert model_named(pseudonym(KEYED[0])) == KEYED[0]
    assert model_named(pseudonym(KEYED[1], 12)) == KEYED[1], "however long its number is"
    for name in (KEYED[0], "gpt-5", "claude-opus-45", "never-used"):
        assert model_named(name) == name


@pytest.mark.usefixtures("home")
def test_a_pseudonym_of_no_used_model_is_refused() -> None:
    with pytest.raises(Stop, match="0 used models are called"):
        model_named(pseudonym(f"k1_{5:032x}"))


def test_an_alias_is_written_down_of_the_hash(home: Path) -> None:
    assert cli.main(["prices", "alias", pseudonym(KEYED[0]), *SIGNED]) == 0
    assert [row["model"] for row in books.read(books.ALIASES, [home / "billing"])] == [KEYED[0]]
    assert cli.main(["prices", "alias", pseudonym(f"k1_{5:032x}"), *SIGNED]) == 2


def test_a_sentence_shows_the_pseudonym_and_the_books_have_the_hash(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stated = ["--model", pseudonym(KEYED[0]), "--by", "ada", "--reason", "r"]
    assert cli.main(["prices", "cache-convention", "exclusive", *stated]) == 0
    said = capsys.readouterr().out
    assert (pseudonym(KEYED[0]) in said, KEYED[0] in said) == (True, False)
    assert [row["model"] for row in books.read(books.CACHE_CONVENTIONS, [home / "billing"])] == [KEYED[0]]
