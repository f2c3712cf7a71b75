"""Mutants of money: rating, exchange, agreements, plans, credit, corrections and rounding, in SQL and in Python."""

from bench.mutations.mutant import Mutant

RULES = "tests/billing/test_rules.py"
AGREEMENTS = "tests/billing/test_agreements.py"
RATING = "tests/billing/test_rating.py::test_every_line_is_what_a_second_calculation_says"
PLANS = "tests/billing/test_rating.py::test_a_plan_costs_what_its_units_do_one_by_one"
MONTHS = "tests/billing/test_rating.py::test_the_parts_of_a_month_are_the_month"
YEARS = "tests/billing/test_account_years.py::test_invoices_of_generated_years_equal_a_second_calculation"
CLOSING = "tests/billing/test_closing.py"
CORRECTED = f"{CLOSING}::test_c5_a_price_correction_is_a_reversal_and_a_replacement"
CACHE = "tests/dbt/test_cache_conventions.py::test_the_input_with_cache_is_what_a_second_calculation_says"
MACROS, MODELS = "dbt_project/macros", "models"
LINES, RATES = f"{MODELS}/rating/fct_rated_lines.sql", f"{MODELS}/rating/internal/int_billing__rates_in_force.sql"
PLAN, CREDIT = (
    f"{MODELS}/statements/internal/int_billing__plan_charges.sql",
    f"{MODELS}/statements/fct_credit_ledger.sql",
)
INVOICES = f"{MODELS}/statements/fct_invoice_lines.sql"
CORRECTIONS = f"{MODELS}/statements/internal/int_billing__correction_lines.sql"

AGREED, ERASURES = "tests/billing/test_agreed_months.py", "tests/billing/test_erased_months.py"
ORDER = "tests/billing/test_order_of_closing.py"

