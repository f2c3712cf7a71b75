"""The command line: exit codes, one line of what is wrong, and what goes to which stream."""

import argparse
import json
import socket
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipelines import cli
from pipelines.commands import terminal
from pipelines.simulate.homes import HomeSpec, write_home

NO_SERVER = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
    "AWS_DEFAULT_REGION": "us-east-1",
}  # fmt: skip
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("APIARY_STORE", "APIARY_TENANT_KEY", "HIVE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def agents(tmp_path: Path) -> Path:
    write_home(tmp_path / "hive", HomeSpec(layout="v2", seed=3, timezone="UTC", first_day=date(2026, 3, 1), days=1))
    return tmp_path / "hive"


def enroll(call: Call, *options: object) -> tuple[int, str, str]:
    return call("device", "enroll", "--tenant", "acme", "--user", "ada", "--timezone", "UTC", *options)


def read_times(folder: Path) -> dict[Path, int]:
    """When each file was last read; folders are left out, since looking for the files reads them."""
    return {path: path.stat().st_atime_ns for path in folder.rglob("*") if path.is_file()}


def one_line(err: str) -> bool:
    return err.startswith("apiary: ") and err.count("\n") == 1 and "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"], ["usage"], ["usage", "--by", "moon"],
        ["usage", "--by", "day", "--from", "yesterday"],
        ["run", "--date", "2026-13-01"],
        ["device", "ship", "--every", "soon"],
        ["device", "enroll", "--tenant", "acme"],
        ["device", "consent", "grant", "--history", "some"],
        ["device", "ship", "--once", "--every", "5m"],
    ],
)  # fmt: skip
def test_wrong_use_is_two_and_one_line(call: Call, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert one_line(err)


@pytest.mark.parametrize("arguments", [[], ["device"], ["device", "consent"], ["quarantine"], ["prices"]])
def test_a_group_without_a_subcommand_prints_its_help(call: Call, arguments: list[str]) -> None:
    code, out, err = call(*arguments)
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: apiary {' '.join(arguments)}".rstrip())


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [(["devise"], "device"), (["device", "enrol"], "enroll"), (["usage", "--by", "modle"], "model")],
)
def test_a_misspelt_word_is_answered_with_the_nearest(call: Call, arguments: list[str], meant: str) -> None:
    code, _, err = call(*arguments)
    assert code == 2
    assert one_line(err)
    assert f"did you mean '{meant}'?" in err


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (["--tenant", "ada@example.org", "--user", "ada"], "tenant"),
        (["--tenant", "acme", "--user", "Ada Lovelace"], "user"),
        (["--tenant", "acme", "--user", "ada", "--region", "../eu"], "region"),
        (["--tenant", "acme", "--user", "ada", "--timezone", "Mars/Olympus"], "timezone"),
        (["--tenant", "acme", "--user", "ada", "--store", "ftp://somewhere"], "store"),
        (["--tenant", "acme", "--user", "ada", "--tenant-key", "/nowhere/key"], "tenant-key"),
    ],
)
def test_enrolment_refuses_what_does_not_fit(call: Call, tmp_path: Path, options: list[str], word: str) -> None:
    code, _, err = call("device", "enroll", *options)
    assert code == 2
    assert word in err
    assert one_line(err)
    assert not (tmp_path / "apiary" / "device" / "enrolment.json").exists()


def test_without_consent_nothing_is_touched(call: Call, agents: Path, tmp_path: Path) -> None:
    code, out, err = call("device", "ship", "--home", agents)
    assert (code, out) == (2, "")
    assert "enroll" in err
    assert not (tmp_path / "apiary").exists()
    assert enroll(call)[0] == 0
    before = read_times(agents)
    code, out, err = call("device", "ship", "--home", agents)
    assert (code, out) == (2, "")
    assert "consent" in err
    assert one_line(err)
    assert read_times(agents) == before
    assert sorted(path.name for path in (tmp_path / "apiary" / "device").iterdir()) == ["enrolment.json", "tenant.key"]
    assert not (tmp_path / "apiary" / "store").exists()


