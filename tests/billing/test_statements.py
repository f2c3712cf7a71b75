"""Statements as files: both formats the same, whole or not at all, one chain, and a check that names what changed."""

import csv
import io
import itertools
import json
import locale
import os
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines import failpoints
from pipelines.billing import exports, focus, gate, periods, summary, verify
from pipelines.billing import ledger as files
from pipelines.billing.exports import COSTS, Acceptance, RestatementError, export_days, export_month
from pipelines.billing.gate import Check, GateError, Override
from pipelines.billing.statements import Dataset, StatementStore, harmless, manifest_bytes, to_csv, to_parquet
from pipelines.contract.pseudonyms import pseudonym
from pipelines.errors import UsageError
from tests.billing.ledgers import MET, Ledger, line

JANUARY = date(2025, 1, 1)
AS_OF = datetime(2025, 1, 20, tzinfo=UTC)
FAILED = Check("marts__export_focus_daily.rows_twice", is_blocking=True, passed=False, found="2")
AMOUNTS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15, places=15)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def used(ledger: Ledger) -> Ledger:
    """Two accounts, two models, two currencies, a day between without usage."""
    ledger.tell([
        line("a", date(2025, 1, 3), 333_333, "0.075"),
        line("b", date(2025, 1, 3), 1, "3", component="input_uncached"),
        line("c", date(2025, 1, 5), 777, "15", user_id="=HYPERLINK(1)", model="gpt-5.5", provider_name="openai"),
        line("d", date(2025, 1, 5), 999_999, "2", tenant_id="bolt", billing_account_id="acct-bolt", currency="JPY"),
    ])  # fmt: skip
    ledger.build()
    return ledger


def statement(ledger: Ledger, day: date) -> Path:
    return ledger.exports / "daily" / f"billing_period={day:%Y-%m}" / f"usage_date={day}"


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / f"{COSTS}.parquet", partitioning=None).to_pylist()


# rows -----------------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(amounts=st.lists(AMOUNTS, max_size=4), text=TEXTS)
def test_m1_m4_csv_and_parquet_hold_the_same(amounts: list[Decimal], text: str) -> None:
    """M1, M4: any amount reads back as itself from both, without exponent or minus zero; any text is harmless."""
    schema = pa.schema([("amount", focus.AMOUNT), ("text", pa.string())])
    rows = [{"amount": amount, "text": text} for amount in amounts]
    lines = list(csv.reader(io.StringIO(to_csv(schema, rows).decode(), newline="")))
    assert lines[0] == ["amount", "text"]
    stored = pq.read_table(io.BytesIO(to_parquet(schema, rows))).to_pylist()
    for (written, words), row, amount in zip(lines[1:], stored, amounts, strict=True):
        assert Decimal(written) == row["amount"] == amount
        assert "e" not in written.lower()
        assert written != "-0"
        assert words == row["text"] == harmless(text)
        assert not words.lstrip().startswith(("=", "+", "-", "@"))


FORMULAS = [
    start + formula
    for start in ("", " ", "\t", "\r", "\n", "\u00a0", '"', "'", ",", ";")
    for formula in (
        "=1+1", "=HYPERLINK(1)", "=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(1)", "\t=1+1", "\r=1+1", "\n=1+1",
        "=1\n=2", '"=1+1', '=1+1","=1+1', "x\r=1+1", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20x", "%0A=1+1", "DDE(1)",
    )
]  # fmt: skip


def test_no_text_of_a_statement_is_a_formula() -> None:
    """Test 60: each of them as every text of every published table, read back as a spreadsheet would: no cell begins as
    a formula does, none ends up in another column or row, and Parquet says the same."""
    for schema in verify.SCHEMAS.values():
        texts = [field.name for field in schema if pa.types.is_string(field.type)]
        fields = [pa.field(name, pa.string()) for name in texts]
        rows = [dict.fromkeys(texts, formula) for formula in FORMULAS]
        found = list(csv.reader(io.StringIO(to_csv(pa.schema(fields), rows).decode(), newline="")))
        assert found[0] == texts
        stored = pq.read_table(io.BytesIO(to_parquet(pa.schema(fields), rows))).to_pylist()
        assert found[1:] == [[*row.values()] for row in stored]
        assert [[*row.values()] for row in stored] == [[harmless(formula)] * len(texts) for formula in FORMULAS]
        cells = {cell for row in found[1:] for cell in row}
        assert not [cell for cell in cells if cell.lstrip().startswith(tuple("=+-@\uff1d\uff0b\uff0d\uff20"))]


