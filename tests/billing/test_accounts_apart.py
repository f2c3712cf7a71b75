"""Months close for each account: what is wrong with one is listed with what settles it, and holds back nobody else."""

import json
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.billing import closing, month_end, periods, verify
from pipelines.billing import ledger as files
from pipelines.billing.exports import export_days, export_month, export_months
from pipelines.billing.gate import Check
from pipelines.billing.periods import NotReadyError, Transition
from pipelines.billing.prove import spread
from tests.billing.ledgers import MET, Ledger, charge, line

JANUARY, FEBRUARY = date(2025, 1, 1), date(2025, 2, 1)
AFTER = datetime(2025, 2, 6, tzinfo=UTC)
NO_PRICE: dict[str, Any] = dict.fromkeys(
    ("price_id", "list_unit_price", "contracted_unit_price", "list_cost", "contracted_cost", "billed_cost")
) | {"rating_status": "unpriced", "high_cost": None}
BOLT = {"tenant_id": "bolt", "billing_account_id": "acct-bolt"}
NOBODY = {"tenant_id": "new", "billing_account_id": "UNATTRIBUTED", "rating_status": "unattributed"}
WAIVED = {"grace": "the fleet is idle"}


def book_of(ledger: Ledger) -> periods.Book:
    return periods.read(files.book_path(ledger.books))


def payables(ledger: Ledger) -> dict[str, Decimal]:
    found = ledger.connection.execute(
        "select invoice_id, sum(rounded_amount) from marts.fct_invoice_lines group by all"
    ).fetchall()
    return dict(found)


# rounding -------------------------------------------------------------------------------------------------------------


def test_what_credit_covers_costs_nothing(ledger: Ledger) -> None:
    """The demo's own case: 3.083092974 of usage by two models, and credit for all of it."""
    ledger.tell([
        line("a", date(2025, 1, 5), 1_000_000, "1.541546487"),
        line("b", date(2025, 1, 5), 1_000_000, "1.541546487", model="claude-opus-4-5"),
    ])  # fmt: skip
    ledger.charge([charge("credit", JANUARY, "-3.083092974", "credit")])
    ledger.build()
    assert payables(ledger) == {"INV-2025-01-acct-acme-USD": Decimal("0.00")}


def test_what_a_month_comes_to_is_told_by_its_parts(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5), 1_000_000, "3")])
    ledger.charge([charge("seats", JANUARY, "20"), charge("short", JANUARY, "7", "true_up")])
    ledger.build()
    (account,) = ledger.ready(JANUARY, as_of=AFTER)
    (found,) = account.payables
    assert found.parts == {"Usage": Decimal(3), "Purchase": Decimal(20), "Adjustment": Decimal(7)}
    assert sum(found.parts.values()) == found.exact


def test_the_end_of_one_accounts_month_writes_no_statement_of_another(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5)), line("b", date(2025, 1, 5), **BOLT)])
    ledger.build()
    written = month_end.write_statements(ledger.export(AFTER), ledger.books, JANUARY, accounts=["acct-bolt"])
    assert ["acct-bolt" in str(item.folder) for item in written.statements] == [True]
    assert [path.name for path in (ledger.exports / "current").iterdir()] == ["acct-bolt"]


def test_a_commitment_is_its_amount(ledger: Ledger) -> None:
    """100 that was promised is 100, however usage and what was missing are split."""
    ledger.tell([line("a", date(2025, 1, 5), 1_000_000, "33.333333333")])
    ledger.charge([charge("short", JANUARY, "66.666666667", "true_up")])
    ledger.build()
    assert payables(ledger) == {"INV-2025-01-acct-acme-USD": Decimal("100.00")}


