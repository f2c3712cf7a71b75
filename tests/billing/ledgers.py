"""A warehouse of statements without the long way to it: rated lines are put in, the billing models are real.

The models are compiled by dbt once; then their SQL runs as it stands. Does not belong here: rating (ratings.py).
"""

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb

from pipelines.billing import books, closing, exports, ledger, periods, provider_reports
from pipelines.billing.gate import Check
from pipelines.billing.statements import StatementStore
from pipelines.contract.ddl import create_wire
from pipelines.quality import gates
from pipelines.warehouse import schemas
from tests import marts
from tests.warehouse import Warehouse, schema_of

ISSUER = "Apiary"
BUILT = (
    "stg_billing__knowledge", "stg_billing__settlements", "stg_billing__periods", "stg_billing__period_events",
    "stg_billing__closed_lines", "stg_billing__provider_costs", "stg_billing__contract_rates",
    "stg_wire__conflicts",
    "int_billing__account_terms", "int_billing__frozen", "fct_provider_costs", "rpt_reconciliation",
    "int_billing__booking_days", "int_billing__current_lines", "int_billing__sealed_lines_in_force",
    "int_billing__erased_lines", "int_billing__changed_lines", "int_billing__correction_lines",
    "int_billing__open_lines", "int_billing__original_lines", "int_billing__booked_lines", "dim_billing_periods",
    "export_focus_daily", "fct_invoice_lines", "fct_adjustments", "exc_billing_exceptions",
    "stg_billing__restatements", "rpt_restatement",
)  # fmt: skip
RATED = (
    *(f"stg_billing__{name}" for name in (
        "price_book", "price_decisions", "model_prefixes", "model_aliases", "cache_conventions", "billing_accounts",
        "contract_rates", "fx_rates", "plan_items", "plan_tiers", "seats", "model_policies",
    )),
    "dim_billing_accounts", "int_billing__models_resolved", "int_billing__models_assumed",
    "int_billing__rates_in_force", "fct_rated_lines", "int_billing__plan_charges",
)  # fmt: skip
"""What rates a turn and charges a plan, in the order of building: tests/billing/test_rating.py runs it alone."""
CHARGED = (
    "stg_billing__credit_grants",
    "int_billing__counted_lines",
    "int_billing__account_months",
    "fct_credit_ledger",
    "fct_charges",
)
"""What a month of an account comes to beside usage: tests/billing/account_years.py runs all of it."""
GIVEN = (
    "fct_rated_lines", "fct_charges", "dim_billing_accounts", "dim_prices", "fct_llm_turns", "mart_held_turns",
    "mart_usage_crosscheck",
)  # fmt: skip
"""Marts that the statements read: made empty here, by the types of their contracts."""
STEPS = tuple(name for name in BUILT if name.startswith("int_"))
"""Views on views: to plan them for each mart takes longer than all the rest, so that each is made a table once."""
MET = Check("marts__export_focus_daily.rows_off", is_blocking=True, passed=True, found="0")
NOON = timedelta(hours=12)
Line = dict[str, Any]


def compiled(folder: Path) -> dict[str, str]:
    """The SQL of the statements' models as for a first run, by name in the order of building.

    `folder`: where the tests of this process have their warehouse, so that dbt parses the project once for all.
    """
    path = folder / "warehouse.duckdb"
    with duckdb.connect(str(path)) as connection:
        for schema in (*schemas.BUILT, "wire", "billing"):
            connection.execute(f"drop schema if exists {schema} cascade")
        rating_tables(connection)
    warehouse = Warehouse.__new__(Warehouse)
    warehouse.path, warehouse.target = path, folder / "target"
    result = warehouse.dbt("compile", "--full-refresh", "--select", *BUILT, *RATED, *CHARGED)
    assert result.success, result.exception
    files = {file.stem: file for file in (folder / "target" / "compiled").rglob("*.sql")}
    return {name: files[name].read_text("utf-8") for name in (*BUILT, *RATED, *CHARGED)}


def template(models: Mapping[str, str], path: Path) -> Path:
    """A file with the tables and views of an empty ledger: to copy it takes a tenth of making them."""
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"attach '{path}' as warehouse; use warehouse; set TimeZone = 'UTC'")
        rating_tables(connection)
        for name in BUILT:
            schema = schema_of(name)
            kind = "table" if schema == "marts" else "view"
            connection.execute(f"create {kind} {schema}.{name} as {models[name]}")
        connection.execute("checkpoint warehouse; use memory; detach warehouse")
    return path


