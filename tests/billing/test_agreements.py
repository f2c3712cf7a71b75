"""Accounts, seats, plans and rates by command: rows are added, say who and since when, and are charged as meant."""

import csv
from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import cli
from pipelines.billing import agreements, books
from pipelines.billing.agreements import Signature
from pipelines.billing.books import BookError
from pipelines.home import Home
from tests.billing.ratings import Rating

AT = datetime(2026, 11, 1, tzinfo=UTC)
OPENED = ("account", "open", "--account", "A", "--tenant", "acme", "--from", "2026-01-01")
SIGNED = ("--by", "ada", "--approved-by", "grace")


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("APIARY_HOME", str(tmp_path))
    return tmp_path / "billing"


def sign(minutes: int = 0) -> Signature:
    return Signature("ada", "grace", AT + timedelta(minutes=minutes))


def test_commands_add_rows_and_change_none(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (
        OPENED,
        ("account", "change", "--tenant", "acme", "--currency", "EUR", "--from", "2026-06-01"),
        ("seat", "hold", "--account", "A", "--user", "bob", "--from", "2026-01-01"),
        ("seat", "end", "--seat", "seat-A-bob", "--to", "2026-03-15"),
        ("plan", "set", "--id", "p", "--account", "A", "--item", "tokens", "--pricing", "graduated", "--tier", "0=2",
         "--tier", "100=1", "--commit", "50", "--from", "2026-01-01"),
        ("plan", "end", "--id", "p", "--to", "2026-09-01"),
        ("contract", "set", "--id", "c", "--account", "A", "--model", "claude-*", "--factor", "0.9", "--from",
         "2026-01-01"),
        ("contract", "set", "--id", "c", "--account", "A", "--model", "claude-*", "--factor", "0.8", "--from",
         "2026-01-01"),
        ("credit", "grant", "--id", "g", "--account", "A", "--amount", "25", "--reason", "pilot", "--from",
         "2026-01-01", "--expires", "2026-07-01"),
        ("budget", "set", "--id", "b", "--tenant", "acme", "--user", "bob", "--period", "day", "--measure", "tokens",
         "--limit", "2000000", "--from", "2026-01-01"),
        ("budget", "end", "--id", "b", "--to", "2026-06-01"),
        ("model-policy", "set", "--rule", "session", "--from", "2026-01-01"),
        ("model-policy", "set", "--tenant", "acme", "--rule", "default", "--default-model", "openai/gpt-5", "--from",
         "2026-01-01", "--to", "2026-04-01"),
    ):  # fmt: skip
        before = {path.name: path.read_bytes() for path in site.glob("*.csv")}
        assert cli.main([*command, *SIGNED]) == 0, command
        for name, data in before.items():
            assert (site / name).read_bytes().startswith(data), "what stood in a book stays"
    capsys.readouterr()
    folders = [site]
    (budget,) = agreements.newest(books.BUDGETS, folders)
    assert (budget["scope"], budget["scope_id"], budget["warn_at"], budget["valid_to"]) == (
        "user", "bob", Decimal("0.8"), date(2026, 6, 1),
    )  # fmt: skip
    assert [r["currency"] for r in books.read(books.ACCOUNTS, folders)] == ["USD", "EUR"]
    assert agreements.payer_on(folders, "acme", date(2026, 5, 31))["currency"] == "USD"
    assert agreements.payer_on(folders, "acme", date(2026, 6, 1))["currency"] == "EUR"
    (seat,) = agreements.newest(books.SEATS, folders)
    assert (seat["valid_to"], seat["recorded_by"], seat["approved_by"]) == (date(2026, 3, 15), "ada", "grace")
    (item,) = agreements.newest(books.PLAN_ITEMS, folders)
    assert (item["commit_amount"], item["valid_to"]) == (Decimal(50), date(2026, 9, 1))
    assert [r["factor"] for r in agreements.newest(books.CONTRACT_RATES, folders)] == [Decimal("0.8")]
    assert len(books.read(books.CONTRACT_RATES, folders)) == 2, "what was believed before is still there"
    assert [(r["tenant_id"], r["rule"]) for r in agreements.newest(books.MODEL_POLICIES, folders)] == [
        (None, "session"),
        ("acme", "default"),
    ]
    for what in ("account", "seat", "plan", "contract", "credit", "budget", "model-policy"):
        assert cli.main([what, "list", "--json"]) == 0
        assert "2026-01-01" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (("account", "open", "--account", "B", "--tenant", "acme", "--from", "2026-02-01"), "A pays for acme"),
        (("account", "change", "--tenant", "acme", "--currency", "USD", "--from", "2026-02-01"), "already"),
        (("account", "change", "--tenant", "acme", "--currency", "KWD", "--from", "2026-02-01"), "no currency"),
        (("account", "change", "--tenant", "bolt", "--currency", "EUR", "--from", "2026-02-01"), "open one"),
        (("account", "close", "--tenant", "bolt", "--to", "2026-02-01"), "no account pays"),
        (("seat", "end", "--seat", "s", "--to", "2026-02-01"), "nobody holds"),
        (("plan", "set", "--id", "p", "--account", "A", "--item", "seat", "--pricing", "per_unit", "--from",
          "2026-01-01"), "need --unit-price"),
        (("plan", "set", "--id", "p", "--account", "A", "--item", "tokens", "--pricing", "volume", "--tier", "5=1",
          "--from", "2026-01-01"), "the first from 0"),
        (("contract", "set", "--id", "c", "--account", "A", "--from", "2026-01-01"), "--factor or --unit-price"),
        (("credit", "grant", "--id", "g", "--account", "A", "--amount", "-1", "--reason", "x", "--from",
          "2026-01-01"), "amount is '-1': credit is above 0"),
        (("account", "change", "--tenant", "acme", "--currency", "EURO", "--from", "2026-02-01"),
         "'EURO' is no currency: write a code of ISO 4217, three capital letters like EUR"),
        (("plan", "set", "--id", "p", "--account", "A", "--item", "seat", "--pricing", "per_unit", "--unit-price", "-1",
          "--from", "2026-01-01"), "unit_price is '-1': write a number that is not below 0"),
        (("contract", "set", "--id", "c", "--account", "A", "--factor", "90", "--from", "2026-01-01"),
         "a factor of 90 is so many times the list price: --accept-implausible, if it is meant"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused_in_one_line(
    site: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...], message: str
) -> None:
    assert cli.main([*OPENED, *SIGNED]) == 0
    before = (site / "billing_accounts.csv").read_bytes()
    assert cli.main([*command, *SIGNED]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1
    assert (site / "billing_accounts.csv").read_bytes() == before


def test_a_rate_of_exchange_that_the_book_contradicts_is_recorded_if_it_is_meant(site: Path) -> None:
    def record(pair: str, rate: str, day: int = 1, **more: bool) -> None:
        start, _, end = pair.partition("/")
        agreements.set_fx_rate(
            [site], sign(len(books.read(books.FX_RATES, [site]))), currency_from=start, currency_to=end,
            rate=Decimal(rate), source="ECB", valid_from=date(2026, 1, day), **more,
        )  # fmt: skip

    record("USD/EUR", "0.87")
    said = "the book has USD/EUR at 0.87 from 2026-01-01 on, where this says 9215 USD for one EUR: --accept-implausible"
    with pytest.raises(BookError, match=said):
        record("EUR/USD", "9215")
    with pytest.raises(BookError, match=r"where this says 0\.4 EUR for one USD"):
        record("USD/EUR", "0.4", day=2)
    record("EUR/USD", "1.15")
    record("USD/EUR", "87", day=3, is_meant=True)
    with pytest.raises(BookError, match=r"USD/EUR at 87 from 2026-01-03 on, where this says 0\.88"):
        record("USD/EUR", "0.88", day=4)
    record("USD/EUR", "0.88", day=3)  # puts it right: what it takes the place of is not asked
    record("USD/EUR", "0.89", day=4)
    record("JPY/EUR", "0.006")


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("seat", "hold", "--account", "T", "--user", "eve"), "nobody called eve has been seen in tenant tree yet"),
        (("seat", "hold", "--account", "T", "--user", "ada"), ""),
        (("budget", "set", "--id", "b", "--tenant", "nope", "--period", "day", "--measure", "turns", "--limit", "5"),
         "nothing of tenant nope has been seen yet"),
        (("budget", "set", "--id", "b", "--tenant", "tree", "--user", "bob", "--period", "day", "--measure", "turns",
          "--limit", "5"), "nobody called bob has been seen in tenant tree yet"),
        (("contract", "set", "--id", "c", "--account", "T", "--factor", "0.9"), ""),
        (("contract", "set", "--id", "c", "--account", "X", "--factor", "0.9"), "X is no account yet"),
        (("seat", "hold", "--account", "X", "--user", "ada"), "X is no account yet"),
        (("plan", "set", "--id", "p", "--account", "X", "--item", "seat", "--pricing", "per_unit", "--unit-price", "1"),
         "X is no account yet"),
    ],
)  # fmt: skip
def test_a_name_that_was_never_seen_is_told(
    site: Path, published_home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    command: tuple[str, ...], said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(Home, "published", published_home.published)
    assert cli.main(["account", "open", "--account", "T", "--tenant", "tree", "--from", "2026-01-01", *SIGNED]) == 0
    capsys.readouterr()
    assert cli.main([*command, "--from", "2026-01-01", *SIGNED]) == 0
    told = capsys.readouterr()
    assert told.out.startswith("recorded: ")
    assert told.err.startswith(f"apiary: {said}") if said else told.err == ""


def test_a_row_needs_who_approved_it() -> None:
    with pytest.raises(BookError, match="--approved-by"):
        Signature("ada", " ", AT)


def test_books_of_an_earlier_version_are_read_and_gain_their_columns(site: Path) -> None:
    """Their rows say nothing of time: true of all of it. The first command writes the file anew, with the same rows."""
    site.mkdir(parents=True)
    path = site / "billing_accounts.csv"
    header = "billing_account_id,tenant_id,name,currency,reporting_timezone,charged_by,recorded_at"
    path.write_text(f"{header}\nA,acme,Acme,USD,UTC,tokens,2026-01-01T00:00:00Z\n")
    (site / "seats.csv").write_text(
        "seat_id,billing_account_id,user_id,valid_from,valid_to,recorded_at\ns,A,bob,2026-01-01,,2026-01-01T00:00:00Z\n"
    )
    (row,) = books.read(books.ACCOUNTS, [site])
    assert (row["valid_from"], row["approved_by"]) == (None, None)
    assert agreements.payer_on([site], "acme", date(1999, 1, 1)) == row
    agreements.change_account([site], sign(), tenant="acme", valid_from=date(2026, 6, 1), currency="EUR")
    agreements.end_seat([site], sign(), seat="s", valid_to=date(2026, 2, 1))
    assert books.read(books.ACCOUNTS, [site])[0] == row
    assert [r["currency"] for r in books.read(books.ACCOUNTS, [site])] == ["USD", "EUR"]
    with path.open() as file:
        assert next(csv.reader(file)) == list(books.ACCOUNTS.columns)
    path.write_text(path.read_text().replace("reporting_timezone,", "", 1))
    with pytest.raises(BookError, match="the first line must be"):
        books.read(books.ACCOUNTS, [site])


DAYS = st.integers(0, 40).map(lambda n: date(2026, 1, 1) + timedelta(days=n))


@settings(max_examples=60, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from(("pay", "close")), DAYS, st.sampled_from("ABC")), max_size=8))
def test_of_each_day_the_row_recorded_last_speaks(tmp_path_factory: pytest.TempPathFactory, steps) -> None:
    """Whoever was said last to pay does: one that moves where somebody pays, one that is opened until somebody does."""
    folder = tmp_path_factory.mktemp("books")
    days = {date(2026, 1, 1) + timedelta(days=n): None for n in range(50)}
    expected: dict[date, str | None] = dict(days)
    for number, (kind, day, account) in enumerate(steps):
        payer = agreements.payer_on([folder], "acme", day)
        try:
            if kind == "close":
                agreements.close_account([folder], sign(number), tenant="acme", last_day_after=day)
                new, until = None, None
            elif payer is None:
                until = min((d for d, was in expected.items() if d > day and was), default=None)
                agreements.open_account(
                    [folder], sign(number), account=account, tenant="acme", name="x", currency="USD", valid_from=day
                )
                new = account
            else:
                agreements.change_account(
                    [folder], sign(number), tenant="acme", valid_from=day, billing_account_id=account
                )
                new, until = account, None
        except BookError:
            continue
        moves = kind == "pay" and payer is not None
        expected = {
            d: was if d < day or (until and d >= until) or (moves and was is None) else new
            for d, was in expected.items()
        }
    found = {d: (agreements.payer_on([folder], "acme", d) or {}).get("billing_account_id") for d in days}
    assert found == expected


