"""hyperhive's homes: a turn counts by its responses where they can be read, else by its statistics, never by both."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import tarfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipelines.device.lines import UnreadableError
from pipelines.device.readers import registry, sqlite
from pipelines.device.readers.hyperhive import broker, turns
from pipelines.simulate.hyperhive import HyperhiveSpec
from tests.device.claude_lines import (
    START,
    agent_transcript,
    call,
    dump,
    line,
    response,
    result,
    session_id,
    transcript,
)
from tests.device.driving import Row, counted_exactly, granted
from tests.device.test_claude_code import expected, measures
from tests.samples import SAMPLES, needs

SAMPLE = SAMPLES / "hyperhive-home.tar.gz"
needs_sample = needs(SAMPLE)


class Sample:
    """The sample home, shipped."""

    def __init__(self, folder: Path) -> None:
        self.truth: dict[str, Any] = json.loads((SAMPLES / "hyperhive-home.truth.json").read_text())
        with tarfile.open(SAMPLE) as archive:
            archive.extractall(folder, filter="data")
        self.home = folder / self.truth["home"]
        self.device = granted(folder / "apiary", self.home)
        self.device.ship(self.home)
        self.turns = self.device.delivered("llm_turns")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


@needs_sample
def test_the_sample_is_counted_exactly(sample: Sample) -> None:
    truth = sample.truth["totals"]
    assert measures(sample.turns) == expected(truth["unique_usage"])
    by = {
        "by_grain": lambda row: row["turn_grain"],
        "by_utc_day": lambda row: f"{row['occurred_at']:%Y-%m-%d}",
        "by_kind": lambda row: "subagent" if row["is_sidechain"] else "main",
        "by_model": lambda row: row["model"] if row["turn_grain"] == "response" else f"alias:{row['model']}",
    }
    for name, key in by.items():
        found = {value: [row for row in sample.turns if key(row) == value] for value in map(key, sample.turns)}
        assert {value: measures(rows) for value, rows in found.items()} == {
            value: expected(usage) for value, usage in truth[name].items()
        }, name
    wrong = [expected(usage) for usage in sample.truth["wrong_totals"].values() if "turns" in usage]
    assert measures(sample.turns) not in wrong


@needs_sample
def test_the_sample_is_counted_by_agent_and_tool(sample: Sample) -> None:
    sessions = sample.device.delivered("sessions")
    agents = {row["session_id"]: row["agent_name"] for row in sessions if row["agent_name"]}
    by_agent: dict[str, list[Row]] = {}
    for row in sample.turns:
        own = row["parent_session_id"] if row["is_sidechain"] else row["session_id"]
        by_agent.setdefault(agents[own], []).append(row)
    truth = sample.truth["totals"]["by_agent"]
    assert sorted(map(str, map(measures, by_agent.values()))) == sorted(map(str, map(expected, truth.values())))
    calls = Counter(row["tool_name"] for row in sample.device.delivered("tool_calls"))
    assert calls == sample.truth["turn_facts"]["by_tool"]


@needs_sample
def test_the_sample_statistics_are_claims_and_facts(sample: Sample) -> None:
    claims = sample.device.delivered("control_totals")
    all_claims = sample.truth["control_totals"]["turn_stats_all"]
    assert len(claims) == all_claims["turns"]
    assert sum(row["output_tokens"] for row in claims) == all_claims["output_tokens"]
    assert sum(row["cache_read_input_tokens"] for row in claims) == all_claims["cached_tokens"]
    facts = sample.truth["turn_facts"]
    ends = [row for row in sample.device.delivered("agent_runs") if row["kind"] != "started"]
    assert sorted(round(row["duration_seconds"] * 1000) for row in ends) == facts["duration_ms"]["sorted"]
    assert Counter(row["error_class"] for row in ends) == {
        None: facts["result_mix"]["ok"],
        "context_length": facts["result_mix"]["prompt_too_long"],
        "other": facts["result_mix"]["failed"],
    }
    states = [row for row in sample.device.delivered("status_events") if row["kind"] == "turn_completed"]
    unknown = sum(map(len, facts["rows_where_last_columns_are_unknown"].values()))
    assert sum(row["context_tokens"] is None for row in states) == unknown
    assert max(row["context_tokens"] or 0 for row in states) == facts["context_of_last_call_max"]
    wakes = Counter(facts["wake_mix_known_words"])
    agents = sum(wakes.pop(name, 0) for name in sample.truth["layout"])
    wakes["other"] = wakes.pop("(free text)", 0)
    assert Counter(row["wake_kind"] for row in states) == wakes | {"agent": agents}


@needs_sample
def test_the_sample_broker_is_counts_states_and_times(sample: Sample) -> None:
    truth = sample.truth["broker"]
    found = sample.device.delivered("requests")
    kinds = {
        kind: [row for row in found if row["kind"] == kind] for kind in ("message", "approval", "question", "reminder")
    }
    waits = {
        kind: sum((row["resolved_at"] - row["requested_at"]).total_seconds() for row in rows if row["resolved_at"])
        for kind, rows in kinds.items()
    }
    is_open = {kind: sum(row["status"] == "open" for row in rows) for kind, rows in kinds.items()}
    assert (len(kinds["message"]), is_open["message"]) == (truth["messages"], truth["messages_undelivered"])
    assert Counter(row["status"] for row in kinds["approval"]) == truth["approvals_by_status"]
    assert Counter(row["purpose"] for row in kinds["approval"]) == truth["approvals_by_kind"]
    assert (len(kinds["question"]), is_open["question"]) == (truth["questions"], truth["questions_open"])
    assert sum(row["is_to_operator"] for row in kinds["question"]) == truth["questions_to_operator"]
    assert (len(kinds["reminder"]), is_open["reminder"]) == (truth["reminders"], truth["reminders_pending"])
    assert (waits["approval"], waits["question"]) == (truth["approval_wait_s_sum"], truth["question_wait_s_sum"])


@needs_sample
def test_nothing_of_the_sample_text_leaves_or_stays(sample: Sample) -> None:
    for path in (path for path in sample.device.home.root.rglob("*") if path.is_file()):
        assert re.search(rb"CANARY-[A-Z]+-\d{6}", path.read_bytes()) is None, path
    sent = json.dumps(sample.device.delivered(), default=str)
    for name in sample.truth["layout"]:
        assert f'"{name}"' not in sent, "names of agents leave as keyed hashes"


# Homes made by hand ---------------------------------------------------------------------------------------------------

SECONDS = int(START.timestamp())
OWN = session_id(0)
NEWER = ", ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in turns.LAST)


def row(number: int, at: int, **other: Any) -> dict[str, Any]:
    """A turn that began `at` seconds after the start and took ten."""
    return {
        "id": number, "started_at": SECONDS + at, "ended_at": SECONDS + at + 10, "duration_ms": 10_400, "model": "opus",
        "wake_from": "CANARY-WAKE-000001", "input_tokens": 6, "output_tokens": 100 + number,
        "cache_read_input_tokens": 1000, "cache_creation_input_tokens": 50, "tool_call_count": 3,
        "tool_call_breakdown_json": '{"Read": 2, "CANARY-TOOL-000002": 1}', "result_kind": "ok",
        "note": "CANARY-NOTE-000003", **other,
    }  # fmt: skip


def statistics(
    home: Path, *rows: dict[str, Any], agent: str = "ada", place: str = "harness", newer: str = NEWER
) -> Path:
    """The statistics of an agent's turns, with or without the columns that came later."""
    path = home / "agents" / agent / place / "hyperhive-turn-stats.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(row(0, 0))
    with closing(sqlite3.connect(path)) as db, db:
        more = f", {newer}" if newer else ""
        db.execute(f"CREATE TABLE IF NOT EXISTS turn_stats ({', '.join(names)}{more})")
        for values in rows:
            marks = ", ".join("?" * len(values))
            db.execute(f"INSERT INTO turn_stats ({', '.join(values)}) VALUES ({marks})", list(values.values()))
    return path


