"""Claude Code's transcripts: every response once, at its origin, with its last numbers; nothing of its text leaves."""

from __future__ import annotations

import json
import re
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from pipelines.device import lines
from pipelines.device.clock import Clock
from pipelines.device.readers.base import At, Record
from pipelines.device.readers.claude_code import layout, transcripts
from pipelines.device.readers.claude_code.layout import Transcript
from pipelines.simulate.claude_code import ClaudeCodeSpec
from tests.device.claude_lines import (
    agent_transcript,
    call,
    dump,
    line,
    response,
    result,
    session_id,
    transcript,
)
from tests.device.driving import Device, Row, counted_exactly, granted
from tests.samples import SAMPLES, needs

SAMPLE = SAMPLES / "claude-home.tar.gz"
needs_sample = needs(SAMPLE)
FIRST, SECOND, THIRD = map(session_id, range(3))
Measures = dict[str, int]


def measures(rows: Iterable[Row]) -> Measures:
    """Sums in the words of the truth files: their input excludes the cache."""
    total: Counter[str] = Counter()
    for row in rows:
        read, written = row["cache_read_input_tokens"] or 0, row["cache_write_input_tokens"] or 0
        five, hour = row["cache_write_5m_input_tokens"] or 0, row["cache_write_1h_input_tokens"] or 0
        total.update({
            "turns": 1, "input_tokens": row["input_tokens"] - read - written, "output_tokens": row["output_tokens"],
            "cached_tokens": read, "cache_creation_tokens": written, "cache_write_5m_tokens": five,
            "cache_write_1h_tokens": hour, "cache_write_unknown_tokens": written - five - hour,
            "reasoning_tokens": row["reasoning_output_tokens"] or 0,
            "web_search_requests": row["web_search_requests"] or 0,
        })  # fmt: skip
    return {name: number for name, number in total.items() if number}


def expected(truth: dict[str, int]) -> Measures:
    return {name: number for name, number in truth.items() if number and name != "tool_calls"}


# The sample home -----------------------------------------------------------------------------------------------------


class Sample:
    """The sample home, shipped."""

    def __init__(self, folder: Path) -> None:
        self.truth: dict[str, Any] = json.loads((SAMPLES / "claude-home.truth.json").read_text())
        with tarfile.open(SAMPLE) as archive:
            archive.extractall(folder, filter="data")
        homes = [folder / self.truth["home"] / root.partition(" ")[0] for root in self.truth["roots"]]
        self.device = granted(folder / "apiary", *homes)
        self.device.ship(*homes)
        self.turns = self.device.delivered("llm_turns")
        self.sessions = {row["session_id"]: row for row in self.device.delivered("sessions")}


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    return Sample(tmp_path_factory.mktemp("sample"))


def kind_of(row: Row) -> str:
    return "advisor" if row["request_kind"] == "advisor" else "subagent" if row["is_sidechain"] else "main"


@needs_sample
def test_the_sample_is_counted_exactly(sample: Sample) -> None:
    totals = sample.truth["totals"]
    assert measures(sample.turns) == expected(totals["unique_usage"])
    by: dict[str, Callable[[Row], object]] = {
        "by_utc_day": lambda row: row["occurred_at"].date().isoformat(), "by_kind": kind_of,
        "by_service_tier": lambda row: str(row["service_tier"]), "by_speed": lambda row: str(row["speed"]),
    }  # fmt: skip
    for name, key in by.items():
        for value, truth in totals[name].items():
            assert measures(row for row in sample.turns if key(row) == value) == expected(truth), (name, value)
    public = {row["model"] for row in sample.turns if not row["model"].startswith("k1_")}
    assert public < totals["by_model"].keys()
    for model in public:
        found = measures(row for row in sample.turns if row["model"] == model)
        assert found == expected(totals["by_model"][model]), model
    unfinished = [row for row in sample.turns if not row["is_final"]]
    assert measures(unfinished) == expected(totals["not_final"])
    wrong = {name: expected(truth) for name, truth in sample.truth["wrong_totals"].items() if isinstance(truth, dict)}
    assert measures(sample.turns) not in wrong.values()
    assert {row["agent_runtime"] for row in sample.turns} == {"claude-code"}