def test_the_way_of_an_owner(call: Call, agents: Path, tmp_path: Path) -> None:
    assert enroll(call)[0] == 0
    code, out, _ = call("device", "preview", "--home", agents, "--json")
    preview = json.loads(out)
    assert code == 0
    assert preview["consent"] == "none"
    assert preview["tables"]["llm_turns"]
    assert not (tmp_path / "apiary" / "store").exists()
    code, out, _ = call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
    assert code == 0
    assert "never leaves: prompts" in out
    assert call("device", "consent", "status")[1].startswith("consent ")
    code, out, _ = call("device", "ship", "--home", agents)
    assert code == 0
    sent = sum(len(rows) for rows in preview["tables"].values())
    assert f"sent {sent:,} rows in 1 batch (" in out, "the preview shows exactly what leaves"
    status = json.loads(call("device", "status", "--json")[1])
    assert status["rows_delivered"] == sent
    assert status["batches_waiting"] == 0
    assert call("device", "consent", "withdraw")[0] == 0
    code, _, err = call("device", "ship", "--home", agents)
    assert code == 2
    assert "consent" in err


def test_what_left_is_told_over_consents(call: Call, agents: Path, tmp_path: Path) -> None:
    """One screen for both commands; a new consent begins a new chain of batches, and what left stays left."""
    enroll(call)
    for _ in range(2):
        call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
        assert call("device", "ship")[1].startswith("sent ")
        assert call("device", "ship")[1].startswith("nothing new to send; the report of this run went to ")
        call("device", "consent", "withdraw")
    told = call("device", "status")
    assert told == call("device", "consent", "status")
    status = json.loads(call("device", "status", "--json")[1])
    assert status == json.loads(call("device", "consent", "status", "--json")[1])
    listed = call("device", "receipts")[1].splitlines()[2:]
    assert [line.split()[0] for line in listed] == ["1", "2", "3", "4"]
    assert status["batches_delivered"] == 4
    assert status["rows_delivered"] == sum(int(line.split()[3].replace(",", "")) for line in listed)
    assert f"uploaded: {status['rows_delivered']:,} rows in 4 batches" in told[1]
    assert f"last at {status['last_upload_at']} UTC" in told[1]
    assert told[1].count("deletion asked for at ") == 2


def test_a_store_that_is_kept_is_told(call: Call, tmp_path: Path) -> None:
    store = (tmp_path / "first").as_uri()
    assert "the store" not in enroll(call, "--store", store)[1]
    assert f"the store stays {store}" in enroll(call)[1]
    assert "the store stays" not in enroll(call, "--store", (tmp_path / "second").as_uri())[1]