def rating_tables(connection: duckdb.DuckDBPyConnection) -> None:
    """The wire, the books and the marts that are given, all of them empty."""
    for schema in (*schemas.BUILT, "billing"):
        connection.execute(f"create schema if not exists {schema}")
    for statement in create_wire():
        connection.execute(statement)
    for name in GIVEN:
        columns = ", ".join(f"{column} {kind}" for column, kind in marts.types()[name].items())
        connection.execute(f"create table marts.{name} ({columns})")
    connection.execute(
        "create table core.int_sessions__tree_resolved (tenant_id varchar, session_id varchar, user_id varchar,"
        " user_basis varchar, root_session_id varchar, colony_id varchar);"
        " create table core.int_sessions__observations_merged"
        " (tenant_id varchar, session_id varchar, queen_name varchar);"
        " create table core.int_delivery__device_days"
        " (tenant_id varchar, device_id varchar, delivery_date date, turn_lines_rejected bigint);"
        " create table rating.int_billing__rating_days"
        " (tenant_id varchar, usage_date date, _ingest_seq bigint, _rating_seq bigint);"
        " create table core.int_usage__session_days"
        " (tenant_id varchar, session_id varchar, root_session_id varchar, usage_date date);"
        " create table statements.int_billing__account_months (billing_account_id varchar, tokens bigint,"
        " colony_days bigint, billed_cost decimal(38, 15), billing_month date)"
    )
    books.load(connection, [Path("/nowhere")])
    ledger.load(connection, Path("/nowhere"))