@needs_sample
def test_the_sample_sessions_own_what_began_in_them(sample: Sample) -> None:
    for session in sample.truth["sessions"]:
        name = session["session_id"]
        own = [row for row in sample.turns if row["session_id"] == name and row["request_kind"] == "message"]
        tree = [row for row in sample.turns if name in (row["session_id"], row["parent_session_id"])]
        assert measures(own) == expected(session["usage_own"]), name
        assert measures(tree) == expected(session["usage_with_subagents_and_advisor"]), name
    for child, parent in sample.truth["copies"]["forks"]:
        assert sample.sessions[child]["forked_from_session_id"] == parent
    types = sample.truth["totals"]["by_agent_type"]
    for name, truth in types.items():
        named = "k1_" if "CANARY" in name else name
        agents = [
            row
            for row in sample.turns
            if row["is_sidechain"]
            and (sample.sessions.get(row["session_id"], {}).get("agent_type") or "(none)").startswith(named)
        ]
        assert measures(agents) == expected(truth), name


@needs_sample
def test_the_sample_tools_troubles_and_control_totals(sample: Sample) -> None:
    found: dict[str, Counter[str]] = {}
    for row in sample.device.delivered("tool_calls"):
        seconds = row["duration_seconds"]
        name = "(private name)" if row["tool_name"].startswith("k1_") else row["tool_name"]
        found.setdefault(name, Counter()).update({
            "calls": 1, "errors": bool(row["is_error"]), "timed": seconds is not None,
            "ms_by_line_times": round((seconds or 0) * 1000),
        })  # fmt: skip
    assert {name: dict(counts) for name, counts in found.items()} == sample.truth["totals"]["by_tool_public"]
    events = sample.device.delivered("status_events")
    truth = sample.truth["status_events"]
    kinds = Counter(row["kind"] for row in events)
    assert kinds["limit_reached"] == truth["api_error_limit"]
    assert kinds["api_error"] == truth["api_error_overloaded"]
    assert kinds["synthetic_message"] == truth["synthetic"]
    assert [row["resets_at"].timestamp() for row in events if row["resets_at"]] == [truth["limit_reset_epoch"]]
    assert sorted(r["compaction_trigger"] for r in events if r["kind"] == "compacted") == truth["compactions"]
    claims = [row for row in sample.device.delivered("control_totals") if row["claimed_by"] == "cost_state"]
    last = {row["session_id"]: row for row in sorted(claims, key=lambda r: r["ended_at"]) if row["model"] is None}
    claimed = sample.truth["control_totals"]["cost_state_last_per_session_sum"]
    assert sum(row["output_tokens"] for row in last.values()) == claimed["output_tokens"]
    assert sum(row["cache_read_input_tokens"] for row in last.values()) == claimed["cached_tokens"]
    cached = [row for row in sample.device.delivered("control_totals") if row["claimed_by"] == "stats_cache"]
    (whole,) = (row["output_tokens"] for row in cached if row["model"] is None)
    assert whole == sum(row["output_tokens"] for row in cached if row["model"] is not None) > 0
    cost = sum(row["reported_cost_usd"] for row in sample.turns if row["reported_cost_usd"])
    assert float(cost) == sample.truth["totals"]["source_cost_usd"]


@needs_sample
def test_nothing_of_the_sample_text_leaves_or_stays(sample: Sample) -> None:
    root = sample.device.home.root
    for path in (path for path in root.rglob("*") if path.is_file()):
        assert re.search(rb"CANARY-[A-Z]+-\d{6}", path.read_bytes()) is None, path
    sent = json.dumps(sample.device.delivered(), default=str)
    assert "/home/" not in sent
    assert "-home-ilse" not in sent


# Public files, read where they are ------------------------------------------------------------------------------------


def read_in_place(path: Path) -> list[Record]:
    agent = layout.AGENT_FILE.fullmatch(path.name)
    found = Transcript(path, path.stem, agent["agent"] if agent else None)
    reader = transcripts.Reader(found, Clock("UTC"))
    return [
        record
        for number, data in enumerate(path.read_bytes().split(b"\n"), 1)
        if data.strip() and transcripts.may_matter(data)
        for _, item in lines.parse(data, transcripts.is_record, errors="replace").records
        for record in reader.parse(item, At(number, None))
    ]