@pytest.mark.parametrize(("each", "payable"), [("0.004", "0.01"), ("0.005", "0.02"), ("0.006", "0.02")])
def test_an_invoice_is_not_the_sum_of_rounded_lines(ledger: Ledger, each: str, payable: str) -> None:
    """Three lines: rounded one by one they would come to 0.00, 0.03 and 0.03."""
    ledger.charge([charge(f"c{n}", JANUARY, each, kind) for n, kind in enumerate(("plan", "true_up", "credit"))])
    ledger.build()
    assert payables(ledger) == {"INV-2025-01-acct-acme-USD": Decimal(payable)}


AMOUNTS = st.decimals(min_value=Decimal(-1000), max_value=Decimal(1000), places=15)
KINDS = st.sampled_from(("Usage", "Purchase", "Adjustment", "Credit"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    given_=st.lists(st.tuples(AMOUNTS, KINDS, st.integers(0, 3)), min_size=1, max_size=12),
    currency=st.sampled_from(("USD", "EUR", "JPY")),
    is_covered=st.booleans(),
)
def test_an_invoice_is_its_exact_sum_rounded_once(new_ledger, given_, currency, is_covered) -> None:
    """M2: over plans, credits, commitments and usage of several models: lines add up to it, each off by less than a
    unit; what is covered entirely is nothing; and Python's spread says the same of each line."""
    if "ledger" not in KEPT:
        KEPT["ledger"] = new_ledger()
    ledger = KEPT["ledger"]
    total = sum((amount for amount, *_ in given_), Decimal(0))
    rows = [*given_, *([(-total, "Credit", 9)] if is_covered else [])]
    values = ", ".join(f"({a}::decimal(38, 15), '{kind}', {model})" for a, kind, model in rows)
    ledger.connection.execute(
        f"""
        create or replace table marts.export_focus_daily as select amount as "BilledCost", 'a' as "BillingAccountId",
            'INV' as "InvoiceId", concat('INV/', kind, '/', model) as "InvoiceDetailId", '{currency}' as
            "BillingCurrency", kind as "ChargeCategory", 'p' as "HostProviderName", 't' as "x_TenantId",
            1 as "x_EventCount", 'm' as "x_Model", date '2025-01-01' as billing_period
        from (values {values}) as given (amount, kind, model)
        """
    )
    found = ledger.connection.execute(
        "select invoice_detail_id, exact_amount, rounded_amount, rounding_delta, invoice_id"
        f" from ({ledger.models['fct_invoice_lines']})"
    ).fetchall()
    unit = Decimal(1) if currency == "JPY" else Decimal("0.01")
    exact = sum((row[1] for row in found), Decimal(0))
    payable = sum((row[2] for row in found), Decimal(0))
    assert exact == (0 if is_covered else total)
    assert payable == (exact / unit).quantize(Decimal(1), ROUND_HALF_UP) * unit
    assert all(row[1] + row[3] == row[2] and abs(row[3]) < unit for row in found)
    assert {row[0]: row[2] for row in found} == spread({row[0]: row[1] for row in found}, unit)


KEPT: dict[str, Ledger] = {}
"""One ledger for all examples: making one takes longer than asking it."""


# accounts do not wait for one another ---------------------------------------------------------------------------------


def test_a_model_without_a_price_holds_back_its_own_account(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5)), line("b", date(2025, 1, 5), **BOLT | NO_PRICE, model="unknown")])
    done = ledger.close(JANUARY)
    assert done.transition.accounts == ("acct-acme",)
    (held,) = done.held
    (unmet,) = held.unmet(WAIVED)
    assert (held.account, unmet.name) == ("acct-bolt", "exceptions")
    assert "apiary period settle 2025-01 --account acct-bolt --write-off|--late" in unmet.settled_by
    assert "apiary model-policy set" in unmet.settled_by
    assert "unknown" in unmet.found
    book = book_of(ledger)
    assert (book.status(JANUARY, "acct-acme"), book.status(JANUARY, "acct-bolt")) == ("closed", "closing")
    with pytest.raises(NotReadyError, match="acct-bolt"):
        ledger.close(JANUARY)
    assert verify.verify(write(ledger)).faults == ()


