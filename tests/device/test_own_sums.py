"""What `apiary me --keep` keeps: the sums are those of a fresh reading, whatever was added between two calls.

Does not belong here: what is counted (tests/commands/test_me.py).
"""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from pipelines.commands.me import summing
from pipelines.device import own_sums
from pipelines.device.errors import DeviceError
from pipelines.device.own_sums import Found, Sum
from pipelines.device.own_usage import Reader
from pipelines.simulate.claude_code import ClaudeCodeSpec
from pipelines.simulate.homes import HomeSpec, Truth, write_home
from tests.device.driving import append, dump, queen_folder, turn

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DAY = date(2026, 11, 20)
MADE_WITH = "these prices"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two homes as they are in the end."""
    root = tmp_path_factory.mktemp("whole")
    write_home(root / "hive", HomeSpec(layout="v2", seed=5, timezone="UTC", first_day=DAY, days=1, turns_per_session=2))
    ClaudeCodeSpec(seed=5, first_day=DAY, days=1).write(root / "claude")
    return root


def read(homes: list[Path], folder: Path | None = None, *, now: datetime = NOW, made_with: str = MADE_WITH) -> Found:
    summed, _ = summing(ZoneInfo("UTC"))
    with own_sums.opened(homes, timezone="UTC", summed=summed, made_with=made_with, folder=folder) as sums:
        return sums.read(now=now)


def ordered(sums: list[Sum]) -> list[Sum]:
    return sorted(own_sums.merged(sums), key=lambda each: (str(each.day), *each.key[1:]))


def grow(whole: Path, root: Path, shares: random.Random, *, at_least: float) -> None:
    """Let the logs in `root` be longer beginnings of the whole ones, cut anywhere; other files are there or not yet."""
    for source in sorted(path for path in whole.rglob("*") if path.is_file()):
        target = root / source.relative_to(whole)
        share = 1.0 if at_least == 1 else shares.choice((0.0, shares.random(), 1.0))
        data = source.read_bytes()
        if source.suffix == ".jsonl":
            before = target.stat().st_size if target.exists() else 0
            size = max(before, int(len(data) * share))
            if size > before:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("ab") as file:
                    file.write(data[before:size])
        elif share > 0 and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)


@pytest.mark.parametrize("seed", [5, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(6, 40))])
def test_sums_that_are_kept_are_those_of_a_fresh_reading(seed: int, whole: Path, tmp_path: Path) -> None:
    root, shares = tmp_path, random.Random(seed)
    homes, folder = [root / "hive", root / "claude"], root / "kept"
    for home in homes:
        home.mkdir()
        (home / "agents").mkdir() if home.name == "hive" else (home / "projects").mkdir()
    for hours, at_least in enumerate((0.0, 0.0, 1.0)):
        grow(whole, root, shares, at_least=at_least)
        now = NOW + timedelta(hours=hours)
        kept, fresh = read(homes, folder, now=now), read(homes, now=now)
        assert ordered(kept.sums) == ordered(fresh.sums)
        assert kept.held_turns == fresh.held_turns
    assert own_sums.total(kept.sums).turns > 100


def test_only_what_is_new_is_summed(tmp_path: Path) -> None:
    events = queen_folder(tmp_path / "hive") / "events.jsonl"
    append(events, dump(turn(1)))
    other = queen_folder(tmp_path / "hive", session="session_20260504_110000_00000002") / "events.jsonl"
    append(other, dump(turn(1, session="session_20260504_110000_00000002")))
    calls: list[str] = []
    plain, _ = summing(ZoneInfo("UTC"))

    def summed(each: own_sums.Turn) -> Sum:
        calls.append(each.session_id)
        return plain(each)

    for number, expected in enumerate((2, 0, 2)):  # the second session has nothing new
        calls.clear()
        with own_sums.opened(
            [tmp_path / "hive"], timezone="UTC", summed=summed, made_with="", folder=tmp_path / "kept"
        ) as sums:
            found = sums.read(now=NOW)
        assert len(calls) == expected
        append(events, dump(turn(2))) if number == 1 else None
    assert own_sums.total(found.sums).turns == 3


def test_other_prices_sum_everything_anew_and_names_stay_in_clear(tmp_path: Path) -> None:
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1, model="acme/of-our-own")))
    assert [each.model for each in read([tmp_path / "hive"], tmp_path / "kept").sums] == ["acme/of-our-own"]
    again = read([tmp_path / "hive"], tmp_path / "kept", made_with="others")
    assert [(each.model, each.turns) for each in again.sums] == [("acme/of-our-own", 1)]


def test_a_turn_of_the_future_counts_once_its_time_has_come(tmp_path: Path) -> None:
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1)))
    early = datetime(2026, 1, 1, tzinfo=UTC)
    held = read([tmp_path / "hive"], tmp_path / "kept", now=early)
    assert (held.sums, held.held_turns) == ([], 1)
    due = read([tmp_path / "hive"], tmp_path / "kept", now=NOW + timedelta(days=365))
    assert (own_sums.total(due.sums).turns, due.held_turns) == (1, 0)


@pytest.mark.parametrize("is_after_reading", [False, True])
def test_a_reading_that_was_cut_off_counts_nothing_twice_and_loses_nothing(
    is_after_reading: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = queen_folder(tmp_path / "hive") / "events.jsonl"
    append(events, dump(turn(1)))
    read([tmp_path / "hive"], tmp_path / "kept")
    append(events, dump(turn(2, model="acme/of-our-own")))
    whole_read = Reader.read

    def cut_off(self: Reader, **options: object) -> None:
        if is_after_reading:
            whole_read(self, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reader, "read", cut_off)
        with pytest.raises(KeyboardInterrupt):
            read([tmp_path / "hive"], tmp_path / "kept")
    found = read([tmp_path / "hive"], tmp_path / "kept")
    assert ordered(found.sums) == ordered(read([tmp_path / "hive"]).sums)


def test_what_is_damaged_is_told_or_made_anew(tmp_path: Path) -> None:
    append(queen_folder(tmp_path / "hive") / "events.jsonl", dump(turn(1)))
    read([tmp_path / "hive"], tmp_path / "kept")
    (tmp_path / "kept" / own_sums.SUMS).write_text('{"sessions": {}}x')
    assert own_sums.total(read([tmp_path / "hive"], tmp_path / "kept").sums).turns == 1
    (tmp_path / "kept" / "state.db").write_bytes(b"no database" * 1000)
    with pytest.raises(DeviceError, match="--forget"):
        read([tmp_path / "hive"], tmp_path / "kept")


def test_no_content_is_kept(tmp_path: Path) -> None:
    spec = HomeSpec(layout="v2", seed=6, timezone="UTC", first_day=DAY, days=1, turns_per_session=2)
    truth: Truth = write_home(tmp_path / "hive", spec)
    read([tmp_path / "hive"], tmp_path / "kept")
    kept = b"".join(path.read_bytes() for path in (tmp_path / "kept").iterdir())
    shown = " ".join(f"{each.model} {each.project} {each.agent}" for each in read([tmp_path / "hive"]).sums)
    assert [text for text in truth.private if text.encode() in kept and text not in shown] == []
