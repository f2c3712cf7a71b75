"""`make mutants`: the protocol broken on purpose, one way at a time; each must be found by the tests that are named.

A mutant is an exact text of the package and what stands there instead. It is applied to a copy of the repository; a
text that is no longer there once is an error, not a find. Does not belong here: the tests themselves.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
REPORT = REPOSITORY / "bench" / "reports" / "mutants.md"
FAILED, PASSED = 1, 0  # exit codes of pytest; any other is no answer

MACHINE = "tests/torture/test_machine.py::test_any_order_of_steps_and_deaths_comes_to_the_truth"
EVERY_POINT = "tests/torture/test_protocol.py::test_dying_once_at_every_point_loses_and_doubles_nothing"
POWER = "tests/torture/test_power_loss.py::test_no_committed_batch_is_lost_with_the_power[20]"
LINES, SHIP, SPOOL = "tests/device/test_lines.py", "tests/device/test_ship.py", "tests/device/test_spool.py"
CONSENT, COLLECT = "tests/device/test_consent.py", "tests/device/test_collect.py"
LANDING, LOAD = "tests/warehouse_part/test_landing.py", "tests/warehouse_part/test_load.py"
FOLDERS = ("pipelines", "bench", "tests", "dbt_project", "models", "expectations", "policies", "docs")


@dataclass(frozen=True)
class Mutant:
    """One way to be wrong, and who must notice."""

    name: str
    file: str
    old: str
    new: str
    found_by: str


PROTOCOL = (
    Mutant(
        "checkpoint committed before the rows", "device/collect.py",
        "                with self._state.step():\n                    for line in chunk.lines:\n",
        "                with self._state.step():\n                    self._state.set_checkpoint(source, chunk.checkpoint)\n"
        "                with self._state.step():\n                    for line in chunk.lines:\n",
        EVERY_POINT,
    ),
    Mutant(
        "unparsable lines skipped", "device/lines.py", "        return _salvage(data, is_record)\n",
        "        return Parsed([])\n", MACHINE,
    ),
    Mutant(
        "identity by position", "device/readers/hive/logs.py", "        return (Constant(kind), span)\n",
        "        return (kind, span, place.number)\n", "tests/device/test_hive_logs.py::test_a_span_is_the_identity_whatever_the_folder_and_the_line",
    ),
    Mutant(
        "delivered before the put", "device/ship.py", "        try:\n            _put(batch, store, retry)\n",
        "        with state.step():\n            state.delivered(batch.seq, datetime.now(UTC))\n"
        "        try:\n            _put(batch, store, retry)\n",
        EVERY_POINT,
    ),
    Mutant(
        "rows and ledger in two transactions", "warehouse/load.py", '        fp("load.before_ledger")\n',
        '        connection.execute("COMMIT")\n        connection.execute("BEGIN")\n        fp("load.before_ledger")\n',
        f"{LOAD}::test_a_load_that_dies_anywhere_leaves_nothing_of_its_group",
    ),
    Mutant(
        "fingerprint of the head only", "device/lines.py",
        "    return _hash(file, 0, checkpoint.head_length) == checkpoint.head_hash and (\n"
        "        _hash(file, checkpoint.offset - checkpoint.tail_length, checkpoint.tail_length) == checkpoint.tail_hash\n"
        "    )\n",
        "    return _hash(file, 0, checkpoint.head_length) == checkpoint.head_hash\n",
        f"{LINES}::test_a_rewrite_that_drops_lines_between_two_passes_is_read_from_its_start",
    ),
    Mutant(
        "spool files without fsync", "device/spool.py", "            os.fsync(file.fileno())\n", "            pass\n", POWER,
    ),
    Mutant(
        "spool folder without fsync", "device/spool.py", "        _sync_folder(self._ready)\n", "", POWER,
    ),
    Mutant(
        "state without fsync", "device/state.py", '"synchronous=FULL"', '"synchronous=OFF"', POWER,
    ),
    Mutant(
        "live database opened immutable", "device/readers/sqlite.py", "?mode=ro", "?mode=ro&immutable=1",
        "tests/device/test_progress_db.py",
    ),
    Mutant(
        "float taken for int", "warehouse/decode.py",
        '            raise RejectedError("wrong_types")\n', "            pass\n",
        f"{LANDING}::test_a_type_that_is_another",
    ),
    Mutant(
        "error text passes", "device/redact.py", "            return error_class(value)\n", "            return str(value)\n",
        "tests/device/test_privacy.py::test_a_text_in_every_position_of_a_home_is_nowhere_afterwards",
    ),
    Mutant(
        "duplicates forgotten after a day", "warehouse/load.py",
        "arriving.record_id = old.record_id\n        ),",
        "arriving.record_id = old.record_id\n            WHERE old._received_at > now() - INTERVAL 1 DAY\n        ),",
        LOAD,
    ),
    Mutant(
        "ledger by sequence number, not by hash", "warehouse/landing.py",
        "        if entry.key in known or (parts := parse_manifest_key(entry.key)) is None:\n",
        '        seqs = {key.rpartition("-")[0] for key in known}\n'
        '        if entry.key.rpartition("-")[0] in seqs or (parts := parse_manifest_key(entry.key)) is None:\n',
        "tests/torture/test_protocol.py::test_two_batches_of_one_number_are_both_loaded",
    ),
    Mutant(
        "a timeout deletes the batch", "device/ship.py",
        "            except StoreUnavailableError as error:\n                retry.failed(batch.seq, error)\n",
        "            except StoreUnavailableError:\n                with retry.state.step():\n"
        "                    retry.state.delivered(batch.seq, datetime.now(UTC))\n                raise LaterError from None\n",
        MACHINE,
    ),
    Mutant(
        "torn ends forced out", "device/lines.py", "    if text and _is_whole(text):\n", "    if text:\n", f"{LINES}::test_a_torn_end_waits_and_is_read_when_it_is_completed",
    ),
    Mutant(
        "an object within a torn record trusted", "device/lines.py",
        '    return end == len(text) or text[end] == "{"\n', "    return True\n", LINES,
    ),
    Mutant(
        "records staged again", "device/state.py", "            if owner is None or not", "            if False and not",
        "tests/device/test_state.py",
    ),
    Mutant(
        "object named by its number, not its content", "contract/keys.py",
        'return f"{self.path}/d/{seq:010}-{table}-{sha256[:16]}.parquet"',
        'return f"{self.path}/d/{seq:010}-{table}-0000000000000000.parquet"', "tests/contract/test_keys.py",
    ),
    Mutant(
        "manifest put first", "device/ship.py", "    for file in batch.files:\n        data",
        "    for file in reversed(batch.files):\n        data", f"{SHIP}::test_the_manifest_is_put_last",
    ),
    Mutant(
        "rows deleted when sealed", "device/state.py",
        '            (key, sha256, json.dumps(objects), rows, size, seq),\n        )\n',
        '            (key, sha256, json.dumps(objects), rows, size, seq),\n        )\n'
        '        self._db.execute("DELETE FROM staged WHERE seq = ?", (seq,))\n',
        f"{SHIP}::test_a_damaged_spool_file_is_sealed_again_and_never_sent",
    ),
    Mutant(
        "a damaged file is sent", "device/spool.py", "        if hashlib.sha256(data).hexdigest() != self.sha256:\n",
        "        if not data:\n", f"{SHIP}::test_a_damaged_spool_file_is_sealed_again_and_never_sent",
    ),
    Mutant(
        "no tombstone for what the store refuses", "device/ship.py",
        '            spool.bury(state, batch, str(error).rpartition(": ")[2])\n',
        "            with state.step():\n                state.delivered(batch.seq, datetime.now(UTC))\n",
        f"{SHIP}::test_a_batch_the_store_will_never_take_gets_a_tombstone",
    ),
    Mutant(
        "a withdrawal keeps what was staged", "device/consent.py",
        '        forget(state)\n        fp("withdraw.forgotten")\n', '        fp("withdraw.forgotten")\n',
        f"{CONSENT}::test_a_withdrawal_empties_everything_and_a_new_grant_doubles_nothing",
    ),
    Mutant(
        "consent asked once only", "device/ship.py",
        "            granted = consent.require(state)  # once more", "            granted = consent.current(state)  # once more",
        f"{CONSENT}::test_a_withdrawal_while_a_shipping_waits_for_the_lock_is_heeded",
    ),
    Mutant(
        "the last story to arrive stays", "warehouse/load.py", "{newest}_is_kept DESC,", "{newest}_is_kept,",
        f"{LOAD}::test_of_two_stories_the_first_to_arrive_stays",
    ),
    Mutant(
        "an incomplete batch is answered", "warehouse/load.py",
        "            elif found is None:\n                job.incomplete += 1",
        '            elif found is None:\n                job.refused.append((arrival, None, "incomplete"))\n'
        "                job.incomplete += 1",
        f"{LOAD}::test_a_batch_that_lacks_an_object_waits_for_it",
    ),
    Mutant(
        "the gate believes the key's hash", "warehouse/landing.py",
        "        if hashlib.sha256(data).hexdigest() != claim.sha256:\n", "        if not data:\n",
        f"{LANDING}::test_an_object_that_is_missing_swapped_or_too_large",
    ),
    Mutant(
        "tidying takes what waits", "device/spool.py",
        "        left -= {file.path.name for batch in self.sealed(state) for file in batch.files}\n", "",
        "tests/torture/test_protocol.py::test_what_waits_in_the_spool_is_not_made_again",
    ),
    Mutant(
        "a forgotten state goes on in its old epoch", "device/consent.py",
        "    _new_epoch(state)  # batches count", "    # batches count",
        f"{CONSENT}::test_a_withdrawal_empties_everything_and_a_new_grant_doubles_nothing",
    ),
    Mutant(
        "the link moves before the version is there", "warehouse/publish.py", "    aside.rename(version)\n",
        "    _point(destination / \"current\", version)\n    aside.rename(version)\n",
        "tests/warehouse_part/test_publish.py::test_killed_between_any_two_steps",
    ),
    Mutant(
        "an existing object is replaced", "store.py",
        "                    os.link(aside, target)\n", "                    aside.replace(target)\n",
        "tests/test_store.py::test_one_of_many_writers_wins",
    ),
    Mutant(
        "reports of a restored state share a name", "device/collect.py", "epoch, run, started_at)\n", "epoch, run)\n",
        "tests/torture/test_protocol.py::test_a_restored_state_loses_and_doubles_nothing",
    ),
    Mutant(
        "an identity with a name in it needs no key", "device/redact.py",
        "        if all(map(is_fixed_form, natural_key)):\n", "        if natural_key:\n",
        "tests/device/test_identity.py::test_no_word_of_ten_thousand_is_found_again",
    ),
    Mutant(
        "tokens are told by the tenant's key", "device/collect.py",
        "        key = self._plain_key(record) if record.table.is_keyless else record.key\n",
        "        key = record.key\n",
        "tests/device/test_identity.py::test_tokens_are_counted_once_where_devices_have_no_common_key",
    ),
    Mutant(
        "the second turn of one tick is a copy", "device/state.py",
        "        if first is not None and first[0] in (None, variant):\n", "        if first is not None:\n",
        "tests/device/test_identity.py::test_two_nodes_that_end_in_one_tick_are_two_turns",
    ),
    Mutant(
        "the list of the erased is not asked", "warehouse/registry.py",
        "        return erased.judge(arrival, manifest) or register.judge(arrival, manifest)\n",
        "        return register.judge(arrival, manifest)\n",
        "tests/warehouse_part/test_erase.py::test_a_late_batch_and_a_rebuild_bring_nothing_back",
    ),
)  # fmt: skip


RULES = "tests/billing/test_rules.py"
AGREEMENTS = "tests/billing/test_agreements.py"
BILLING = (
    Mutant("an empty signature closes a month", "billing/closing.py", "    if len(signed) < SIGNATURE_LENGTH or not digest", "    if not digest", f"{RULES}::test_an_empty_or_short_signature_signs_nothing"),
    Mutant("any signature closes a month", "billing/closing.py", " or not digest.startswith(signed):", ":", f"{RULES}::test_an_empty_or_short_signature_signs_nothing"),
    Mutant("payables are not signed", "billing/closing.py", '            "payable": {p.invoice_id: [p.currency, plain(p.exact), plain(p.payable)] for p in self.payables},\n', "", f"{RULES}::test_a_signature_is_of_all_that_is_shown"),
    Mutant("a row's hash is not compared", "billing/verify.py", "    if HASH in row and row[HASH] != row_sha256(dict(row)):\n", "    if HASH not in row:\n", f"{RULES}::test_a_rows_hash_is_compared"),
    Mutant("list cost is not worked out again", "billing/verify.py", '        if row[price] is not None and row[cost] != row[price] * quantity:', '        if row[price] is None and row[cost] != row[price] * quantity:', f"{RULES}::test_each_rule_of_a_row_is_looked_at"),
    Mutant("a charge outside its period passes", "billing/verify.py", '    if row["ChargeClass"] is None and not row["BillingPeriodStart"] <= start < row["BillingPeriodEnd"]:', '    if row["ChargeClass"] and not row["BillingPeriodStart"] <= start < row["BillingPeriodEnd"]:', f"{RULES}::test_each_rule_of_a_row_is_looked_at"),
    Mutant("negative usage passes", "billing/verify.py", ' and row["BilledCost"] < 0:', ' and row["BilledCost"] < -10**9:', f"{RULES}::test_each_rule_of_a_row_is_looked_at"),
    Mutant("a payable amount is believed", "billing/verify.py", "            if billed != (exact / unit)", "            if billed > 10**12 and billed != (exact / unit)", f"{RULES}::test_payables_are_compared_with_the_sum_and_the_manifest"),
    Mutant("the manifest's payables are believed", "billing/verify.py", '    if payable(invoices) != version.manifest.get("payable"):', '    if version.manifest.get("payable") is None:', f"{RULES}::test_payables_are_compared_with_the_sum_and_the_manifest"),
    Mutant("a line may be off by a unit", "billing/verify.py", '        if any(abs(line["x_RoundingDelta"]) >= unit for line in own):', '        if any(abs(line["x_RoundingDelta"]) > 100 * unit for line in own):', f"{RULES}::test_payables_are_compared_with_the_sum_and_the_manifest"),
    Mutant("a head without a signature passes", "billing/verify.py", "    if not attestation.is_signed(head, public_key):", "    if head.said is None:", f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("any key signs", "billing/attestation.py", "    if public_key is not None and named != public_key:\n        return False\n", "", f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("a head is signed in part", "billing/attestation.py", 'for name, value in said.items() if name != "signature"}', 'for name, value in said.items() if name in ("sequence", "public_key")}', f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("a missing head is no fault", "billing/verify.py", '        if any(version.manifest.get("attested") for version in versions):', '        if any(version.manifest.get("unheard of") for version in versions):', f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("the signed book is not compared", "billing/verify.py", '    if {"lines": len(book.transitions), "sha256": book.head} != head.said["periods"]:', "    if not head.said:", f"{RULES}::test_what_a_head_names_and_what_is_there_are_the_same"),
    Mutant("sealed files are not read", "billing/verify.py", "            ledger.sealed(books, digest)\n", "            pass\n", f"{RULES}::test_what_a_head_names_and_what_is_there_are_the_same"),
    Mutant("a loss is signed over", "billing/attestation.py", "        if not data or not (same or after_erasure):", "        if False:", f"{RULES}::test_nothing_is_signed_over_a_loss"),
    Mutant("a shorter book is signed over", "billing/attestation.py", '    if len(book.transitions) < signed["lines"] or book.head_after(signed["lines"]) != signed["sha256"]:', "    if not signed:", f"{RULES}::test_nothing_is_signed_over_a_loss"),
    Mutant("a changed seal is read", "billing/ledger.py", "    if hashlib.sha256(data).hexdigest() != digest:\n        raise SealError(f\"{path} was changed", "    if not data:\n        raise SealError(f\"{path} was changed", f"{RULES}::test_a_seal_is_its_content_in_any_order"),
    Mutant("a seal hangs on the order of lines", "billing/ledger.py", '    ordered = lines.select(LINES.names).cast(LINES).sort_by([("tenant_id", "ascending"), ("line_id", "ascending"),\n                                                             ("line_kind", "ascending")])', "    ordered = lines.select(LINES.names).cast(LINES)", f"{RULES}::test_a_seal_is_its_content_in_any_order"),
    Mutant("the book's chain is not followed", "billing/periods.py", "        if not is_next:", "        if number < 0:", f"{RULES}::test_a_book_that_was_changed_is_not_read"),
    Mutant("a step without a reason", "billing/periods.py", "    if not transition.actor.strip() or not transition.reason.strip():", "    if not transition.actor.strip():", f"{RULES}::test_a_line_that_breaks_a_rule_is_not_written"),
    Mutant("a step out of turn", "billing/periods.py", "        if transition.before != status or ALLOWED[status] != transition.after:", "        if transition.before != status:", f"{RULES}::test_a_line_that_breaks_a_rule_is_not_written"),
    Mutant("time goes back", "billing/periods.py", "    if transition.as_of < latest:", "    if transition.as_of > latest + timedelta(days=9999):", f"{RULES}::test_time_does_not_go_back"),
    Mutant("a month closes before it ends", "billing/periods.py", "    if as_of < end_of(period):", "    if as_of < end_of(period) - timedelta(days=1):", f"{RULES}::test_closing_begins_after_the_end_and_in_order"),
    Mutant("months close in any order", "billing/periods.py", "        if frozen is not None and period > after(frozen):", "        if frozen is not None and period < frozen:", f"{RULES}::test_closing_begins_after_the_end_and_in_order"),
    Mutant("grace by the clock alone", "billing/periods.py", "min(as_of, watermark_at) >= until", "as_of >= until", f"{RULES}::test_grace_is_over_by_both_clocks"),
    Mutant("everything can be waived", "billing/periods.py", "not (c.can_be_waived and waived.get(c.name, \"\").strip())]", "not waived.get(c.name, \"\").strip()]", f"{RULES}::test_a_waiver_needs_a_reason_and_a_condition_that_can_be_waived"),
    Mutant("a waiver without a reason", "billing/periods.py", 'waived.get(c.name, "").strip())]', "c.name in waived)]", f"{RULES}::test_a_waiver_needs_a_reason_and_a_condition_that_can_be_waived"),
    Mutant("one account's month is everybody's", "billing/periods.py", "        return self.accounts is None or account in self.accounts", "        return True", f"{RULES}::test_each_account_has_its_own_months"),
    Mutant("nothing checked is all well", "billing/gate.py", "    if not checks:\n", "    if checks is None:\n", f"{RULES}::test_the_gate_stops_whom_it_is_about"),
    Mutant("one account's check stops everybody", "billing/gate.py", " if check.accounts is None]", "]", f"{RULES}::test_the_gate_stops_whom_it_is_about"),
    Mutant("an account's own check stops nobody", "billing/gate.py", "(self.accounts is None or account in self.accounts)", "self.accounts is None", f"{RULES}::test_the_gate_stops_whom_it_is_about"),
    Mutant("shares by name, not by remainder", "billing/prove.py", "key=lambda name: (whole[name] - exact[name] / unit, name))", "key=lambda name: name)", f"{RULES}::test_an_invoice_is_spread_by_largest_remainder"),
    Mutant("a late commitment is a price", "billing/exports.py", '    return "commitment" if new["ChargeCategory"] == "Adjustment" else "price"', '    return "price"', f"{RULES}::test_what_changed_has_its_cause"),
    Mutant("an account is a path", "billing/exports.py", '    name = quote(account, safe="")', '    name = quote(account)', f"{RULES}::test_an_account_is_one_folder"),
    Mutant("a formula leaves", "billing/statements.py", "    return f\"'{text}\" if text.lstrip().startswith(FORMULA_STARTS) else text", "    return f\"'{text}\" if text.startswith(FORMULA_STARTS) else text", f"{RULES}::test_text_and_numbers_of_a_file"),
    Mutant("nobody approves", "billing/agreements.py", "        if not self.recorded_by.strip() or not self.approved_by.strip():", "        if not self.recorded_by.strip():", f"{AGREEMENTS}::test_a_row_needs_who_approved_it"),
    Mutant("the first word counts", "billing/agreements.py", '    last = max(rows, key=lambda row: row["recorded_at"], default=None)', '    last = min(rows, key=lambda row: row["recorded_at"], default=None)', f"{AGREEMENTS}::test_of_each_day_the_row_recorded_last_speaks"),
    Mutant("an account ends a day late", "billing/agreements.py", '        and (row["valid_to"] is None or day < row["valid_to"])', '        and (row["valid_to"] is None or day <= row["valid_to"])', f"{AGREEMENTS}::test_the_mart_says_the_same_of_each_day"),
)  # fmt: skip
"""Money, closing and verification: rules that need no warehouse, each with a test of its own."""

MUTANTS = PROTOCOL + BILLING


def patched(text: str, mutant: Mutant) -> str:
    """The file's text with the mutant in it. Raises ValueError if its place is gone."""
    if text.count(mutant.old) != 1:
        raise ValueError(f"{mutant.name}: its text stands {text.count(mutant.old)} times in pipelines/{mutant.file}")
    return text.replace(mutant.old, mutant.new)


