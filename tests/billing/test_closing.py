"""Months that are closed: what is late or was wrong becomes a correction, and what was closed stays as it was."""

import itertools
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines import failpoints
from pipelines.billing import closing, periods, verify
from pipelines.billing import ledger as files
from pipelines.billing.exports import export_days, export_month
from pipelines.billing.gate import Check
from pipelines.billing.periods import NotReadyError, PeriodError
from tests.billing.ledgers import MET, Ledger, charge, line

JANUARY = date(2025, 1, 1)
FAILED = Check("marts__export_focus_daily.rows_off", is_blocking=True, passed=False, found="-3")


def months(count: int, first: date = JANUARY) -> list[date]:
    found = [first]
    while len(found) < count:
        found.append(periods.after(found[-1]))
    return found


def truth(ledger: Ledger) -> dict[str, Decimal]:
    """What a warehouse that knew everything from the start would bill, by incurred month."""
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for item in ledger.lines.values():
        sums[f"{item['usage_date']:%Y-%m}"] += item["billed_cost"]
    for item in ledger.charges.values():
        sums[f"{item['billing_month']:%Y-%m}"] += item["amount"]
    return {month: amount for month, amount in sums.items() if amount}


def billed(ledger: Ledger) -> dict[str, Decimal]:
    """The closed and the open statements together, by incurred month."""
    found = ledger.connection.execute(
        'select "x_IncurredPeriod", sum("BilledCost") from marts.export_focus_daily group by all'
    ).fetchall()
    return {month: amount for month, amount in found if amount}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("count", [6, pytest.param(36, marks=pytest.mark.long)])
def test_c1_c2_three_years_late_after_36_closed_months(ledger: Ledger, count: int) -> None:
    """Test 52: C1, C2, a batch that is three years late changes no closed file; the oldest open month books it."""
    closed = months(count)
    first_open = periods.after(closed[-1])
    ledger.tell(line(f"{month}", month + timedelta(days=3), 1000 + number) for number, month in enumerate(closed))
    ledger.build()
    for month in closed:
        ledger.close(month, build=False)
    as_of = datetime(2028, 1, 20, tzinfo=UTC)
    for month in closed:
        export_month(ledger.export(as_of), month, "acct-acme")
    before = snapshot(ledger.exports)
    assert sum(name.endswith("manifest.json") for name in before) == count
    ledger.tell([line("late", closed[0] + timedelta(days=9), 7_000_000)])
    ledger.build()
    for month in closed:
        assert not export_month(ledger.export(as_of), month, "acct-acme").is_new
    written = [item for item in export_days(ledger.export(as_of)) if item.is_new]
    after = snapshot(ledger.exports)
    assert after.items() >= before.items(), "every closed file is as it was, to the byte"
    assert [item.folder.parts[-3:-1] for item in written] == [
        (f"billing_period={first_open:%Y-%m}", "usage_date=2025-01-10")
    ]
    assert [item.folder.name for item in written] == ["v0001"]
    found = ledger.booked("line_id, line_kind, billing_period, incurred_period, billed_cost", "seal_seq is null")
    assert found == [("late", "late", first_open, closed[0], Decimal(21))]
    assert billed(ledger) == truth(ledger)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, int, int, str, int]]:
    """Steps of a story: which line or charge, on which day of six months, its price, its tokens; or a close."""
    steps = []
    for _ in range(draw(st.integers(3, 14))):
        kind = draw(st.sampled_from(("tell", "tell", "charge", "forget", "close", "reopen")))
        steps.append((
            kind, draw(st.integers(0, 7)), draw(st.integers(0, 170)), draw(st.sampled_from(("1", "3", "0.075"))),
            draw(st.integers(0, 3)) * 333_333,
        ))  # fmt: skip
    return steps


