"""Local times in the marts: evidence of the writer's offset that came later and a corrected zone apply to what is sent.

The oracle is `zoneinfo`.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from tests.warehouse import Warehouse

pytestmark = pytest.mark.services  # each builds the models twice

ZONES = ("Europe/Berlin", "America/New_York", "Asia/Tokyo", "Australia/Lord_Howe", "America/Los_Angeles")
START = datetime(2026, 3, 1, tzinfo=UTC)
Row = tuple[str, dict[str, Any]]


def built(warehouse: Warehouse) -> dict[str, tuple[datetime, str, bool]]:
    warehouse.run("--select", "+fct_llm_turns")
    rows = warehouse.query("select turn_id, occurred_at, time_basis, is_time_ambiguous from marts.fct_llm_turns")
    return {turn: (at, basis, doubtful) for turn, at, basis, doubtful in rows}


def first_pass(local: datetime, zone: str) -> datetime:
    return local.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)


def turn(name: str, session: str, at: datetime, **columns: Any) -> Row:
    values = {"record_id": name, "session_id": session, "agent_role": "queen", "input_tokens": 10, "output_tokens": 1}
    times = {"occurred_at": at, "time_basis": "local_resolved", "is_time_ambiguous": False}
    return "llm_turns", {**values, **times, "_received_at": START + timedelta(days=400), **columns}


def report(number: int, zone: str, received_at: datetime, device: str = "d1") -> Row:
    return "device_reports", {
        "record_id": f"report_{device}_{number}", "user_id": "ada", "consent_id": "c", "uploader_version": "1.0",
        "timezone": zone, "run": number, "started_at": received_at, "_received_at": received_at, "_device_id": device,
    }  # fmt: skip


def touched(warehouse: Warehouse) -> None:
    """As the loader does where a device's zone changed: every session of it is looked at again."""
    warehouse.execute(
        "insert into wire.touched_sessions"
        f" select distinct tenant_id, session_id, {warehouse.loads} from wire.llm_turns"
    )


def wall_clocks() -> Iterator[datetime]:
    """Every quarter of an hour of the days around a change of some zone's clock, and some days between."""
    for day in ((2026, 3, 7), (2026, 3, 28), (2026, 4, 4), (2026, 10, 3), (2026, 10, 24), (2026, 10, 31), (2026, 7, 1)):
        for quarter in range(0, 192, 3):
            yield datetime(*day) + timedelta(minutes=15 * quarter)  # noqa: DTZ001 - a wall clock


