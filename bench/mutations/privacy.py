"""Mutants of privacy on the device: what a consent covers, and how values are made fit to leave."""

from bench.mutations.mutant import Mutant

CONSENT, REDACT = "tests/device/test_consent.py", "tests/device/test_redact.py"
SCOPE = "tests/device/test_scope.py"
OUTSIDE = f"{CONSENT}::test_a_home_outside_the_grant_is_not_even_looked_at"
NARROWER = f"{CONSENT}::test_a_narrower_grant_lets_nothing_out_that_was_read_under_the_wider_one"
IDS = f"{REDACT}::test_an_id_is_clear_only_in_the_form_that_a_source_makes_for_its_column"
PRIVATE = f"{REDACT}::test_a_private_model_is_keyed_whole"
POLICY = f"{SCOPE}::test_a_scope_covers_what_it_lets_out"
BOOK = f"{SCOPE}::test_a_grant_is_read_as_it_was_written"

PRIVACY = (
    Mutant("a contract that changed needs no consent", "pipelines/device/consent.py", "    if consent.is_outdated:", "    if not consent.contract_hash:", f"{CONSENT}::test_a_contract_that_became_wider_needs_a_new_grant"),
    Mutant("a paused consent sends", "pipelines/device/consent.py", 'if consent is None or consent.state != "granted":\n        raise UsageError(WHAT_TO_DO', 'if consent is None or consent.state not in ("granted", "paused"):\n        raise UsageError(WHAT_TO_DO', f"{SCOPE}::test_only_an_open_grant_lets_anything_out"),
    Mutant("a withdrawn consent sends", "pipelines/device/consent.py", 'if consent is None or consent.state != "granted":\n        raise UsageError(WHAT_TO_DO', 'if consent is None or consent.state == "paused":\n        raise UsageError(WHAT_TO_DO', f"{SCOPE}::test_only_an_open_grant_lets_anything_out"),
    Mutant("every home is covered", "pipelines/device/collect.py", "home for home in homes if scope is None or home_key(self._redactor, home) in scope or not home.is_dir()", "home for home in homes", OUTSIDE),
    Mutant("every source is covered", "pipelines/device/collect.py", "self._kinds = consent.scope.sources", 'self._kinds = frozenset({"events", "logs", "descriptions", "tasks"})', f"{CONSENT}::test_only_the_kinds_of_sources_that_were_granted_are_opened"),
    Mutant("every runtime is covered", "pipelines/device/collect.py", "inner = [home for home in found if home.runtime is None or home.runtime.name in runtimes]", "inner = list(found)", f"{SCOPE}::test_a_runtime_outside_the_grant_is_not_read"),
    Mutant("a grant from before there were runtimes covers all", "pipelines/device/consent.py", 'or frozenset({"hive"})', "or frozenset(AGENT_RUNTIMES)", f"{SCOPE}::test_a_grant_from_before_there_were_runtimes_is_of_hive"),
    Mutant("a grant without a scope is written", "pipelines/device/consent.py", "    state.set_scope(consent.consent_id, None if scope.homes is None else sorted(scope.homes), named)\n", "", BOOK),
    Mutant("fewer sources need no new start", "pipelines/device/consent.py", "            other.sources <= self.sources\n            and ", "            ", POLICY),
    Mutant("fewer runtimes need no new start", "pipelines/device/consent.py", "            and other.runtimes <= self.runtimes\n", "", POLICY),
    Mutant("fewer homes need no new start", "pipelines/device/consent.py", "            and (self.homes is None or (other.homes is not None and other.homes <= self.homes))\n", "", POLICY),
    Mutant("what a wider grant read is sent", "pipelines/device/grant.py", "or not scope.covers(before.scope)):", "):", NARROWER),
    Mutant("a withdrawal keeps the spool", "pipelines/device/grant.py", '        fp("withdraw.committed")\n        Spool(home.device / "spool").purge()\n', '        fp("withdraw.committed")\n', f"{CONSENT}::test_a_withdrawal_empties_everything_and_a_new_grant_doubles_nothing"),
    Mutant("the grant has no baseline", "pipelines/device/grant.py", '            if history == "exclude":\n', '            if history == "none":\n', f"{CONSENT}::test_no_record_of_before_the_grant_leaves_and_every_one_after_it_does"),
    Mutant("a request names the newest epoch only", "pipelines/device/consent.py", "        sent = [*sorted(set(epochs) - set(own)), *own]", "        sent = own[-1:]", "tests/device/test_owner.py::test_a_withdrawal_names_what_a_state_sent_that_is_gone"),
    Mutant("keyed without a key", "pipelines/device/redact.py", "digest = hmac.digest(self._key, text.encode", "digest = hmac.digest(bytes(32), text.encode", f"{REDACT}::test_a_name_outside_the_public_lists_is_keyed_and_equal_names_are_equal"),
    Mutant("an identity keyed without a key", "pipelines/device/redact.py", '        return hmac.digest(self._key, text, "sha256").hex()[:32]', '        return hmac.digest(bytes(32), text, "sha256").hex()[:32]', f"{REDACT}::test_an_identity_depends_on_the_key_exactly_if_a_name_is_in_it"),
    Mutant("an id's form is searched, not matched", "pipelines/device/redact.py", "column.regex.fullmatch(text) or (column.vocabulary", "column.regex.match(text) or (column.vocabulary", IDS),
    Mutant("an id of any form travels", "pipelines/device/redact.py", "return text if is_clear else self.keyed(text)", "return text if is_clear or text.isalnum() else self.keyed(text)", IDS),
    Mutant("nine digits are an id", "pipelines/contract/keys.py", 'rf"(?!\\d+$)[0-9a-f]{{{length}}}"', 'rf"[0-9a-f]{{{length}}}"', IDS),
    Mutant("digits of every script", "pipelines/contract/table.py", "return re.compile(self.pattern, re.ASCII)", "return re.compile(self.pattern)", f"{REDACT}::test_a_generated_id_travels_and_a_chosen_one_is_keyed"),
    Mutant("a word of an enum passes", "pipelines/device/redact.py", 'return lambda value: allowed.get(value, other) if isinstance(value, str) and value else None', "return lambda value: value", f"{REDACT}::test_an_enum_takes_only_its_list"),
    Mutant("a list passes in place of its length", "pipelines/device/redact.py", "value = len(value) if isinstance(value, (list, tuple, str, dict)) else value", "pass", f"{REDACT}::test_a_list_or_a_text_becomes_its_length"),
    Mutant("a model behind any provider is public", "pipelines/contract/vocabulary/__init__.py", '    if not all(segment in names("providers") for segment in route):\n        return False\n', "", PRIVATE),
    Mutant("any tag of a model is public", "pipelines/contract/vocabulary/__init__.py", 'untagged = cloud["model"] if cloud else _TAG.sub("", name)', 'untagged = cloud["model"] if cloud else name.partition(":")[0]', PRIVATE),
    Mutant("any date of a model is public", "pipelines/contract/vocabulary/__init__.py", "_DATE.sub(\"\", untagged)))", 're.sub(r"[-@]20.*", "", untagged)))', PRIVATE),
    Mutant("a column outside the contract is dropped in silence", "pipelines/device/redact.py", "    if not values.keys() <= plan.checks.keys():\n", "    if not values.keys():\n", f"{REDACT}::test_a_reader_cannot_bring_a_column_that_the_contract_does_not_name"),
    Mutant("a value that must not go together is sent", "pipelines/contract/table.py", "            row[self.column] = None\n", "            pass\n", "tests/contract/test_rules.py::test_a_device_sends_the_row_without_the_value"),
    Mutant("a tenant's name may be an address", "pipelines/contract/keys.py", 'SLUG = r"[a-z0-9][a-z0-9_-]{0,62}"', 'SLUG = r"[a-z0-9][a-z0-9@._-]{0,62}"', "tests/contract/test_keys.py::test_anything_else_is_none"),
    Mutant("a word in an identity is of fixed form", "pipelines/contract/keys.py", "    if isinstance(part, Constant) or not part:", "    if part.isalpha() or not part:", "tests/device/test_identity.py::test_no_word_of_ten_thousand_is_found_again"),
    Mutant("a session's own name is kept", "pipelines/device/collect.py", '        return f"{kind}/{self._redactor.identifier(SESSION, session)}" if slash else name\n', "        return name\n", "tests/device/test_claude_code.py::test_a_name_that_somebody_gave_a_session_is_not_kept"),
    Mutant("a paused grant is none", "pipelines/device/grant.py", 'before.state in ("granted", "paused")', 'before.state == "granted"', f"{CONSENT}::test_a_narrower_grant_lets_nothing_out_that_was_read_under_the_wider_one"),
    Mutant("sums of before a grant leave", "pipelines/device/collect.py", "        return self._since is not None and (since is None or since < self._since)\n", "        return False\n", f"{CONSENT}::test_sums_of_what_was_before_a_grant_without_history_stay"),
    Mutant("terms that were piped away are agreed to", "pipelines/commands/device.py", "    if sys.stdin.isatty() and not (is_watched or options.yes):", "    if False:", "tests/commands/test_consent_screen.py::test_a_person_whose_output_is_piped_away_is_not_asked_about_what_went_there"),
)  # fmt: skip
