-- A note, not a stop: a run's report of its sources and its turns travel in different batches, and a batch may be late
-- or in quarantine. The difference is then what is missing.
{{ config(severity='warn') }}

select
    tenant_id,
    raw_turn_lines,
    raw_turn_lines - kept_turns - collapsed_on_device - collapsed_in_warehouse - retracted_steps as unexplained_lines
from {{ ref('mart_dedupe_ledger') }}
where raw_turn_lines <> kept_turns + collapsed_on_device + collapsed_in_warehouse + retracted_steps