def test_the_mart_says_the_same_of_each_day(statement_models: Mapping[str, str], tmp_path: Path) -> None:
    """Opened, moved, moved for some days only, put right, closed and opened again."""
    folders = [tmp_path]
    steps = [
        ("A", 0, None, "USD"), ("B", 10, None, "USD"), ("C", 4, 7, "USD"), ("A", 5, 6, "EUR"), (None, 20, None, "USD"),
        ("D", 30, None, "JPY"), ("B", 12, 14, "EUR"),
    ]  # fmt: skip
    first = date(2026, 1, 1)
    for number, (account, start, end, currency) in enumerate(steps):
        day, signature = first + timedelta(days=start), sign(number)
        until = None if end is None else first + timedelta(days=end)
        if account is None:
            agreements.close_account(folders, signature, tenant="acme", last_day_after=day)
        elif agreements.payer_on(folders, "acme", day) is None:
            agreements.open_account(
                folders, signature, account=account, tenant="acme", name="x", currency=currency, valid_from=day
            )
        else:
            agreements.change_account(
                folders, signature, tenant="acme", valid_from=day, valid_to=until, billing_account_id=account,
                currency=currency,
            )  # fmt: skip
    rating = Rating(statement_models, tmp_path)
    for number in range(40):
        day = first + timedelta(days=number)
        payer = agreements.payer_on(folders, "acme", day)
        found = rating.connection.execute(
            "select billing_account_id, currency from marts.dim_billing_accounts where tenant_id = 'acme'"
            " and valid_from <= $1 and (valid_to is null or $1 < valid_to)",
            [day],
        ).fetchall()
        assert found == ([(payer["billing_account_id"], payer["currency"])] if payer else []), day
    rating.connection.close()


