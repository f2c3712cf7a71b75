"""The rules of closing, signing and verifying by themselves: no warehouse is needed, each mutant of them is found."""

import hashlib
import io
import json
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.billing import attestation, books, closing, exports, focus, gate, ledger, periods, prove, verify
from pipelines.billing.attestation import AttestationError
from pipelines.billing.closing import Payable, Readiness, SignatureError
from pipelines.billing.gate import Check, GateError, Override
from pipelines.billing.periods import Book, BookError, Condition, PeriodError, Transition
from pipelines.billing.statements import Dataset, StatementStore, Version, cell, harmless, manifest_bytes
from tests.billing.ledgers import MET

OCTOBER, NOVEMBER = date(2026, 10, 1), date(2026, 11, 1)
AT = datetime(2026, 11, 5, tzinfo=UTC)
SIGNED: dict[str, Any] = {"actor": "ada", "reason": "month end"}


def book_of(folder: Path, *lines: Transition) -> Book:
    path = ledger.book_path(folder)
    for line in lines:
        periods.write(path, line)
    return periods.read(path)


def step(before: Any, after: Any, period: date = OCTOBER, **more: Any) -> Transition:
    return Transition(period, before, after, **{**SIGNED, "as_of": AT} | more)


# the book -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (step("open", "closing", actor=" "), "a name and a reason"),
        (step("open", "closing", reason=""), "a name and a reason"),
        (step("open", "closing", as_of=AT.replace(tzinfo=None)), "needs a zone"),
        (step("open", "closing", OCTOBER + timedelta(days=1)), "first day"),
        (step("open", "closed"), "cannot become closed"),
        (step("closing", "closed"), "cannot become closed"),
        (step("open", "closing", accounts=()), "nobody's month"),
    ],
)
def test_a_line_that_breaks_a_rule_is_not_written(tmp_path: Path, line: Transition, message: str) -> None:
    with pytest.raises(PeriodError, match=message):
        periods.write(ledger.book_path(tmp_path), line)
    assert not ledger.book_path(tmp_path).exists()


def test_time_does_not_go_back(tmp_path: Path) -> None:
    book_of(tmp_path, step("open", "closing"))
    with pytest.raises(PeriodError, match="cannot go back"):
        book_of(tmp_path, step("closing", "closed", as_of=AT - timedelta(seconds=1)))


def test_each_account_has_its_own_months(tmp_path: Path) -> None:
    book = book_of(
        tmp_path, step("open", "closing", accounts=("a", "b")),
        step("closing", "closed", accounts=("a",), seal="s1"), step("open", "closing", NOVEMBER, accounts=("a",)),
        step("closing", "closed", NOVEMBER, accounts=("a",), seal="s2"),
        step("closed", "open", accounts=("a",), requested_by="them"),
    )  # fmt: skip
    assert [book.status(OCTOBER, name) for name in ("a", "b", "c", None)] == ["open", "closing", "open", "open"]
    assert [book.closed_through(name) for name in ("a", "b")] == [NOVEMBER, None]
    assert [book.oldest_open(name) for name in ("a", "b")] == [OCTOBER, None]
    assert book.status(date(2026, 9, 1), "a") == "closed", "months before a closed one are closed with it"
    assert book.seals_of(OCTOBER, "a") == ["s1"]
    assert book.seals_of(OCTOBER, "b") == []
    assert book.accounts == {"a", "b"}
    with pytest.raises(PeriodError, match="closing for account b"):
        book_of(tmp_path, step("open", "closing"))  # of all: it is not true of each


def test_a_book_that_was_changed_is_not_read(tmp_path: Path) -> None:
    book_of(tmp_path, step("open", "closing"), step("closing", "closed", seal="s"))
    path = ledger.book_path(tmp_path)
    lines = path.read_bytes().splitlines(keepends=True)
    changes: list[Callable[[], bytes]] = [
        lambda: lines[1], lambda: lines[1] + lines[0], lambda: lines[0].replace(b"ada", b"eve") + lines[1],
        lambda: b"".join(lines)[:-9], lambda: b"null\n",
    ]  # fmt: skip
    for change in changes:
        path.write_bytes(change())
        with pytest.raises(BookError, match="was changed"):
            periods.read(path)
    path.write_bytes(lines[0])
    assert periods.read(path).head_after(1) == periods.read(path).head != periods.FIRST_HASH