def play(ledger: Ledger, steps: list[tuple[str, int, int, str, int]]) -> list[dict[str, bytes]]:
    """Act a story out, with a run of the exports after every step; what the statements held each time."""
    versions: list[dict[str, bytes]] = []
    now = datetime(2025, 8, 1, tzinfo=UTC)
    for kind, number, day, price, tokens in steps:
        now += timedelta(days=40)
        book = periods.read(files.book_path(ledger.books))
        name, on = f"line{number}", JANUARY + timedelta(days=day)
        if kind == "tell":
            ledger.tell([line(name, on, tokens, price)])
        elif kind == "charge":
            what = ("plan", "true_up", "credit")[number % 3]
            amount = f"{'-' if what == 'credit' else ''}{tokens}.{price[-1]}"
            ledger.charge([charge(f"charge{number}", on.replace(day=1), amount, what)])
        elif kind == "forget":
            ledger.forget(*({name, f"charge{number}"} & (ledger.lines.keys() | ledger.charges.keys())))
        elif kind == "close":
            if ledger.lines or ledger.charges:
                ledger.close(book.oldest_open("acct-acme") or JANUARY, not_before=now, accounts=["acct-acme"])
        elif (
            kind == "reopen"
            and (last := book.closed_through("acct-acme"))
            and book.status(last, "acct-acme") == "closed"
        ):
            transition = periods.reopen(
                book, last, actor="ada", reason="asked", as_of=now, requested_by="them", accounts=["acct-acme"]
            )
            periods.write(files.book_path(ledger.books), transition)
        ledger.build()
        book = periods.read(files.book_path(ledger.books))
        for month in months(6):
            if book.status(month, "acct-acme") == "closed":
                export_month(ledger.export(now), month, "acct-acme")
        export_days(ledger.export(now))
        versions.append(snapshot(ledger.exports))
    return versions


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=histories())
def test_c1_c2_c5_closed_and_corrections_are_the_truth(new_ledger, steps) -> None:
    assert_closed_and_corrections_are_the_truth(new_ledger, steps)


@pytest.mark.long
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=histories())
def test_many_histories_and_their_corrections_are_the_truth(new_ledger, steps) -> None:
    assert_closed_and_corrections_are_the_truth(new_ledger, steps)


def assert_closed_and_corrections_are_the_truth(new_ledger, steps) -> None:
    """C1, C2, C5: whatever comes late, is repriced, withdrawn, closed or reopened, usage or charge: statements together
    are the truth, and no file that was once written changes."""
    ledger = new_ledger()
    versions = play(ledger, steps)
    for earlier, later in itertools.pairwise(versions):
        assert later.items() >= earlier.items()
    assert billed(ledger) == truth(ledger)
    for measure in ("billed_cost", "list_cost", "contracted_cost", "pricing_quantity", "consumed_quantity", "events"):
        found = ledger.booked(
            f"line_id, coalesce(sum({measure}), 0)",  # an unpriced line has no cost, and neither has its reversal
            "true group by line_id having count(*) filter (where line_kind <> 'reversal')"
            " = count(*) filter (where line_kind = 'reversal')",
        )
        assert {amount for _, amount in found} <= {0}, "what was reversed and not replaced is nothing"
    # A warehouse made anew from the files and the lines says the same.
    other = ledger.copy(ledger.folder / "rebuilt")
    other.build()
    order = 'order by "x_RowKey"'
    sql = f"select * exclude (_booking_seq) from marts.export_focus_daily {order}"
    assert other.connection.execute(sql).fetchall() == ledger.connection.execute(sql).fetchall()


def test_c5_a_price_correction_is_a_reversal_and_a_replacement(ledger: Ledger) -> None:
    """C5: in every measure the reversal is the original with another sign."""
    ledger.tell([line("a", date(2025, 1, 5), 2_000_000, "3"), line("b", date(2025, 2, 5))])
    ledger.close(JANUARY)
    ledger.tell([line("a", date(2025, 1, 5), 2_000_000, "2")])
    ledger.build()
    found = ledger.connection.execute(
        'select "ChargeClass", "x_ReasonCode", "BilledCost", "PricingQuantity", "BillingPeriodStart",'
        ' "x_OriginalPeriod"'
        """ from marts.export_focus_daily where "x_IncurredPeriod" = '2025-01' order by "ChargeClass", "BilledCost" """
    ).fetchall()
    february = datetime(2025, 2, 1, tzinfo=UTC)
    assert found == [
        ("Correction", "reversal:price", Decimal(-6), Decimal(-2), february, "2025-01"),
        ("Correction", "replacement:price", Decimal(4), Decimal(2), february, "2025-01"),
        (None, None, Decimal(6), Decimal(2), datetime(2025, 1, 1, tzinfo=UTC), None),
    ]
    ledger.close(date(2025, 2, 1))
    assert ledger.booked("count(*)", "seal_seq is null") == [(0,)], "what was corrected is not corrected again"
    assert billed(ledger) == truth(ledger)


def test_another_sheet_with_the_same_price_corrects_nothing(ledger: Ledger) -> None:
    """A sheet that was approved after the close states one new price: the row of the other is no correction."""
    ledger.tell([line("a", date(2025, 1, 5)), line("b", date(2025, 1, 5), price="4")])
    ledger.close(JANUARY)
    newer = {"price_id": "newer", "contract_rate_id": "newer"}
    ledger.tell([line("a", date(2025, 1, 5), **newer), line("b", date(2025, 1, 5), price="5", **newer)])
    ledger.build()
    found = ledger.booked("line_id, line_kind, cause, billed_cost", "line_kind <> 'original'")
    assert sorted(found) == [("b", "replacement", "price", Decimal(5)), ("b", "reversal", "price", Decimal(-4))]
    assert billed(ledger) == truth(ledger)