BUDGET: dict[str, object] = {
    "budget_id": "b", "tenant_id": "acme", "scope": "tenant", "scope_id": None, "period": "month",
    "measure": "reported_cost_usd", "limit_amount": Decimal("10.5"), "warn_at": Decimal("0.8"),
    "unpriced_limit_tokens": 5, "valid_from": date(2026, 1, 1), "valid_to": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"scope_id": "bob"}, "scope_id"), ({"scope": "user"}, "scope_id"), ({"warn_at": Decimal(0)}, "warn_at"),
        ({"warn_at": Decimal("1.1")}, "warn_at"), ({"measure": "turns"}, "unpriced_limit_tokens"),
        ({"measure": "tokens", "unpriced_limit_tokens": None}, "whole"), ({"valid_to": date(2026, 1, 1)}, "valid_to"),
        ({"limit_amount": Decimal(-1)}, "limit_amount"), ({"period": "week"}, "period"), ({"tenant_id": "A B"}, "A B"),
    ],
)  # fmt: skip
def test_a_budget_that_a_device_would_refuse_is_refused(tmp_path: Path, wrong: dict[str, object], said: str) -> None:
    columns: dict[str, Any] = BUDGET | wrong
    with pytest.raises(BookError, match=said):
        agreements.set_budget([tmp_path], sign(), **columns)
    assert books.read(books.BUDGETS, [tmp_path]) == []
    agreements.set_budget([tmp_path], sign(), **dict(BUDGET))
    assert len(books.read(books.BUDGETS, [tmp_path])) == 1