def test_closing_begins_after_the_end_and_in_order(tmp_path: Path) -> None:
    given = {**SIGNED, "watermark_at": AT, "accounts": ["a"]}
    with pytest.raises(PeriodError, match="the month ends at"):
        periods.start_closing(Book(), OCTOBER, as_of=datetime(2026, 10, 31, 23, 59, tzinfo=UTC), **given)
    begun = periods.start_closing(Book(), OCTOBER, as_of=datetime(2026, 11, 1, tzinfo=UTC), **given)
    assert begun.grace_until == AT + timedelta(hours=72)
    idle = given | {"watermark_at": datetime(2026, 10, 3, tzinfo=UTC)}
    late = periods.start_closing(Book(), OCTOBER, as_of=AT, **idle)
    assert late.grace_until == datetime(2026, 11, 4, tzinfo=UTC), "an idle fleet: grace counts from the month's end"
    book = book_of(
        tmp_path, step("open", "closing", accounts=("a",)), step("closing", "closed", accounts=("a",), seal="s")
    )
    with pytest.raises(PeriodError, match="2026-11 comes before 2026-12 for account a"):
        periods.start_closing(book, date(2026, 12, 1), as_of=datetime(2027, 1, 5, tzinfo=UTC), **given)


def test_grace_is_over_by_both_clocks() -> None:
    waiting = step("open", "closing", grace_until=AT)
    early, late = AT - timedelta(seconds=1), AT + timedelta(days=9)
    for as_of, known, is_met in ((late, late, True), (AT, AT, True), (early, late, False), (late, early, False)):
        assert periods.grace_over(waiting, as_of=as_of, watermark_at=known).is_met == is_met


def test_a_waiver_needs_a_reason_and_a_condition_that_can_be_waived() -> None:
    conditions = [Condition("a", False, "x", can_be_waived=True), Condition("b", False, "x"), Condition("c", True, "x")]
    for waived, left in (({}, "ab"), ({"a": " "}, "ab"), ({"a": "why"}, "b"), ({"a": "why", "b": "why"}, "b")):
        assert "".join(c.name for c in periods.unmet_conditions(conditions, waived)) == left


# signing --------------------------------------------------------------------------------------------------------------


def ready(account: str = "a", payable: str = "1.00", billed: str = "1.001") -> Readiness:
    totals = {"USD": {"Usage": {"rows": "1", "BilledCost": billed}}}
    return Readiness(account, "closing", (), totals, (Payable("INV", "USD", Decimal(billed), Decimal(payable)),))


def test_a_signature_is_of_all_that_is_shown() -> None:
    one = closing.signature([ready("a"), ready("b")])
    assert one == closing.signature([ready("b"), ready("a")])
    others = [
        [ready("a")],
        [ready("a"), ready("c")],
        [ready("a", "1.01"), ready("b")],
        [ready("a", "1.00", "1.002"), ready("b")],
    ]
    assert one not in {closing.signature(other) for other in others}


def test_an_empty_or_short_signature_signs_nothing() -> None:
    digest = "0123456789abcdef" * 4
    for signed in ("", digest[:1], digest[:11], digest[1:13], "f" * 12, digest + "0"):
        with pytest.raises(SignatureError, match="--sign 0123456789ab"):
            closing.require_signed(OCTOBER, digest, signed)
    closing.require_signed(OCTOBER, digest, digest[:12])


def test_the_gate_stops_whom_it_is_about() -> None:
    mine = Check("x", is_blocking=True, passed=False, found="1", accounts=("a",))
    everybodys = Check("y", is_blocking=True, passed=False, found="2")
    warning = Check("z", is_blocking=False, passed=False, found="3")
    for checks, account, is_stopped in (
        ([], None, True), ([MET], None, False), ([MET, warning], "a", False), ([mine], "a", True),
        ([mine], "b", False), ([mine], None, False), ([everybodys], "b", True), ([everybodys], None, True),
    ):  # fmt: skip
        if is_stopped:
            with pytest.raises(GateError):
                gate.admit(checks, None, account)
        else:
            gate.admit(checks, None, account)
    gate.admit([everybodys], Override("ada", "agreed"), None)
    assert gate.held_back([MET, mine, everybodys, warning]) == ("a",)
    for actor, reason in (("", "x"), ("x", " ")):
        with pytest.raises(books.UsageError):
            Override(actor, reason)


