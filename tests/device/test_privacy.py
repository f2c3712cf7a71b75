"""Privacy end to end: whatever a person wrote anywhere in a home, no byte of it is in what Apiary keeps or sends."""

from __future__ import annotations

import json
import random
import secrets
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.device.errors import DeviceError
from pipelines.simulate.homes import Layout
from tests import scanner
from tests.device.driving import LAYOUTS, Device, append, device, granted, simulated
from tests.device.poisoned_home import write

WORDS = ("pears", "ferry", "crates", "board", "june", "orchard", "ledger", "linnet", "quarry", "saffron")


def needles(rng: random.Random) -> list[str]:
    """Sentences, addresses, paths and keys that stand nowhere but in the home of this test."""
    mark = f"{rng.choice(WORDS)}-{secrets.token_hex(5)}"
    return [
        f"the {rng.choice(WORDS)} of {mark} go out on friday", f"{rng.choice(WORDS)}.{mark}@example.com",
        f"/Users/{mark}/Clients/list.csv", "sk" + f"-ant-api03-{mark}{secrets.token_hex(20)}", f"{mark}_internal",
        "gh" + f"p_{secrets.token_hex(18)}", f"Grüße-{mark}-収穫", f"queen_{mark}",
    ]  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_private_of_a_simulated_home_is_kept_or_sent(tmp_path: Path, layout: Layout) -> None:
    home, canary = tmp_path / "hive", f"canary-{secrets.token_hex(8)}"
    truth = simulated(home, layout, secrets=[canary, f"{secrets.token_hex(6)}_name"])
    assert canary in truth.private
    made = granted(tmp_path / "apiary", home)
    made.preview(home)
    with made.state():  # opened, so that its log is looked into as well
        made.ship(home)
        assert scanner.find(tmp_path / "apiary", truth.private) == []
    assert scanner.find(home, [canary]), "the scanner must find in the home what it must not find elsewhere"


def test_nothing_private_is_kept_when_a_shipping_does_not_end(tmp_path: Path) -> None:
    """Staged, sealed and waiting: the spool and the state hold what never reached a store."""
    home, store = tmp_path / "hive", tmp_path / "store"
    truth = simulated(home, "v2", secrets=[f"canary-{secrets.token_hex(8)}"])
    made = granted(tmp_path / "apiary", home, store=store)
    store.write_text("")
    with pytest.raises(DeviceError):
        made.ship(home)
    assert list((tmp_path / "apiary" / "device" / "spool" / "ready").iterdir())
    assert scanner.find(tmp_path / "apiary", truth.private) == []


@pytest.mark.parametrize("number", range(8))
def test_a_text_in_every_position_of_a_home_is_nowhere_afterwards(tmp_path: Path, number: int) -> None:
    """Test 66: sentences, names, addresses and paths."""
    home = tmp_path / "hive"
    poison = needles(random.Random())[number]
    name = f"acme{secrets.token_hex(6)}"
    write(home, poison, name)
    made = granted(tmp_path / "apiary", home)
    made.preview(home)
    with made.state():
        made.ship(home)
        found = scanner.find(tmp_path / "apiary", [poison, name, poison.encode().hex()])
    assert found == []
    assert len(made.delivered("llm_turns", "tool_calls", "node_steps", "sessions", "tasks")) > 150, (
        "the lines were read"
    )


def test_an_error_that_a_person_sees_holds_no_words_of_the_home(tmp_path: Path) -> None:
    home, name = tmp_path / "hive", f"acme{secrets.token_hex(6)}"
    write(home, needles(random.Random())[0], name)
    store = tmp_path / "store"
    made = granted(tmp_path / "apiary", home, store=store)
    store.write_text("")
    with pytest.raises(DeviceError) as raised:
        made.ship(home)
    assert name not in str(raised.value)


# The scanner must find what it must never find -----------------------------------------------------------------------


def leak_into_parquet(made: Device, leak: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [leak] * 100}), made.home.root / "x.parquet", compression="zstd", use_dictionary=True)


def leak_into_state(made: Device, leak: str) -> None:
    with closing(sqlite3.connect(made.state_file)) as database:
        database.execute("INSERT INTO device VALUES ('x', ?)", (leak,))
        database.commit()


def leak_into_spool(made: Device, leak: str) -> None:
    append(made.home.device / "spool" / "ready" / "x.json", json.dumps({"a": leak}).encode())


def leak_into_a_name(made: Device, leak: str) -> None:
    append(made.home.root / "store" / f"{leak}.bin", b"")


@pytest.mark.parametrize("plant", [leak_into_parquet, leak_into_state, leak_into_spool, leak_into_a_name])
def test_a_planted_leak_is_found(tmp_path: Path, plant: Any) -> None:
    leak = f"the pears of {secrets.token_hex(6)} Grüße"
    made = device(tmp_path / "apiary")
    made.grant([])
    made.ship()
    assert scanner.find(tmp_path, [leak]) == []
    plant(made, leak)
    assert {hit.needle for hit in scanner.find(tmp_path, [leak])} == {leak}


def test_a_clone_of_a_home_leaks_no_more_than_the_home(tmp_path: Path) -> None:
    home = tmp_path / "hive"
    truth = simulated(home, "doc")
    shutil.copytree(home, tmp_path / "clone")
    made = granted(tmp_path / "apiary", home)
    made.ship(home, tmp_path / "clone")
    assert scanner.find(tmp_path / "apiary", truth.private) == []