@pytest.mark.parametrize("has_offset", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_corrected_zone_moves_what_was_sent(warehouse: Warehouse, has_offset: bool) -> None:
    """With the offset that travels, and without it as the first release sent them, over nights of changing clocks."""
    clocks = {}
    rows: list[Row] = []
    for number, local in enumerate(wall_clocks()):
        at = first_pass(local, "Europe/Berlin")
        offset = local.replace(tzinfo=UTC) - at
        columns = {"utc_offset_seconds": int(offset.total_seconds()), "offset_basis": "device_zone"}
        rows.append(turn(f"t{number:04}", "s", at, **(columns if has_offset else {})))
        # A wall clock that Berlin never showed comes back moved on by the gap, as it was resolved.
        clocks[f"t{number:04}"] = local if has_offset else at.astimezone(ZoneInfo("Europe/Berlin")).replace(tzinfo=None)
    received = START + timedelta(days=401)
    warehouse.load([*rows, report(1, "Europe/Berlin", received)])
    before = built(warehouse)
    assert {turn: at for turn, (at, _, _) in before.items()} == {
        row["record_id"]: row["occurred_at"] for _, row in rows
    }
    for number, zone in enumerate(ZONES[1:], 2):
        warehouse.load([report(number, zone, received + timedelta(days=number))])
        touched(warehouse)
        found = built(warehouse)
        assert {t: at for t, (at, _, _) in found.items()} == {t: first_pass(c, zone) for t, c in clocks.items()}, zone
        assert all(doubtful for _, _, doubtful in found.values()), "nothing but the zone tells the offset"
    warehouse.load([report(9, "Europe/Berlin", received + timedelta(days=9))])
    touched(warehouse)
    assert built(warehouse) == before, "the way back"


def test_evidence_of_the_session_is_believed_before_any_zone(warehouse: Warehouse) -> None:
    """What the first release sent: one session was written in New York, one at home through a change of the clock."""
    received = START + timedelta(days=401)
    zone = ZoneInfo("Europe/Berlin")
    abroad = datetime(2026, 3, 10, 20, 5)  # noqa: DTZ001 - a wall clock
    home = [datetime(2026, 3, 28, 12), datetime(2026, 3, 30, 12)]  # noqa: DTZ001
    rows = [
        turn("abroad", "a", first_pass(abroad, zone.key)),
        *(turn(f"home_{n}", "h", first_pass(local, zone.key)) for n, local in enumerate(home)),
        turn("unknown", "u", first_pass(abroad, zone.key)),
        turn("own", "a", first_pass(abroad, zone.key), utc_offset_seconds=3600, offset_basis="run_created_at"),
        turn("utc", "a", first_pass(abroad, zone.key), time_basis="utc"),
    ]
    warehouse.load([*rows, report(1, zone.key, received)])
    before = built(warehouse)
    assert before["abroad"][:2] == (datetime(2026, 3, 10, 19, 5, tzinfo=UTC), "local_resolved")
    observation = {"evidence": "meta", "observed_at": received, "offset_basis": "session_created_at"}
    warehouse.load([
        ("sessions", {"record_id": "o1", "session_id": "a", "utc_offset_seconds": -4 * 3600,
                      "offset_observed_at": datetime(2026, 3, 11, tzinfo=UTC), **observation}),
        ("sessions", {"record_id": "o2", "session_id": "h", "utc_offset_seconds": 3600,
                      "offset_observed_at": datetime(2026, 3, 28, 10, tzinfo=UTC), **observation}),
    ])  # fmt: skip
    found = built(warehouse)
    right = datetime(2026, 3, 11, 0, 5, tzinfo=UTC)
    assert found["abroad"] == (right, "offset_from_session_created_at", False)
    assert found["home_0"] == (before["home_0"][0], "offset_from_session_created_at", False)
    assert found["home_1"][0] == before["home_1"][0], "the zone was right, so its change of the clock holds too"
    assert found["own"][:2] == (before["own"][0], "offset_from_run_created_at")
    assert found["utc"] == before["utc"]
    assert found["unknown"] == before["unknown"]
    warehouse.load([report(2, "Asia/Tokyo", received + timedelta(days=1))])
    touched(warehouse)
    again = built(warehouse)
    assert again.pop("unknown") == (first_pass(abroad, "Asia/Tokyo"), "local_resolved", True)
    found.pop("unknown")
    assert again == found, "evidence holds whatever the zone is said to be"
    warehouse.run("--select", "+fct_llm_turns", "--full-refresh")
    assert built(warehouse) == again | {"unknown": (first_pass(abroad, "Asia/Tokyo"), "local_resolved", True)}


def test_evidence_of_another_leg_is_doubted(warehouse: Warehouse) -> None:
    """A turn that nothing but the zone dated, in a session of two places or of the time of a file alone."""
    received, zone = START + timedelta(days=401), "Europe/Berlin"
    at, observed = datetime(2026, 3, 10, 19, 5, tzinfo=UTC), datetime(2026, 3, 11, tzinfo=UTC)
    summer = datetime(2026, 4, 2, tzinfo=UTC)
    evidence: dict[str, list[tuple[str, int, datetime]]] = {
        "file": [("file_modified_at", -4, observed)],
        "file_at_home": [("file_modified_at", 1, observed)],
        "journey": [("session_created_at", 1, observed), ("file_modified_at", -4, observed)],
        "abroad": [("session_created_at", -4, observed), ("file_modified_at", 9, observed)],
        "into_summer": [("session_created_at", 1, observed), ("run_created_at", 2, summer)],
        "one_place": [("session_created_at", -4, observed), ("run_created_at", -4, summer)],
    }
    rows: list[Row] = [turn(name, name, at, utc_offset_seconds=3600, offset_basis="device_zone") for name in evidence]
    rows += [
        ("sessions", {"record_id": f"{name}_{n}", "session_id": name, "evidence": "meta", "observed_at": received,
                      "offset_basis": basis, "utc_offset_seconds": hours * 3600, "offset_observed_at": when})
        for name, found in evidence.items() for n, (basis, hours, when) in enumerate(found)
    ]  # fmt: skip
    warehouse.load([*rows, report(1, zone, received)])
    found = built(warehouse)
    assert {name for name, (_, _, is_doubtful) in found.items() if is_doubtful} == {"file", "journey", "abroad"}
    assert found["into_summer"][0] == found["journey"][0] == at
    assert found["one_place"][0] == at + timedelta(hours=5)