# money ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("exact", "unit", "expected"),
    [
        ({"a": "0.004", "b": "0.004"}, "0.01", {"a": "0.01", "b": "0"}),
        ({"a": "1.541546487", "b": "1.541546487", "c": "-3.083092974"}, "0.01",
         {"a": "1.54", "b": "1.54", "c": "-3.08"}),
        ({"a": "-0.005"}, "0.01", {"a": "-0.01"}),
        ({"a": "0.5", "b": "0.6", "c": "0.6"}, "1", {"a": "0", "b": "1", "c": "1"}),
    ],
)  # fmt: skip
def test_an_invoice_is_spread_by_largest_remainder(exact: dict[str, str], unit: str, expected: dict[str, str]) -> None:
    found = prove.spread({name: Decimal(text) for name, text in exact.items()}, Decimal(unit))
    assert found == {name: Decimal(text) for name, text in expected.items()}


def test_payable_amounts_are_by_invoice_and_exact() -> None:
    line = {"InvoiceId": "I", "BillingCurrency": "USD", "x_ExactCost": Decimal("0.1"), "BilledCost": Decimal("0.10")}
    other = line | {"InvoiceId": "J", "x_ExactCost": Decimal(7), "BilledCost": Decimal("7.00")}
    assert exports.payable([line, line, other]) == {
        "I": {"currency": "USD", "exact": "0.2", "payable": "0.2"},
        "J": {"currency": "USD", "exact": "7", "payable": "7"},
    }


@pytest.mark.parametrize(
    ("account", "name"), [("acct-1", "acct-1"), ("a/b", "a%2Fb"), ("..", "%2E."), (".x", "%2Ex"), ("a b", "a%20b")]
)
def test_an_account_is_one_folder(account: str, name: str) -> None:
    assert exports.folder_name(account) == name


def test_what_changed_has_its_cause() -> None:
    row = dict.fromkeys(focus.COST_AND_USAGE.names) | {"x_ReasonCode": None, "PricingQuantity": Decimal(1)}
    usage, true_up = row | {"ChargeCategory": "Usage"}, row | {"ChargeCategory": "Adjustment"}
    cause = exports._cause
    assert cause(None, usage) == "late_usage"
    assert cause(usage, None) == "withdrawn"
    assert cause(usage, usage | {"PricingQuantity": Decimal(2)}) == "quantity"
    assert cause(usage, usage | {"ListUnitPrice": Decimal(2)}) == "price"
    assert cause(true_up, true_up | {"BilledCost": Decimal(2)}) == "commitment", "no price was changed"
    assert cause(usage, usage | {"x_ReasonCode": "reversal:price"}) == "reversal:price"


# verifying ------------------------------------------------------------------------------------------------------------


def cost_row(**more: Any) -> dict[str, Any]:
    start = datetime(2026, 10, 3, tzinfo=UTC)
    amounts = dict.fromkeys(("BilledCost", "ListCost", "ContractedCost", "EffectiveCost"), Decimal(6))
    prices = dict.fromkeys(("ListUnitPrice", "ContractedUnitPrice"), Decimal(3))
    row = dict.fromkeys(focus.COST_AND_USAGE.names) | amounts | prices | {
        "PricingQuantity": Decimal(2), "ChargeCategory": "Usage", "ChargePeriodStart": start, "ChargePeriodEnd": AT,
        "BillingPeriodStart": datetime(2026, 10, 1, tzinfo=UTC), "BillingPeriodEnd": datetime(2026, 11, 1, tzinfo=UTC),
        "x_IncurredPeriod": "2026-10",
    } | more  # fmt: skip
    return row | {"x_RowHash": exports.row_sha256(row)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ListCost": Decimal(7)}, "ListCost is not"),
        ({"ContractedCost": Decimal(7)}, "ContractedCost is not"),
        ({"ChargeCategory": "Use"}, "ChargeCategory is"),
        ({"ChargeClass": "x"}, "ChargeClass is"),
        ({"ChargePeriodEnd": datetime(2026, 10, 3, tzinfo=UTC)}, "ends before it begins"),
        ({"ChargePeriodStart": datetime(2026, 9, 30, tzinfo=UTC)}, "outside its billing period"),
        ({"ChargeClass": "Correction", "x_IncurredPeriod": "2026-11"}, "a correction of a later month"),
        ({"BilledCost": Decimal(-1)}, "usage with a negative cost"),
    ],
)
def test_each_rule_of_a_row_is_looked_at(change: dict[str, Any], message: str) -> None:
    assert list(verify.row_faults(cost_row())) == []
    assert any(message in fault for fault in verify.row_faults(cost_row(**change)))