def write(ledger: Ledger, month: date = JANUARY, **more: Any) -> Any:
    export = ledger.export(AFTER, **more)
    export_days(export)
    export_months(export, month, closing.accounts_of(ledger.connection, export.book, month))
    return ledger.exports


def test_a_write_off_is_a_line_of_nothing_and_stays_one(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5), 123, **NO_PRICE, model="unknown"), line("c", date(2025, 1, 6))])
    ledger.settle(JANUARY, "write_off", "unknown", reason="a test machine")
    ledger.build()
    assert ledger.failing() == set(), "of an open month"
    ledger.close(JANUARY)
    row = (
        'select "BilledCost", "ListCost", "ConsumedQuantity", "ChargeDescription", "SkuPriceId"'
        """ from marts.export_focus_daily where "x_Model" = 'unknown'"""
    )
    assert ledger.connection.execute(row).fetchall() == [(0, 0, 123, "written off: a test machine", "written-off")]
    ledger.tell([line("a", date(2025, 1, 5), 123, "9", model="unknown")])
    ledger.build()
    assert ledger.booked("line_id", "line_kind <> 'original'") == [], "a price that comes later does not undo it"
    assert ledger.failing() == set(), "of a closed month"
    assert verify.verify(write(ledger)).faults == ()


def test_what_is_left_to_a_later_month_is_asked_for_there_and_billed_once_priced(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5), **NO_PRICE, model="unknown"), line("c", date(2025, 1, 6))])
    ledger.settle(JANUARY, "late", "unknown")
    ledger.close(JANUARY)
    assert ledger.booked("line_id") == [("c",)]
    with pytest.raises(NotReadyError, match="exceptions: 1 line has no price"):
        ledger.close(FEBRUARY)
    ledger.tell([line("a", date(2025, 1, 5), 1_000_000, "9", model="unknown")])
    ledger.close(FEBRUARY)
    assert ledger.booked("line_id, line_kind, billing_period, billed_cost", "line_id = 'a'") == [
        ("a", "late", FEBRUARY, Decimal(9))
    ]


def test_an_idle_fleet_does_not_keep_a_month_open(ledger: Ledger) -> None:
    """Nothing was heard since before the month's end: it closes by name and reason; a device that reports nothing new
    is heard of."""
    ledger.tell([line("a", date(2025, 1, 5))])
    ledger.build()
    given_ = {"actor": "ada", "reason": "x", "as_of": AFTER, "checks": [MET]}
    closing.close(ledger.connection, ledger.books, JANUARY, **given_, waived={}, signed="")
    (ready,) = ledger.ready(JANUARY, AFTER)
    assert [(c.name, c.can_be_waived) for c in ready.unmet()] == [("grace", True)]
    sign = closing.signature([ready])
    closing.close(ledger.connection, ledger.books, JANUARY, **given_, waived=WAIVED, signed=sign)
    assert book_of(ledger).status(JANUARY, "acct-acme") == "closed"
    ledger.connection.execute(
        "insert into wire.batches by name select 'acme' as tenant_id, 'd1' as device_id, 'loaded' as status,"
        " timestamptz '2025-02-05 00:00:00+00' as received_at, 'm' as manifest_key"
    )
    assert closing.watermark(ledger.connection, as_of=AFTER) == datetime(2025, 2, 5, tzinfo=UTC)