def test_m1_no_published_column_is_a_float() -> None:
    """M1: in no file that leaves."""
    for schema in verify.SCHEMAS.values():
        assert not [field.name for field in schema if pa.types.is_floating(field.type)]


def test_e7_the_published_schema_is_the_contract() -> None:
    """E7: FOCUS' columns by the alphabet, then ours; a column may be added, and nothing else."""
    for schema in focus.SCHEMAS.values():
        own = [name for name in schema.names if name.startswith("x_")]
        theirs = [name for name in schema.names if not name.startswith("x_")]
        assert schema.names == [*sorted(theirs), *sorted(own)]
    mandatory = {
        "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
        "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd",
        "ChargePeriodStart", "ContractedCost", "EffectiveCost", "HostProviderName", "InvoiceIssuerName", "ListCost",
        "PricingQuantity", "PricingUnit", "ServiceCategory", "ServiceName", "ServiceProviderName",
    }  # fmt: skip
    assert mandatory <= set(focus.COST_AND_USAGE.names)
    assert len(focus.BILLING_PERIOD.names) == 6
    metadata = json.loads(
        focus.metadata(issuer="Apiary", created_at=AS_OF, complete=False, start=AS_OF, end=AS_OF + timedelta(days=1))
    )
    assert [schema["FocusVersion"] for schema in metadata["Schema"]] == ["1.4"] * 3
    assert len(metadata["Schema"][0]["ColumnDefinition"]) == len(focus.COST_AND_USAGE.names)


# versions -------------------------------------------------------------------------------------------------------------


def test_e2_e8_e9_what_was_written_verifies(ledger: Ledger) -> None:
    """E2, E8, E9: totals, identities, words, half-open periods; and a day without usage has its empty file."""
    used(ledger)
    done = {item.statement: item for item in export_days(ledger.export(AS_OF))}
    month = export_month(ledger.export(AS_OF), JANUARY, "acct-acme")
    verified = verify.verify(ledger.exports)
    assert verified.faults == ()
    assert verified.statements == 4
    assert {day: item.rows for day, item in done.items()} == {"2025-01-03": 2, "2025-01-04": 0, "2025-01-05": 2}
    empty = statement(ledger, date(2025, 1, 4)) / "v0001"
    assert (empty / f"{COSTS}.csv").read_text().splitlines() == [",".join(focus.COST_AND_USAGE.names)]
    manifest = json.loads((month.folder / "manifest.json").read_text())
    assert "JPY" not in manifest["totals"], "another account's"
    assert manifest["totals"]["USD"]["Usage"]["BilledCost"] == "0.036657975"
    assert manifest["complete"] is False
    assert set(manifest["generated_from"]) >= {"as_of", "batch_set_sha256", "code_sha256", "price_book_sha256"}
    page = (month.folder / "summary.html").read_text()
    assert "acct-acme" in page
    assert not [word for word in ("http:", "https:", "<script", "src=") if word in page], "it needs nothing but itself"
    assert (month.folder / "focus_metadata.json").exists()


def test_the_summary_is_written_for_people() -> None:
    keyed, digest = "k1_" + "5" * 32, "0" * 64
    unpriced = {"model": keyed, "component": "cache_read", "quantity": 2247780, "low_exposure": Decimal("0.0000247788"),
                "high_exposure": None}  # fmt: skip
    about = {
        "billing_period": "2025-01", "billing_account_id": "a", "complete": False, "period_state": "open",
        "override": None, "checks": [{"name": "c", "passed": True, "found": "0.0, 0.0"}],
        "model_basis": {"USD": {"reported": {"tokens": "2247780", "BilledCost": "1234.567"}}},
        "generated_from": {"as_of": "2025-01-31", "books_sha256": {"seats": digest}},
    }  # fmt: skip
    page = summary.page(about, [], [], [unpriced]).decode()
    for cell in (
        f'<td title="{keyed}">{pseudonym(keyed)}</td><td>cache read</td><td class="n">2,247,780</td>'
        '<td class="n" title="0.0000247788">0.000025</td><td>unknown</td>',
        '<td class="n">2,247,780</td><td class="n" title="1234.567">1,234.57</td>',
        "<td>met</td><td>0</td>", f"<td>books_sha256 seats</td><td>{digest}</td>",
    ):  # fmt: skip
        assert cell in page