def test_a_rows_hash_is_compared() -> None:
    row = cost_row()
    assert list(verify.row_faults(row | {"SubAccountName": "eve"})) == ["x_RowHash is not the hash of its other cells"]
    assert list(verify.row_faults(row | {"x_RowHash": "0" * 64})) == ["x_RowHash is not the hash of its other cells"]


def test_payables_are_compared_with_the_sum_and_the_manifest() -> None:
    line = {"InvoiceId": "I", "InvoiceDetailId": "I/1", "BillingCurrency": "USD", "x_ExactCost": Decimal("1.005"),
            "BilledCost": Decimal("1.01"), "x_RoundingDelta": Decimal("0.005")}  # fmt: skip
    said = exports.payable([line])

    def faults(lines: list[dict[str, Any]], payable: Any) -> list[str]:
        version = Version(Path("v0001"), {"payable": payable, "rounding": "per_invoice"}, "0")
        return [fault.what for fault in verify._payable_faults(version, Path("x"), lines)]

    assert faults([line], said) == []
    low = line | {"BilledCost": Decimal("1.00"), "x_RoundingDelta": Decimal("-0.005")}
    assert faults([low], exports.payable([low])) == ["I is not its exact amount, rounded once"]
    assert faults([line], {}) == ["has not the payable amounts of the manifest"]
    off, none = Decimal("0.01"), Decimal(0)
    far = [line | {"BilledCost": Decimal("1.02"), "x_RoundingDelta": Decimal("0.015")},
           line | {"x_ExactCost": none, "BilledCost": -off, "x_RoundingDelta": -off}]  # fmt: skip
    assert faults(far, exports.payable(far)) == ["I has a line that is off by a whole minor unit"]


def test_text_and_numbers_of_a_file() -> None:
    for text in ("=1", "+1", "-1", "@x", " =1", "\t=1", "\uff1d1"):
        assert harmless(text).startswith("'")
    assert harmless("a\rb") == "a b"
    assert [cell(value) for value in (None, Decimal("6E-9"), Decimal("-0"), AT, date(2026, 1, 2), 7)] == [
        "", "0.000000006", "0", "2026-11-05T00:00:00Z", "2026-01-02", "7",
    ]  # fmt: skip
    said = {"b": 1, "a": [2]}
    assert manifest_bytes(json.loads(manifest_bytes(said))) == manifest_bytes(said)
    assert (
        json.loads(manifest_bytes(said))["content_sha256"]
        != json.loads(manifest_bytes(said | {"b": 2}))["content_sha256"]
    )


# the links of a proof -------------------------------------------------------------------------------------------------


class Objects:
    """A store of some objects."""

    def __init__(self, **objects: bytes) -> None:
        self.objects = objects

    def get(self, key: str) -> bytes:
        return self.objects[key]


def broken(connection: duckdb.DuckDBPyConnection, line: dict[str, Any], **objects: bytes) -> list[str]:
    """The links from a usage line to the object of its turn that do not hold."""
    proof = prove.Proof()
    prove._prove_turn(proof, connection, line, Objects(**objects))
    assert proof.links
    return [text for text, holds in proof.links if not holds]


