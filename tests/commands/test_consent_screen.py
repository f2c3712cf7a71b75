"""`apiary device consent` on a terminal: what is agreed to is shown before it is in force, and nothing goes unasked."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.contract import wire
from pipelines.contract.keys import REQUESTS
from pipelines.contract.receipts import ErasureReceipt, parse_request
from pipelines.store import FolderStore
from tests.device.driving import LATER, append, dump, queen_folder, turn

ROOT = Path(__file__).parents[2]
Grant = Callable[..., tuple[int, str, str]]
QUESTION = "grant this consent? [y/N]"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def agents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two sessions, on an enrolled device."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.delenv("APIARY_STORE", raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    home = tmp_path / "hive"
    append(queen_folder(home) / "events.jsonl", dump(turn(1), turn(2, at="2026-05-06T10:00:00.5")))
    append(queen_folder(home, LATER) / "events.jsonl", dump(turn(3, session=LATER)))
    assert cli.main(["device", "enroll", "--tenant", "acme", "--user", "ada", "--timezone", "UTC"]) == 0
    return home


@pytest.fixture
def grant(agents: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Grant:
    def run(*options: str, answer: str | None) -> tuple[int, str, str]:
        """`answer`: what is typed; None: there is no terminal."""
        with monkeypatch.context() as patch:
            if answer is not None:
                patch.setattr(sys, "stdin", Terminal(answer))
                patch.setattr(type(sys.stdout), "isatty", lambda _: True, raising=False)
            capsys.readouterr()
            code = cli.main(["device", "consent", "grant", "--home", str(agents), *options])
        return code, *capsys.readouterr()

    return run


def state_of(capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert cli.main(["device", "status", "--json"]) == 0
    return str(json.loads(capsys.readouterr().out)["consent"])


@pytest.mark.parametrize("answer", ["", "\n", "n\n", "no\n", "maybe\n"])
def test_whatever_is_not_yes_grants_nothing(
    answer: str, grant: Grant, agents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = grant(answer=answer)
    assert code == 2
    assert "nothing was granted" in err
    assert QUESTION in err
    assert "never leaves: prompts" in out
    assert "granted at" not in out
    assert state_of(capsys) == "none"
    assert not (tmp_path / "apiary" / "store").exists()


@pytest.mark.parametrize("history", ["include", "exclude"])
def test_what_is_agreed_to_stands_before_the_question(
    history: str, grant: Grant, agents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = grant("--history", history, answer="y\n")
    assert code == 0
    assert QUESTION in err
    screen, _, after = out.partition("before you decide: `apiary device preview --json`")
    shown = " ".join(screen.split())
    assert f"found Hive in {agents}" in shown
    assert "2 sessions of Hive, 2026-05-04 to 2026-05-06 (UTC)" in shown
    assert "never leaves: prompts" in shown
    assert "apiary device consent withdraw" in shown
    assert (tmp_path / "apiary" / "store").as_uri() in screen
    assert ("only what happens from now on" in shown) is (history == "exclude")
    assert "granted at" in after
    assert "never leaves" not in after, "it is said once"
    assert state_of(capsys) == "granted"
    long = [line for line in screen.splitlines() if len(line) > 80 and str(tmp_path) not in line]
    assert not long


def test_the_rows_that_are_shown_are_those_that_leave(
    grant: Grant, agents: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, err = grant("--history", "include", "--yes", answer="")
    assert "[y/N]" not in err
    rows = int(" ".join(out.split()).partition("would leave: all of it, ")[2].partition(" rows")[0].replace(",", ""))
    assert cli.main(["device", "ship"]) == 0
    assert f"sent {rows} rows" in capsys.readouterr().out


@pytest.mark.parametrize("options", [["--yes"], []])
def test_a_script_is_not_asked(options: list[str], grant: Grant, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = grant(*options, answer=None)
    assert code == 0
    assert "[y/N]" not in err
    assert "would leave" not in out
    assert out.index("granted at") < out.index("never leaves: prompts")
    assert state_of(capsys) == "granted"


def test_a_person_whose_output_is_piped_away_is_not_asked_about_what_went_there(
    grant: Grant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal("y\n"))
        code, out, err = grant("--history", "include", answer=None)
    assert (code, out) == (2, "")
    assert " ".join(err.split()).startswith("apiary: nothing was granted")
    assert "add --yes" in " ".join(err.split())
    assert state_of(capsys) == "none"


@pytest.mark.parametrize("answer", ["n\n", None])
def test_what_a_grant_changes_against_the_one_in_force_stands_before_it(
    answer: str | None, grant: Grant, agents: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other"
    append(queen_folder(other) / "events.jsonl", dump(turn(4)))
    assert "changes against" not in grant("--sources", "hive,events,tasks", "--yes", answer=None)[1]
    yes = ["--yes"] if answer is None else []
    same = grant("--sources", "hive,tasks,events", *yes, answer=answer)[1]
    assert "changes against" not in same
    out = grant("--home", str(other), "--history", "include", *yes, answer=answer)[1]
    shown = " ".join(out.partition("changes against the consent of ")[2].partition("granted at")[0].split())
    assert f"- homes: before: {agents}; now: {agents}, {other} - kinds of files: before: events, tasks; now:" in shown
    assert "now: events, logs, descriptions, tasks - history: before: only what happens from the grant on;" in shown
    assert "agents: before" not in shown
    assert cli.main(["device", "consent", "pause"]) == 0
    assert "- state: before: paused; now: granted" in grant(*yes, answer=answer)[1]


@pytest.mark.parametrize("answer", ["", "n\n", "y\n"])
def test_a_withdrawal_says_what_it_does_and_asks(
    answer: str, grant: Grant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grant("--yes", answer=None)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal(answer))
        code = cli.main(["device", "consent", "withdraw"])
    err = capsys.readouterr().err
    assert "a request to delete what was sent goes to" in err
    assert (tmp_path / "apiary" / "store").as_uri() in err
    assert "[y/N]" in err
    assert code == (0 if answer == "y\n" else 2)
    assert (state_of(capsys) == "granted") is (answer != "y\n")


@pytest.mark.parametrize("options", [["--yes"], []])
def test_a_withdrawal_needs_neither_a_terminal_nor_an_option(
    options: list[str], grant: Grant, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert grant("--yes", answer=None)[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", Terminal("") if options else io.StringIO(""))
        assert cli.main(["device", "consent", "withdraw", *options]) == 0
    assert "[y/N]" not in capsys.readouterr().err
    assert state_of(capsys) == "deletion_requested"


def test_a_real_terminal_is_asked(agents: Path) -> None:
    controller, terminal = pty.openpty()
    asked = subprocess.Popen(
        [sys.executable, "-m", "pipelines.cli", "device", "consent", "grant", "--home", str(agents)],
        stdin=terminal, stdout=terminal, stderr=terminal, cwd=ROOT,
    )  # fmt: skip
    os.close(terminal)
    said = b""
    while b"[y/N]" not in said:
        said += os.read(controller, 4096)
    os.write(controller, b"y\n")
    try:
        while part := os.read(controller, 4096):
            said += part
    except OSError:  # the other end was closed
        pass
    os.close(controller)
    assert asked.wait(30) == 0
    assert said.index(b"[y/N]") < said.index(b"granted at")


def test_another_person_gets_no_consent_of_the_one_before(grant: Grant, capsys: pytest.CaptureFixture[str]) -> None:
    enroll = ["device", "enroll", "--tenant", "acme", "--user"]
    assert cli.main([*enroll, "ada", "--timezone", "Europe/Berlin"]) == 0
    assert grant("--yes", answer=None)[0] == 0
    assert cli.main([*enroll, "bob"]) == 2
    assert "consent stands" in capsys.readouterr().err
    assert cli.main([*enroll, "ada"]) == 0
    told = capsys.readouterr().out
    assert "zone Europe/Berlin" in told, "what was not named again stays"
    assert "stands (granted)" in told
    assert cli.main(["device", "consent", "withdraw"]) == 0
    assert cli.main([*enroll, "bob"]) == 0


def test_the_status_says_in_words_what_a_consent_means_now(
    grant: Grant, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*command: str) -> str:
        capsys.readouterr()
        assert cli.main(["device", *command]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert grant("--history", "include", "--yes", answer=None)[0] == 0
    told("ship")
    assert re.search(r"^consent \w{8}: granted at [^;]* UTC, with everything before it covers:", told("status"))
    assert "consent resume`; what happens meanwhile is read then. To leave" in told("consent", "pause")
    assert "it is paused: nothing is read and nothing leaves until `apiary device consent" in told("status")
    shown = told("preview")
    assert "nothing leaves while the consent is paused" in shown
    assert "there is no consent" not in shown
    told("consent", "withdraw")
    standing = told("status")
    assert re.search(
        r"; withdrawn at [^;]* UTC: nothing is read and nothing leaves; the deletion .* is requested", standing
    )
    assert "deletion_requested" not in standing

    store = FolderStore(tmp_path / "apiary" / "store")
    (entry,) = store.list(REQUESTS)
    request = parse_request(entry.key, store.get(entry.key))
    receipt = ErasureReceipt(
        request_id=request.request_id, device=request.device, epochs=request.epochs,
        erased_at=datetime(2027, 1, 2, tzinfo=UTC), objects_deleted=3, rows_deleted=17,
    )  # fmt: skip
    store.put(receipt.key(region="local", tenant="acme"), receipt.to_json())
    standing = told("status")
    assert "; the deletion of what was sent is proven, of 2027-01-02 00:00:00 UTC" in standing
    assert "confirmed" not in standing
    assert state_of(capsys) == "confirmed", "programs read the names of the book"


@pytest.mark.parametrize("pause", [False, True])
def test_a_consent_of_another_contract_says_that_nothing_leaves(
    grant: Grant, agents: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *, pause: bool
) -> None:
    """An upgrade came between: the service sends nothing, and every screen says why and what to do."""

    def says(*arguments: str) -> str:
        capsys.readouterr()
        assert cli.main(["device", *arguments, "--home", str(agents)]) == 0
        return " ".join(capsys.readouterr().out.split())

    assert grant("--yes", "--history", "include", answer=None)[0] == 0
    for screen in ("status", "preview"):
        assert "other columns" not in says(screen)
        assert json.loads(says(screen, "--json"))["is_outdated"] is False
    if pause:
        assert cli.main(["device", "consent", "pause"]) == 0
    table = wire.LLM_TURNS
    wider = type(table)(name=table.name, grain="g", source="s", columns=table.columns, version=2)
    monkeypatch.setattr(wire, "TABLES", (wider, *wire.TABLES[1:]))
    for screen in ("status", "preview"):
        assert "this release sends other columns" in says(screen)
        assert "apiary device consent grant" in says(screen)
        assert json.loads(says(screen, "--json"))["is_outdated"] is True
    assert "next upload: none before `apiary device consent grant`" in says("status")
    assert grant("--yes", "--history", "include", answer=None)[0] == 0
    assert "other columns" not in says("status")
