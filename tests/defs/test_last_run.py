"""Whether a run would change nothing: every kind of change is seen, and nothing else counts as one."""

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipelines import alert_channels
from pipelines.billing import attestation, export_alerts
from pipelines.billing.export_alerts import Alert
from pipelines.defs import last_run
from pipelines.home import Home
from pipelines.store import open_store
from pipelines.warehouse import operator_actions, registry, suppression

TODAY = datetime(2026, 11, 20, 9, tzinfo=UTC)
OBJECT = "landing/v1/eu/acme/an-object"
DEVICE = "0" * 32


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home after a run that ended well; code stands for the code."""
    home, code = Home(tmp_path / "home"), tmp_path / "code"
    monkeypatch.setattr(last_run, "SOURCE", code)
    monkeypatch.setattr(last_run, "CODE", (code / "models", code / "pipelines"))
    for path in (
        home.warehouse, home.published / "versions" / "1" / "fct.parquet",
        home.exports / "daily" / "v0001" / "rows.csv", home.books / "seats.csv", home.books / "keys" / "site.ed25519",
        code / "models" / "fct.sql", code / "pipelines" / "__pycache__" / "a.pyc",
    ):  # fmt: skip
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("before")
    (home.published / "current").symlink_to(Path("versions") / "1")
    open_store(home.store_url).put(OBJECT, b"before")
    last_run.record(home, now(home), seconds=1)
    return home


def now(home: Home, today: datetime = TODAY) -> str:
    return last_run.inputs(home, open_store(home.store_url), today=today)


def is_unchanged(home: Home, today: datetime = TODAY) -> bool:
    return last_run.unchanged_since(home, open_store(home.store_url), now(home, today)) is not None


def erase(home: Home) -> None:
    """Put a line on the list, and let the record know it: what is left is that it waits."""
    suppression.record(open_store(home.store_url), scope="tenant", tenant="acme", subject="", actor="a", reason="b")
    last_run.record(home, now(home), seconds=1)


def replace(home: Home) -> None:
    """The same name and size, at another time: a landing whose object was written again."""
    path = home.root / "store" / OBJECT
    path.write_bytes(b"after.")
    os.utime(path, (1, 1))


CHANGES: dict[str, Callable[[Home], object]] = {
    "a batch arrives": lambda home: open_store(home.store_url).put(f"{OBJECT}-2", b"new"),
    "an object of the landing is replaced": replace,
    "an object of the landing is removed": lambda home: open_store(home.store_url).delete(OBJECT),
    "an owner asks to be erased": lambda home: open_store(home.store_url).put("requests/v1/acme/request", b"new"),
    "an owner asked in an earlier release": lambda home: open_store(home.store_url).put("x1/acme/request", b"new"),
    "an erasure waits": erase,
    "a book gains a row": lambda home: (home.books / "seats.csv").write_text("after."),
    "a book is new": lambda home: (home.books / "fx_rates.csv").write_text("after."),
    "a device is revoked": lambda home: registry.revoke(home.warehouse.parent, DEVICE, since=TODAY),
    "an operator acts": lambda home: operator_actions.record(
        home.operator_actions, action="note", tenant="acme", agent="queen:q", reason="dumb", actor="ada"
    ),
    "a model changes": lambda _: (last_run.SOURCE / "models" / "fct.sql").write_text("after."),
    "a model is new": lambda _: (last_run.SOURCE / "models" / "dim.sql").write_text("after."),
    "the warehouse is written by another command": lambda home: home.warehouse.write_text("after."),
    "a published file is removed": lambda home: (home.published / "versions" / "1" / "fct.parquet").unlink(),
    "another version is current": lambda home: (home.published / "current").unlink(),
    "a statement is removed": lambda home: (home.exports / "daily" / "v0001" / "rows.csv").unlink(),
    "the next run began and did not end": last_run.forget,
    "the record is damaged": lambda home: home.last_run.write_text("{"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_every_kind_of_change_is_seen(home: Home, change: Callable[[Home], object]) -> None:
    assert is_unchanged(home)
    change(home)
    assert not is_unchanged(home)


def test_the_clock_is_seen_by_the_day(home: Home) -> None:
    assert is_unchanged(home, TODAY + timedelta(hours=14))
    assert not is_unchanged(home, TODAY + timedelta(hours=15))


def test_a_message_that_no_channel_has_heard_is_tried_again(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    export_alerts.write(home.exports, [Alert("missing", "2026-11", None, "A", "no statement")])
    last_run.record(home, now(home), seconds=1)
    assert is_unchanged(home), "nobody is to be told"
    monkeypatch.setenv(alert_channels.WEBHOOK, "http://localhost:1")
    assert not is_unchanged(home)


def test_a_new_anchor_is_seen(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(attestation.ANCHOR, "file:///elsewhere")
    assert not is_unchanged(home)


def test_what_a_run_writes_for_itself_is_no_change(home: Home) -> None:
    """The site's key is made by the first statement, quota snapshots lie in the store, bytecode beside the code."""
    (home.books / "keys" / "site.ed25519").write_text("after.")
    open_store(home.store_url).put("quota/v1/eu/acme/snapshot", b"new")
    (last_run.SOURCE / "pipelines" / "__pycache__" / "a.pyc").write_text("after.")
    assert is_unchanged(home)