def test_a_store_that_is_away_is_told_of_while_it_is_waited_for(
    call: Call, agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    monkeypatch.setattr("pipelines.device.limits.PATIENCE_SECONDS", 0.025)
    enroll(call)
    call("device", "consent", "grant", "--yes", "--home", agents)
    (tmp_path / "blocked").write_text("a file where the store's folder should be")
    code, _, err = call("device", "ship", "--store", (tmp_path / "blocked").as_uri())
    assert code == 1
    assert err.count("; trying again in ") == 2


def test_several_hashes_are_named_at_once(call: Call, agents: Path) -> None:
    enroll(call)
    shown = json.loads(call("device", "preview", "--home", agents, "--json")[1])["tables"]
    keyed = sorted({row["colony_name"] for row in shown["colonies"] if str(row["colony_name"]).startswith("k1_")})[:2]
    assert len(keyed) == 2
    unknown = f"k1_{'0' * 32}"
    code, out, err = call("device", "resolve", *keyed, unknown, "--home", agents)
    assert code == 1
    assert [line.split()[0] for line in out.splitlines()[2:]] == keyed
    assert unknown in err


@pytest.mark.parametrize(("make", "word"), [(None, "does not exist"), ("file", "is a file")])
def test_a_home_that_is_none(call: Call, tmp_path: Path, agents: Path, make: str | None, word: str) -> None:
    home = tmp_path / "home"
    if make:
        home.write_text("not a folder")
    enroll(call)
    call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
    code, _, err = call("device", "ship", "--home", home)
    assert code == 2
    assert word in err
    assert one_line(err)


def test_a_home_without_sessions_is_fine(call: Call, tmp_path: Path) -> None:
    """Also one that was emptied after the grant."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "configuration.json").write_text("{}")
    enroll(call)
    call("device", "consent", "grant", "--yes", "--home", tmp_path / "home")
    (tmp_path / "home" / "configuration.json").unlink()
    code, out, _ = call("device", "ship", "--home", tmp_path / "home")
    assert code == 0
    assert out.startswith("nothing new to send; the report of this run went to ")


@pytest.mark.parametrize("content", ["nothing", "documents", "sessions of something else"])
def test_a_folder_that_is_no_agents_home_is_refused(call: Call, tmp_path: Path, agents: Path, content: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    if content == "documents":
        (folder / "letter.txt").write_text("dear ada")
        (folder / "agents").mkdir()
    if content == "sessions of something else":
        (folder / "sessions" / "2026" / "11").mkdir(parents=True)
    enroll(call)
    for command in (("consent", "grant", "--yes"), ("preview",), ("resolve", f"k1_{'0' * 32}")):
        code, out, err = call("device", *command, "--home", folder)
        assert (code, out) == (2, ""), command
        assert one_line(err)
        assert "is no agent's home" in err
    assert "none was ever given" in call("device", "consent", "status")[1]
    code, _, err = call("device", "consent", "grant", "--yes", "--home", agents, "--home", folder)
    assert code == 2, "a grant covers what it says or is none"
    call("device", "consent", "grant", "--yes", "--history", "include")  # every home, none is named
    code, out, err = call("device", "ship", "--home", folder)
    assert (code, out) == (2, "")
    assert one_line(err)
    code, out, err = call("device", "ship", "--home", agents, "--home", folder)
    assert code == 0, "one folder does not stop the others"
    assert "is no agent's home" in err


def test_every_command_is_about_the_homes_of_the_grant(call: Call, tmp_path: Path, agents: Path) -> None:
    """`HIVE_HOME` and the usual places do not matter any more; another home must be named."""
    other = tmp_path / "person" / ".hive"
    write_home(other, HomeSpec(layout="v3", seed=4, timezone="UTC", first_day=date(2026, 3, 1), days=1))
    enroll(call)
    expected = json.loads(call("device", "preview", "--home", agents, "--json")[1])["tables"]["llm_turns"]
    call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
    assert f"the home {agents}" in call("device", "consent", "status")[1]
    shown = json.loads(call("device", "preview", "--json")[1])["tables"]
    assert shown["llm_turns"] == expected
    keyed = next(row["queen_name"] for row in shown["sessions"] if row["queen_name"])
    if keyed.startswith("k1_"):
        assert call("device", "resolve", keyed)[0] == 0
    code, out, _ = call("device", "ship")
    assert code == 0
    assert f"sent {sum(map(len, shown.values())):,} rows" in out
    code, _, err = call("device", "ship", "--home", other)
    assert code == 2
    assert "the consent does not cover it" in err
    (tmp_path / "apiary" / "device" / "homes.json").write_text("damaged")
    code, _, err = call("device", "ship")
    assert (code, "grant consent again" in err) == (1, True)
    assert call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)[0] == 0
    assert call("device", "ship")[0] == 0
    call("device", "consent", "withdraw")
    assert not (tmp_path / "apiary" / "device" / "homes.json").exists()
    assert f"the home {agents}" not in call("device", "consent", "status")[1], "a path is kept as long as the grant"


def test_no_home_in_the_usual_places(call: Call) -> None:
    enroll(call)
    assert call("device", "consent", "grant", "--yes")[0] == 0, "a grant covers the homes that come later"
    code, _, err = call("device", "ship")
    assert code == 2
    assert "--home" in err


def test_one_bad_home_does_not_stop_the_others(call: Call, agents: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    (agents / "agents" / "queens" / "q" / "sessions" / "session_20260301_083840_8a0d0550").mkdir(parents=True)
    (agents / "agents/queens/q/sessions/session_20260301_083840_8a0d0550/events.jsonl").mkdir()
    enroll(call)
    call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
    code, out, err = call("device", "ship", "--home", tmp_path / "file", "--home", agents)
    assert code == 0
    assert "in 1 batch (" in out
    assert "is a file" in err
    assert "1 file could not be read (unreadable)" in err


def test_an_unreachable_store_loses_nothing(
    call: Call, agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.device.limits.PATIENCE_SECONDS", 0.0)
    # The longest delay: one drawn near 0 would be over before the second run begins.
    monkeypatch.setattr("random.uniform", lambda low, high: high)
    enroll(call)
    call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the store's folder should be")
    code, _, err = call("device", "ship", "--home", agents, "--store", blocked.as_uri())
    assert code == 1
    assert "ship again" in err
    assert one_line(err)
    code, out, _ = call("device", "ship", "--home", agents, "--store", blocked.as_uri())
    assert code == 0
    assert "is asked again from" in out
    assert "2 batches wait safely" in out
    code, out, _ = call("device", "ship", "--home", agents)
    assert code == 0
    assert "batches_delivered" in call("device", "status", "--json")[1]
    assert "in 3 batches" in out


def test_store_precedence(call: Call, agents: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enroll(call, "--store", (tmp_path / "enrolled").as_uri())
    call("device", "consent", "grant", "--yes", "--history", "include", "--home", agents)
    assert "/enrolled" in call("device", "ship", "--home", agents)[1]
    monkeypatch.setenv("APIARY_STORE", (tmp_path / "environment").as_uri())
    assert "/environment" in call("device", "ship", "--home", agents)[1]
    assert "/flag" in call("device", "ship", "--home", agents, "--store", (tmp_path / "flag").as_uri())[1]


def test_usage_without_published_data(call: Call) -> None:
    code, out, err = call("usage", "--by", "model", "--json")
    assert (code, out) == (1, "")
    assert "apiary run" in err
    assert one_line(err)


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A publication made by hand: the command line needs these tables and no more."""
    folder = tmp_path / "apiary" / "published" / "current"
    folder.mkdir(parents=True)
    with duckdb.connect(str(folder / "marts.duckdb")) as connection:
        connection.execute("CREATE TABLE dim_colonies (tenant_id VARCHAR, colony_id VARCHAR, colony_name VARCHAR)")
        connection.execute(
            "CREATE TABLE agg_usage_session_daily (tenant_id VARCHAR, session_id VARCHAR, user_id VARCHAR,"
            " colony_id VARCHAR, agent_kind VARCHAR, model VARCHAR, usage_date DATE, turns BIGINT, input_tokens BIGINT,"
            " output_tokens BIGINT, cache_read_input_tokens BIGINT, cache_write_input_tokens BIGINT, tool_calls BIGINT,"
            " unreported_turns BIGINT, reported_cost_usd DECIMAL(38, 20), rated_cost_usd DECIMAL(38, 20),"
            " rated_cost_low_usd DECIMAL(38, 20), rated_cost_high_usd DECIMAL(38, 20), unpriced_turns BIGINT,"
            " unpriced_tokens BIGINT)"
        )
        connection.execute("INSERT INTO dim_colonies VALUES ('acme', 'c1', 'k1_00')")
        connection.execute("CREATE TABLE dim_sessions (tenant_id VARCHAR, session_id VARCHAR, agent_id VARCHAR)")
        connection.execute("INSERT INTO dim_sessions VALUES ('acme', 's1', 'queen:queen_growth')")
        rows = [
            (
                "acme",
                "s1",
                "ada",
                "c1",
                "queen",
                "m1",
                date(2026, 3, 1),
                2,
                100,
                10,
                50,
                5,
                3,
                0,
                "0.00000000000000000001",
            ),
            ("acme", "s1", "ada", "c1", "queen", "m1", date(2026, 3, 2), 1, 10, 1, 0, 0, 0, 0, "0.3"),
            ("acme", "s2", "bob", None, "agent_session", "unknown", date(2026, 3, 2), 1, 7, 1, 0, 0, 0, 1, None),
        ]
        rated = [("0.2", "0.1", "0.3", 0, 0), ("0.05", "0.05", "0.05", 0, 0), (None, None, None, 1, 8)]
        connection.executemany(
            f"INSERT INTO agg_usage_session_daily VALUES ({', '.join('?' * 20)})",
            [(*row, *money) for row, money in zip(rows, rated, strict=True)],
        )
    return folder


def asked(call: Call, *arguments: object) -> list[dict[str, Any]]:
    code, out, _ = call("usage", *arguments, "--json")
    assert code == 0
    found: list[dict[str, Any]] = json.loads(out)
    return found


@pytest.mark.usefixtures("published")
def test_usage_is_exact(call: Call) -> None:
    rows = {row["model"]: row for row in asked(call, "--by", "model")}
    assert rows["m1"] == {
        "model": "m1", "turns": 3, "input_tokens": 110, "output_tokens": 11, "cache_read_input_tokens": 50,
        "cache_write_input_tokens": 5, "tool_calls": 3, "unreported_turns": 0,
        "reported_cost_usd": "0.30000000000000000001", "rated_cost_usd": "0.25", "rated_cost_low_usd": "0.15",
        "rated_cost_high_usd": "0.35", "unpriced_turns": 0, "unpriced_tokens": 0, "unpriced_models": [],
    }  # fmt: skip
    assert rows["unknown"]["reported_cost_usd"] is None
    assert rows["unknown"]["rated_cost_usd"] is None
    assert (rows["unknown"]["unpriced_tokens"], rows["unknown"]["unpriced_models"]) == (8, ["unknown"])


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("by", ["model", "tenant", "user", "colony", "session", "agent", "kind", "day"])
def test_usage_by_anything_sums_to_the_whole(call: Call, by: str) -> None:
    rows = asked(call, "--by", by)
    assert all(by in row for row in rows)
    assert sum(row["input_tokens"] for row in rows) == 117
    assert sum(row["turns"] for row in rows) == 4


@pytest.mark.usefixtures("published")
def test_usage_by_agent_names_agents(call: Call) -> None:
    assert [(row["agent"], row["turns"]) for row in asked(call, "--by", "agent")] == [
        ("queen:queen_growth", 3),
        ("unknown", 1),
    ]
    assert {row["kind"] for row in asked(call, "--by", "kind")} == {"queen", "agent_session"}


@pytest.mark.usefixtures("published")
def test_a_long_table_is_cut_and_says_so(call: Call) -> None:
    code, out, _ = call("usage", "--by", "session", "--limit", "1")
    assert code == 0
    assert "1 more row: see all with --all" in out
    assert "more row" not in call("usage", "--by", "session", "--limit", "1", "--all")[1]
    assert len(asked(call, "--by", "session", "--limit", "1")) == 2, "programs get all of it"


@pytest.mark.usefixtures("published")
def test_amounts_are_exact_where_that_is_asked_for(call: Call) -> None:
    assert "0.30000000000000000001" in call("usage", "--by", "model", "--exact")[1]


@pytest.mark.usefixtures("published")
def test_usage_of_some_days(call: Call) -> None:
    assert [row["day"] for row in asked(call, "--by", "day")] == ["2026-03-01", "2026-03-02"]
    assert [row["turns"] for row in asked(call, "--by", "tenant", "--from", "2026-03-02", "--to", "2026-03-02")] == [2]
    assert asked(call, "--by", "day", "--from", "2026-04-01") == []


@pytest.mark.parametrize(
    "command", [["usage", "--by", "day"], ["reconcile", "show"], ["reconcile", "fetch", "openai-costs"]]
)
def test_days_in_the_wrong_order_are_refused(call: Call, command: list[str]) -> None:
    code, _, err = call(*command, "--from", "2026-03-02", "--to", "2026-03-01")
    assert (code, err) == (2, "apiary: --to 2026-03-01 is before --from 2026-03-02\n")


def test_a_port_that_is_taken_is_refused_before_anything_is_said(call: Call) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, out, err = call("serve", "--port", port)
    assert (code, out) == (2, "")
    assert err == f"apiary: port {port}: Address already in use; name another with --port\n"


@pytest.mark.usefixtures("published")
def test_usage_says_of_what_its_bounds_are(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside tokens without a price `at most` alone would not be true."""
    monkeypatch.setenv("COLUMNS", "60")
    assert "priced turns at least, priced turns at most" in " ".join(call("usage", "--by", "model")[1].split())


@pytest.mark.usefixtures("published")
def test_usage_for_people(call: Call) -> None:
    code, out, err = call("usage", "--by", "colony")
    assert (code, err) == (0, "")
    assert {"reported", "rated"} <= set(out.split())
    assert "0.3000" in out, "the exact amount is what --json prints"


def test_demo_ships_no_home_without_consent(call: Call, agents: Path, tmp_path: Path) -> None:
    code, _, err = call("demo", "--home", agents)
    assert code == 2
    assert "CONSENT=include" in err
    assert not (tmp_path / "apiary").exists()


def test_doctor_says_what_is_wrong(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NO_SERVER.items():
        monkeypatch.setenv(name, value)
    code, out, _ = call("doctor")
    assert code == 0
    assert "apiary" in out
    code, out, _ = call("doctor", "--store", "s3://no-bucket-of-ours/x")
    assert code == 1
    assert "NOT REACHABLE" in out


def test_doctor_asks_no_store_before_consent(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    enroll(call)
    monkeypatch.setattr("pipelines.store.FolderStore.list", lambda *_: pytest.fail("the store was asked"))
    code, out, _ = call("doctor")
    assert code == 0
    assert "no consent" in out


def test_debug_shows_the_traceback(call: Call) -> None:
    with pytest.raises(Exception, match="published"):
        cli.main(["usage", "--by", "day", "--debug"])


def test_now_is_not_needed_to_parse() -> None:
    assert terminal.day("2026-03-01") == date(2026, 3, 1) < datetime.now(UTC).date()


def test_each_command_is_the_devices_or_the_warehouses(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    device = ("me", "device", "doctor", "upgrade")

    def commands() -> set[str]:
        found = (a.choices for a in cli._parser()._actions if isinstance(a, argparse._SubParsersAction))
        return set(next(found))

    everything = commands()
    monkeypatch.setattr(cli, "find_spec", lambda name: name.rpartition(".")[2] in device or None)
    ours = commands()
    assert everything - ours - {"compare", "demo", "simulate"} == cli.WAREHOUSE_COMMANDS
    for name in ("run", "usage"):
        code, _, err = call(name, "--whatever")
        assert (code, one_line(err)) == (1, True)
        assert "install apiary-warehouse" in err


@pytest.mark.parametrize("command", [["export", "days"], ["period", "status"], ["month-end", "2026-10"]])
def test_nothing_is_decided_as_of_a_day_that_has_not_come(call: Call, command: list[str]) -> None:
    code, _, err = call(*command, "--as-of", "2999-01-01T00:00:00Z")
    assert code == 2
    assert "lies in the future" in err