def counted(rows: list[Row]) -> list[tuple[str, int]]:
    """What is left of turns once those that are covered are taken out, as the warehouse does."""
    return sorted((row["turn_grain"], row["output_tokens"]) for row in rows if not row["is_covered"])


def test_a_turn_counts_by_its_responses_where_they_are_and_else_by_its_row(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0), row(2, 100), row(3, 200, result_kind="failed", output_tokens=0))
    own = [response("a", OWN, 2, content=[call("x")]), response("b", OWN, 203, output=7)]
    transcript(home / "agents" / "ada" / "claude", OWN).write_bytes(dump(*own))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("response", 7), ("response", 212), ("turn", 102)]
    assert len(made.delivered("tool_calls")) == 1 + 3
    assert len(made.delivered("control_totals")) == 3
    (turn,) = (found for found in made.delivered("llm_turns") if found["turn_grain"] == "turn")
    assert (turn["input_tokens"], turn["cache_read_input_tokens"], turn["cache_write_input_tokens"]) == (1056, 1000, 50)
    assert (turn["model"], turn["cache_write_5m_input_tokens"], turn["agent_runtime"]) == ("opus", None, "hyperhive")
    for path in (path for path in made.home.root.rglob("*") if path.is_file()):
        assert b"CANARY" not in path.read_bytes()


