"""`apiary me`: the truth of every sample home, from a machine without enrolment, grant, store or network."""

import json
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NoReturn
from zoneinfo import ZoneInfo

import pytest

from pipelines import cli
from pipelines.commands import me
from pipelines.device import own_sums, own_usage
from pipelines.device.own_sums import Sum
from pipelines.home import Home, exclusive
from tests.device.driving import append, dump, queen_folder, step, turn
from tests.samples import SAMPLES, needs

ROOT = Path(__file__).parents[2]
HOMES = {
    "hive-home-v2": [".hive"], "hive-home-v3": [".hive"], "hive-home-doc": [".hive"], "claude-home": [],
    "openclaw-home": ["files/.openclaw", "sqlite/.openclaw"], "hyperhive-home": ["var/lib/hyperhive"],
}  # fmt: skip
Call = Callable[..., dict[str, Any]]


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which nothing of Apiary is there, before and after, and which has no network."""

    def refuse(*_: object) -> NoReturn:
        raise AssertionError("a connection was opened")

    for name in ("APIARY_STORE", "APIARY_TENANT_KEY", "HIVE_HOME", "CLAUDE_CONFIG_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert not [path for path in (tmp_path / "apiary").rglob("*") if path.is_file()]


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*homes: Path, **options: str) -> dict[str, Any]:
        named = [text for home in homes for text in ("--home", str(home))]
        given = [text for name, value in options.items() for text in (f"--{name}", value)]
        assert cli.main(["me", "--json", *named, *given]) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    return run


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file, without the two that SQLite makes for whoever reads a database with a log."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def same(found: dict[str, Any], truth: dict[str, Any], *, excludes_cache: bool) -> None:
    read, written = truth["cached_tokens"], truth["cache_creation_tokens"]
    expected = {
        "turns": truth["turns"], "output_tokens": truth["output_tokens"], "cache_read_input_tokens": read,
        "cache_write_input_tokens": written,
        "input_tokens": truth["input_tokens"] + (read + written if excludes_cache else 0),
    }  # fmt: skip
    assert {name: found[name] for name in expected} == expected
    if "cost_usd_exact" in truth:
        assert Decimal(found["reported_cost_usd"]) == Decimal(truth["cost_usd_exact"])


@pytest.mark.parametrize("sample", [pytest.param(name, marks=needs(SAMPLES / f"{name}.tar.gz")) for name in HOMES])
def test_the_sample_is_counted_exactly_with_steps_matched_to_events_by_their_tokens(
    sample: str, tmp_path: Path, told: Call
) -> None:
    truth = json.loads((SAMPLES / f"{sample}.truth.json").read_text())
    with tarfile.open(SAMPLES / f"{sample}.tar.gz") as archive:
        archive.extractall(tmp_path / "sample", filter="data")
    folders = HOMES[sample] or [f"{truth['home']}/{root.partition(' ')[0]}" for root in truth["roots"]]
    before = contents(tmp_path / "sample")
    said = told(*(tmp_path / "sample" / folder for folder in folders), timezone=truth["tz"], period="all")
    assert contents(tmp_path / "sample") == before
    totals, is_hive = truth["totals"], sample.startswith("hive-")
    same(said["totals"]["all"], totals["unique_usage"], excludes_cache=not is_hive)
    models = {row["model"]: row for row in said["by"]["model"]}
    wanted = {
        "unknown" if name.startswith("(unknown") else name.removeprefix("alias:"): value
        for name, value in totals["by_model"].items()
    }
    assert models.keys() == wanted.keys()  # in clear, planted names of customers too
    for name, expected in wanted.items():
        same(models[name], expected, excludes_cache=not is_hive)
    if is_hive:  # its truth knows UTC days only
        homes = [tmp_path / "sample" / folder for folder in folders]
        found = own_usage.read(homes, timezone=truth["tz"], now=datetime.now(UTC))
        summed = map(me.summing(ZoneInfo("UTC"))[0], found.turns)
        days = {name: me.exact(sums) for name, sums in me.grouped(summed, "day").items()}
        wanted = totals["by_utc_day"]
    else:
        days, wanted = {row["day"]: row for row in said["by"]["day"]}, totals["by_local_day"]
    assert days.keys() == wanted.keys()
    for name, expected in wanted.items():
        same(days[name], expected, excludes_cache=not is_hive)
    for dimension in me.DIMENSIONS:
        for measure in ("turns", "input_tokens", "output_tokens", "unpriced_tokens"):
            assert sum(row[measure] for row in said["by"][dimension]) == said["totals"]["all"][measure]


def test_a_turn_costs_what_the_book_says_else_what_its_source_says_else_nothing_is_said(
    tmp_path: Path, told: Call
) -> None:
    events = queen_folder(tmp_path / "hive") / "events.jsonl"
    known = {"input_tokens": 1_000_000, "output_tokens": 1_000, "cached_tokens": 0, "cache_creation_tokens": 0}
    append(events, dump(
        turn(1, **known, model="anthropic/claude-haiku-4-5-20251001", cost_usd=9.0),
        turn(2, model="acme/of-our-own", cost_usd=0.25), turn(3, model="acme/of-our-own", cost_usd=0.0),
    ))  # fmt: skip
    said = told(tmp_path / "hive", period="all")["by"]["model"]
    names = ("model", "rated_cost_usd", "reported_only_cost_usd", "unpriced_tokens", "uncosted_tokens")
    assert [tuple(row[name] for name in names) for row in said] == [
        ("anthropic/claude-haiku-4-5-20251001", "1.005", None, 0, 0),
        ("acme/of-our-own", None, "0.25", 225, 113),
    ]


def test_steps_of_a_log_count_once_where_an_event_has_their_tokens(tmp_path: Path, told: Call) -> None:
    folder = queen_folder(tmp_path / "hive")
    append(folder / "events.jsonl", dump(turn(1, input_tokens=201, output_tokens=20)))
    append(folder / "logs" / "tool_logs.jsonl", dump(step(1), step(2), step(3, input_tokens=202)))
    said = told(tmp_path / "hive", period="all")
    assert (said["totals"]["all"]["turns"], said["step_turns"]) == (3, 2)
    assert said["totals"]["all"]["input_tokens"] == 201 + 202 + 202


@pytest.mark.parametrize("columns", [80, 120])
def test_tables_fit_and_say_where_costs_are_not_rated(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = queen_folder(tmp_path / "hive") / "events.jsonl"
    now = datetime.now(UTC).replace(tzinfo=None).isoformat()
    models = ("anthropic/claude-haiku-4-5-20251001", "acme/a-model-with-a-name-that-is-longer-than-most", "acme/free")
    append(events, dump(*(
        turn(number, at=now, model=model, cost_usd=0.5 if number == 1 else 0.0, input_tokens=10_000_000)
        for number, model in enumerate(models)
    )))  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    assert cli.main(["me", "--home", str(tmp_path / "hive"), "--timezone", "UTC"]) == 0
    out = capsys.readouterr().out
    tables = [line for line in out.splitlines() if str(tmp_path) not in line and ": " not in line]
    assert max(map(len, tables)) <= columns
    today = next(line for line in tables if line.startswith("today"))
    assert today.split()[-2:] == ["r", "n"]
    assert "\nn: " in out
    assert "\nr: " in out
    free = next(line for line in tables if line.startswith("acme/free"))
    assert "no price" in free
    assert "█" in out


def test_a_watch_reads_what_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = queen_folder(tmp_path / "hive") / "events.jsonl"
    append(events, dump(turn(1)))
    waits: list[float] = []

    def wait(interval: float) -> None:
        waits.append(interval)
        if len(waits) == 3:
            raise KeyboardInterrupt
        append(events, dump(turn(1 + len(waits))))

    monkeypatch.setattr("time.sleep", wait)
    arguments = ["me", "--json", "--watch", "2s", "--period", "all", "--home", str(tmp_path / "hive")]
    assert cli.main(arguments) == 1
    shown = [json.loads(line)["totals"]["all"] for line in capsys.readouterr().out.splitlines()]
    assert waits == [2.0] * 3
    assert [each["turns"] for each in shown] == [1, 2, 3]
    monkeypatch.undo()
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    capsys.readouterr()
    assert cli.main(["me", "--json", "--period", "all", "--home", str(tmp_path / "hive")]) == 0
    assert json.loads(capsys.readouterr().out)["totals"]["all"] == shown[-1], "what was added is what is there"


def test_it_works_in_a_base_install(tmp_path: Path) -> None:
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1)))
    program = (
        "import sys\n"
        "class Blocker:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] in ('duckdb', 'polars', 'pandas', 'dbt', 'dagster', 'numpy', 'boto3'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Blocker())\n"
        "from pipelines.cli import main\n"
        "raise SystemExit(main(['me', '--json', '--period', 'all', '--home', sys.argv[1]]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "hive")], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["totals"]["all"]["turns"] == 1


def test_what_is_no_home_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["me"]) == 2
    assert "name one with --home" in capsys.readouterr().err
    assert cli.main(["me", "--home", str(tmp_path)]) == 2
    assert "is no agent's home" in capsys.readouterr().err
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1)))
    append(tmp_path / ".claude" / "projects" / "-work" / "s.jsonl", b"{}\n")
    assert cli.main(["me", "--home", str(tmp_path)]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"holds {tmp_path / '.claude'} and {tmp_path / 'hive'}: name those with --home" in said
    assert cli.main(["me", "--home", str(tmp_path / "hive"), "--timezone", "Mars/Olympus"]) == 2
    assert "--timezone" in capsys.readouterr().err


def test_periods_end_with_today_and_weeks_begin_on_monday() -> None:
    today = date(2026, 11, 25)  # a Wednesday
    days = [today - timedelta(days=back) for back in range(-1, 400)] + [None]
    sums = [Sum(each) for each in days]
    first = {name: min(each.day for each in me.within(sums, name, today) if each.day) for name in me.PERIODS}
    assert first["today"] == today
    assert first["week"] == date(2026, 11, 23)
    assert first["month"] == date(2026, 11, 1)
    assert [len(me.within(sums, name, today)) for name in me.PERIODS] == [1, 3, 25, len(days)]


def test_a_sparkline_shows_shares_of_the_largest_and_tells_little_from_none() -> None:
    assert me.sparkline([0, 1, 500, 1000]) == "·▁▄█"
    assert me.sparkline([0, 0]) == "··"


def test_what_is_kept_is_the_owners_alone_and_goes_when_they_say_so(
    tmp_path: Path, told: Call, capsys: pytest.CaptureFixture[str]
) -> None:
    events = queen_folder(tmp_path / "hive") / "events.jsonl"
    append(events, dump(turn(1)))
    home = ["--home", str(tmp_path / "hive")]
    assert cli.main(["me", "--keep", *home]) == 0
    assert "--forget removes them" in capsys.readouterr().out
    kept = tmp_path / "apiary" / "device" / "own-usage"
    for path in (kept, *kept.rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    append(events, dump(turn(2)))
    assert told(tmp_path / "hive", period="all")["totals"]["all"]["turns"] == 2, "asked for once, it is kept on"
    assert cli.main(["me", "--forget"]) == 0
    assert "is removed" in capsys.readouterr().out
    assert not kept.exists()
    assert told(tmp_path / "hive", period="all")["totals"]["all"]["turns"] == 2
    assert not kept.exists()


def test_two_at_once_do_not_mix_what_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1)))
    place = own_sums.place(Home.from_environment(), [tmp_path / "hive"], "UTC")
    with exclusive(place / own_sums.LOCK):
        assert cli.main(["me", "--timezone", "UTC", "--home", str(tmp_path / "hive")]) == 1
    assert "wait for it to end" in capsys.readouterr().err
    assert own_sums.forget(Home.from_environment())
