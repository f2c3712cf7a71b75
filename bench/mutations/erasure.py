"""Mutants of erasure: the suppression list, what goes, the search for what is left, and receipts."""

from bench.mutations.mutant import Mutant

KEPT = "pipelines/warehouse/kept.py"
ERASE, RECEIPTS = "tests/warehouse_part/test_erase.py", "tests/contract/test_receipts.py"
DEVICE = f"{ERASE}::test_a_device_goes_and_nothing_else"
USER = f"{ERASE}::test_a_user_goes_with_the_batches_that_name_her"
LATE = f"{ERASE}::test_a_late_batch_and_a_rebuild_bring_nothing_back"
OWNER = f"{ERASE}::test_an_owners_request_is_taken_up_and_answered"
FOUND = f"{ERASE}::test_a_planted_identifier_is_found"
LEFT = f"{ERASE}::test_what_is_left_is_not_receipted"
BOMBS = f"{ERASE}::test_what_another_device_wrote_stops_no_erasure"
CHANGED = f"{RECEIPTS}::test_a_changed_receipt_is_none"
BILLS = "tests/billing/test_redaction.py::test_identifiers_go_and_amounts_stay"
ANSWERS = "tests/device/test_owner.py"
LIST, WORK, NEEDLES = (
    "pipelines/warehouse/suppression.py",
    "pipelines/warehouse/erase.py",
    "pipelines/warehouse/needles.py",
)
FORM = "pipelines/contract/receipts.py"