PROMPT = {"role": "user", "content": "CANARY-PROMPT-000007"}


@pytest.mark.parametrize(
    ("told", "counted_as"),
    [
        # Turns from 0 and from 10: the second from 10 on is in both.
        ([response("b", OWN, 10.2), response("c", OWN, 15)], ["row 1", "b", "c"]),
        ([response("a", OWN, 5), response("b", OWN, 10.2)], ["a", "b", "row 2"]),
        ([response("a", OWN, 5), line("user", OWN, 10.1, message=PROMPT), response("b", OWN, 10.2)], ["a", "b"]),
        ([line("user", OWN, 10.1, message=PROMPT), response("b", OWN, 10.2)], ["row 1", "b"]),
        ([response("a", OWN, 5), result("x", OWN, 10.1), response("b", OWN, 10.2)], ["a", "b", "row 2"]),
        ([response("a", OWN, 5), response("b", OWN, 10.2), response("c", OWN, 15)], ["a", "b", "c"]),
    ],
)
def test_a_line_in_the_second_that_two_turns_share_covers_one(
    tmp_path: Path, told: list[dict[str, Any]], counted_as: list[str]
) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0), row(2, 10))
    transcript(home / "agents" / "ada" / "claude", OWN).write_bytes(dump(*told))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    grains = {"turn": {101: "row 1", 102: "row 2"}}
    found = counted(made.delivered("llm_turns"))
    assert sorted(grains[grain][output] for grain, output in found if grain == "turn") == [
        name for name in counted_as if name.startswith("row")
    ]
    assert sum(grain == "response" for grain, _ in found) == sum(not name.startswith("row") for name in counted_as)


def test_a_turn_that_has_no_second_of_its_own_is_covered_by_any_line_in_it(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0), row(2, 10, ended_at=SECONDS + 10))
    told = [response("a", OWN, 5), response("b", OWN, 10.2)]
    transcript(home / "agents" / "ada" / "claude", OWN).write_bytes(dump(*told))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("response", 212), ("response", 212)]


@pytest.mark.parametrize("is_first", [True, False])
def test_any_order_of_statistics_and_transcripts_gives_the_same(tmp_path: Path, is_first: bool) -> None:
    home, away = tmp_path / "hive", tmp_path / "away"
    statistics(home, row(1, 0))
    claude = home / "agents" / "ada" / "claude"
    transcript(claude, OWN).write_bytes(dump(response("a", OWN, 2, content=[call("x")])))
    made = granted(tmp_path / "apiary", home)
    if is_first:
        shutil.move(claude, away)
        made.ship(home)
        assert counted(made.delivered("llm_turns")) == [("turn", 101)]
        shutil.move(away, claude)
        made.ship(home)
    else:
        made.ship(home)
        shutil.rmtree(claude)  # transcripts go after 30 days
        statistics(home, row(2, 500))
        made.ship(home)
    later = [] if is_first else [("turn", 102)]
    assert counted(made.delivered("llm_turns")) == [("response", 212), *later]
    calls = [found for found in made.delivered("tool_calls") if not found["is_covered"]]
    assert len(calls) == 1 + 3 * len(later)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("response", 212), *later]