def test_m2_an_invoice_is_the_sum_of_its_rows_to_the_cent(ledger: Ledger) -> None:
    """M2: rounded once per invoice, in the currency's own minor unit; each line's share of the difference is a row."""
    used(ledger)
    payable = {}
    for account in ("acct-acme", "acct-bolt"):
        month = export_month(ledger.export(AS_OF), JANUARY, account)
        rows = rows_of(month.folder)
        invoices = pq.read_table(month.folder / "focus_invoice_detail.parquet", partitioning=None).to_pylist()
        for invoice in invoices:
            own = [row["BilledCost"] for row in rows if row["InvoiceDetailId"] == invoice["InvoiceDetailId"]]
            assert sum(own) == invoice["BilledCost"]
            unit = 1 if invoice["BillingCurrency"] == "JPY" else Decimal("0.01")
            assert abs(invoice["x_RoundingDelta"]) < unit
        roundings = [row for row in rows if row["x_ReasonCode"] == "rounding"]
        assert {row["ChargeCategory"] for row in roundings} == {"Adjustment"}
        payable[account] = [row["BilledCost"] for row in invoices]
    assert payable == {"acct-acme": [Decimal("0.03"), Decimal("0.01")], "acct-bolt": [Decimal("2.00")]}


def test_an_unchanged_day_is_not_written_again_and_a_changed_one_says_what_changed(ledger: Ledger) -> None:
    """E4: a version less the one before is its restatement, exactly, in the file and in the mart."""
    used(ledger)
    export_days(ledger.export(AS_OF))
    before = snapshot(ledger.exports)
    assert not any(item.is_new for item in export_days(ledger.export(AS_OF + timedelta(days=1))))
    ledger.tell([line("a", date(2025, 1, 3), 333_334, "0.075"), line("e", date(2025, 1, 3), 5, "1", session_id="s2")])
    ledger.build()
    written = [item for item in export_days(ledger.export(AS_OF)) if item.is_new]
    assert [item.folder.name for item in written] == ["v0002"]
    assert snapshot(ledger.exports).items() >= before.items()
    said = pq.read_table(written[0].folder / "restatement.parquet", partitioning=None).to_pylist()
    old, new = (
        {row["x_RowKey"]: row["BilledCost"] for row in rows_of(written[0].folder.with_name(name))}
        for name in ("v0001", "v0002")
    )
    changed = {key: (old.get(key), new.get(key)) for key in old.keys() | new.keys() if old.get(key) != new.get(key)}
    assert {row["row_key"]: (row["billed_cost_before"], row["billed_cost_after"]) for row in said} == changed
    ledger.build()
    mart = ledger.connection.execute(
        "select row_key, billed_cost_before, billed_cost_after from marts.rpt_restatement"
        " where export = 'focus_daily' and version = 2 and usage_date = date '2025-01-03'"
    ).fetchall()
    assert {key: amounts for key, *amounts in mart} == {key: [*amounts] for key, amounts in changed.items()}
    less = "select sum(billed_cost_change) from marts.rpt_restatement"
    assert ledger.connection.execute(less).fetchone() == (sum(new.values()) - sum(old.values()),)
    assert sorted((row["change"], row["cause"]) for row in said) == [("added", "late_usage"), ("changed", "quantity")]
    assert verify.verify(ledger.exports).faults == ()