def test_the_object_of_a_turn_is_read_again() -> None:
    def sealed_rows(tokens: int, record: str = "r") -> bytes:
        sink = io.BytesIO()
        row = {"record_id": record, "input_tokens": tokens, "output_tokens": 7}
        pq.write_table(pa.Table.from_pylist([row]), sink)
        return sink.getvalue()

    data = sealed_rows(100)
    line: dict[str, Any] = {"tenant_id": "t", "record_id": "r", "component": "output", "line_kind": "original",
                            "consumed_quantity": Decimal(7), "cause": None}  # fmt: skip
    with duckdb.connect() as connection:
        connection.execute(
            f"""
            CREATE SCHEMA marts; CREATE SCHEMA wire;
            CREATE TABLE marts.fct_llm_turns AS SELECT 't' AS tenant_id, 'r' AS turn_id, 100 AS input_tokens,
                7 AS output_tokens, 0 AS cache_read_input_tokens, 0 AS cache_write_input_tokens,
                NULL AS cache_write_5m_input_tokens, NULL AS cache_write_1h_input_tokens, now() AS occurred_at;
            CREATE TABLE wire.llm_turns AS SELECT 't' AS tenant_id, 'r' AS record_id, 100 AS input_tokens,
                7 AS output_tokens, 'm' AS _manifest_key;
            CREATE TABLE wire.node_steps AS FROM wire.llm_turns LIMIT 0;
            CREATE TABLE wire.batch_objects AS SELECT 'm' AS manifest_key, 'llm_turns' AS table_name,
                'o' AS object_key, '{hashlib.sha256(data).hexdigest()}' AS sha256;
            """
        )
        assert broken(connection, line, o=data) == []
        assert broken(connection, line) == ["object o is not in the store"]
        assert len(broken(connection, line, o=data + b" ")) == 1
        assert "turn r at" in broken(connection, line | {"consumed_quantity": Decimal(8)}, o=data)[0]
        for other in (sealed_rows(101), sealed_rows(100, "another")):  # as if its hash had been written anew
            connection.execute("UPDATE wire.batch_objects SET sha256 = ?", [hashlib.sha256(other).hexdigest()])
            assert broken(connection, line, o=other) == ["record r is in it, with the same tokens"]
        connection.execute("DELETE FROM wire.batch_objects")
        assert broken(connection, line, o=data) == ["batch m: 0 objects of llm_turns"]
        connection.execute("DELETE FROM marts.fct_llm_turns")
        assert broken(connection, line, o=data) == ["turn r: not counted any more"]
        assert broken(connection, line | {"line_kind": "reversal"}, o=data) == []


def test_a_reversal_is_what_was_billed_with_other_signs() -> None:
    line: dict[str, Any] = {"tenant_id": "t", "line_id": "l", "billing_account_id": "a", "seal_seq": None,
                            "original_period": None, "cause": "price"}  # fmt: skip
    amounts = dict.fromkeys(
        ("billed_cost", "list_cost", "contracted_cost", "pricing_quantity", "consumed_quantity"), Decimal(3)
    )

    def holds(**change: Decimal) -> bool:
        proof = prove.Proof()
        prove._prove_reversal(proof, connection, line | {name: -value for name, value in amounts.items()} | change)
        return proof.is_whole

    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA statements")
        values = ", ".join(f"{value} AS {name}" for name, value in amounts.items())
        connection.execute(
            "CREATE TABLE statements.int_billing__booked_lines AS SELECT 't' AS tenant_id, 'l' AS line_id,"
            f" 'a' AS billing_account_id, 'original' AS line_kind, 1::BIGINT AS seal_seq, {values}"
        )
        assert holds()
        assert not any(holds(**{name: Decimal(-2)}) for name in amounts)
        connection.execute("UPDATE statements.int_billing__booked_lines SET seal_seq = NULL")
        assert not holds(), "what was never sealed was never billed"


# sealing and signing files --------------------------------------------------------------------------------------------


def sealed(folder: Path, *names: str) -> str:
    rows = [
        dict.fromkeys(ledger.LINES.names) | {"tenant_id": "t", "line_id": name, "line_kind": "late"} for name in names
    ]
    return ledger.seal(folder, pa.Table.from_pylist(rows, schema=ledger.LINES))


def test_a_seal_is_its_content_in_any_order(tmp_path: Path) -> None:
    digest = sealed(tmp_path, "a", "b")
    assert digest == sealed(tmp_path, "b", "a") != sealed(tmp_path, "a")
    assert [row["line_id"] for row in ledger.sealed(tmp_path, digest).to_pylist()] == ["a", "b"]
    path = tmp_path / "closed" / f"{digest}.parquet"
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ledger.SealError, match="was changed"):
        ledger.sealed(tmp_path, digest)
    path.unlink()
    with pytest.raises(ledger.SealError, match="is missing"):
        ledger.sealed(tmp_path, digest)