@needs(SAMPLES / "public" / "EXPECTED.json")
def test_public_files_have_the_counts_that_others_found() -> None:
    for name, truth in json.loads((SAMPLES / "public" / "EXPECTED.json").read_text()).items():
        records = read_in_place(SAMPLES / "public" / name)
        best: dict[object, Record] = {}
        for record in (record for record in records if record.table.name == "llm_turns"):
            kept = best.get(record.key)
            best[record.key] = min([record, kept or record], key=lambda item: item.parts["usage"].rank)
        values: list[dict[str, Any]] = [dict(record.parts["usage"].values) for record in best.values()]
        found = {
            "responses": len(best),
            "output": sum(v["output_tokens"] for v in values),
            "cache_read": sum(v["cache_read_input_tokens"] for v in values),
            "cache_write": sum(v["cache_write_input_tokens"] for v in values),
            "input": sum(
                v["input_tokens"] - v["cache_read_input_tokens"] - v["cache_write_input_tokens"] for v in values
            ),
            "not_final": sum(not v["is_final"] for v in values),
            "models": sorted({str(v["model"]) for v in values}),
            "tool_calls": len({r.key for r in records if r.table.name == "tool_calls" and "call" in r.parts}),
        }
        assert found == {key: truth[key] for key in found}, name


