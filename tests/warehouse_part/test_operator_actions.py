"""The book of what people decided: it only grows, holds no text, and each line reaches the warehouse once."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import pytest

from pipelines.cli import main
from pipelines.contract.pseudonyms import pseudonym
from pipelines.errors import UsageError
from pipelines.home import Home
from pipelines.warehouse import operator_actions
from tests.warehouse_part.batches import wire

GOOD = {"tenant": "acme", "agent": "queen:queen_growth", "reason": "derailed", "actor": "ada"}
WHEN = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def book(tmp_path: Path) -> Path:
    return tmp_path / "operator" / "actions.jsonl"


def test_actions_are_appended_and_nothing_before_them_changes(book: Path) -> None:
    first = operator_actions.record(book, action="fire", now=WHEN, **GOOD)
    before = book.read_bytes()
    second = operator_actions.record(book, action="note", **(GOOD | {"session": "session_1"}))
    assert book.read_bytes().startswith(before)
    assert operator_actions.actions(book) == [first, second]
    assert first.acted_at == WHEN
    assert book.stat().st_mode & 0o077 == 0


def test_a_torn_line_costs_itself(book: Path) -> None:
    operator_actions.record(book, action="fire", **GOOD)
    with book.open("ab") as file:
        file.write(b'{"action_id": "torn')
    last = operator_actions.record(book, action="note", **GOOD)
    assert [action.action for action in operator_actions.actions(book)] == ["fire", "note"]
    assert operator_actions.actions(book)[-1] == last


@pytest.mark.parametrize(
    "wrong",
    [{"reason": "he was rude"}, {"agent": "Ada Lovelace"}, {"agent": "queen:"}, {"tenant": "A b"}, {"actor": "a@b.c"},
     {"session": "see the file / of ada"}],
    ids=str,
)  # fmt: skip
def test_no_text_has_a_way_in(book: Path, wrong: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        operator_actions.record(book, action="note", **(GOOD | wrong))
    assert not book.exists()


def test_what_is_erased_goes_out_of_the_book(book: Path) -> None:
    plain = operator_actions.record(book, action="fire", **GOOD)
    of_session = operator_actions.record(book, action="note", **(GOOD | {"session": "session_1"}))
    of_other = operator_actions.record(book, action="note", **(GOOD | {"session": "session_2"}))
    operator_actions.record(book, action="note", **(GOOD | {"agent": "worker:session_1"}))
    operator_actions.record(book, action="note", **(GOOD | {"tenant": "bolt"}))
    for _ in range(2):
        operator_actions.redact(book, tenants={"bolt"}, erased={"session_1", "session"})
        assert operator_actions.actions(book) == [plain, replace(of_session, session_id=None), of_other]
        assert b"session_1" not in book.read_bytes()
    unchanged = book.stat().st_ino
    operator_actions.redact(book, tenants=(), erased={"session_3"})
    assert book.stat().st_ino == unchanged
    operator_actions.redact(book.with_name("absent.jsonl"), tenants=(), erased=())


def test_each_line_is_loaded_once(book: Path) -> None:
    with wire() as connection:
        assert operator_actions.load(connection, book) == 0
        made = operator_actions.record(book, action="fire", now=WHEN, **GOOD)
        assert [operator_actions.load(connection, book) for _ in range(2)] == [1, 1]
        operator_actions.record(book, action="fire", **GOOD)
        assert operator_actions.load(connection, book) == 2
        row = connection.execute(
            "SELECT tenant_id, agent_id, session_id, actor_id, action, reason, acted_at FROM wire.operator_actions"
            " WHERE action_id = ?",
            [made.action_id],
        ).fetchone()
        assert row == ("acme", "queen:queen_growth", None, "ada", "fire", "derailed", WHEN)


def test_the_command_writes_the_book(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    fire = ["agent", "fire", "--agent", "worker:queen_growth", "--reason", "dumb", "--actor", "ada"]
    assert main(fire) == 2, "nobody knows whose agent it is"
    assert main([*fire, "--tenant", "acme"]) == 0
    assert "nothing here stops an agent" in capsys.readouterr().out
    line = json.loads(Home(tmp_path).operator_actions.read_text("utf-8"))
    assert {name: line[name] for name in ("tenant_id", "agent_id", "actor_id", "action", "reason", "session_id")} == {
        "tenant_id": "acme", "agent_id": "worker:queen_growth", "actor_id": "ada", "action": "fire", "reason": "dumb",
        "session_id": None,
    }  # fmt: skip
    assert main(["agent", "fire", "--agent", "nobody", "--reason", "dumb", "--tenant", "acme"]) == 2
    with pytest.raises(SystemExit):
        main(["agent", "note", "--agent", "queen:x", "--reason", "ugly", "--tenant", "acme"])
    assert main(["agent", "list"]) == 1, "nothing is published yet"


def test_an_agent_is_named_as_the_registry_shows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    keyed = "k1_" + "8a33e92c" * 4
    current = tmp_path / "published" / "current"
    current.mkdir(parents=True)
    with duckdb.connect(str(current / "marts.duckdb")) as connection:
        connection.execute(
            f"CREATE TABLE dim_agents AS SELECT 'acme' AS tenant_id, 'worker:{keyed}' AS agent_id, 'm' AS model,"
            " 1 AS version, 2 AS sessions, 0 AS fires, now() AS last_seen_at, true AS is_current"
        )
        connection.execute(
            "CREATE TABLE mart_agent_scorecard AS SELECT 'acme' AS tenant_id, 'x' AS agent_id, 'all' AS task_class,"
            " 1 AS runs, 0 AS open_runs, 1 AS successes, 0 AS failures, 0 AS timeouts"
        )
    assert main(["agent", "list"]) == 0
    assert f"worker:{pseudonym(keyed)}" in capsys.readouterr().out
    fire = ["agent", "fire", "--reason", "dumb", "--actor", "ada", "--tenant", "acme", "--agent"]
    assert main([*fire, f"worker:{pseudonym(keyed)}"]) == 0
    assert [made.agent_id for made in operator_actions.actions(Home(tmp_path).operator_actions)] == [f"worker:{keyed}"]
    assert main([*fire, f"queen:{pseudonym(keyed)}"]) == 2
    assert "0 agents are called queen:" in capsys.readouterr().err
