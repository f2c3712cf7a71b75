"""Mutants of verification: rows, heads, seals, and the links of a proof."""

from bench.mutations.mutant import Mutant

RULES = "tests/billing/test_rules.py"
PROVE = "tests/billing/test_prove.py::test_a_row_of_every_kind_is_proved"
LINKS = f"{RULES}::test_the_object_of_a_turn_is_read_again"

VERIFICATION = (
    Mutant("a row's hash is not compared", "pipelines/billing/verify.py", "    if HASH in row and row[HASH] != row_sha256(dict(row)):\n", "    if HASH not in row:\n", f"{RULES}::test_a_rows_hash_is_compared"),
    Mutant("list cost is not worked out again", "pipelines/billing/verify.py", '        if row[price] is not None and row[cost] != EXACT.multiply(row[price], quantity):', '        if row[price] is not None and not row[cost]:', f"{RULES}::test_each_rule_of_a_row_is_looked_at"),
    Mutant("a charge outside its period passes", "pipelines/billing/verify.py", '    if row["ChargeClass"] is None and not row["BillingPeriodStart"] <= start < row["BillingPeriodEnd"]:', '    if row["ChargeClass"] and not row["BillingPeriodStart"] <= start < row["BillingPeriodEnd"]:', f"{RULES}::test_each_rule_of_a_row_is_looked_at"),
    Mutant("negative usage passes", "pipelines/billing/verify.py", ' and row["BilledCost"] < 0:', ' and row["BilledCost"] < -10**9:', f"{RULES}::test_each_rule_of_a_row_is_looked_at"),
    Mutant("a payable amount is believed", "pipelines/billing/verify.py", "            if billed != (exact / unit)", "            if billed > 10**12 and billed != (exact / unit)", f"{RULES}::test_payables_are_compared_with_the_sum_and_the_manifest"),
    Mutant("the manifest's payables are believed", "pipelines/billing/verify.py", '    if payable(invoices) != version.manifest.get("payable"):', '    if version.manifest.get("payable") is None:', f"{RULES}::test_payables_are_compared_with_the_sum_and_the_manifest"),
    Mutant("a line may be off by a unit", "pipelines/billing/verify.py", '        if any(abs(line["x_RoundingDelta"]) >= unit for line in own):', '        if any(abs(line["x_RoundingDelta"]) > 2 * unit for line in own):', f"{RULES}::test_payables_are_compared_with_the_sum_and_the_manifest"),
    Mutant("a head without a signature passes", "pipelines/billing/verify.py", "    if not attestation.is_signed(head, public_key):", "    if head.said is None:", f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("any key signs", "pipelines/billing/attestation.py", "    if public_key is not None and named != public_key:\n        return False\n", "", f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("a head is signed in part", "pipelines/billing/attestation.py", 'for name, value in said.items() if name != "signature"}', 'for name, value in said.items() if name in ("sequence", "public_key")}', f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("a missing head is no fault", "pipelines/billing/verify.py", '        if any(version.manifest.get("attested") for version in versions):', '        if any(version.manifest.get("unheard of") for version in versions):', f"{RULES}::test_a_head_that_was_edited_or_signed_by_another_is_found"),
    Mutant("the signed book is not compared", "pipelines/billing/verify.py", '    if {"lines": len(book.transitions), "sha256": book.head} != head.said["periods"]:', "    if not head.said:", f"{RULES}::test_what_a_head_names_and_what_is_there_are_the_same"),
    Mutant("sealed files are not read", "pipelines/billing/verify.py", "            ledger.sealed(books, digest)\n", "            pass\n", f"{RULES}::test_what_a_head_names_and_what_is_there_are_the_same"),
    Mutant("a loss is signed over", "pipelines/billing/attestation.py", "        if not data or not (same or after_erasure):", "        if False:", f"{RULES}::test_nothing_is_signed_over_a_loss"),
    Mutant("a shorter book is signed over", "pipelines/billing/attestation.py", '    if len(book.transitions) < signed["lines"] or book.head_after(signed["lines"]) != signed["sha256"]:', "    if not signed:", f"{RULES}::test_nothing_is_signed_over_a_loss"),
    Mutant("a changed seal is read", "pipelines/billing/ledger.py", "    if hashlib.sha256(data).hexdigest() != digest:\n        raise SealError(f\"{path} was changed", "    if not data:\n        raise SealError(f\"{path} was changed", f"{RULES}::test_a_seal_is_its_content_in_any_order"),
    Mutant("a seal hangs on the order of lines", "pipelines/billing/ledger.py", '    ordered = lines.select(LINES.names).cast(LINES).sort_by([("tenant_id", "ascending"), ("line_id", "ascending"),\n                                                             ("line_kind", "ascending")])', "    ordered = lines.select(LINES.names).cast(LINES)", f"{RULES}::test_a_seal_is_its_content_in_any_order"),
    Mutant("prove: the exchange is not worked out", "pipelines/billing/prove.py", 'fitting = [rate for rate, amount in listed if amount == line["list_unit_price"]]', "fitting = [rate for rate, _ in listed]", PROVE),
    Mutant("prove: a rejected price is proved", "pipelines/billing/prove.py", 'holds=last["decision"] == "approve")', 'holds=last["decision"] != "")', PROVE),
    Mutant("prove: the agreed rate is believed", "pipelines/billing/prove.py", 'holds=line["contracted_unit_price"] == expected)', 'holds=line["contracted_unit_price"] <= listed)', PROVE),
    Mutant("prove: a commitment has no limit", "pipelines/billing/prove.py", 'and 0 < line["billed_cost"] <= item["commit_amount"],', 'and 0 < line["billed_cost"],', PROVE),
    Mutant("prove: a write-off by nobody", "pipelines/billing/prove.py", 'holds = len(found) == 1 and found[0]["kind"] == "write_off" and line["billed_cost"] == 0', 'holds = line["billed_cost"] == 0', PROVE),
    Mutant("prove: the statement's bytes are not hashed", "pipelines/billing/prove.py", '    holds = hashlib.sha256(data).hexdigest() == version.sha256_of(path.name)\n    proof.add(f"statement', '    holds = bool(data)\n    proof.add(f"statement', PROVE),
    Mutant("prove: an object that is missing is no fault", "pipelines/billing/prove.py", """is not in the store", holds=False)""", """is not in the store")""", LINKS),
    Mutant("prove: an object's hash is not compared", "pipelines/billing/prove.py", 'read again", holds=digest == item["sha256"])', 'read again")', LINKS),
    Mutant("prove: a record's tokens are not compared", "pipelines/billing/prove.py", "same = len(rows) == 1 and all(rows[0][name] == source[name] for name in names)", "same = len(rows) == 1", LINKS),
    Mutant("prove: a turn's tokens are not compared", "pipelines/billing/prove.py", 'counted = abs(line["consumed_quantity"]) == tokens or', "counted = tokens >= 0 or", LINKS),
    Mutant("prove: a turn that is gone is proved", "pipelines/billing/prove.py", 'is_gone = line["line_kind"] == "reversal" or line["cause"] is not None', "is_gone = True", LINKS),
    Mutant("prove: a reversal of another amount", "pipelines/billing/prove.py", "holds = len(before) == 1 and all(", "holds = len(before) == 1 or all(", f"{RULES}::test_a_reversal_is_what_was_billed_with_other_signs"),
)  # fmt: skip