def test_a_check_of_one_account_holds_back_its_statement_and_no_other(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5)), line("b", date(2025, 1, 5), **BOLT)])
    ledger.build()
    export_days(ledger.export(AFTER))
    ledger.tell([line("a", date(2025, 1, 5), 7), line("b", date(2025, 1, 5), 9, **BOLT)])
    ledger.build()
    failing = Check("marts__export_focus_daily.cost_off", is_blocking=True, passed=False, found="acct-bolt: 1",
                    accounts=("acct-bolt",))  # fmt: skip
    export = ledger.export(AFTER, checks=[MET, failing])
    (day,) = [item for item in export_days(export) if item.is_new]
    rows = pq.read_table(day.folder / "focus_cost_and_usage.parquet", partitioning=None).to_pylist()
    quantities = {row["BillingAccountId"]: row["ConsumedQuantity"] for row in rows}
    assert quantities == {"acct-acme": 7, "acct-bolt": 1_000_000}, "its rows stay as they were"
    assert json.loads((day.folder / "manifest.json").read_text())["held_back"] == ["acct-bolt"]
    done, held = export_months(export, JANUARY, ["acct-acme", "acct-bolt"])
    assert [item.folder.parts[-2] for item in done] == ["account=acct-acme"]
    assert list(held) == ["acct-bolt"]
    assert "acct-bolt: 1" in held["acct-bolt"]
    done_ = ledger.close(JANUARY, checks=[MET, failing])
    assert (done_.transition.accounts, [item.account for item in done_.held]) == (("acct-acme",), ["acct-bolt"])
    assert verify.verify(ledger.exports).faults == ()


# usage of nobody ------------------------------------------------------------------------------------------------------


def test_usage_without_an_account_is_a_worklist_and_no_invoice(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5)), line("n", date(2025, 1, 5), 500_000, **NOBODY)])
    ledger.close(JANUARY)
    assert set(payables(ledger)) == {"INV-2025-01-acct-acme-USD"}
    assert closing.worklist(ledger.connection, JANUARY) == [("new", "claude-sonnet-4-5", 500_000, Decimal("1.5"))]
    rows = ledger.connection.execute('select distinct "BillingAccountId" from marts.export_focus_daily').fetchall()
    assert rows == [("acct-acme",)]


def test_an_account_that_is_opened_later_gets_its_own_month(ledger: Ledger) -> None:
    ledger.tell([line("a", date(2025, 1, 5)), line("n", date(2025, 1, 5), 500_000, **NOBODY)])
    ledger.close(JANUARY)
    ledger.tell([line("n", date(2025, 1, 5), 500_000, tenant_id="new", billing_account_id="acct-new")])
    ledger.build()
    assert ledger.booked("line_kind, billing_period", "line_id = 'n'") == [("original", JANUARY)]
    ledger.close(JANUARY, accounts=["acct-new"])
    assert payables(ledger)["INV-2025-01-acct-new-USD"] == Decimal("1.50")
    export_month(ledger.export(AFTER), JANUARY, "acct-new")


def close_as_before(ledger: Ledger, month: date) -> None:
    """Close a month as earlier versions did: of all accounts, with what nobody owes."""
    ledger.build()
    lines = ledger.connection.execute(
        f"select {', '.join(files.LINES.names)} from statements.int_billing__booked_lines"
        " where billing_period = ? and seal_seq is null",
        [month],
    ).to_arrow_table()
    unowned = [
        dict.fromkeys(files.LINES.names)
        | {name: value for name, value in item.items() if name in files.LINES.names}
        | {
            "line_id": item["rated_line_id"], "charge_category": "Usage", "charge_frequency": "Usage-Based",
            "consumed_unit": "Tokens", "pricing_unit": "1000000 Tokens", "trust_grade": "self_reported",
            "line_kind": "original", "events": 1, "booking": 1, "consumed_quantity": Decimal(item["quantity"]),
            "pricing_quantity": Decimal(item["quantity"]) * Decimal("0.000001"),
            "charge_start_date": item["usage_date"],
            "charge_end_date": item["usage_date"] + timedelta(days=1), "incurred_period": month,
            "billing_period": month,
        }
        for item in ledger.lines.values()
        if item["billing_account_id"] == "UNATTRIBUTED"
    ]  # fmt: skip
    rows = lines.to_pylist() + unowned
    seal = files.seal(ledger.books, lines.from_pylist(rows, schema=files.LINES))
    path, now = files.book_path(ledger.books), datetime(2025, 2, 5, tzinfo=UTC)
    for before, after, sealed in (("open", "closing", None), ("closing", "closed", seal)):
        periods.write(path, Transition(month, before, after, "ada", "x", now, seal=sealed))