def test_a_simulated_home_is_counted_exactly(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    spec = ClaudeCodeSpec(seed=3, first_day=date(2026, 11, 2), days=2, words="CANARY-WORDS-000077 of pears")
    counted_exactly(tmp_path, home, spec.write(home))


# One response over lines, passes and copies ---------------------------------------------------------------------------


def ship(folder: Path, *homes: Path) -> Device:
    made = granted(folder / "apiary", *homes)
    made.ship(*homes)
    return made


def test_a_response_that_is_streamed_over_two_passes_ends_with_its_last_numbers(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    path = transcript(home, FIRST)
    path.write_bytes(dump(response("a", FIRST, 1, output=3, stop=None)))
    made = ship(tmp_path, home)
    with path.open("ab") as file:
        file.write(dump(response("a", FIRST, 4)))
    made.ship(home)
    first, last = made.delivered("llm_turns", newest=False)
    assert first["record_id"] == last["record_id"]
    assert [(row["output_tokens"], row["is_final"]) for row in (first, last)] == [(3, False), (212, True)]
    made.ship(home)
    assert len(made.delivered("llm_turns", newest=False)) == 2, "nothing new, nothing sent"


def test_a_call_is_known_before_its_result_and_takes_the_time_between(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    path = transcript(home, FIRST)
    calls = [call("x"), call("y", "mcp__acme__lookup")]
    path.write_bytes(dump(*(response("a", FIRST, n, content=[item]) for n, item in enumerate(calls))))
    made = ship(tmp_path, home)
    assert [row["duration_seconds"] for row in made.delivered("tool_calls")] == [None, None]
    with path.open("ab") as file:
        file.write(dump(result("x", FIRST, 2.5, is_error=True), result("unknown", FIRST, 3)))
    made.ship(home)
    rows = {row["is_final"]: row for row in made.delivered("tool_calls")}
    assert (rows[True]["tool_name"], rows[True]["is_error"], rows[True]["duration_seconds"]) == ("Read", True, 2.5)
    assert rows[False]["tool_name"].startswith("k1_")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_copied_response_stays_with_its_origin_whatever_is_read_first(tmp_path: Path, order: tuple[int, int]) -> None:
    home = tmp_path / ".claude"
    original = [response("a", FIRST, 1), response("b", FIRST, 2)]
    marked = [item | {"sessionId": SECOND, "forkedFrom": {"sessionId": FIRST}} for item in original]
    writes = [(FIRST, original), (SECOND, [*marked, response("c", SECOND, 9)])]
    made = granted(tmp_path / "apiary", home)
    for number in order:
        session, found = writes[number]
        transcript(home, session).write_bytes(dump(*found))
        made.ship(home)
    owners = {row["response_id"][-1]: row["session_id"] for row in made.delivered("llm_turns")}
    assert owners == {"a": FIRST, "b": FIRST, "c": SECOND}


def test_a_reply_of_the_parent_that_a_sub_agent_replays_is_the_parents(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    parent = response("a", FIRST, 1)
    transcript(home, FIRST).write_bytes(dump(parent))
    aside = [parent | {"isSidechain": True, "requestId": "req_other"}, response("b", FIRST, 5, isSidechain=True)]
    agent_transcript(home, FIRST, "aside-2brcjhyf").write_bytes(dump(*aside))
    rows = {row["response_id"][-1]: row for row in ship(tmp_path, home).delivered("llm_turns")}
    assert (rows["a"]["session_id"], rows["a"]["is_sidechain"], rows["a"]["agent_role"]) == (FIRST, False, "agent")
    assert (rows["b"]["parent_session_id"], rows["b"]["is_sidechain"], rows["b"]["agent_role"]) == (
        FIRST, True, "worker",
    )  # fmt: skip


NEVER = (
    "history.jsonl", ".credentials.json", "settings.json", "CLAUDE.md", "todos/x.json", "plans/x.md",
    "projects/-home-ada/memory/MEMORY.md", f"projects/-home-ada/{FIRST}/tool-results/x.txt",
    f"projects/-home-ada/{FIRST}.jsonl.bak", f"projects/-home-ada/{FIRST}/subagents/workflows/wf_1/journal.jsonl",
    f"projects/-home-ada/{FIRST}/subagents/journal.jsonl",
)  # fmt: skip


def test_no_other_file_is_named(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    transcript(home, FIRST).write_bytes(dump(response("a", FIRST, 1)))
    for name in NEVER:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(dump(response("z", FIRST, 1)))
    (home / "projects" / "-home-ada" / f"{SECOND}.jsonl").symlink_to(home / "history.jsonl")
    assert [found.path.name for found in layout.transcripts(home)] == [f"{FIRST}.jsonl", f"{SECOND}.jsonl"]
    made = ship(tmp_path, home)
    assert [row["response_id"][-1] for row in made.delivered("llm_turns")] == ["a"]
    assert sorted(row["outcome"] for row in made.sources()) == ["read", "unreadable"], "a link is told, not followed"


BAD: dict[str, bytes] = {
    "not a number": dump(response("z", FIRST, 3, more={"output_tokens": "many"})),
    "negative": dump(response("z", FIRST, 3, more={"input_tokens": -4})),
    "torn": dump(response("z", FIRST, 3))[:-40] + b"\n",
    "no object": b"[]\n",
    "too deep": b"[" * 100_000 + b"\n",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_line_costs_that_line(tmp_path: Path, name: str) -> None:
    home = tmp_path / ".claude"
    around = [dump(response("a", FIRST, 1)), BAD[name], dump(response("b", FIRST, 5))]
    transcript(home, FIRST).write_bytes(b"".join(around))
    made = ship(tmp_path, home)
    assert sorted(row["response_id"][-1] for row in made.delivered("llm_turns")) == ["a", "b"]
    (source,) = made.sources("transcript")
    assert (source["lines_seen"], source["lines_rejected"]) == (3, 1)


def test_what_surrounds_a_whole_line_does_not_cost_it(tmp_path: Path) -> None:
    """A byte order mark, a torn line before it, bytes that are no text, NaN, other line ends, two on one line."""
    home = tmp_path / ".claude"
    found = [dump(response(name, FIRST, n)) for n, name in enumerate("abcdefg")]
    found[0] = b"\xef\xbb\xbf" + found[0]
    found[1] = dump(response("z", FIRST, 9))[:90] + found[1]
    found[2] = found[2].replace(b"CANARY", b"\xff\xfe")
    found[3] = found[3].replace(b'"service_tier": "standard"', b'"service_tier": NaN')
    found[4] = found[4].replace(b"CANARY", "\u2028\u2029\x0b\x85".encode()).replace(b"\n", b"\r\n")
    found[5] = found[5].rstrip(b"\n") + found[6]
    transcript(home, FIRST).write_bytes(b"".join(found[:6]))
    made = ship(tmp_path, home)
    assert sorted(row["response_id"][-1] for row in made.delivered("llm_turns")) == list("abcdefg")


@pytest.mark.parametrize("name_of_results", [FIRST, SECOND])
def test_what_else_a_line_holds_does_not_hang_on_its_first_record(tmp_path: Path, name_of_results: str) -> None:
    """A response whose numbers are none costs no call, a result of an unknown call no other, also if read too early."""
    home = tmp_path / ".claude"
    calls = response("a", SECOND, 0, content=[call("one"), call("two", "Bash")])
    broken = response("b", SECOND, 3, content=[call("three", "Write")], more={"output_tokens": None})
    transcript(home, SECOND).write_bytes(dump(calls, broken))
    results = result("unknown", name_of_results, 2)
    for name in ("one", "two"):
        results["message"]["content"] += result(name, SECOND, 2, is_error=True)["message"]["content"]
    with transcript(home, name_of_results).open("ab") as file:
        file.write(dump(results))
    made = ship(tmp_path, home)
    found = {row["tool_name"]: row["is_error"] for row in made.delivered("tool_calls")}
    assert found == {"Read": True, "Bash": True, "Write": None}
    assert len(made.delivered("llm_turns")) == 1


def test_the_run_of_an_agents_agent_is_of_that_agents_session(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    transcript(home, FIRST).write_bytes(dump(response("a", FIRST, 0)))
    done = {"agentId": "b2", "status": "completed", "totalDurationMs": 1500, "totalToolUseCount": 2}
    outer, inner = ({"isSidechain": True, "agentId": name} for name in ("a1", "b2"))
    agent_transcript(home, FIRST, "a1").write_bytes(
        dump(response("b", FIRST, 1, **outer), result("x", FIRST, 3, toolUseResult=done, **outer))
    )
    agent_transcript(home, FIRST, "b2").write_bytes(dump(response("c", FIRST, 2, **inner)))
    made = ship(tmp_path, home)
    by_time = sorted(made.delivered("llm_turns"), key=lambda row: str(row["occurred_at"]))
    (run,) = made.delivered("agent_runs")
    assert [FIRST, run["parent_session_id"], run["session_id"]] == [row["session_id"] for row in by_time]


def test_a_name_that_somebody_gave_a_session_is_not_kept(tmp_path: Path) -> None:
    """Neither of its file nor on its lines."""
    home = tmp_path / ".claude"
    named = response("a", "CANARY-SESSION-000008", 0, content=[call("x")])
    unnamed = response("b", FIRST, 1)
    del unnamed["sessionId"]
    transcript(home, "CANARY notes 000009").write_bytes(dump(named, unnamed))
    made = ship(tmp_path, home)
    assert len(made.delivered("llm_turns")) == 2
    for path in (path for path in made.home.root.rglob("*") if path.is_file()):
        assert b"CANARY" not in path.read_bytes(), path


def test_unknown_types_are_counted_and_known_ones_are_passed_over(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    found = [line("file-history-snapshot", FIRST, 1), line("brand-new", FIRST, 2), line("newer", FIRST, 3, usage={})]
    transcript(home, FIRST).write_bytes(dump(*found))
    (source,) = ship(tmp_path, home).sources("transcript")
    assert (source["lines_skipped"], source["lines_unknown"], source["agent_runtime"]) == (3, 2, "claude-code")


def test_without_history_only_later_lines_leave(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    transcript(home, FIRST).write_bytes(dump(response("a", FIRST, 1)))
    made = granted(tmp_path / "apiary", home, history="exclude")
    later = response("b", FIRST, 400 * 86_400)  # after any grant of today
    with transcript(home, FIRST).open("ab") as file:
        file.write(dump(response("c", FIRST, 2), later))
    made.ship(home)
    assert [row["response_id"][-1] for row in made.delivered("llm_turns")] == ["b"]


def test_the_usual_homes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("CLAUDE_CONFIG_DIR", raising=False)
    places = [tmp_path / ".claude", tmp_path / ".config" / "claude", tmp_path / "work"]
    assert layout.usual_homes() == []
    for place in places:
        place.mkdir(parents=True)
    assert layout.usual_homes() == places[:2]
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", f"{places[2]}, {places[0]},{tmp_path / 'absent'}")
    assert layout.usual_homes() == [places[2], places[0]]


# Any interleaving ends at the ledger ----------------------------------------------------------------------------------

PHASES = [phase for phase in Phase if phase is not Phase.shrink]  # each try ships three times


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[dict[str, tuple[int, str]], dict[Path, bytes], dict[Path, list[int]]]:
    """Responses with their last output and session; the files in which they stand, some of them several times; how
    long each file is when passes read it."""
    ledger: dict[str, tuple[int, str]] = {}
    files: dict[Path, bytes] = {}
    cuts: dict[Path, list[int]] = {}
    before: list[dict[str, Any]] = []
    second = 0.0
    for number in range(draw(st.integers(1, 3))):
        session = session_id(number)
        how = draw(st.sampled_from(["new", "fork", "resume", "branch"])) if before else "new"
        mark = {"forkedFrom": {"sessionId": before[-1]["sessionId"]}} if how in ("fork", "branch") else {}
        copies = [item | {"sessionId": session} | mark for item in before] if how != "new" else []
        if how == "branch":
            copies = [copy for item in copies for copy in (item, {k: v for k, v in item.items() if k != "forkedFrom"})]
        own = []
        for _ in range(draw(st.integers(1, 3))):
            name = f"{len(ledger)}"
            outputs = sorted(draw(st.lists(st.integers(1, 500), min_size=1, max_size=3)))
            is_final = draw(st.booleans())
            for position, output in enumerate(outputs):
                second += 1
                stop = "end_turn" if is_final and position == len(outputs) - 1 else None
                own.append(response(name, session, second, output=output, stop=stop))
            ledger[f"msg_{name:0>24}"] = (outputs[-1], session)
        whole = [*copies, *own]
        path = Path("one", "projects", "-p", f"{session}.jsonl")
        files[path] = dump(*whole)
        # A session that is resumed is copied at once: what is unmarked in a file is followed by lines of its own.
        least = len(dump(*copies, own[0])) if how in ("resume", "branch") else 0
        cuts[path] = sorted(draw(st.lists(st.integers(least, len(files[path])) | st.just(0), max_size=2)))
        if draw(st.booleans()):  # a second configuration folder, with an older copy
            kept = draw(st.integers(len(copies) + 1 if least else 1, len(whole)))
            path = Path("two", "projects", "-p", f"{session}.jsonl")
            files[path] = dump(*whole[:kept])
            cuts[path] = sorted(draw(st.lists(st.integers(least, len(files[path])) | st.just(0), max_size=2)))
        # A session that is resumed has ended: what is copied is what there was of it, and of those before it.
        before = [item for item in whole if "forkedFrom" not in item] if how != "branch" else [*before, *own]
    return ledger, files, cuts


@settings(max_examples=12, deadline=None, phases=PHASES)
@given(made=ledgers(), data=st.data())
def test_any_interleaving_of_lines_copies_and_passes_ends_at_the_ledger(
    made: tuple[dict[str, tuple[int, str]], dict[Path, bytes], dict[Path, list[int]]],
    data: st.DataObject,
    tmp_path_factory: Any,
) -> None:
    ledger, files, cuts = made
    folder = tmp_path_factory.mktemp("ledger")
    homes = [folder / "one", folder / "two"]
    for home in homes:
        (home / "projects").mkdir(parents=True)
    device = granted(folder / "apiary", *homes)
    for number in range(3):
        for path, text in data.draw(st.permutations(sorted(files.items()))):
            end = [*cuts[path], len(text), len(text), len(text)][number]
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            if end:
                (folder / path).write_bytes(text[:end])
        device.ship(*homes)
    rows = device.delivered("llm_turns")
    outputs = {row["response_id"]: row["output_tokens"] for row in rows}
    assert outputs == {name: output for name, (output, _) in ledger.items()}
    assert len(rows) == len(ledger)
    assert {row["response_id"]: row["session_id"] for row in rows} == {name: s for name, (_, s) in ledger.items()}