def test_sub_agents_count_beside_a_row_that_leaves_them_out(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0))
    aside = agent_transcript(home / "agents" / "ada" / "claude", OWN)
    aside.write_bytes(dump(response("a", OWN, 2, isSidechain=True, agentId="99803ff")))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("response", 212), ("turn", 101)], "the main transcript is gone"


def test_a_time_within_a_line_is_not_the_lines(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0))
    found = response("a", OWN, 500)
    found["message"]["content"] = [call("x") | {"input": {"timestamp": response("z", OWN, 2)["timestamp"]}}]
    transcript(home / "agents" / "ada" / "claude", OWN).write_bytes(dump(found))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("response", 212), ("turn", 101)]


def test_a_copy_of_a_database_and_its_next_layout_count_once(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    old = statistics(home, row(1, 0), place="state", newer="")
    statistics(home, row(1, 0), row(2, 100))
    statistics(home, row(1, 0), agent="eve")  # another agent's, equal in every number
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("turn", 101), ("turn", 101), ("turn", 102)]
    shutil.rmtree(old.parent)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("turn", 101), ("turn", 101), ("turn", 102)]


def test_without_history_only_later_turns_leave(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0))
    made = granted(tmp_path / "apiary", home, history="exclude")
    statistics(home, row(2, 10), row(3, 400 * 86_400))  # after any grant of today
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("turn", 103)]
    assert len(made.delivered("control_totals")) == 1


BAD: dict[str, dict[str, Any]] = {
    "no time": {"started_at": None}, "a text for a time": {"ended_at": "CANARY-TEXT-000004"},
    "before 2000": {"started_at": -5}, "a huge time": {"ended_at": 10**17}, "no number": {"id": "CANARY-TEXT-000005"},
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_costs_that_row(tmp_path: Path, name: str) -> None:
    home = tmp_path / "hive"
    odd = {"tool_call_breakdown_json": "{torn", "input_tokens": "CANARY-TEXT-000006", "duration_ms": -1, "model": None}
    statistics(home, row(1, 0), row(2, 100, **BAD[name]), row(3, 200, **odd))
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("turn", 101), ("turn", 103)]
    assert b"CANARY" not in b"".join(path.read_bytes() for path in made.home.root.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("data", "outcome"), [(b"no database at all", "corrupt"), (b"", "unknown_layout"), (None, "unreadable")]
)
def test_a_database_that_cannot_be_read_costs_no_other(tmp_path: Path, data: bytes | None, outcome: str) -> None:
    home = tmp_path / "hive"
    statistics(home, row(1, 0))
    other = statistics(home, agent="eve")
    other.unlink()
    if data is None:
        other.symlink_to(statistics(tmp_path / "away", row(9, 0)))
    else:
        other.write_bytes(data)
    made = granted(tmp_path / "apiary", home)
    made.ship(home)
    assert counted(made.delivered("llm_turns")) == [("turn", 101)]
    assert [found["outcome"] for found in made.sources("turn_stats") if found["outcome"] != "read"] == [outcome]


def test_sqlite_denies_what_is_not_allowed(tmp_path: Path) -> None:
    path = statistics(tmp_path, row(1, 0))
    for allowed in (turns.ALLOWED, broker.ALLOWED):
        for sql in ("SELECT note FROM turn_stats", "SELECT body FROM messages", "SELECT * FROM sqlite_master"):
            with pytest.raises(UnreadableError):
                sqlite.read(path, tmp_path / "s", allowed, lambda db, sql=sql: db.execute(sql).fetchall())


