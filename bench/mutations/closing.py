"""Mutants of closing: the book of periods, its conditions, the signature, lines of a month, the gate before a statement."""

from bench.mutations.mutant import Mutant

RULES = "tests/billing/test_rules.py"
FOCUS = "tests/billing/test_focus_rules.py::test_rows_of_every_category_keep_the_rules_and_each_rule_finds_its_fault"
LINES = "models/statements/internal/int_billing__"

CLOSING = (
    Mutant("an empty signature closes a month", "pipelines/billing/closing.py", "    if len(signed) < SIGNATURE_LENGTH or not digest", "    if not digest", f"{RULES}::test_an_empty_or_short_signature_signs_nothing"),
    Mutant("any signature closes a month", "pipelines/billing/closing.py", " or not digest.startswith(signed):", ":", f"{RULES}::test_an_empty_or_short_signature_signs_nothing"),
    Mutant("payables are not signed", "pipelines/billing/closing.py", '            "payable": {p.invoice_id: [p.currency, plain(p.exact), plain(p.payable)] for p in self.payables},\n', "", f"{RULES}::test_a_signature_is_of_all_that_is_shown"),
    Mutant("the book's chain is not followed", "pipelines/billing/periods.py", "        if not is_next:", "        if number < 0:", f"{RULES}::test_a_book_that_was_changed_is_not_read"),
    Mutant("a step without a reason", "pipelines/billing/periods.py", "    if not transition.actor.strip() or not transition.reason.strip():", "    if not transition.actor.strip():", f"{RULES}::test_a_line_that_breaks_a_rule_is_not_written"),
    Mutant("a step out of turn", "pipelines/billing/periods.py", "        if transition.before != status or ALLOWED[status] != transition.after:", "        if transition.before != status:", f"{RULES}::test_a_line_that_breaks_a_rule_is_not_written"),
    Mutant("time goes back", "pipelines/billing/periods.py", "    if transition.as_of < latest:", "    if transition.as_of > latest + timedelta(days=9999):", f"{RULES}::test_time_does_not_go_back"),
    Mutant("a month closes before it ends", "pipelines/billing/periods.py", "after that\" if as_of < end else None", "after that\" if as_of < end - timedelta(days=1) else None", f"{RULES}::test_closing_begins_after_the_end_and_in_order"),
    Mutant("months close in any order", "pipelines/billing/periods.py", "        if frozen is not None and period > after(frozen):", "        if frozen is not None and period < frozen:", f"{RULES}::test_closing_begins_after_the_end_and_in_order"),
    Mutant("grace by the clock alone", "pipelines/billing/periods.py", "min(as_of, watermark_at) >= until", "as_of >= until", f"{RULES}::test_grace_is_over_by_both_clocks"),
    Mutant("everything can be waived", "pipelines/billing/periods.py", "not (c.can_be_waived and waived.get(c.name, \"\").strip())]", "not waived.get(c.name, \"\").strip()]", f"{RULES}::test_a_waiver_needs_a_reason_and_a_condition_that_can_be_waived"),
    Mutant("a waiver without a reason", "pipelines/billing/periods.py", 'waived.get(c.name, "").strip())]', "c.name in waived)]", f"{RULES}::test_a_waiver_needs_a_reason_and_a_condition_that_can_be_waived"),
    Mutant("one account's month is everybody's", "pipelines/billing/periods.py", "        return self.accounts is None or account in self._names", "        return True", f"{RULES}::test_each_account_has_its_own_months"),
    Mutant("nothing checked is all well", "pipelines/billing/gate.py", "    if not checks:\n", "    if checks is None:\n", f"{RULES}::test_the_gate_stops_whom_it_is_about"),
    Mutant("one account's check stops everybody", "pipelines/billing/gate.py", " if check.accounts is None]", "]", f"{RULES}::test_the_gate_stops_whom_it_is_about"),
    Mutant("an account's own check stops nobody", "pipelines/billing/gate.py", "(self.accounts is None or account in self.accounts)", "self.accounts is None", f"{RULES}::test_the_gate_stops_whom_it_is_about"),
    Mutant("a purchase costs what it covers once more", f"{LINES}original_lines.sql", "            else 0\n", "            else lines.billed_cost\n", FOCUS),
    Mutant("a plan without its purchase is spread", f"{LINES}original_lines.sql", "    where lines.is_covered or lines.charge_category = 'Purchase'\n", "    where lines.charge_category = 'Purchase'\n", FOCUS),
    Mutant("what is written off takes a share of a plan", f"{LINES}open_lines.sql", " and current_lines.settlement_id is null\n", "\n", FOCUS),
    Mutant("usage of closed months is billed again", f"{LINES}open_lines.sql", "where current_lines.incurred_period > frozen.closed_through", "where true", FOCUS),
)  # fmt: skip