def test_budgets_that_were_a_seed_move_into_the_book_once(tmp_path: Path) -> None:
    names = ", ".join(BUDGET)
    with duckdb.connect() as connection:
        assert agreements.move_budgets(connection, [tmp_path], at=AT) == {}
        connection.execute("CREATE SCHEMA seeds")
        connection.execute(
            "CREATE TABLE seeds.budgets (budget_id VARCHAR, tenant_id VARCHAR, scope VARCHAR, scope_id VARCHAR,"
            " period VARCHAR, measure VARCHAR, limit_amount DECIMAL(38, 20), warn_at DECIMAL(9, 4),"
            " unpriced_limit_tokens BIGINT, valid_from DATE, valid_to DATE)"
        )
        for row in ({"budget_id": "b0"}, {"budget_id": "b1"}, {"budget_id": "bad", "warn_at": Decimal(0)}):
            values = list((BUDGET | row).values())
            connection.execute(f"INSERT INTO seeds.budgets ({names}) VALUES ({', '.join('?' * len(values))})", values)
        for _ in range(2):  # what does not fit stays, and stops nothing
            assert list(agreements.move_budgets(connection, [tmp_path], at=AT)) == ["bad"]
        moved = agreements.newest(books.BUDGETS, [tmp_path])
        columns: dict[str, Any] = BUDGET | {"budget_id": "bad"}
        agreements.set_budget([tmp_path], sign(1), **columns)
        assert agreements.move_budgets(connection, [tmp_path], at=AT) == {}
        assert not connection.execute("SELECT * FROM duckdb_tables() WHERE table_name = 'budgets'").fetchall()
    assert [{name: row[name] for name in BUDGET} for row in moved] == [BUDGET | {"budget_id": f"b{n}"} for n in (0, 1)]
