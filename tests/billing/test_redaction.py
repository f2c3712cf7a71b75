"""Erasure and bills: identifiers go, rows and amounts stay, and the chain of manifests still holds."""

import re
import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from pipelines.billing import exports, periods, redaction
from pipelines.billing import ledger as files
from pipelines.billing.exports import COSTS
from pipelines.billing.statements import MANIFEST
from pipelines.billing.verify import verify
from pipelines.warehouse.residue import USERS
from tests.billing.ledgers import Ledger, charge, line

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
AT = datetime(2025, 3, 1, tzinfo=UTC)
IDENTIFIERS = {"0123456789abcdef0123456789abcdef", "session_20250103_120000_0a1b2c3d"}
GONE = {*IDENTIFIERS, "bob"}
THEIRS: dict[str, Any] = {
    "record_id": "0123456789abcdef0123456789abcdef", "user_id": "bob",
    "session_id": "session_20250103_120000_0a1b2c3d", "root_session_id": "session_20250103_120000_0a1b2c3d",
}  # fmt: skip


@pytest.fixture(scope="module")
def january(new_ledger: Callable[[], Ledger]) -> Ledger:
    """A closed January with two users, each day exported before and after the close; an open February."""
    ledger = new_ledger()
    ledger.tell([line("a", date(2025, 1, 3)), line("b", date(2025, 1, 3), 500_000, **THEIRS)])
    ledger.build()
    exports.export_days(ledger.export(datetime(2025, 1, 10, tzinfo=UTC)))
    ledger.tell([line("c", date(2025, 1, 3), 7, **THEIRS | {"record_id": "turn-c"}), line("d", date(2025, 2, 3))])
    ledger.close(JANUARY)
    ledger.build()
    exports.export_days(ledger.export(AT))
    exports.export_month(ledger.export(AT), JANUARY, "acct-acme")
    return ledger


@pytest.fixture
def billed(january: Ledger, tmp_path: Path) -> Ledger:
    """The same in a folder of the test's own."""
    return january.fork(tmp_path / "ledger")


def amounts(folder: Path) -> dict[str, list[Decimal]]:
    return {
        path.relative_to(folder).as_posix(): sorted(
            pq.read_table(path, partitioning=None, columns=["BilledCost"])["BilledCost"].to_pylist()
        )
        for path in sorted(folder.rglob(f"{COSTS}.parquet"))
    }


