"""Which months of which accounts are on the checklist, and in which order they close: none is left that cannot.

Does not belong here: the conditions of a month (test_closing.py, test_accounts_apart.py).
"""

import shutil
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster_duckdb import DuckDBResource

from pipelines import cli
from pipelines.billing import agreements, closing, periods
from pipelines.billing import ledger as files
from pipelines.commands.periods import _next as next_step
from pipelines.commands.periods import _print_readiness as print_readiness
from pipelines.defs import dbt_project, month_end
from pipelines.defs.resources import FoldersResource
from pipelines.home import Home
from pipelines.warehouse import definitions
from tests.billing.ledgers import MET, Ledger, charge, line
from tests.billing.months import APRIL, COMMITMENT, FEBRUARY, JANUARY, MARCH, Months

BOLT = {"tenant_id": "bolt", "billing_account_id": "acct-bolt"}


def open_b(months: Months, valid_from: date = JANUARY) -> None:
    """A second account with a tenant of its own."""
    months.do(agreements.open_account, account="b", tenant="b", name="B", currency="USD", valid_from=valid_from)


def status(months: Months, account: str, *of: date) -> list[str]:
    book = periods.read(files.book_path(months.folder))
    return [book.status(month, account) for month in of]


@pytest.mark.parametrize("entrance", ["period close", "month-end", "job"])
def test_no_month_is_closed_on_marts_of_another_release(
    entrance: str, empty_ledger: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """They may lack a charge that this one makes. A file in which nothing says what built it is of another release."""
    warehouse = Path(shutil.copy(empty_ledger, tmp_path / "warehouse.duckdb"))
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    monkeypatch.setattr(Home, "warehouse", warehouse)
    monkeypatch.setattr("pipelines.commands.periods.checks_of", lambda _: [MET])
    message = "the models of statements were built by another release: `apiary run` builds them anew"
    if entrance == "job":
        config = month_end.MonthEndConfig(period="2026-10", actor="ada", reason="r", as_of="2026-11-06T00:00:00Z")
        folders = FoldersResource(**{name: str(tmp_path / name) for name in FoldersResource.model_fields})
        with pytest.raises(definitions.OutdatedError, match=message):
            month_end.month_end_step(
                dg.build_asset_context(), config, duckdb=DuckDBResource(database=str(warehouse)), folders=folders
            )
        return
    step = ["2026-10", "--as-of", "2026-11-06T00:00:00Z", "--actor", "ada", "--reason", "r", "--sign", "0" * 12]
    assert cli.main([*entrance.split(), *step]) == 1
    assert capsys.readouterr().err == f"apiary: {message}\n"


def test_a_month_that_is_not_over_says_when_it_can_be_closed(ledger: Ledger) -> None:
    ledger.tell([line("a", JANUARY)])
    ledger.build()
    end = periods.end_of(JANUARY)
    for as_of, said in (
        (end - timedelta(minutes=1), "the month ends at 2025-02-01 00:00 UTC: type this again after that"),
        (end, "apiary month-end 2025-01 --actor NAME --reason TEXT starts closing: late usage is waited for"),
    ):
        assert next_step(JANUARY, ledger.ready(JANUARY, as_of), as_of=as_of) == said


def test_the_parts_of_what_is_payable_are_seen_in_80_columns(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of what is 0 nobody could tell why."""
    ledger.tell([line("a", JANUARY, 2_000_000)])
    ledger.charge([charge("credit", JANUARY, "-30", "credit")])
    ledger.build()
    as_of = periods.end_of(JANUARY)
    monkeypatch.setenv("COLUMNS", "80")
    print_readiness(ledger.connection, JANUARY, ledger.ready(JANUARY, as_of), as_of=as_of)
    said = capsys.readouterr().out
    assert {"usage", "plan", "credit", "payable", "-30.00"} <= set(said.split())
    assert "not shown in 80 columns: exact" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2999-01", "--actor", "ada", "--reason", "r"], "the month ends at 2999-02-01 00:00 UTC: type this again"),
        (["2025-01", "--actor", "ada"], "a step needs a name and a reason: --actor, --reason"),
        (["2025-01", "--reason", "r"], "a step needs a name and a reason: --actor, --reason"),
        (["2025-01", "--sign", "0" * 12], "a step needs a name and a reason: --actor, --reason"),
        (["2025-01", "--waive", "grace=idle"], "a step needs a name and a reason: --actor, --reason"),
        (["2025-01", "--actor", "ada", "--reason", "r", "--waive", "grace"], "is no waiver: write the condition"),
    ],
)
def test_a_step_is_refused_before_the_warehouse_is_opened(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """There is none here: a command that looks for one says that."""
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    code = 0
    try:
        code = cli.main(["month-end", *arguments])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    err = capsys.readouterr().err
    assert (code, err.count("\n")) == (2, 1)
    assert message in err


def test_what_statements_need_is_asked_of_the_manifest() -> None:
    needed = definitions.needed_by("statements", dbt_project.parsed())
    assert {"marts.export_focus_daily", "core.int_usage__steps_matched"} <= needed
    assert "marts.mart_alerts" not in needed


def test_an_account_that_was_away_for_a_month_closes_it_too(months: Months) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        months.turn(month.replace(day=5))
    months.do(agreements.change_account, tenant="a", valid_from=FEBRUARY, valid_to=MARCH, billing_account_id="b")
    for month in (JANUARY, FEBRUARY, MARCH):
        months.close(month)
    book = periods.read(files.book_path(months.folder))
    assert [book.closed_through(account) for account in "ab"] == [MARCH, FEBRUARY]
    assert sorted(months.payable()) == ["INV-2025-01-a-USD", "INV-2025-02-b-USD", "INV-2025-03-a-USD"]


def test_one_account_that_is_held_back_stops_no_others_next_month(ledger: Ledger) -> None:
    for month in (JANUARY, FEBRUARY, MARCH):
        day = month.replace(day=5)
        ledger.tell([line(f"a{month}", day), line(f"b{month}", day, **BOLT)])
    ledger.close(JANUARY)
    unpriced = dict.fromkeys(
        ("list_cost", "contracted_cost", "billed_cost", "list_unit_price", "contracted_unit_price")
    )
    ledger.tell([line("x", date(2025, 2, 6), **BOLT | unpriced | {"model": "unknown"})])
    ledger.close(FEBRUARY)
    ledger.close(MARCH)
    later = periods.end_of(MARCH) + timedelta(days=5)
    only_bolt = [item for item in ledger.ready(MARCH, later) if item.account == "acct-bolt"]
    assert next_step(MARCH, only_bolt, as_of=later) == "close the earlier months first, as the table says"
    assert "starts closing" not in next_step(MARCH, ledger.ready(MARCH, later), as_of=later)
    book = periods.read(files.book_path(ledger.books))
    assert [book.status(month, "acct-acme") for month in (FEBRUARY, MARCH)] == ["closed", "closed"]
    assert [book.status(month, "acct-bolt") for month in (FEBRUARY, MARCH)] == ["closing", "open"]


def test_what_is_left_of_an_account_that_ended_is_on_the_checklist(months: Months) -> None:
    """Usage that was settled for later, and what comes late of a month that it closed last."""
    months.do(agreements.open_account, account="b", tenant="b", name="B", currency="USD", valid_from=JANUARY)
    months.turn(date(2025, 1, 5))
    months.turn(date(2025, 1, 6), "x")
    months.use("b", date(2025, 2, 5), (0, 10**6))
    months.do(agreements.close_account, tenant="a", last_day_after=FEBRUARY)
    months.settle(JANUARY, "x", "late")
    months.close(JANUARY)
    (asked,) = (item for item in months.ready(FEBRUARY) if item.account == "a")
    assert [condition.name for condition in asked.unmet() if condition.name == "exceptions"] == ["exceptions"]
    months.settle(FEBRUARY, "x", "write_off")
    months.close(FEBRUARY)
    assert [item.account for item in months.ready(MARCH)] == ["b"]
    months.turn(date(2025, 1, 7))
    months.build()
    (late,) = (item for item in months.ready(APRIL) if item.account == "a")
    (order,) = (condition for condition in late.unmet() if condition.name == "order")
    assert order.settled_by == "apiary month-end 2025-03 --account a"
    months.close(MARCH)
    assert months.payable()["INV-2025-03-a-USD"] == 15
    assert [item.account for item in months.ready(APRIL)] == ["b"]


def test_the_first_month_that_an_account_closes_asks_for_those_before_it(months: Months) -> None:
    for month in (JANUARY, FEBRUARY):
        months.turn(month.replace(day=5))
    with pytest.raises(periods.NotReadyError, match="2025-01 has rows and is open: they would be billed as late"):
        months.close(FEBRUARY)
    months.close(FEBRUARY, order="the months before were billed by hand")
    book = periods.read(files.book_path(months.folder))
    assert book.status(JANUARY, "a") == "closed"
    assert months.payable() == {"INV-2025-02-a-USD": 15, "INV-2025-03-a-USD": 15}


def test_an_account_that_ended_and_was_forgotten_can_close(months: Months) -> None:
    open_b(months)
    months.use("b", date(2025, 1, 5), (0, 10**6))
    for month in (JANUARY, FEBRUARY, MARCH):
        months.turn(month.replace(day=5))
    months.do(agreements.close_account, tenant="b", last_day_after=FEBRUARY)
    for month in (JANUARY, FEBRUARY, MARCH):
        months.close(month, accounts=["a"])
    with pytest.raises(periods.NotReadyError, match="2025-01 has rows and is open"):
        months.close(MARCH)
    assert closing.accounts_of(months.connection, periods.read(files.book_path(months.folder)), MARCH) == ["a"]
    months.close(JANUARY)
    assert [item.account for item in months.ready(MARCH)] == ["a"]
    assert status(months, "b", JANUARY, MARCH) == ["closed", "open"]


def test_an_account_whose_month_is_closing_closes_those_before_it(months: Months) -> None:
    """As the first step of 0.2.0 left one that had ended: its March began to close before its January had."""
    open_b(months)
    months.use("b", date(2025, 1, 5), (0, 10**6))
    months.do(agreements.close_account, tenant="b", last_day_after=FEBRUARY)
    months.build()
    given: dict[str, Any] = {"actor": "ada", "reason": "r", "as_of": periods.end_of(MARCH)}
    begun = periods.start_closing(periods.Book(), MARCH, **given, watermark_at=given["as_of"], accounts=["b"])
    periods.write(files.book_path(months.folder), begun)
    for month in (JANUARY, FEBRUARY, MARCH):
        months.close(month, accounts=["b"])
    assert status(months, "b", JANUARY, FEBRUARY, MARCH) == ["closed"] * 3


def test_an_account_that_began_later_than_was_said_can_close(months: Months) -> None:
    open_b(months)
    for month in (JANUARY, FEBRUARY, MARCH, APRIL):
        months.turn(month.replace(day=5))
        months.use("b", month.replace(day=5), (0, 10**6))
    months.close(JANUARY)
    months.do(agreements.change_account, tenant="b", valid_from=JANUARY, valid_to=APRIL, billing_account_id="a")
    for month in (FEBRUARY, MARCH, APRIL):
        months.close(month)
    assert status(months, "b", APRIL) == ["closed"]


def test_an_account_that_was_opened_after_a_book_of_all_accounts_can_close(months: Months) -> None:
    """In books of 0.1.0 a transition is one of all accounts, also of those that are opened later."""
    months.turn(date(2025, 1, 5))
    months.build()
    path, at = files.book_path(months.folder), periods.end_of(JANUARY) + timedelta(days=5)
    sealed = files.seal(months.folder, closing.pending(months.connection, JANUARY, ["a"]))
    periods.write(path, periods.Transition(JANUARY, "open", "closing", "f", "r", at))
    periods.write(path, periods.Transition(JANUARY, "closing", "closed", "f", "r", at, seal=sealed))
    open_b(months, APRIL)
    months.use("b", date(2025, 4, 5), (0, 10**6))
    for month in (FEBRUARY, MARCH, APRIL):
        months.close(month)
    assert status(months, "b", APRIL) == ["closed"]


def test_idle_months_that_are_closed_one_after_the_other_wait_for_their_commitment(months: Months) -> None:
    """The marts know of March when they are built after February was closed."""
    months.turn(date(2025, 1, 5))
    commitment = COMMITMENT | {"commit_amount": Decimal(100), "valid_from": JANUARY, "valid_to": APRIL}
    months.do(agreements.set_plan_item, item_id="p", **commitment)
    months.close(JANUARY)
    months.close(FEBRUARY, build=False)
    (account,) = months.ready(MARCH)
    (condition,) = (item for item in account.unmet() if item.name == "lines_are_rows")
    assert condition.found == "its plan is not charged yet: `apiary run` once the month is closing"
    months.close(MARCH)
    assert months.owed() == {f"INV-2025-0{number}-a-USD": 100 for number in (1, 2, 3)}