def test_c2_a_charge_that_changes_after_its_month_was_closed_is_corrected(ledger: Ledger) -> None:
    """C2, M2: a contracted account's month is its usage and its charges; what changes of either is corrected later."""
    ledger.tell(
        [line("a", date(2025, 1, 5), billed_cost=Decimal(0), rating_status="excluded"), line("b", date(2025, 2, 5))]
    )
    ledger.charge([
        charge("seat", JANUARY, "20.333333333333333", user_id="ada", quantity=31),
        charge("short", JANUARY, "4.005", "true_up"),
        charge("credit", JANUARY, "-1.2345", "credit"),
    ])  # fmt: skip
    ledger.close(JANUARY)
    month = export_month(ledger.export(datetime(2025, 2, 20, tzinfo=UTC)), JANUARY, "acct-acme")
    sql = """
        select "ChargeCategory", "ChargeFrequency", "ChargeClass", "BilledCost", "PricingQuantity", "PricingUnit",
            "SkuId", "SubAccountId", "x_TokenType", "BillingPeriodStart"::date
        from marts.export_focus_daily where "ChargeCategory" <> 'Usage' order by "BillingPeriodStart", "BilledCost"
        """
    january = [
        ("Credit", "One-Time", None, Decimal("-1.2345"), None, None, "plan/credit", None, None, JANUARY),
        ("Adjustment", "One-Time", None, Decimal("4.005"), None, None, "plan/seat", None, None, JANUARY),
        ("Purchase", "Recurring", None, Decimal("20.333333333333333"), Decimal(1), "Units", "plan/seat", "ada",
         None, JANUARY),
    ]  # fmt: skip
    assert ledger.connection.execute(sql).fetchall() == january
    invoice = pq.read_table(month.folder / "focus_invoice_detail.parquet", partitioning=None).to_pylist()
    assert sorted((row["ChargeCategory"], row["BilledCost"]) for row in invoice) == [
        ("Adjustment", Decimal("4.00")), ("Credit", Decimal("-1.23")), ("Purchase", Decimal("20.33")),
        ("Usage", Decimal("0.00")),
    ], "23.103833333333333 is 23.10, and the cent that is left goes to the largest remainder"  # fmt: skip
    assert verify.verify(ledger.exports).faults == ()
    ledger.charge([charge("seat", JANUARY, "10", user_id="ada", quantity=15)])
    ledger.forget("credit")
    ledger.build()
    rows = ledger.connection.execute(sql).fetchall()
    assert rows[:3] == january
    assert [row[:4] + row[9:] for row in rows[3:]] == [
        ("Purchase", "Recurring", "Correction", Decimal("-20.333333333333333"), date(2025, 2, 1)),
        ("Credit", "One-Time", "Correction", Decimal("1.2345"), date(2025, 2, 1)),
        ("Purchase", "Recurring", "Correction", Decimal("10"), date(2025, 2, 1)),
    ]
    causes = ledger.booked("line_id, line_kind, cause", "line_kind <> 'original'")
    assert causes == [
        ("credit", "reversal", "withdrawn"),
        ("seat", "replacement", "quantity"),
        ("seat", "reversal", "quantity"),
    ]
    assert billed(ledger) == truth(ledger)
    ledger.close(date(2025, 2, 1))
    assert ledger.booked("count(*)", "seal_seq is null") == [(0,)]


def test_c3_each_transition_has_a_name_a_reason_and_an_instant(ledger: Ledger) -> None:
    """C3: and one that is out of turn is refused."""
    ledger.tell([line("a", date(2025, 1, 5))])
    ledger.build()
    ledger.tick(datetime(2025, 2, 5, tzinfo=UTC))
    given_ = {"as_of": datetime(2025, 2, 5, tzinfo=UTC), "checks": [MET], "waived": {}, "signed": ""}
    for wrong in ({"actor": " ", "reason": "x"}, {"actor": "ada", "reason": ""}):
        with pytest.raises(PeriodError, match="a name and a reason"):
            closing.close(ledger.connection, ledger.books, JANUARY, **wrong, **given_)
    with pytest.raises(PeriodError, match="the month ends at"):
        closing.close(ledger.connection, ledger.books, date(2025, 2, 1), actor="ada", reason="x", **given_)
    with pytest.raises(PeriodError, match="no such account"):
        closing.close(
            ledger.connection, ledger.books, JANUARY, actor="ada", reason="x", **given_, accounts=["acct-nobody"]
        )
    assert not files.book_path(ledger.books).exists()