def test_an_unchanged_day_is_not_read_again(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    export_days(used(ledger).export(AS_OF))
    read: list[object] = []
    rows = exports._rows
    monkeypatch.setattr(exports, "_rows", lambda *given: read.append(given[-1]) or rows(*given))

    def read_again() -> list[object]:
        read.clear()
        export_days(ledger.export(AS_OF))
        return [day for _, day in read]

    assert read_again() == []
    update = "UPDATE marts.export_focus_daily SET {} WHERE usage_date = DATE '2025-01-05'"
    for change in ('"BilledCost" = "BilledCost" + 0.000000000000001', "\"x_QueenId\" = 'q'", "\"x_QueenId\" = 'NULL'"):
        ledger.connection.execute(update.format(change))
        assert read_again() == [date(2025, 1, 5)], change
        assert read_again() == []
    unpriced = "UPDATE marts.fct_rated_lines SET billed_cost = NULL WHERE usage_date = DATE '2025-01-03'"
    ledger.connection.execute(unpriced)
    assert read_again() == [date(2025, 1, 3)]
    monkeypatch.setattr(exports, "code_sha256", lambda: "of another release")
    assert read_again() == [date(2025, 1, day) for day in (3, 4, 5)]
    last = statement(ledger, date(2025, 1, 4)) / "v0001" / "manifest.json"
    last.write_bytes(last.read_bytes() + b"\n")  # as an erasure writes it anew
    assert read_again() == [date(2025, 1, 4)]


def test_a_day_that_lost_its_usage_says_so(ledger: Ledger) -> None:
    used(ledger)
    export_days(ledger.export(AS_OF))
    ledger.forget("a", "b")
    ledger.build()
    written = [item for item in export_days(ledger.export(AS_OF)) if item.is_new]
    assert [(item.statement, item.folder.name, item.rows) for item in written] == [("2025-01-03", "v0002", 0)]


def test_e4_a_restated_month_needs_somebody_who_has_seen_it(ledger: Ledger) -> None:
    """E4: what a closing month would change is shown before it is taken."""
    used(ledger)
    late = datetime(2025, 2, 10, tzinfo=UTC)
    ledger.tick(late)
    book = periods.read(files.book_path(ledger.books))
    step = periods.start_closing(
        book, JANUARY, actor="ada", reason="x", as_of=late, watermark_at=late, accounts=["acct-acme"]
    )
    periods.write(files.book_path(ledger.books), step)
    first = export_month(ledger.export(late), JANUARY, "acct-acme")
    ledger.tell([line("e", date(2025, 1, 9), 1_000_000, "2")])
    ledger.build()
    with pytest.raises(RestatementError, match=r"1 row|\d+ rows, billed cost by 2; see") as refused:
        export_month(ledger.export(late), JANUARY, "acct-acme")
    assert list(first.folder.parent.iterdir()) == [first.folder], "nothing was written"
    seen = str(refused.value).rpartition(" ")[2]
    with pytest.raises(RestatementError):
        export_month(ledger.export(late), JANUARY, "acct-acme", accepted=Acceptance("0" * 12, "ada", "looked at it"))
    with pytest.raises(RestatementError, match="a name and a reason"):
        export_month(ledger.export(late), JANUARY, "acct-acme", accepted=Acceptance(seen, "ada", " "))
    second = export_month(ledger.export(late), JANUARY, "acct-acme", accepted=Acceptance(seen, "ada", "looked at it"))
    manifest = json.loads((second.folder / "manifest.json").read_text())
    assert manifest["restatement"]["accepted_by"] == "ada"
    assert manifest["supersedes"] == "v0001"


# the gate -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("checks", [[FAILED], [MET, FAILED], []])
def test_no_file_while_a_blocking_check_fails(ledger: Ledger, checks: list[Check]) -> None:
    used(ledger)
    for write in (export_days, lambda export: export_month(export, JANUARY, "acct-acme")):
        with pytest.raises(GateError):
            write(ledger.export(AS_OF, checks=checks))
    assert not ledger.exports.exists()


def test_an_override_has_a_name_and_a_reason_and_is_printed(ledger: Ledger) -> None:
    used(ledger)
    for actor, reason in (("", "x"), ("ada", " ")):
        with pytest.raises(UsageError, match="a name and a reason"):
            Override(actor, reason)
    signed = Override("ada", "the auditor waits")
    month = export_month(ledger.export(AS_OF, checks=[MET, FAILED], override=signed), JANUARY, "acct-acme")
    manifest = json.loads((month.folder / "manifest.json").read_text())
    assert manifest["override"] == {"actor": "ada", "reason": "the auditor waits", "checks": [FAILED.name]}
    assert "the auditor waits" in (month.folder / "summary.html").read_text()


def test_a_warning_stops_nothing() -> None:
    gate.admit([Check("x", is_blocking=False, passed=False, found="1")], None)


# bytes ----------------------------------------------------------------------------------------------------------------


def test_e1_same_inputs_same_bytes(new_ledger: Callable[[], Ledger], monkeypatch: pytest.MonkeyPatch) -> None:
    """E1: in another zone, another locale, with another number of threads and the rows in another order."""
    versions = []
    for zone, language, threads in (("UTC", "C", 1), ("Pacific/Chatham", "C.UTF-8", 4)):
        monkeypatch.setenv("TZ", zone)
        monkeypatch.setenv("LC_ALL", language)
        time.tzset()
        locale.setlocale(locale.LC_ALL, language)
        ledger = used(new_ledger())
        ledger.connection.execute(f"set threads = {threads}; set TimeZone = '{zone}'")
        if threads > 1:
            ledger.lines = dict(reversed(ledger.lines.items()))
            ledger.tell([])
        ledger.close(JANUARY)
        now = datetime(2025, 2, 20, tzinfo=UTC)
        export_days(ledger.export(now))
        export_month(ledger.export(now), JANUARY, "acct-acme")
        versions.append(snapshot(ledger.exports) | snapshot(ledger.books))
    monkeypatch.undo()
    time.tzset()
    locale.setlocale(locale.LC_ALL, "")
    assert versions[0].keys() == versions[1].keys()
    assert [name for name in versions[0] if versions[0][name] != versions[1][name]] == []


class Killed(BaseException):
    pass


def test_e3_a_kill_at_any_point_leaves_a_whole_statement_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """E3: no manifest, or a whole one."""
    schema = pa.schema([("amount", focus.AMOUNT)])
    place = tmp_path / "daily" / "billing_period=2025-01" / "usage_date=2025-01-03"

    def write(amount: int) -> Path:
        statements = StatementStore.open(tmp_path)
        data = [Dataset("amounts", schema, [{"amount": Decimal(amount)}])]
        return statements.write(place, data, {"export": "test"}, {"page.html": b"<p>"}).folder

    first = write(1)
    finished = snapshot(tmp_path)
    for fatal in itertools.count(1):
        passed = 0

        def die(_: str, fatal: int = fatal) -> None:
            nonlocal passed
            passed += 1
            if passed == fatal:
                raise Killed

        monkeypatch.setattr(failpoints, "hook", die)
        try:
            write(2)
        except Killed:
            pass
        else:
            break
        finally:
            monkeypatch.setattr(failpoints, "hook", None)
        assert snapshot(tmp_path).items() >= finished.items()
        whole = [path for path in place.glob("v*") if path != first]
        for path in whole:
            manifest = json.loads((path / "manifest.json").read_text())
            assert {file["name"] for file in manifest["files"]} < {item.name for item in path.iterdir()}
        if whole:
            assert fatal > 8, "only after the move"
            break
    assert fatal >= 9
    assert write(3).name in ("v0002", "v0003")
    assert [f for f in verify.verify(tmp_path).faults if "chain" in f.what] == []


def test_e10_verify_names_the_file_of_one_changed_byte(ledger: Ledger) -> None:
    """E10: in any file, at its beginning, its middle and its end."""
    used(ledger)
    export_days(ledger.export(AS_OF))
    month = export_month(ledger.export(AS_OF), JANUARY, "acct-acme").folder
    paths = [path for path in sorted(ledger.exports.rglob("*")) if path.is_file()]
    assert len(paths) > 20
    for path in paths:
        data = path.read_bytes()
        for position in {0, len(data) // 2, len(data) - 1}:
            path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
            faults = verify.verify(path.parent).faults
            assert path in {fault.path for fault in faults}, (path, position)
        path.write_bytes(data)
    assert verify.verify(ledger.exports).faults == ()
    (month / "extra.csv").write_text("x")
    assert verify.verify(month).faults == (verify.Fault(month / "extra.csv", "is in no manifest"),)
    (month / "extra.csv").unlink()
    (month / "summary.html").unlink()
    assert [fault.path.name for fault in verify.verify(month).faults] == ["summary.html"]


def test_e10_the_chain_shows_a_statement_that_was_taken_away_or_forged(ledger: Ledger) -> None:
    """E10: also a manifest that fits its own files."""
    used(ledger)
    export_days(ledger.export(AS_OF))
    export_month(ledger.export(AS_OF), JANUARY, "acct-acme")
    folder = statement(ledger, date(2025, 1, 4)) / "v0001"
    manifest = folder / "manifest.json"
    data = manifest.read_text()
    manifest.write_bytes(manifest_bytes(json.loads(data) | {"period_state": "closed"}))
    assert any("does not continue the chain" in fault.what for fault in verify.verify(ledger.exports).faults)
    manifest.write_text(data)
    os.rename(folder, ledger.folder / "away")  # noqa: PTH104
    assert any("is missing" in fault.what for fault in verify.verify(ledger.exports).faults)
    with pytest.raises(UsageError, match="holds no statement"):
        verify.verify(ledger.folder / "billing")


def test_e5_e6_keys_are_unique_and_every_line_is_in_a_row(ledger: Ledger) -> None:
    """E5, E6: no row without lines, no line without a row."""
    used(ledger)
    keys = [key for (key,) in ledger.connection.execute('select "x_RowKey" from marts.export_focus_daily').fetchall()]
    assert len(keys) == len(set(keys))
    in_lines = {key for (key,) in ledger.booked("distinct row_key")}
    assert in_lines == set(keys), "no row without lines, no line without a row"


def test_q1_a_tenants_rows_are_its_own(ledger: Ledger) -> None:
    """Q1: every row names one tenant, and its account's invoice holds rows of no other."""
    used(ledger)
    export_days(ledger.export(AS_OF))
    rows = [row for day in (3, 5) for row in rows_of(statement(ledger, date(2025, 1, day)) / "v0001")]
    owners = {(row["InvoiceId"], row["x_TenantId"]) for row in rows}
    assert len({invoice for invoice, _ in owners}) == len(owners) == 2