@pytest.fixture
def statements(tmp_path: Path) -> Path:
    """Three statements of which one has two versions, a book with a seal, and the head that names them."""
    written = StatementStore.open(tmp_path / "exports")
    schema = pa.schema([("amount", focus.AMOUNT)])
    for number, name in enumerate(("usage_date=2026-10-01", "usage_date=2026-10-02", "usage_date=2026-10-01")):
        data = [Dataset("amounts", schema, [{"amount": Decimal(number)}])]
        written.write(tmp_path / "exports" / "daily" / name, data, {"export": "test", "attested": True}, {})
    digest = sealed(tmp_path / "billing", "a")
    book_of(tmp_path / "billing", step("open", "closing"), step("closing", "closed", seal=digest))
    attestation.attest(tmp_path / "exports", tmp_path / "billing", as_of=AT)
    return tmp_path


def head_faults(root: Path, **more: Any) -> list[str]:
    newest = list(StatementStore.open(root / "exports").newest.values())
    faults = verify._head_faults(
        root / "exports", newest, more.get("books", root / "billing"), more.get("anchor"), more.get("public_key")
    )
    return [fault.what for fault in faults]


def test_the_head_names_the_last_of_everything(statements: Path) -> None:
    assert head_faults(statements) == []
    head = json.loads((statements / "exports" / "head.json").read_bytes())
    assert {name: said["version"] for name, said in head["statements"].items()} == {
        "daily/usage_date=2026-10-01": 2,
        "daily/usage_date=2026-10-02": 1,
    }
    assert (head["sequence"], head["periods"]["lines"], len(head["seals"])) == (3, 2, 1)


def test_a_head_that_was_edited_or_signed_by_another_is_found(statements: Path) -> None:
    path = statements / "exports" / "head.json"
    data = path.read_bytes()
    said = json.loads(data)
    for change in (
        {"sequence": 2},
        {"statements": {}},
        {"periods": {}},
        {"signature": "00" * 64},
        {"public_key": "00"},
    ):
        path.write_bytes((json.dumps(said | change, indent=1, sort_keys=True) + "\n").encode())
        assert head_faults(statements) == ["was changed, or signed with another key"], change
    path.write_bytes(data + b"\n")
    assert head_faults(statements) == ["was changed, or signed with another key"]
    path.write_bytes(data)
    assert head_faults(statements, public_key="ab" * 32) == ["was changed, or signed with another key"]
    assert head_faults(statements, public_key=attestation.public_key(statements / "billing")) == []
    path.unlink()
    assert head_faults(statements) == ["is missing: the last versions are named nowhere"]


def test_what_a_head_names_and_what_is_there_are_the_same(statements: Path) -> None:
    book = ledger.book_path(statements / "billing")
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(lines[0])
    assert "is not the book that was signed" in head_faults(statements)
    book.write_bytes(b"".join(lines))
    (seal,) = (statements / "billing" / "closed").iterdir()
    seal.write_bytes(seal.read_bytes()[:-1])
    assert head_faults(statements) == ["is missing or was changed"]
    (statements / "billing" / "closed" / "erased.json").write_text('{"x": "y"}')
    assert len(head_faults(statements)) == 1, "a name of nothing that the book knows"


def test_nothing_is_signed_over_a_loss(statements: Path) -> None:
    before = (statements / "exports" / "head.json").read_bytes()
    assert (
        attestation.attest(statements / "exports", statements / "billing", as_of=AT + timedelta(days=1)).data == before
    )
    manifest = statements / "exports" / "daily" / "usage_date=2026-10-01" / "v0002" / "manifest.json"
    data = manifest.read_bytes()
    for change in (data.replace(b'"test"', b'"best"'), b""):
        manifest.write_bytes(change or data)
        if not change:
            manifest.unlink()
        with pytest.raises(AttestationError, match="is not what was signed"):
            attestation.attest(statements / "exports", statements / "billing", as_of=AT)
    manifest.write_bytes(data)
    book = ledger.book_path(statements / "billing")
    lines = book.read_bytes().splitlines(keepends=True)
    book.write_bytes(lines[0])
    with pytest.raises(AttestationError, match="the book of periods is not what was signed"):
        attestation.attest(statements / "exports", statements / "billing", as_of=AT)
    assert (statements / "exports" / "head.json").read_bytes() == before
