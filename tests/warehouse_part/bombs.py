"""Files made to break whoever opens them: little to send, much to unpack, or counts that lie.

Does not belong here: what becomes of them (test_gate.py).
"""

import struct
from collections.abc import Callable, Iterator

import pyarrow as pa

from pipelines.contract.wire import LLM_TURNS
from tests.warehouse_part.batches import frame, parquet, turn

TEXT = LLM_TURNS.names.index("model")


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _zigzag(number: int) -> bytes:
    return _varint(number << 1)


def runs(rows: int) -> bytes:
    """Rows that repeat one dictionary entry: run lengths take next to no bytes."""
    texts = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array(["x" * 32]))
    return parquet(pa.table({"a": texts, "n": pa.repeat(pa.scalar(1, pa.int64()), rows)}))


def page_that_claims(size: int = 1_500_000_000) -> bytes:
    """A page whose header says that it unpacks to 1.5 GB."""
    rows = frame("llm_turns", [turn(1)]).set_column(TEXT, "model", pa.array(["m" * (1 << 20)]))
    data = parquet(rows)
    for true in range(1 << 20, (1 << 20) + 64):
        at = data.find(b"\x15" + _zigzag(true))
        if 0 <= at < len(data) - 4096:
            return data[: at + 1] + _zigzag(size) + data[at + 1 + len(_zigzag(true)) :]
    raise AssertionError("there is no such page")


def value(size: int, *, is_told: bool) -> bytes:
    """One text in a dictionary that unpacks to `size` bytes; the footer says so, or claims next to nothing."""
    rows = frame("llm_turns", [turn(1)]).set_column(TEXT, "model", pa.array(["m" * size]))
    data = parquet(rows, use_dictionary=["model"], dictionary_pagesize_limit=2**31 - 1, write_statistics=False)
    if is_told:
        return data
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    forged = bytearray(data)
    hidden = 0
    for at in range(footer, len(data) - 8):
        number, length = _unzigzag(data, at + 1)
        if data[at] == 0x16 and size <= number < size + 100_000:
            forged[at + 1 : at + 1 + length] = b"\xe4" + b"\x80" * (length - 2) + b"\x00"  # 50, in as many bytes
            hidden += 1
    assert hidden >= 2, "of the column and of the group"
    return bytes(forged)


def _unzigzag(data: bytes, at: int) -> tuple[int, int]:
    number = length = 0
    while length < 10 and at + length < len(data):
        byte = data[at + length]
        number |= (byte & 0x7F) << (7 * length)
        length += 1
        if byte < 0x80:
            break
    return number >> 1, length


def lying_counts() -> Iterator[bytes]:
    """The number of values of a page, of a column, of a group and of the file, each replaced by another one."""
    data = parquet(frame("llm_turns", [turn(n) for n in range(4_000)]))
    true = _zigzag(4_000)
    for kind in (b"\x15", b"\x16"):  # 32 bits in a page, 64 in the footer
        at = -1
        while (at := data.find(kind + true, at + 1)) >= 0:
            for lie in (b"\xfe\x7f", b"\x80\x00", b"\xfd\x7f"):
                yield data[: at + 1] + lie + data[at + 3 :]


def groups(number: int = 2_000) -> bytes:
    """As many row groups as there are rows."""
    return parquet(frame("llm_turns", [turn(1)] * number), row_group_size=1, use_dictionary=False)


def footer_of(size: int) -> bytes:
    """A footer of nothing but one long list of row groups, as a million of them would take."""
    schema = b"\x15\x02\x19\x2c\x48\x01r\x15\x02\x00\x15\x04\x18\x01a\x00"
    count = size // 7
    body = schema + b"\x16\x00\x19\xfc" + _varint(count) + (b"\x19\x0c\x16\x00\x16\x00\x00" * count) + b"\x00"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


def nested(levels: int = 1_000) -> bytes:
    """A column of a thousand structures within one another."""
    schema = bytearray(b"\x15\x02\x19\xfc" + _varint(levels + 2))
    schema += b"\x48\x01r\x15\x02\x00"
    for _ in range(levels):
        schema += b"\x35\x02\x18\x01s\x15\x02\x00"
    schema += b"\x15\x04\x25\x02\x18\x01a\x00"
    body = bytes(schema) + b"\x16\x00\x19\x0c\x00"
    return b"PAR1" + body + struct.pack("<I", len(body)) + b"PAR1"


# What is made in a moment; `make test` throws these.
BOMBS: dict[str, Callable[[], bytes]] = {
    "a million rows in runs": lambda: runs(1_000_000),
    "a page that claims 1.5 GB": page_that_claims,
    "a dictionary of 450 MB that nobody told of": lambda: value(450 << 20, is_told=False),
    "2,000 row groups": groups,
    "a million row groups": lambda: footer_of(7 << 20),
    "1,000 levels": nested,
}
# What takes gigabytes to make.
LARGE_BOMBS: dict[str, Callable[[], bytes]] = {
    "a dictionary of 260 MB": lambda: value(260 << 20, is_told=True),
    "50 million rows in runs": lambda: runs(50_000_000),
    "a value of 1.5 GB": lambda: value(1_500_000_000, is_told=True),
    "a value of 1.5 GB that nobody told of": lambda: value(1_500_000_000, is_told=False),
    "a dictionary of 1 GB that nobody told of": lambda: value(1 << 30, is_told=False),
}