class Ledger:
    """Rated lines that are true now, a folder of books, a statements of statements, and time that is told."""

    def __init__(self, models: Mapping[str, str], empty: Path, folder: Path) -> None:
        """`empty`: a file that `template` made."""
        self.empty = empty
        self.folder = folder
        self.books = folder / "billing"
        self.exports = folder / "exports"
        self.models = models
        self.lines: dict[str, Line] = {}
        self.charges: dict[str, Line] = {}
        self.connection = duckdb.connect(":memory:")
        self.connection.execute(
            f"attach ':memory:' as warehouse; attach '{empty}' as empty (read_only);"
            " copy from database empty to warehouse; detach empty; use warehouse; set TimeZone = 'UTC'"
        )

    def tell(self, lines: Iterable[Line]) -> None:
        """Lines that are true from now on, by their id; a line of a known id is another form of it."""
        for line in lines:
            self.lines[line["rated_line_id"]] = line
        self._put()

    def charge(self, charges: Iterable[Line]) -> None:
        """Charges that are made from now on, by their id."""
        for item in charges:
            self.charges[item["charge_id"]] = item
        self._put()

    def forget(self, *ids: str) -> None:
        """Lines and charges that are not true any more."""
        for name in ids:
            (self.lines if name in self.lines else self.charges).pop(name)
        self._put()

    def _put(self) -> None:
        for table, held in (("fct_rated_lines", self.lines), ("fct_charges", self.charges)):
            self.connection.execute(f"delete from marts.{table}")
            if held:
                rows = list(held.values())
                names = list(dict.fromkeys(name for row in rows for name in row))
                self.connection.executemany(
                    f"insert into marts.{table} ({', '.join(names)}) values ({', '.join('?' * len(names))})",
                    [[row.get(name) for name in names] for row in rows],
                )
        self.connection.execute(
            """
            delete from marts.dim_billing_accounts;
            insert into marts.dim_billing_accounts by name
            select distinct on (tenant_id, billing_account_id) billing_account_id, tenant_id,
                billing_account_id as name, currency, 'UTC' as reporting_timezone, 'tokens' as charged_by,
                date '0001-01-01' as valid_from
            from (
                select billing_account_id, tenant_id, currency from marts.fct_rated_lines
                union all select billing_account_id, tenant_id, currency from marts.fct_charges
            )
            where billing_account_id <> 'UNATTRIBUTED'
            order by all;
            insert into marts.dim_billing_accounts by name
            select 'UNATTRIBUTED' as billing_account_id, 'Usage without an account' as name, 'USD' as currency,
                'UTC' as reporting_timezone, 'tokens' as charged_by, date '0001-01-01' as valid_from;
            delete from marts.fct_llm_turns
            """
        )
        self.connection.execute(
            "insert into marts.fct_llm_turns by name select record_id as turn_id, tenant_id, usage_date, occurred_at,"
            " quantity as output_tokens, 0 as input_tokens, 0 as cache_read_input_tokens,"
            " 0 as cache_write_input_tokens from marts.fct_rated_lines"
        )

    def build(self) -> None:
        """Build the marts anew, as a full refresh does."""
        ledger.load(self.connection, self.books)
        ledger.load_restatements(self.connection, self.exports)
        self.connection.execute(
            """
            create or replace table rating.int_billing__rating_days as
            select tenant_id, usage_date, 1::bigint as _ingest_seq, 1::bigint as _rating_seq from (
                select tenant_id, usage_date from marts.fct_rated_lines
                union select tenant_id, charge_start_date from billing.closed_lines
            )
            """
        )
        for name in BUILT:
            sql = re.sub(rf'"warehouse"\."\w+"\."({"|".join(STEPS)})"', r"temp.\1", self.models[name])
            if name in STEPS:
                self.connection.execute(f"create or replace temp table {name} as {sql}")
            elif name.startswith(("dim", "fct", "rpt", "export", "exc")):
                self.connection.execute(f"create or replace table marts.{name} as {sql}")

    def report(self, kind: str, *pages: str, pulled_at: datetime = datetime(2025, 3, 1, tzinfo=UTC)) -> None:
        """A provider's report, kept as the command keeps it."""
        report = provider_reports.parse_pages(kind, pages, pulled_at=pulled_at)
        provider_reports.keep(self.books / "provider", report)

    def plant(self, kind: str, name: str) -> None:
        """An exception of a kind about the turn of a line."""
        turn = self.lines[name]["record_id"]
        if kind == "conflict":
            row = "'llm_turns' as table_name, 'acme' as tenant_id, $turn as record_id, 1 as _ingest_seq"
            self.connection.execute(f"insert into wire.conflicts by name select {row}", {"turn": turn})
        elif kind == "future_dated":
            when = "'2025-04-01'::timestamptz as occurred_at, '2025-01-09'::timestamptz as received_at"
            row = f"$turn as turn_id, 'acme' as tenant_id, {when}"
            self.connection.execute(f"insert into marts.mart_held_turns by name select {row}", {"turn": turn})
        elif kind == "cache_convention_unknown":
            self.tell([self.lines[name] | {"is_convention_unknown": True}])

    def export(self, as_of: datetime, **more: Any) -> exports.ExportContext:
        """What a run of the export is given."""
        book = periods.read(ledger.book_path(self.books))
        return exports.ExportContext(
            connection=self.connection, statements=StatementStore.open(self.exports), book=book, as_of=as_of,
            checks=more.pop("checks", [MET]), issuer=ISSUER, **more,
        )  # fmt: skip

    def close(self, period: date, **more: Any) -> closing.Closed:
        """Close a month as its rules want it, three days after its end."""
        if more.pop("build", True):
            self.build()
        as_of = max(
            periods.end_of(period) + timedelta(days=5), more.pop("not_before", datetime.min.replace(tzinfo=UTC))
        )
        self.tick(as_of)
        given: dict[str, Any] = {
            "actor": "ada", "reason": "month end", "as_of": as_of, "checks": [MET], "waived": {"grace": "told so"},
            "signed": "",
        } | more  # fmt: skip
        book = periods.read(ledger.book_path(self.books))
        accounts = given.get("accounts") or closing.accounts_to_close(self.connection, book, period)
        if any(book.status(period, account) == "open" for account in accounts):
            closing.close(self.connection, self.books, period, **given)
        return closing.close(self.connection, self.books, period, **given | {"signed": self.signature(period, **given)})

    def signature(self, period: date, *, as_of: datetime, checks: Sequence[Check] = (MET,), **more: Any) -> str:
        """What whoever closes a month signs."""
        return closing.signature(r for r in self.ready(period, as_of, checks, **more) if r.status == "closing")

    def ready(
        self, period: date, as_of: datetime, checks: Sequence[Check] = (MET,), **more: Any
    ) -> list[closing.Readiness]:
        """The checklist of each account."""
        book = periods.read(ledger.book_path(self.books))
        return closing.readiness(
            self.connection, book, period, as_of=as_of, checks=checks, accounts=more.get("accounts")
        )

    def settle(self, period: date, kind: str, model: str, account: str = "acct-acme", reason: str = "agreed") -> None:
        """A decision about usage without a price."""
        row = {
            "settlement_id": f"{kind}-{account}-{period}-{model}", "billing_account_id": account,
            "billing_period": period, "kind": kind, "model": model, "reason": reason, "recorded_by": "ada",
            "recorded_at": datetime(2030, 1, 1, tzinfo=UTC),
        }  # fmt: skip
        books.append(books.SETTLEMENTS, self.books, [row])
        books.load(self.connection, [self.books])

    def tick(self, moment: datetime) -> None:
        """A turn that costs nothing and says that the fleet is alive."""
        self.connection.execute(
            "insert into marts.fct_llm_turns (turn_id, tenant_id, usage_date, occurred_at)"
            " values ('tick', 'acme', ?, ?)",
            [moment.date(), moment],
        )

    def booked(self, columns: str = "*", where: str = "true", values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Booked lines, sealed and pending."""
        return self.connection.execute(
            f"select {columns} from statements.int_billing__booked_lines where {where} order by all", list(values)
        ).fetchall()

    def failing(self) -> set[str]:
        """What the gate of the statements finds."""
        (suite,) = (suite for suite in gates.suites("billing") if suite.name == "marts__export_focus_daily")
        return {result.column for result in gates.run(suite, self.connection) if not result.passed}

    def fork(self, folder: Path) -> "Ledger":
        """The same files, lines and tables in a folder of its own: what takes long is made once for a whole module."""
        saved = self.folder.with_name(f"{self.folder.name}.duckdb")
        if not saved.exists():
            self.connection.execute(f"attach '{saved}' as saved; copy from database warehouse to saved; detach saved")
        shutil.copytree(self.folder, folder, symlinks=True)
        other = Ledger(self.models, saved, folder)
        other.lines, other.charges = dict(self.lines), dict(self.charges)
        return other

    def copy(self, folder: Path) -> "Ledger":
        """The same books and lines in another warehouse: nothing but the files is carried over."""
        if self.books.exists():
            shutil.copytree(self.books, folder / "billing")
        other = Ledger(self.models, self.empty, folder)
        other.tell(self.lines.values())
        other.charge(self.charges.values())
        return other


def line(name: str, day: date, tokens: int = 1_000_000, price: str = "3", **more: Any) -> Line:
    """A rated line: its tokens at a list price per million."""
    unit = Decimal(price)
    cost = Decimal(tokens) * Decimal("0.000001") * unit
    return {
        "rated_line_id": name, "record_id": f"turn-{name}", "billing_account_id": "acct-acme", "tenant_id": "acme",
        "user_id": "ada", "session_id": "s1", "root_session_id": "s1", "colony_id": None, "price_id": f"price-{price}",
        "contract_rate_id": None, "provider_name": "anthropic", "model": "claude-sonnet-4-5",
        "price_model": "claude-sonnet-4-5", "component": "output", "rating_status": "rated", "currency": "USD",
        "pricing_currency": "USD", "quantity": tokens, "pricing_unit_price": unit, "list_unit_price": unit,
        "contracted_unit_price": unit, "list_cost": cost, "contracted_cost": cost, "billed_cost": cost,
        "low_cost": cost, "high_cost": cost, "usage_date": day,
        "occurred_at": datetime.combine(day, datetime.min.time(), UTC) + NOON,
    } | more  # fmt: skip


def charge(name: str, month: date, amount: str, kind: str = "plan", **more: Any) -> Line:
    """A charge of a month: of a plan's seats, up to a commitment (`true_up`), or drawn from credit."""
    return {
        "charge_id": name, "billing_account_id": "acct-acme", "tenant_id": "acme",
        "plan_item_id": None if kind == "credit" else "item-1", "user_id": None, "charge_kind": kind,
        "item": "credit" if kind == "credit" else "seat", "currency": "USD", "quantity": int(kind == "plan"),
        "amount": Decimal(amount), "billing_month": month,
    } | more  # fmt: skip