def test_a_book_of_an_earlier_version_goes_on(ledger: Ledger) -> None:
    """One that closed a month for all, with an invoice of nobody: it is read, stays, and its usage finds an owner."""
    ledger.tell([line("a", date(2025, 1, 5)), line("n", date(2025, 1, 5), 500_000, **NOBODY)])
    close_as_before(ledger, JANUARY)
    text = files.book_path(ledger.books).read_text()
    assert text.count('"accounts": null') == 2
    ledger.build()
    assert ledger.booked("line_id", "line_kind <> 'original'") == [], "nothing is corrected because of an upgrade"
    assert set(payables(ledger)) == {"INV-2025-01-acct-acme-USD"}
    ledger.tell([line("n", date(2025, 1, 5), 500_000, tenant_id="new", billing_account_id="acct-new")])
    ledger.build()
    found = ledger.booked("billing_account_id, line_kind, cause, billing_period, billed_cost", "line_id = 'n'")
    assert sorted(found, key=str) == sorted([
        ("UNATTRIBUTED", "original", None, JANUARY, Decimal("1.5")),
        ("UNATTRIBUTED", "reversal", "attribution", FEBRUARY, Decimal("-1.5")),
        ("acct-new", "late", "attribution", FEBRUARY, Decimal("1.5")),
    ], key=str)  # fmt: skip
    assert all(
        count >= 0
        for (count,) in ledger.connection.execute("select line_count from marts.fct_invoice_lines").fetchall()
    )
    ledger.close(FEBRUARY)
    assert payables(ledger)["INV-2025-02-acct-new-USD"] == Decimal("1.50")
    path = files.book_path(ledger.books)
    older = [
        json.dumps({key: value for key, value in json.loads(text).items() if key != "accounts"})
        for text in path.read_text().splitlines()[:1]
    ]
    path.write_text(older[0] + "\n")
    assert periods.read(path).transitions[0].accounts is None, "lines without the field are read"


# corrections of every kind --------------------------------------------------------------------------------------------


CHANGES = ("opened", "moved", "merged", "renamed", "repriced", "rejected", "replanned", "late", "withdrawn")


STORIES = st.lists(
    st.tuples(st.sampled_from((*CHANGES, "close", "close")), st.integers(0, 3), st.integers(0, 50)),
    min_size=4,
    max_size=10,
)
EVERY_CHANGE = [
    ("close", 0, 0), ("opened", 0, 0), ("moved", 2, 1), ("merged", 3, 0), ("close", 0, 0), ("renamed", 1, 7),
    ("repriced", 1, 2), ("rejected", 2, 3), ("replanned", 2, 40), ("late", 1, 3), ("withdrawn", 1, 5), ("close", 0, 0),
]  # fmt: skip


@pytest.mark.services  # it builds the statements after each of many steps
def test_every_correction_of_closed_months_adds_up(ledger: Ledger) -> None:
    play(ledger, EVERY_CHANGE)


@pytest.mark.long
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(story=STORIES)
def test_generated_corrections_of_closed_months_add_up(new_ledger, story) -> None:
    play(new_ledger(), story)