MONEY = (
    Mutant("what was written off draws credit", f"{MODELS}/statements/internal/int_billing__counted_lines.sql", "case when written_off.line_id is null then rated.billed_cost end as billed_cost", "rated.billed_cost", f"{AGREED}::test_what_was_written_off_costs_nothing_when_its_model_gets_a_price"),
    Mutant("an item of no day is charged", f"{MODELS}/statements/internal/int_billing__plan_charges.sql", " and items.valid_from < items.valid_to", "", f"{AGREED}::test_an_item_of_no_day_charges_nothing"),
    Mutant("one that is out of order holds back all", "pipelines/billing/closing.py", "    if in_order or (opened and not closing_):", "    if opened:", f"{ORDER}::test_one_account_that_is_held_back_stops_no_others_next_month"),
    Mutant("an idle month owes no commitment", PLAN, "        select billing_period as billing_month from {{ ref('stg_billing__periods') }}", "        select billing_month from usage", f"{AGREED}::test_a_commitment_is_owed_for_a_month_in_which_nobody_uses_anything"),
    Mutant("credit pays another currency's charges", f"{MODELS}/statements/fct_charges.sql", "coalesce(charges.currency, accounts.currency) as currency", "accounts.currency", f"{AGREED}::test_credit_pays_what_was_used_before_the_currency_changed"),
    Mutant("erased colonies are one", "pipelines/billing/redaction.py", "        if column == COLONY and changed != text:", "        if False:", f"{ERASURES}::test_erased_colonies_are_counted_as_they_were"),
    Mutant("what moved back is the last account's", f"{MODELS}/statements/internal/int_billing__erased_lines.sql", "order by in_force.record_id is not null and accounts.tenant_id is null, in_force.seal_seq desc", "order by in_force.seal_seq desc", f"{ERASURES}::test_usage_that_moved_and_was_erased_then_is_billed_to_one_account"),
    Mutant("an erased seat of another account is billed twice", f"{MODELS}/statements/internal/int_billing__changed_lines.sql", "            sealed.record_id is null\n            and (", "            false\n            and (", f"{ERASURES}::test_the_seat_of_an_erased_user_is_billed_once_whatever_is_decided_of_it"),
    Mutant("an erased seat is whose day it is", f"{MODELS}/statements/internal/int_billing__erased_lines.sql", "partition by in_force.line_id, case when in_force.record_id is not null then in_force.tenant_id end", "partition by in_force.line_id, in_force.tenant_id", f"{ERASURES}::test_the_seat_of_an_erased_user_that_finance_takes_out_is_the_last_accounts"),
    Mutant("a plan charges nothing for the erased of a month that moved", f"{MODELS}/statements/fct_charges.sql", "        or {{ counts_usage('charges') }}\n", "", f"{ERASURES}::test_what_a_plan_charged_for_the_erased_stays_when_the_whole_month_moves"),
    Mutant("days of the erased that move back stay as they were", f"{MACROS}/statement.sql", "'name', 'valid_from', 'valid_to']", "'name']", f"{ERASURES}::test_a_day_of_the_erased_that_moves_back_is_built_anew"),
    Mutant("credit needs an account on the day of its grant", CREDIT, "    from grants\n    inner join terms using (billing_account_id)\n", "    from grants\n    inner join terms\n        on grants.billing_account_id = terms.billing_account_id\n        and grants.granted_on >= terms.valid_from\n        and (terms.valid_to is null or grants.granted_on < terms.valid_to)\n", f"{AGREED}::test_credit_stays_drawn_when_another_account_gets_the_day_of_its_grant"),
    Mutant("credit of a month that moved is given back", f"{MODELS}/statements/fct_charges.sql", "        charges.currency is not null\n", "        false\n", f"{ERASURES}::test_credit_that_paid_what_was_erased_stays_drawn_when_the_month_moves"),
    Mutant("a month is closed without its commitment", "pipelines/billing/closing.py", "        is_charged = period <= self.charged_through.get(account, date.max)", "        is_charged = True", f"{ORDER}::test_idle_months_that_are_closed_one_after_the_other_wait_for_their_commitment"),
    Mutant("an account is on no checklist of a month that comes first", "pipelines/billing/closing.py", "    return sorted((next_ | left |", "    return sorted((left |", f"{ORDER}::test_an_account_that_began_later_than_was_said_can_close"),
    Mutant("a month is begun before those that come first", "pipelines/billing/closing.py", "        if not in_order:\n", "        if False:\n", f"{ORDER}::test_an_account_that_ended_and_was_forgotten_can_close"),
    Mutant("a change is one of another account", "pipelines/billing/agreements.py", '        if "billing_account_id" not in new and payer["billing_account_id"] != first["billing_account_id"]:\n            continue\n', "", f"{AGREED}::test_a_change_is_not_one_of_the_account_that_pays_later"),
    Mutant("what moved and was erased is billed twice", f"{MODELS}/statements/internal/int_billing__changed_lines.sql", "where (sealed.is_taken_over or not sealed.is_erased)", "where not sealed.is_erased", f"{ERASURES}::test_usage_that_moved_and_was_erased_then_is_billed_to_one_account"),
    Mutant("what moved and was erased counts for both", f"{MODELS}/statements/internal/int_billing__counted_lines.sql", " and not is_taken_over", "", f"{ERASURES}::test_usage_that_moved_and_was_erased_then_is_billed_to_one_account"),
    Mutant("an account that ended is on no checklist", "pipelines/billing/closing.py", "    left = _unpriced(connection, period).keys() | _first_open(connection, book, period).keys()", "    left: set[str] = set()", f"{ORDER}::test_what_is_left_of_an_account_that_ended_is_on_the_checklist"),
    Mutant("a first month is closed before others", "pipelines/billing/closing.py", "    first = periods.after(frozen) if frozen is not None else first_open", "    first = periods.after(frozen) if frozen is not None else None", f"{ORDER}::test_the_first_month_that_an_account_closes_asks_for_those_before_it"),
    Mutant("a change undoes later ones", "pipelines/billing/agreements.py", "    within = [day for day in _changes(folders, tenant) if valid_from < day and (valid_to is None or day < valid_to)]", "    within: list[date] = []", f"{AGREED}::test_what_a_change_does_not_name_stays_as_later_changes_say_it"),
    Mutant("an account that is opened pays for another's days", "pipelines/billing/agreements.py", '        "valid_to": next(paid, None),', '        "valid_to": None,', f"{AGREED}::test_an_account_for_earlier_days_ends_where_another_one_pays"),
    Mutant("a seat is held twice", "pipelines/billing/agreements.py", "        if starts and (held", "        if False and (held", f"{AGREED}::test_what_would_be_charged_twice_or_not_at_all_is_refused"),
    Mutant("a plan said again takes months back", "pipelines/billing/agreements.py", "    _require_start(item_id, row, said)\n", "", f"{AGREED}::test_what_would_be_charged_twice_or_not_at_all_is_refused"),
    Mutant("shares by name, not by remainder", "pipelines/billing/prove.py", "key=lambda name: (whole[name] - exact[name] / unit, name))", "key=lambda name: name)", f"{RULES}::test_an_invoice_is_spread_by_largest_remainder"),
    Mutant("a late commitment is a price", "pipelines/billing/exports.py", '    return "commitment" if new["ChargeCategory"] == "Adjustment" else "price"', '    return "price"', f"{RULES}::test_what_changed_has_its_cause"),
    Mutant("an account is a path", "pipelines/billing/exports.py", '    name = quote(account, safe="")', '    name = quote(account)', f"{RULES}::test_an_account_is_one_folder"),
    Mutant("a formula leaves", "pipelines/billing/statements.py", "    return f\"'{text}\" if text.lstrip().startswith(FORMULA_STARTS) else text", "    return f\"'{text}\" if text.startswith(FORMULA_STARTS) else text", f"{RULES}::test_text_and_numbers_of_a_file"),
    Mutant("nobody approves", "pipelines/billing/agreements.py", "        if not self.recorded_by.strip() or not self.approved_by.strip():", "        if not self.recorded_by.strip():", f"{AGREEMENTS}::test_a_row_needs_who_approved_it"),
    Mutant("the first word counts", "pipelines/billing/agreements.py", '    last = max(rows, key=lambda row: row["recorded_at"], default=None)', '    last = min(rows, key=lambda row: row["recorded_at"], default=None)', f"{AGREEMENTS}::test_of_each_day_the_row_recorded_last_speaks"),
    Mutant("an account ends a day late", "pipelines/billing/agreements.py", '        and (row["valid_to"] is None or day < row["valid_to"])', '        and (row["valid_to"] is None or day <= row["valid_to"])', f"{AGREEMENTS}::test_the_mart_says_the_same_of_each_day"),
    Mutant("lines are rounded and then summed", INVOICES, "{{ payable_minor_units('sum(units) over invoice') }}", "sum({{ payable_minor_units('units') }}) over invoice", "tests/billing/test_accounts_apart.py::test_an_invoice_is_not_the_sum_of_rounded_lines"),
    Mutant("a unit price has eight digits", f"{MACROS}/money.sql", "cast(round({{ amount }}, 9)", "cast(round({{ amount }}, 8)", RATING),
    Mutant("a price begins one microsecond late", LINES, "lines.occurred_at >= rates.in_force_from", "lines.occurred_at > rates.in_force_from", "tests/billing/test_rating.py::test_a_price_counts_from_its_first_microsecond_on"),
    Mutant("weekdays of a price list are ignored", LINES, "(rates.dow_mask & {{ utc_weekday_bit('lines.occurred_at') }}) <> 0", "rates.dow_mask <> 0", RATING),
    Mutant("cached tokens are charged as uncached too", LINES, "input_tokens - read_tokens - write_tokens as quantity", "input_tokens - write_tokens as quantity", RATING),
    Mutant("batch is charged at the standard price", LINES, "coalesce(t.service_tier = 'batch', false)", "false", RATING),
    Mutant("a rate of exchange counts from the next day", LINES, "pairs.usage_date >= fx_rates.valid_from", "pairs.usage_date > fx_rates.valid_from", RATING),
    Mutant("the general agreement goes first", LINES, "order by contracts.model is null,", "order by contracts.model is not null,", "tests/billing/test_rating.py::test_the_agreement_that_names_the_most_counts"),
    Mutant("usage without a price is free", LINES, "        else {{ line_amount('quantity', 'contracted_unit_price') }}\n    end as billed_cost", "        else coalesce({{ line_amount('quantity', 'contracted_unit_price') }}, 0)\n    end as billed_cost", RATING),
    Mutant("tokens written to a cache beside the input are lost", f"{MACROS}/cache_convention.sql", "then {{ input }} + {{ read }} + {{ write }}", "then {{ input }} + {{ read }}", CACHE),
    Mutant("a statement is believed against the numbers", f"{MACROS}/cache_convention.sql", "        when {{ read }} > {{ input }} or {{ write }} > {{ input }} then 'exclusive'\n        when {{ stated }} in ('exclusive', 'read_inclusive') then {{ stated }}", "        when {{ stated }} in ('exclusive', 'read_inclusive') then {{ stated }}\n        when {{ read }} > {{ input }} or {{ write }} > {{ input }} then 'exclusive'", CACHE),
    Mutant("what is unproven is counted by the most", f"{MACROS}/cache_convention.sql", "{{ input }} + least({{ read }}, {{ write }})", "{{ input }} + greatest({{ read }}, {{ write }})", CACHE),
    Mutant("included units are charged", PLAN, "greatest(units - included_units, 0)", "units", PLANS),
    Mutant("a commitment is charged in full", PLAN, "commit_amount - case when item = 'rated_cost' then billed_cost else amount end as amount", "commit_amount as amount", PLANS),
    Mutant("a seat does not pay its last day", f"{MACROS}/money.sql", "* 1000000 * (' ~ end_day ~ ')'", "* 1000000 * (' ~ end_day ~ ' - 1)'", MONTHS),
    Mutant("a grant of credit pays every month anew", CREDIT, "least(granted, so_far) - least(granted, so_far - can_pay)", "least(granted, can_pay)", YEARS),
    Mutant("a correction charges a second time", CORRECTIONS, "-sealed.{{ measure }} as {{ measure }}", "sealed.{{ measure }} as {{ measure }}", CORRECTED),
    Mutant("a late line goes into the closed month", CORRECTIONS, "        frozen.correction_period as billing_period,\n        coalesce(sealed.effective_cost", "        current_lines.incurred_period as billing_period,\n        coalesce(sealed.effective_cost", CORRECTED),
    Mutant("another sheet with the same price is a correction", f"{MACROS}/statement.sql", "        'model', 'component',", "        'model', 'price_id', 'component',", f"{CLOSING}::test_another_sheet_with_the_same_price_corrects_nothing"),
    Mutant("credit of a stranger's day pays", CREDIT, "    where known_then.owner_id is not null\n", "    where grants.credit_grant_id is not null\n", f"{AGREED}::test_credit_of_a_day_that_its_account_never_had_pays_nothing"),
    Mutant("a month closes on marts of another release", "pipelines/warehouse/definitions.py", "    if not needed_by(layer, manifest).isdisjoint(changed(warehouse, manifest)):\n", "    if not manifest:\n", f"{ORDER}::test_no_month_is_closed_on_marts_of_another_release"),
)  # fmt: skip