def test_a_home_is_told_by_its_names(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    (home / "agents" / "ada" / "claude").mkdir(parents=True)
    assert registry.recognised(home) is None
    statistics(home)
    found = registry.recognised(home)
    assert found is not None
    assert found.name == "hyperhive"


def test_a_simulated_home_is_counted_exactly(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    spec = HyperhiveSpec(seed=3, first_day=date(2026, 11, 2), days=2, words="CANARY-WORDS-000077 of pears")
    counted_exactly(tmp_path, home, spec.write(home))


# Any interleaving ends at the ledger ----------------------------------------------------------------------------------

PHASES = [phase for phase in Phase if phase is not Phase.shrink]  # each try ships three times
TRANSCRIPTS = ("whole", "gone", "resumed", "twice")


@dataclass
class Ledger:
    """An agent's turns as a test invents them: its rows, the lines of its transcripts and of its sub-agents, and what
    is right: (grain, output tokens) of each turn that counts."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    lines: list[list[dict[str, Any]]] = field(default_factory=list)
    """Of each turn the lines that its session's transcript has; empty where the transcript is gone."""
    sessions: list[int] = field(default_factory=list)
    """The session of each turn."""
    aside: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    """Lines of sub-agents, with the number of their session."""
    counts: list[tuple[str, int]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    """What became of the transcript of each session: `resumed` begins with the lines of the one before, `twice` lies
    in a second project too."""


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    made = Ledger()
    for session in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(TRANSCRIPTS))
        made.kinds.append(kind)
        for _ in range(draw(st.integers(1, 3))):
            number, at = len(made.rows) + 1, 100 * len(made.rows)
            is_failed = draw(st.booleans())
            outputs = draw(st.lists(st.integers(1, 500), min_size=1, max_size=2))
            zeros = dict.fromkeys(turns.COUNTS, 0) if is_failed else {}
            result = {"result_kind": "failed" if is_failed else "ok"}
            made.rows.append(row(number, at) | {"output_tokens": sum(outputs)} | zeros | result)
            made.sessions.append(session)
            made.lines.append([
                response(f"{number}{place}", session_id(session), at + 1 + place, output=output)
                for place, output in enumerate(outputs)
                if kind != "gone"
            ])  # fmt: skip
            made.counts += [("response", output) for output in outputs if kind != "gone"]
            if kind == "gone" and not is_failed:  # of one that failed the row says nothing
                made.counts.append(("turn", made.rows[-1]["output_tokens"]))
            if draw(st.booleans()):
                line = response(
                    f"99{number}", session_id(session), at + 3, output=7, isSidechain=True, agentId="99803ff"
                )
                made.aside.append((session, line))
                made.counts.append(("response", 7))
    return made


def write_turns(home: Path, made: Ledger, done: int, begun: int) -> None:
    """Write an agent's files when `done` turns have a row, and of the next the first `begun` bytes of lines stand."""
    claude = home / "agents" / "ada" / "claude"
    before: list[dict[str, Any]] = []
    for session, kind in enumerate(made.kinds):
        places = [place for place, number in enumerate(made.sessions) if number == session]
        own = [line for place in places if place < done for line in made.lines[place]]
        next_ = dump(*made.lines[done]) if done in places else b""
        if kind == "resumed":
            own = [line | {"sessionId": session_id(session)} for line in before] + own
        data = dump(*own) + next_[:begun]
        if kind != "gone" and places[0] <= done and data:
            for project in ("-root", "-copy") if kind == "twice" else ("-root",):
                transcript(claude, session_id(session), project).write_bytes(data)
        before = own
    for session, _ in made.aside:
        lines = [line for number, line in made.aside if number == session]
        agent_transcript(claude, session_id(session)).write_bytes(dump(*lines))
    for path in home.rglob("*.sqlite"):
        path.unlink()
    statistics(home, *made.rows[:done])


@settings(max_examples=12, deadline=None, phases=PHASES)
@given(made=ledgers(), data=st.data())
def test_any_interleaving_of_rows_lines_and_layouts_ends_at_the_ledger(
    made: Ledger, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    home = folder / "hive"
    (home / "agents" / "ada").mkdir(parents=True)
    whole = len(made.rows)
    stages = sorted(data.draw(st.lists(st.integers(0, whole), min_size=2, max_size=2)))
    write_turns(home, made, stages[0], data.draw(st.integers(0, 900)))
    device = granted(folder / "apiary", home)
    device.ship(home)
    write_turns(home, made, stages[1], 0 if stages[1] == whole else 10**6)
    device.ship(home)
    write_turns(home, made, whole, 0)
    if data.draw(st.booleans()):  # the database of the layout before was left behind
        statistics(home, *made.rows[: stages[1]], place="state", newer="")
    device.ship(home)
    assert [turn for turn in counted(device.delivered("llm_turns")) if turn != ("turn", 0)] == sorted(made.counts)
    claims = device.delivered("control_totals")
    assert sum(claim["output_tokens"] for claim in claims) == sum(row["output_tokens"] for row in made.rows)