def texts(folder: Path) -> str:
    """Everything that can be read in the files of a folder."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            found.append(str(pq.read_table(path, partitioning=None).to_pylist()))
        elif path.is_file():
            found.append(path.read_text("utf-8"))
    return "\n".join(found)


def test_identifiers_go_and_amounts_stay(billed: Ledger) -> None:
    before = amounts(billed.exports)
    assert all(name in texts(billed.folder) for name in GONE)
    assert verify(billed.exports).faults == ()
    assert redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT) > 3
    assert [name for name in GONE if name in texts(billed.folder)] == []
    assert amounts(billed.exports) == before
    assert verify(billed.exports).faults == ()
    assert "ada" in texts(billed.exports), "others stay"
    assert redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT) == 0, "again changes nothing"


def test_what_was_erased_after_the_close_is_no_correction(billed: Ledger) -> None:
    assert redaction.redact(billed.exports, billed.books, {*IDENTIFIERS, "turn-c"}, {"bob"}, at=AT) > 3
    billed.forget("b", "c")
    files.reload(billed.connection, billed.books)
    billed.build()
    assert billed.booked("count(*)", "line_kind <> 'original'") == [(0,)]
    sums = 'select sum("BilledCost") from marts.export_focus_daily where billing_period = ?'
    assert billed.connection.execute(sums, [JANUARY]).fetchone() == (Decimal("4.500021"),)


@pytest.mark.parametrize("name", ["acct-acme", "acme", "anthropic", "m", "output", "USD", "Usage"])
def test_a_user_who_is_called_like_something_else_changes_no_bill(billed: Ledger, name: str) -> None:
    """An account, a tenant, a provider, a model, a kind of token: it stays where it does not mean the user."""
    billed.tell([line("a", date(2025, 1, 3), user_id=name)])
    billed.build()
    exports.export_days(billed.export(AT))
    cells = """SELECT "BillingAccountId", "BillingPeriodStart", "HostProviderName", "SkuMeter", "x_Model",
        "BillingCurrency", "ChargeCategory", "ChargeClass", sum("BilledCost")
        FROM marts.export_focus_daily GROUP BY ALL ORDER BY ALL"""
    before, written = billed.connection.execute(cells).fetchall(), amounts(billed.exports)
    assert redaction.redact(billed.exports, billed.books, (), {name}, at=AT) > 0
    files.reload(billed.connection, billed.books)
    billed.build()
    assert billed.connection.execute(cells).fetchall() == before
    assert amounts(billed.exports) == written
    for path in billed.exports.rglob(f"{COSTS}.parquet"):
        assert name not in pq.read_table(path, partitioning=None)["SubAccountId"].to_pylist()
    assert verify(billed.exports).faults == ()
    assert billed.failing() == set()


def test_a_colony_has_one_word_for_a_key_in_sealed_lines_alone() -> None:
    first, again, other = (
        redaction.Change(frozenset(w), frozenset(), k) for w, k in (("cd", b"1"), ("c", b"1"), ("c", b"2"))
    )
    word = first.text("c", column="colony_id")
    assert re.fullmatch("ERASED-[0-9a-f]{12}", word)
    assert again.text("c", column="colony_id") == word
    assert len({word, first.text("d", column="colony_id"), other.text("c", column="colony_id")}) == 3
    assert first.text("c", column="x_ColonyId") == "ERASED"
    assert first.text("e", column="colony_id") == "e"


def test_a_keyed_name_goes_with_the_words_that_pages_show_for_it() -> None:
    """The words are made of the hash: whoever has it could tell them apart."""
    keyed, other = ("k1_" + digit * 32 for digit in "12")
    cell = '<td title="{}">{}</td>'
    page = cell.format(keyed, "amber-otter-42") + cell.format(other, "bold-fox-07")
    changed = redaction.Change(frozenset({keyed}), frozenset()).page(page)
    assert changed == cell.format("ERASED", "ERASED") + cell.format(other, "bold-fox-07")


def test_columns_of_users_are_those_that_the_proof_searches() -> None:
    assert all(USERS.search(column) for column in redaction.USER_COLUMNS)
    assert not [name for name in ("user_basis", "SubAccountType", "superuser_note") if USERS.search(name)]


def test_a_version_whose_predecessor_was_removed_stops_no_redaction(billed: Ledger) -> None:
    (first,) = billed.exports.glob("daily/*/usage_date=2025-01-03/v0001")
    shutil.rmtree(first)
    assert redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT) > 0
    assert "bob" not in texts(billed.exports)


@pytest.mark.parametrize("holder", ["bob", "grace", None])
def test_the_seat_of_an_erased_user_is_billed_once(billed: Ledger, holder: str | None) -> None:
    """Finance's book still names the holder, gives the seat to somebody else, or takes it away."""
    billed.charge([charge("seat", FEBRUARY, "20", user_id="bob")])
    billed.close(FEBRUARY)
    redaction.redact(billed.exports, billed.books, {*IDENTIFIERS, "turn-c"}, {"bob"}, at=AT)
    billed.forget("b", "c")
    if holder is None:
        billed.forget("seat")
    else:
        billed.charge([charge("seat", FEBRUARY, "20", user_id=holder)])
    files.reload(billed.connection, billed.books)
    billed.build()
    seats = 'select sum("BilledCost") from marts.export_focus_daily where "ChargeCategory" = \'Purchase\''
    assert billed.connection.execute(seats).fetchone() == (Decimal(20),)
    assert billed.failing() == set()
    billed.lines["a"]["billed_cost"] += 1
    billed.tell(())  # without building: the statements are of before
    assert billed.failing() == {"cost_off"}


def test_the_chain_goes_on_after_a_redaction(billed: Ledger) -> None:
    redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT)
    billed.tell([line("e", date(2025, 2, 4))])
    billed.build()
    assert any(item.is_new for item in exports.export_days(billed.export(datetime(2025, 3, 2, tzinfo=UTC))))
    assert verify(billed.exports).faults == ()


@pytest.mark.parametrize("point", ["statement.file", "statement.half", "statement.synced", "statement.renamed"])
def test_a_redaction_that_was_cut_off_is_finished_by_the_next(
    billed: Ledger, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Died(BaseException):
        pass

    passed = []

    def die(name: str) -> None:
        passed.append(name)
        if name == point and passed.count(name) == 2:
            raise Died

    before = amounts(billed.exports)
    monkeypatch.setattr("pipelines.failpoints.hook", die)
    with pytest.raises(Died):
        redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT)
    monkeypatch.setattr("pipelines.failpoints.hook", None)
    redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT)
    assert [name for name in GONE if name in texts(billed.folder)] == []
    assert amounts(billed.exports) == before
    assert verify(billed.exports).faults == ()
    assert not [path for path in billed.exports.rglob(".v*") if path.suffix == ".before"]


def test_a_killed_swap_leaves_a_version_under_one_of_its_names(billed: Ledger) -> None:
    folder = next(billed.exports.glob(f"*/**/v0001/{MANIFEST}")).parent
    folder.rename(folder.with_name(".v0001.before"))
    redaction.redact(billed.exports, billed.books, IDENTIFIERS, {"bob"}, at=AT)
    assert folder.is_dir()
    assert verify(billed.exports).faults == ()


def test_texts_that_the_books_keepers_wrote_are_signed_and_names_of_seats_are_not(billed: Ledger) -> None:
    (billed.books / "seats.csv").write_text("user_id,recorded_by\nbob,grace\n")
    (billed.books / "settlements.csv").write_text("model,reason,recorded_by\nm,agreed with alan,rosa\n")
    words = set(re.findall(r"\w+", "\n".join(redaction.signed_texts(billed.books))))
    closer = next(item.actor for item in periods.read(files.book_path(billed.books)).transitions)
    assert words >= {"grace", "alan", "rosa", *closer.split()}
    assert "bob" not in words
    assert redaction.models_in_books(billed.books) >= {"m"}
