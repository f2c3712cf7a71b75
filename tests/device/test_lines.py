"""Lines: whatever is torn, glued, rewritten or replaced, every whole record is read once, and nothing else is."""

from __future__ import annotations

import json
import os
import time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipelines.device import lines
from pipelines.device.lines import Checkpoint, Parsed, UnreadableError, loads, parse, read_new

Json = dict[str, Any]
DAY = 86_400
SLOW = settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))


def is_record(found: Json) -> bool:
    return isinstance(found.get("type"), str) and "data" in found and "timestamp" in found


def found_in(data: bytes) -> list[Json]:
    return [record for _, record in parse(data, is_record).records]


def record(number: int = 0, **data: Any) -> Json:
    return {"type": "llm_turn_complete", "data": {"iteration": number, **data}, "timestamp": "2026-05-04T10:00:00"}


def dump(value: Json) -> bytes:
    return json.dumps(value).encode()


class Reader:
    """Reads a file in passes, as the collector does: the checkpoint is all that lives from one to the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = Checkpoint()
        self.found: list[tuple[int, Json]] = []
        self.rejected = 0
        self.resets = 0

    def read(self, *, now: float = 0.0) -> list[Json]:
        before = len(self.found)
        for chunk in read_new(self.path, self.checkpoint, now=now):
            self.resets += chunk.checkpoint.generation > self.checkpoint.generation
            self.checkpoint = chunk.checkpoint
            for line in chunk.lines:
                self._take(line)
        return [record for _, record in self.found[before:]]

    def _take(self, line: lines.Line) -> None:
        if line.data is None:
            self.rejected += 1
        elif line.data.strip():
            parsed = parse(line.data, is_record)
            self.rejected += not parsed.records
            self.found += [(line.number, record) for _, record in parsed.records]


# Every record once ---------------------------------------------------------------------------------------------------

texts = st.text(st.sampled_from('abc{}[]",:\\ \n\x00\u2028é収🍐\udce9'), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**12) | texts | st.sampled_from([1.5, 0.25]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)


@st.composite
def files(draw: st.DrawFn) -> tuple[list[Json], bytes]:
    """Records, and the bytes of a file that holds each of them whole, with torn ones and lost line ends between."""
    records, parts = [], []
    for number in range(draw(st.integers(1, 5))):
        data = draw(st.dictionaries(texts, values, max_size=3))
        made = {"type": "kind", "data": data, "timestamp": number, "tail": draw(texts)}
        for _ in range(draw(st.integers(0, 2))):
            whole = json.dumps({**made, "type": "torn"}, ensure_ascii=draw(st.booleans())).encode("utf-8", "replace")
            parts.append(whole[: draw(st.integers(1, len(whole) - 1))])
        parts.append(json.dumps(made, ensure_ascii=True).encode())
        parts.append(draw(st.sampled_from([b"\n", b"\n", b"\r\n", b"", b"\n\n", b" \n"])))
        records.append(made)
    return records, b"".join(parts)


@SLOW
@given(file=files(), cuts=st.lists(st.integers(0, 2000), max_size=8), chunk=st.sampled_from([16, 64, 8 << 20]))
def test_the_union_of_all_passes_is_what_was_written_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, file: tuple[list[Json], bytes], cuts: list[int], chunk: int
) -> None:
    records, data = file
    path = tmp_path_factory.mktemp("lines") / "events.jsonl"
    path.write_bytes(b"")
    in_passes, at_once = Reader(path), Reader(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK", chunk)
        places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
        for start, end in pairwise(places):
            with path.open("ab") as written:
                written.write(data[start:end])
            in_passes.read()
        later = path.stat().st_mtime + 2 * DAY
        in_passes.read(now=later)
        at_once.read(now=later)
    assert [record for _, record in in_passes.found] == records
    assert in_passes.found == at_once.found, "a record's line number must not depend on the passes"


@SLOW
@given(file=files(), junk=st.binary(max_size=30))
@example(file=([record()], b'{"a":' + dump(record())), junk=b"")
def test_salvage_finds_no_record_that_was_not_written(file: tuple[list[Json], bytes], junk: bytes) -> None:
    records, data = file
    for line in (data + junk).split(b"\n"):
        assert all(found in records for found in found_in(line))


def test_a_torn_record_with_a_thousand_objects_does_not_hide_the_next() -> None:
    calls = [{"tool_name": "read_file", "tool_input": {"path": str(number)}} for number in range(1000)]
    torn = dump(record(1, messages=calls))[:-20]
    assert found_in(torn + dump(record(2))) == [record(2)]


@pytest.mark.parametrize(
    "cut", [b'{"a":', b'{"a": [1,', b'{"a": [', b'{"a"', b'{"a": 1', b'{"a": "x\\', b'{"a": "\\u12', b'{"a": tr']
)
def test_wherever_a_record_is_torn_the_next_is_read(cut: bytes) -> None:
    following = record(2, messages=[{"k": {"type": "x"}}])
    assert found_in(cut + dump(following)) == [following]
    assert found_in(cut + dump(following) + dump(record(3))) == [following, record(3)]
    assert found_in(cut + cut + dump(following)) == [following]


def test_torn_inside_a_letter_glued_to_the_next() -> None:
    torn = '{"type": "client_output_delta", "data": {"content": "収'.encode()[:-1]
    parsed = parse(torn + dump(record()), is_record)
    assert parsed == Parsed([(len(torn), record())], is_salvaged=True)


def test_a_record_whose_letters_are_torn_is_not_read() -> None:
    assert found_in(dump(record(name="x")).replace(b'"x"', b'"\xe5\x8f"')) == []


def test_two_whole_records_on_one_line_are_two() -> None:
    parsed = parse(dump(record(1)) + dump(record(2)), is_record)
    assert parsed == Parsed([(0, record(1)), (len(dump(record(1))), record(2))], is_salvaged=False)


def test_an_object_inside_a_torn_record_is_no_record() -> None:
    inner = json.dumps(record(9))
    assert found_in(f'{{"type": "tool_call_started", "data": {{"tool_input": {inner}, "more": "'.encode()) == []
    assert found_in(f'{{"type": "tool_call_started", "data": {{"tool_input": {inner}}}, "more": tr'.encode()) == []
    assert found_in(f'{{"type": "tool_call_started", "data": nope, "tool_input": {inner}, "more": 1}}'.encode()) == []


def test_text_inside_a_string_is_no_record() -> None:
    said = record(1, content=json.dumps(record(2)))
    assert found_in(dump(said)) == [said]
    assert found_in(b'{"a": "' + dump(said)) == [said]


# Values --------------------------------------------------------------------------------------------------------------


def test_numbers_keep_their_digits_and_odd_ones_cost_only_themselves() -> None:
    text = (
        b'{"cost": 0.1234567890123456789, "a": NaN, "b": Infinity, "c": -Infinity, "d": 1e99999999999999999999, "e": '
    )
    found = loads(text + b"9" * 5000 + b', "f": 12}')
    assert found == {
        "cost": Decimal("0.1234567890123456789"), "a": None, "b": None, "c": None, "d": None, "e": None, "f": 12,
    }  # fmt: skip


def test_a_lone_surrogate_and_a_nul_do_not_cost_the_line() -> None:
    assert found_in(rb'{"type": "x", "data": {"a": "\udce9 \u0000"}, "timestamp": 1}')[0]["data"]["a"] == "\udce9 \x00"


def test_a_raw_line_separator_does_not_end_a_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    made = record(1, text="a\u2028b\u2029c\x85d\x0ce")
    path.write_bytes(json.dumps(made, ensure_ascii=False).encode() + b"\n" + dump(record(2)) + b"\n")
    assert Reader(path).read() == [made, record(2)]


def test_line_ends_of_windows_a_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + dump(record(1)) + b"\r\n\r\n  \n\n" + dump(record(2)) + b"\r\n")
    reader = Reader(path)
    assert reader.read() == [record(1), record(2)]
    assert reader.rejected == 0


def test_bytes_of_a_power_cut_stand_before_a_record(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(b"\x00" * 4096 + dump(record(1)) + b"\n" + b"\x00" * 512 + b"\n")
    reader = Reader(path)
    assert reader.read() == [record(1)]
    assert reader.rejected == 1


def test_nesting_without_end_costs_the_line_only() -> None:
    deep = b'{"type": "x", "data": ' + b"[" * 100_000
    assert found_in(deep) == []
    assert found_in(deep + dump(record())) == [record()]


# Files that change ---------------------------------------------------------------------------------------------------


def test_a_torn_end_waits_and_is_read_when_it_is_completed(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    whole = dump(record(2))
    path.write_bytes(dump(record(1)) + b"\n" + whole[:20])
    reader = Reader(path)
    assert reader.read() == [record(1)]
    assert reader.read() == []
    with path.open("ab") as file:
        file.write(whole[20:] + b"\n")
    assert reader.read() == [record(2)]
    assert reader.rejected == 0


def test_a_torn_end_that_nobody_completes_is_given_up_after_a_day(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(dump(record(1)) + b"\n" + dump(record(2))[:20])
    reader = Reader(path)
    now = path.stat().st_mtime
    reader.read(now=now)
    assert reader.rejected == 0
    assert lines.is_unchanged(path.stat(), reader.checkpoint, now=now + DAY - 60)
    assert not lines.is_unchanged(path.stat(), reader.checkpoint, now=now + DAY + 60)
    reader.read(now=now + DAY + 60)
    assert reader.rejected == 1
    with path.open("ab") as file:
        file.write(dump(record(3)) + b"\n")
    assert reader.read() == [record(3)]


def test_a_whole_last_line_is_read_without_its_end_and_not_again_when_the_end_comes(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(dump(record(1)))
    reader = Reader(path)
    assert reader.read() == [record(1)]
    with path.open("ab") as file:
        file.write(b"\n" + dump(record(2)) + b"\n")
    assert reader.read() == [record(2)]
    assert [number for number, _ in reader.found] == [1, 2]


def write(path: Path, *records: Json) -> None:
    path.write_bytes(b"".join(dump(made) + b"\n" for made in records))


def test_a_rewrite_that_drops_lines_between_two_passes_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, *map(record, range(40)))
    reader = Reader(path)
    reader.read()
    aside = tmp_path / "aside"
    kept = [*map(record, range(20)), *map(record, range(25, 60))]
    write(aside, *kept)  # the head is the same, what follows is not
    aside.replace(path)
    assert reader.read() == kept
    assert reader.resets == 1


def test_truncated_and_grown_beyond_the_old_offset(tmp_path: Path) -> None:
    """Test 16: all that is new is found, though the file is longer than what was read of it."""
    path = tmp_path / "events.jsonl"
    write(path, *map(record, range(10)))
    reader = Reader(path)
    reader.read()
    with path.open("r+b") as file:
        file.truncate(0)
    write(path, *map(record, range(100, 130)))
    assert reader.read() == [*map(record, range(100, 130))]


def test_truncated_below_the_offset(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, *map(record, range(10)))
    reader = Reader(path)
    reader.read()
    write(path, record(77))
    assert reader.read() == [record(77)]


def test_another_file_under_the_same_inode_is_read_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, record(1))
    reader = Reader(path)
    reader.read()
    inode = path.stat().st_ino
    with path.open("r+b") as file:  # the same inode on purpose: a file system gives a freed one to the next file
        file.truncate(0)
        file.write(dump(record(5)) + b"\n" + dump(record(6)) + b"\n")
    assert path.stat().st_ino == inode
    assert reader.read() == [record(5), record(6)]


def test_a_replaced_file_with_the_same_content_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, *map(record, range(5)))
    reader = Reader(path)
    reader.read()
    aside = tmp_path / "aside"
    write(aside, *map(record, range(6)))
    aside.replace(path)
    assert reader.read() == [record(5)]
    assert reader.resets == 0


def test_a_reset_is_stored_before_anything_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, *map(record, range(10)))
    reader = Reader(path)
    reader.read()
    write(path, record(99))
    first = next(iter(read_new(path, reader.checkpoint)))
    assert (first.lines, first.checkpoint.offset, first.checkpoint.generation) == ([], 0, 1)


def test_the_same_inode_size_and_time_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    write(path, record(1))
    reader = Reader(path)
    reader.read()
    assert lines.is_unchanged(path.stat(), reader.checkpoint, now=time.time())
    os.utime(path, ns=(0, 1))
    assert not lines.is_unchanged(path.stat(), reader.checkpoint, now=time.time())


# Files that are none of ours -----------------------------------------------------------------------------------------


def test_a_link_a_pipe_and_a_folder_are_not_opened_and_do_not_hang(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "secret"
    write(secret, record(1))
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    started = time.monotonic()
    for name in ("link", "pipe", "folder"):
        with pytest.raises(UnreadableError):
            Reader(tmp_path / name).read()
    os.link(secret, tmp_path / "hard")
    assert Reader(tmp_path / "hard").read() == [record(1)], "a backup of hard links is a home like any other"
    monkeypatch.setattr("os.getuid", lambda: secret.stat().st_uid + 1)
    with pytest.raises(UnreadableError):
        Reader(tmp_path / "hard").read()
    assert time.monotonic() - started < 2


def test_an_error_of_the_disk_costs_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "events.jsonl"
    write(path, record(1))

    def broken(*_: object, **__: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(lines, "_read_chunk", broken)
    with pytest.raises(UnreadableError):
        Reader(path).read()


def test_a_line_of_33_megabytes_is_passed_over_and_the_next_is_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with path.open("wb") as file:
        file.write(
            dump(record(1)) + b'\n{"type": "x", "data": "' + b"a" * (33 << 20) + b'"}\n' + dump(record(2)) + b"\n"
        )
    reader = Reader(path)
    assert reader.read() == [record(1), record(2)]
    assert reader.rejected == 1
    assert [number for number, _ in reader.found] == [1, 3]