def play(ledger: Ledger, story: list[tuple[str, int, int]]) -> None:
    """An account is opened, moved or merged, a tenant renamed, a plan changed back in time, a price rejected: together
    the bills of each account are what it owes, and each month closes with what its checklist names."""
    accounts = {f"t{n}": (f"acct-{n}" if n else "UNATTRIBUTED") for n in range(4)}
    facts = {f"l{n}": (f"t{n % 4}", date(2025, 1, 1) + timedelta(days=20 * n), "3", n * 1000 + 1) for n in range(8)}
    plans = {f"p{n}": (f"acct-{n}", Decimal(n)) for n in range(1, 4)}
    now = datetime(2025, 8, 1, tzinfo=UTC)
    for kind, number, extra in story:
        now += timedelta(days=1)
        tenant, names = f"t{number}", sorted(facts)
        mine = names[(number * 7 + extra) % len(names)] if names else None
        if kind in ("opened", "moved"):
            accounts[tenant] = f"acct-{number}{'x' * (extra % 2)}"
        elif kind == "merged":
            accounts[tenant] = "acct-1"
        elif kind == "renamed":
            accounts[f"{tenant}{extra}"] = accounts.get(tenant, "UNATTRIBUTED")
            facts = {
                (f"{name}r" if f[0] == tenant else name): (f"{tenant}{extra}" if f[0] == tenant else f[0], *f[1:])
                for name, f in facts.items()
            }
        elif kind in ("repriced", "rejected") and mine:
            facts[mine] = (*facts[mine][:2], "2" if kind == "repriced" else None, facts[mine][3])
        elif kind == "replanned":
            plans[f"p{number or 1}"] = (f"acct-{number or 1}", Decimal(extra))
        elif kind == "late":
            facts[f"late{extra}"] = (tenant, date(2025, 1, 1) + timedelta(days=3 * extra), "1", 777)
        elif kind == "withdrawn" and mine:
            del facts[mine]
        ledger.lines = {}
        ledger.tell(
            line(name, day, tokens, price or "3", tenant_id=who, billing_account_id=accounts[who],
                 **({} if price else NO_PRICE | {"model": "rejected"}))
            for name, (who, day, price, tokens) in facts.items()
        )  # fmt: skip
        ledger.charges = {}
        ledger.charge(
            charge(name, JANUARY, str(amount), tenant_id=account, billing_account_id=account)
            for name, (account, amount) in plans.items()
        )
        ledger.build()
        if kind == "close":
            close_oldest(ledger, now)
        owed: dict[str, Decimal] = defaultdict(Decimal)
        for item in ledger.lines.values():
            if item["billing_account_id"] != "UNATTRIBUTED" and item["billed_cost"] is not None:
                owed[item["billing_account_id"]] += item["billed_cost"]
        for item in ledger.charges.values():
            owed[item["billing_account_id"]] += item["amount"]
        billed = dict(
            ledger.connection.execute(
                'select "BillingAccountId", sum("BilledCost") from marts.export_focus_daily group by all'
            ).fetchall()
        )
        assert {a: n for a, n in billed.items() if n} == {a: n for a, n in owed.items() if n}
        [(least,)] = ledger.connection.execute(
            "select coalesce(min(line_count), 0) from marts.fct_invoice_lines"
        ).fetchall()
        assert least >= 0
        [(effective, cost)] = ledger.connection.execute(
            'select coalesce(sum("EffectiveCost"), 0), coalesce(sum("BilledCost"), 0) from marts.export_focus_daily'
        ).fetchall()
        assert effective == cost, "what usage is covered by is counted once"


def close_oldest(ledger: Ledger, now: datetime) -> None:
    """Close the oldest month that is open for each account, settling what its checklist names."""
    book = book_of(ledger)
    by_month: dict[date, list[str]] = defaultdict(list)
    for account in closing.accounts_of(ledger.connection, book, JANUARY):
        by_month[book.oldest_open(account) or JANUARY].append(account)
    for month, accounts in sorted(by_month.items()):
        for account in accounts:
            for model in closing.unpriced_models(ledger.connection, month, account):
                if f"late-{account}-{month}-{model}" not in settled(ledger):
                    ledger.settle(month, "late", model, account)
        done = ledger.close(month, accounts=accounts, not_before=now)
        assert done.held == ()
    ledger.build()


def settled(ledger: Ledger) -> set[str]:
    return {name for (name,) in ledger.connection.execute("select settlement_id from billing.settlements").fetchall()}