def test_c4_no_close_with_material_exceptions(ledger: Ledger) -> None:
    """C4: no waiver helps: a closed month could only be corrected."""
    nothing = dict.fromkeys(("list_unit_price", "contracted_unit_price", "list_cost", "contracted_cost", "billed_cost"))
    unpriced = line("a", date(2025, 1, 5)) | nothing | {"rating_status": "unpriced"}
    ledger.tell([unpriced | {"high_cost": Decimal("0.01")}, line("b", date(2025, 1, 6))])
    with pytest.raises(NotReadyError, match=r"exceptions: 1 line has no price and may cost up to 0\.01"):
        ledger.close(JANUARY, waived={"grace": "told so", "exceptions": "never mind"})
    ledger.tell([unpriced | {"high_cost": Decimal("0.009999999")}])
    ledger.build()
    book = periods.read(files.book_path(ledger.books))
    as_of = datetime(2025, 2, 20, tzinfo=UTC)
    assert book.status(JANUARY, "acct-acme") == "closing"
    closing.close(
        ledger.connection, ledger.books, JANUARY, actor="ada", reason="x", as_of=as_of, checks=[MET],
        waived={"grace": "told so"}, signed=ledger.signature(JANUARY, as_of=as_of)[:12],
    )  # fmt: skip
    assert periods.read(files.book_path(ledger.books)).status(JANUARY, "acct-acme") == "closed"


@pytest.mark.parametrize(
    ("kind", "high_cost"),
    [("cache_convention_unknown", None), ("conflict", "0"), ("future_dated", None)],
)
def test_c4_what_is_open_and_material_needs_a_name_and_a_reason(
    ledger: Ledger, kind: str, high_cost: str | None
) -> None:
    """C4: usage of two stories, of a source that counts nobody knows how, or of the future."""
    more: dict[str, Any] = {"high_cost": high_cost and Decimal(high_cost)}
    ledger.tell([line("a", date(2025, 1, 5), **more)])
    ledger.plant(kind, "a")
    with pytest.raises(NotReadyError, match=f"{kind}: 1 (lines|turns) "):
        ledger.close(JANUARY, waived={"grace": "told so", kind: " "})
    book = periods.read(files.book_path(ledger.books))
    assert book.status(JANUARY, "acct-acme") == "closing"
    ledger.connection.execute("delete from marts.fct_llm_turns where turn_id = 'tick'")
    (ready,) = ledger.ready(JANUARY, datetime(2025, 3, 1, tzinfo=UTC))
    assert [c.name for c in ready.conditions if not c.is_met and c.name != "grace"] == [kind]
    closing.close(
        ledger.connection, ledger.books, JANUARY, actor="ada", reason="x", as_of=datetime(2025, 3, 1, tzinfo=UTC),
        checks=[MET], waived={"grace": "told so", kind: "ada called them"}, signed=closing.signature([ready]),
    )  # fmt: skip
    assert periods.read(files.book_path(ledger.books)).transitions[-1].waived[kind] == "ada called them"