@contextmanager
def copy() -> Iterator[Path]:
    """A copy of the repository to break."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as folder:
        target = Path(folder) / "apiary"
        target.mkdir()
        for name in FOLDERS:
            if (REPOSITORY / name).exists():
                ignored = shutil.ignore_patterns("__pycache__", "target", "reports")
                shutil.copytree(REPOSITORY / name, target / name, symlinks=True, ignore=ignored)
        for path in REPOSITORY.glob("*.*"):
            if path.is_file():
                shutil.copy(path, target)
        yield target


def tests(folder: Path, names: Iterable[str]) -> tuple[int, str]:
    """Run tests in a copy: pytest's exit code and its last line."""
    command = [
        sys.executable, "-m", "pytest", "-n", "0", "-x", "-q", "-m", "not long", "-p", "no:cacheprovider", "--no-header",
        "--tb=line", *names,
    ]  # fmt: skip
    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder)}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    lines = (result.stdout + result.stderr).strip().splitlines()
    return result.returncode, lines[-1] if lines else ""


def hunt(mutant: Mutant) -> tuple[str, str, float]:
    """`killed`, `survived` or `broken`, the last line, and how long it took."""
    started = time.monotonic()
    with copy() as folder:
        path = folder / "pipelines" / mutant.file
        path.write_text(patched(path.read_text("utf-8"), mutant), "utf-8")
        code, said = tests(folder, [mutant.found_by])
    verdict = {FAILED: "killed", PASSED: "survived"}.get(code, "broken")
    return verdict, said, time.monotonic() - started