ERASURE = (
    Mutant("a line of one tenant is everybody's", LIST, "        if tenant != self.tenant:\n            return False\n", "", f"{ERASE}::test_a_line_is_of_one_tenant_and_one_subject"),
    Mutant("a device's later lives are erased too", LIST, "return self.digest(device) == self.subject and (not self.epochs or self.digest(epoch) in self.epochs)", "return self.digest(device) == self.subject", OWNER),
    Mutant("one device of a tenant is all of them", LIST, "        is_device = self.digest(owner.device) == self.subject\n", "        is_device = True\n", f"{ERASE}::test_probes_and_foreign_objects_of_a_device_go_with_it"),
    Mutant("a user's rows in others' batches stay", LIST, "bool(self.batches) and self.digest(key) in self.batches", "False", USER),
    Mutant("the list names its subject", LIST, 'subject": tenant if scope == "tenant" else bare.digest(subject)}', 'subject": subject}', f"{ERASE}::test_the_list_names_nobody"),
    Mutant("every line has the same salt", LIST, 'salt=secrets.token_hex(16), subject="",', 'salt="0" * 32, subject="",', f"{ERASE}::test_a_line_is_of_one_tenant_and_one_subject"),
    Mutant("nobody says who erases", LIST, '        if not text.strip() or len(text) > MAX_TEXT or not text.isprintable():', "        if len(text) > MAX_TEXT or not text.isprintable():", f"{ERASE}::test_a_line_of_the_list_says_who_and_why"),
    Mutant("an owner's requests are not taken up", LIST, "        if request.request_id not in known:\n", "        if request.request_id in known:\n", OWNER),
    Mutant("a chain of a shared device has a gap", LIST, "return ON_SHARED_DEVICE if line.is_shared(prefix.device) else REASON", "return REASON", USER),
    Mutant("what is billed for the erased goes", WORK, "                kept.put(self._store, name, kept.difference(connection, tenants))", "                kept.difference(connection, tenants)", DEVICE),
    Mutant("what a try kept is kept again", KEPT, "            SELECT tenant_id, model, charge_class, unit, -unpriced_turns, -quantity, usage_date\n", "            SELECT tenant_id, model, charge_class, unit, 0, 0, usage_date\n", f"{ERASE}::test_what_a_try_that_was_cut_off_kept_is_kept_once"),
    Mutant("sums of every warehouse before are kept again", KEPT, " WHERE _kept_name NOT IN (SELECT _kept_name FROM old.wire.kept_charges)", "", f"{ERASE}::test_sums_that_release_0_1_0_kept_stay"),
    Mutant("the second of two erasures keeps nothing", WORK, "        if not self._is_rated():\n", "        if False:\n", f"{ERASE}::test_amounts_of_the_second_of_two_erasures_are_kept"),
    Mutant("what came since the last build is taken off", KEPT, "    return not newer\n", "    return True\n", f"{ERASE}::test_what_was_loaded_since_the_last_build_is_not_taken_off"),
    Mutant("a reported cost of the erased goes", KEPT, "                reported_cost_usd, usage_date\n", "                0, usage_date\n", f"{ERASE}::test_amounts_are_kept_where_the_models_do_not_build"),
    Mutant("probes of a device stay", WORK, "in (entry for place in (PROBES, LANDING)", "in (entry for place in (LANDING,)", f"{ERASE}::test_probes_and_foreign_objects_of_a_device_go_with_it"),
    Mutant("a name that somebody else bears goes", WORK, "sorted({*share.names, *(gone - still)})", "sorted({*share.names, *gone})", f"{ERASE}::test_whose_last_device_goes_goes_by_name"),
    Mutant("a seat's user goes by name", WORK, "{user for user in mine if line.is_user(user) or user not in seated}", "set(mine)", f"{ERASE}::test_whose_last_device_goes_goes_by_name"),
    Mutant("what is left is receipted", WORK, "            if places := proof.left.get(line.request_id):", "            if places := proof.left.get(line.tenant):", LEFT),
    Mutant("copies of the warehouse stay", WORK, "            if self.lines and (_is_unsearchable(needles, path) or residue.found_in_file(needles, path)):", "            if self.lines and _is_unsearchable(needles, path):", f"{ERASE}::test_copies_of_the_warehouse_go"),
    Mutant("an unreadable copy stays", WORK, '        for path in (*folder.glob("*.unreadable-*"), folder / "rebuilt"', '        for path in (folder / "rebuilt"', f"{ERASE}::test_copies_of_the_warehouse_go"),
    Mutant("what cannot be searched is not told", WORK, '                proof.said[""][f"unsearchable_{error}"] += 1\n                if owner is not None:', "                if owner is not None:", BOMBS),
    Mutant("every object of a hostile device is opened", WORK, "unopened[owner] >= UNOPENED_AFTER", "unopened[owner] >= 10**9", BOMBS),
    Mutant("objects of others are not told", WORK, '                proof.note("others", words)\n', "                pass\n", f"{ERASE}::test_an_object_of_another_device_that_names_the_session_is_told"),
    Mutant("what another device holds stops an erasure", WORK, '                proof.note("others", words)\n', "                proof.find(entry.key, words)\n", f"{ERASE}::test_an_object_of_another_device_that_names_the_session_is_told"),
    Mutant("one that waits stops all", WORK, "                continue\n            findings = proof", "                break\n            findings = proof", f"{ERASE}::test_one_that_cannot_be_finished_stops_no_other"),
    Mutant("gzip hides", "pipelines/warehouse/residue.py", "            found |= needles.found_in_parts(unpacked(file))\n", "            pass\n", FOUND),
    Mutant("Parquet hides", "pipelines/warehouse/residue.py", "        for text in texts_of_parquet(path.read_bytes()):\n            found |= needles.found_in(text)\n", "", FOUND),
    Mutant("DuckDB hides", "pipelines/warehouse/residue.py", "    if head[8:12] == DATABASE:", '    if head == DATABASE:', FOUND),
    Mutant("the search skips a border", NEEDLES, "        for offset in range(min(WORD, len(data) - WORD + 1)):", "        for offset in range(min(WORD - 1, len(data) - WORD + 1)):", f"{ERASE}::test_the_search_is_a_search"),
    Mutant("the search compares the end only", NEEDLES, "                    if data[max(0, end - len(needle)) : end] == needle:", "                    if data[max(0, end - WORD) : end] == needle[-WORD:]:", f"{ERASE}::test_the_end_of_an_identifier_is_not_the_identifier"),
    Mutant("a part of a word is a name", NEEDLES, 'rf"(?<![a-z0-9_-])(?:{words})(?![a-z0-9_-])"', 'rf"(?:{words})"', f"{ERASE}::test_a_name_counts_where_it_stands_alone"),
    Mutant("gzip may unpack to anything", NEEDLES, "        total += len(part)\n        if total > MAX_UNPACKED_BYTES:", "        if total > MAX_UNPACKED_BYTES:", f"{ERASE}::test_gzip_unpacks_to_so_much_and_no_more"),
    Mutant("a receipt of any bytes", FORM, '    _check("form", receipt.to_json() == data)\n', "", f"{RECEIPTS}::test_other_bytes_are_no_receipt"),
    Mutant("a receipt under any key", FORM, '    _check("key", receipt.key(region=region, tenant=tenant) == key)\n', "", f"{RECEIPTS}::test_a_receipt_belongs_to_its_device_and_a_request_to_its_place"),
    Mutant("a request under any key", FORM, '_check("key", key in request_keys(request.key()))', '_check("key", key)', f"{RECEIPTS}::test_a_receipt_belongs_to_its_device_and_a_request_to_its_place"),
    Mutant("a count of another type", FORM, "            _check(name, isinstance(value, int) and not isinstance(value, bool))", "            _check(name, isinstance(value, int))", CHANGED),
    Mutant("one receipt confirms every request", "pipelines/device/outbox.py", 'current.state == "deletion_requested" and not asked:', 'current.state == "deletion_requested":', f"{ANSWERS}::test_a_receipt_for_another_device_or_an_earlier_request_confirms_nothing"),
    Mutant("what is still there is called deleted", "pipelines/device/receipts.py", '        return Compared(key, "not deleted")', '        return Compared(key, "deleted")', f"{ANSWERS}::test_what_a_receipt_calls_deleted_is_gone"),
    Mutant("what is missing is called deleted", "pipelines/device/receipts.py", '"deleted" if is_deleted else "missing"', '"deleted"', f"{ANSWERS}::test_receipts_are_compared_byte_for_byte"),
    Mutant("an object that differs is the same", "pipelines/device/receipts.py", "same = hashlib.sha256(held).hexdigest() == sha256 if data is None else held == data", "same = len(held) > 0", f"{ANSWERS}::test_receipts_are_compared_byte_for_byte"),
    Mutant("names stay in statements", "pipelines/billing/redaction.py", "        done += _redact_version(folder, change, at)\n", "        done += 1\n", BILLS),
    Mutant("names stay in sealed lines", "pipelines/billing/redaction.py", "        done += _redact_seal(billing, digest, change)\n", "        done += 1\n", BILLS),
    Mutant("the old sealed file stays", "pipelines/billing/redaction.py", '        (billing / "closed" / f"{left}.parquet").unlink(missing_ok=True)\n', "        pass\n", BILLS),
    Mutant("the hash of what was erased stays", "pipelines/billing/redaction.py", "rows = [row | {exports.HASH: exports.row_sha256(row)} for row in rows]", "rows = [dict(row) for row in rows]", BILLS),
    Mutant("a signer's session stays", "pipelines/warehouse/erase.py", "                words = words.difference(by_right)\n", "                words = words if not words & set(by_right) else set()\n", f"{ERASE}::test_who_signed_a_book_is_named_there_still"),
    Mutant("a signer's request waits for ever", "pipelines/warehouse/erase.py", "                words = words.difference(by_right)\n", "", f"{ERASE}::test_who_signed_a_book_is_named_there_still"),
    Mutant("a name is changed wherever it stands", "pipelines/billing/redaction.py", "words = self.words | self.users if column in USER_COLUMNS else self.words", "words = self.words | self.users", "tests/billing/test_redaction.py::test_a_user_who_is_called_like_something_else_changes_no_bill"),
    Mutant("a name that others use is no common one", "pipelines/warehouse/erase.py", "                common |= renewal.still_there(connection, names)\n", "                pass\n", f"{ERASE}::test_a_name_that_means_something_else_too_is_told_apart"),
    Mutant("publication loses others' rows", "pipelines/warehouse/publish.py", "(of_users if USERS.search(column) else needles)", "of_users", "tests/warehouse_part/test_publish.py::test_a_name_that_is_a_word_for_something_else_takes_no_other_row"),
    Mutant("a batch of a newer release outlives its owner", "pipelines/warehouse/erase.py", "error.manifest.user_id if error.manifest else None, self._objects_of(arrival)", "None, self._objects_of(arrival)", f"{ERASE}::test_a_batch_that_this_release_cannot_read_goes_with_its_owner"),
    Mutant("a refused manifest names the erased", "pipelines/warehouse/landing.py", "        if reason is not None and reason.startswith(SUPPRESSED):\n", "        if False:\n", f"{ERASE}::test_a_batch_that_this_release_cannot_read_goes_with_its_owner"),
    Mutant("one object that stays stops every erasure", "pipelines/warehouse/erase.py", "                if request_id in mine or not mine:\n                    refused", "                if True:\n                    refused", f"{ERASE}::test_an_object_that_the_store_does_not_let_go_stops_no_other"),
    Mutant("a common name is looked for nowhere", "pipelines/warehouse/erase.py", "                    meant -= residue.users_in_file(meant, path)\n", "                    pass\n", f"{ERASE}::test_such_a_name_is_found_where_a_table_names_users"),
    Mutant("a line that would name its subject is taken", "pipelines/warehouse/suppression.py", 'if scope != "tenant" and re.search(', 'if scope == "tenant" and re.search(', f"{ERASE}::test_a_line_that_would_name_its_subject_is_refused"),
    Mutant("an action of the site stops every erasure", "pipelines/warehouse/renewal.py", "table_name NOT IN ('kept_charges', 'operator_actions')", "table_name <> 'kept_charges'", f"{ERASE}::test_what_was_decided_about_agents_stops_no_erasure"),
    Mutant("an action keeps the session of the erased", "pipelines/warehouse/operator_actions.py", "replace(action, session_id=None) if action.session_id in erased else action", "action", f"{ERASE}::test_what_was_decided_about_agents_stops_no_erasure"),
    Mutant("what a book said stays in free blocks", "pipelines/warehouse/erase.py", "if not (self._is_affected() or self._has_leftovers(self._warehouse)):", "if not self._is_affected():", f"{ERASE}::test_a_name_that_a_book_had_goes_when_the_book_has_it_no_more"),
    Mutant("a name in a book has the warehouse written anew each night", "pipelines/warehouse/erase.py", 'return bool(found - renewal.still_there(connection, found, ("wire", "billing", "operation")))', "return bool(found)", f"{ERASE}::test_a_name_that_a_book_had_goes_when_the_book_has_it_no_more"),
    Mutant("a line of the list stops its erasure", "pipelines/warehouse/erase.py", "                words = words.difference(proof.needles.names)\n", "", f"{ERASE}::test_a_name_that_the_list_says_of_somebody_is_told_and_stops_nothing"),
    Mutant("a misspelt name is erased", "pipelines/commands/erasure.py", "            if not found and options.tenant and not options.in_advance:\n", "            if False:\n", "tests/commands/test_erasure.py"),
)  # fmt: skip