@pytest.mark.parametrize("point", ["close.sealed", "close.booked"])
def test_e3_a_close_that_was_killed_is_not_begun_or_whole(
    ledger: Ledger, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E3: killed between the sealed file and the book, or after it: another warehouse goes on from the files."""

    class Killed(BaseException):
        pass

    def die(name: str) -> None:
        if name == point:
            raise Killed

    ledger.tell([line("a", date(2025, 1, 5))])
    ledger.charge([charge("seat", JANUARY, "20")])
    monkeypatch.setattr(failpoints, "hook", die)
    with pytest.raises(Killed):
        ledger.close(JANUARY)
    monkeypatch.setattr(failpoints, "hook", None)
    other = ledger.copy(ledger.folder / "after")
    other.build()
    if point == "close.sealed":
        assert other.booked("count(*)", "seal_seq is not null") == [(0,)], (
            "nothing is frozen that the book does not say"
        )
        other.tell([line("late", date(2025, 1, 6))])
        other.close(JANUARY)
    assert periods.read(files.book_path(other.books)).closed_through("acct-acme") == JANUARY
    assert other.booked("count(*)", "seal_seq is null") == [(0,)]
    assert len(other.booked("line_id", "line_kind = 'original'")) == len(other.lines) + 1
    assert billed(other) == truth(other)


def test_no_close_while_the_gate_fails_or_the_totals_are_others(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5))])
    with pytest.raises(NotReadyError, match=r"finance_gate: failed: marts__export_focus_daily\.rows_off"):
        ledger.close(JANUARY, checks=[FAILED])
    right = ledger.signature(JANUARY, as_of=datetime(2025, 3, 1, tzinfo=UTC))
    for wrong in ("0" * 64, "", right[:11], right[:1], right + "0"):
        with pytest.raises(closing.SignatureError, match=r"sign them with --sign [0-9a-f]{12}"):
            closing.close(
                ledger.connection, ledger.books, JANUARY, actor="ada", reason="x",
                as_of=datetime(2025, 3, 1, tzinfo=UTC), checks=[MET], waived={"grace": "told so"}, signed=wrong,
            )  # fmt: skip
    assert periods.read(files.book_path(ledger.books)).status(JANUARY, "acct-acme") == "closing"


def test_grace_counts_from_the_watermark(ledger: Ledger) -> None:
    """72 hours of event time after what was known when the closing began, by the clock that was named too."""
    ledger.tell([line("a", date(2025, 1, 5))])
    ledger.build()
    begun = datetime(2025, 2, 1, 6, tzinfo=UTC)
    ledger.tick(begun)
    common = {"actor": "ada", "reason": "x", "checks": [MET], "waived": {}}
    closing.close(ledger.connection, ledger.books, JANUARY, as_of=begun, signed="", **common)
    book = periods.read(files.book_path(ledger.books))
    assert book.transitions[-1].grace_until == begun + periods.GRACE

    def grace(as_of: datetime) -> bool:
        (ready,) = ledger.ready(JANUARY, as_of)
        return next(c.is_met for c in ready.conditions if c.name == "grace")

    late = begun + periods.GRACE
    assert not grace(late + timedelta(days=30)), "nothing was heard of the fleet since"
    ledger.tick(late)
    assert grace(late)
    assert not grace(late - timedelta(microseconds=1))


def test_a_reopened_month_keeps_its_invoice_and_gets_another(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5)), line("b", date(2025, 2, 5))])
    ledger.close(JANUARY)
    ledger.close(date(2025, 2, 1))
    path = files.book_path(ledger.books)
    with pytest.raises(PeriodError, match="on request only"):
        periods.reopen(
            periods.read(path), JANUARY, actor="a", reason="x", as_of=datetime(2026, 1, 1, tzinfo=UTC), requested_by=""
        )
    ledger.tell([line("late", date(2025, 1, 9), 500_000)])
    ledger.build()
    sql = """select "InvoiceId", "BilledCost" from marts.export_focus_daily
        where "x_IncurredPeriod" = '2025-01' order by all"""
    assert ledger.connection.execute(sql).fetchall() == [
        ("INV-2025-01-acct-acme-USD", Decimal(3)),
        ("INV-2025-03-acct-acme-USD", Decimal("1.5")),
    ]
    now = datetime(2026, 1, 1, tzinfo=UTC)
    periods.write(path, periods.reopen(periods.read(path), JANUARY, actor="a", reason="x", as_of=now,
                                       requested_by="acme", accounts=["acct-acme"]))  # fmt: skip
    ledger.build()
    assert ledger.connection.execute(sql).fetchall() == [
        ("INV-2025-01-acct-acme-USD", Decimal(3)),
        ("INV-2025-01-acct-acme-USD-2", Decimal("1.5")),
    ]
    ledger.close(JANUARY, not_before=now)
    assert ledger.connection.execute(sql).fetchall()[1] == ("INV-2025-01-acct-acme-USD-2", Decimal("1.5"))
    assert ledger.booked("count(*)", "seal_seq is null") == [(0,)]


def test_a_changed_sealed_file_stops_everything(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5))])
    ledger.close(JANUARY)
    (sealed,) = (ledger.books / "closed").iterdir()
    data = sealed.read_bytes()
    sealed.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    other = Ledger(ledger.models, ledger.empty, ledger.folder / "other")
    with pytest.raises(files.SealError, match="was changed: restore it"):
        files.load(other.connection, ledger.books)
    sealed.unlink()
    with pytest.raises(files.SealError, match="is missing: restore it"):
        files.load(other.connection, ledger.books)


def test_a_sum_of_booked_lines_reads_columns(ledger: Ledger) -> None:
    """Above a common table expression that is read twice every column is computed for it, the key of each line too."""
    ledger.tell([line("a", date(2025, 1, 3))])
    ((_, plan),) = ledger.connection.execute(
        "explain (format json) select sum(billed_cost) from statements.int_billing__booked_lines"
    ).fetchall()
    assert "fct_rated_lines" in plan
    assert "row_key" not in plan