def _line(mutant: Mutant, verdict: str, said: str, seconds: float) -> str:
    note = "" if verdict == "killed" else f": {said}"
    return f"| {mutant.name} | {verdict}{note} | `{mutant.found_by}` | {seconds:.0f} |"


def _report(lines: dict[str, str]) -> None:
    """Write what was found now over what was found before; who was not hunted again keeps the line of last time."""
    before = REPORT.read_text("utf-8").splitlines() if REPORT.exists() else []
    known = {line.split(" | ")[0].removeprefix("| "): line for line in before if line.startswith("| ")} | lines
    kept = [known[mutant.name] for mutant in MUTANTS if mutant.name in known]
    killed = sum("| killed |" in line for line in kept)
    head = ["# Mutants", "", f"Written by `make mutants`: {killed} of {len(MUTANTS)} killed.", ""]
    REPORT.parent.mkdir(exist_ok=True)
    table = ["| mutant | verdict | found by | seconds |", "| --- | --- | --- | --- |", *kept]
    REPORT.write_text("\n".join([*head, *table, ""]), "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Hunt all mutants, or a sample; 0 if each was found."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--sample", type=int, help="only some, chosen by the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", help="only those whose name holds one of these texts")
    parser.add_argument("--no-report", action="store_true")
    options = parser.parse_args(arguments)
    chosen = [mutant for mutant in MUTANTS if not options.only or any(part in mutant.name for part in options.only)]
    if options.sample:
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    with copy() as folder:
        code, said = tests(folder, sorted({mutant.found_by for mutant in chosen}))
    if code != PASSED:
        print(f"the tests fail without a mutant: {said}")
        return 1
    results = []
    with ThreadPoolExecutor(2) as pool:
        for mutant, result in zip(chosen, pool.map(hunt, chosen), strict=True):
            print(f"{mutant.name}: {result[0]}", flush=True)
            results.append((mutant, result))
    lines = {mutant.name: _line(mutant, *result) for mutant, result in results}
    killed = sum(verdict == "killed" for _, (verdict, _, _) in results)
    print("\n".join([*lines.values(), "", f"{killed} of {len(results)} killed"]))
    if not options.no_report:
        _report(lines)
    return 0 if killed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
