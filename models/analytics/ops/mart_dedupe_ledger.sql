with source_files as (
    select * from {{ ref('stg_wire__source_files') }}
),

row_counts as (
    select * from {{ ref('stg_wire__row_counts') }}
),

turns as (
    select * from {{ ref('fct_llm_turns') }}
),

seen as (
    select
        tenant_id,
        sum(turn_lines_seen) as raw_turn_lines,
        sum(turn_lines_duplicate) as collapsed_on_device
    from source_files
    group by tenant_id
),

superseded as (
    select * from {{ ref('stg_wire__superseded_records') }}
),

collapsed_rows as (
    select
        tenant_id,
        turn_rows_duplicate + turn_rows_conflict as turn_rows,
        input_tokens_duplicate + input_tokens_conflict + output_tokens_duplicate + output_tokens_conflict as tokens,
        reported_cost_usd_collapsed as reported_cost_usd
    from row_counts
    where table_name in ('llm_turns', 'node_steps')
    union all
    select
        tenant_id,
        case when is_turn then 1 else 0 end as turn_rows,
        tokens,
        reported_cost_usd
    from superseded
),

-- A row set aside as a conflict did not become a turn either. Compaction markers are no turns: rows_duplicate has them.
collapsed as (
    select
        tenant_id,
        sum(turn_rows) as collapsed_in_warehouse,
        sum(tokens) as collapsed_tokens,
        sum(reported_cost_usd) as collapsed_reported_cost_usd
    from collapsed_rows
    group by tenant_id
),

kept as (
    select
        tenant_id,
        count(*) as kept_turns,
        count(*) filter (where count_basis = 'step_without_event') as kept_steps_without_event
    from turns
    group by tenant_id
),

-- Rule by rule, why a step does not count.
retracted as (
    select
        tenant_id,
        count(*) as steps,
        count(*) filter (where match_rule = 'same_turn') as steps_same_turn,
        count(*) filter (where match_rule = 'other_tokens') as steps_other_tokens,
        count(*) filter (where match_rule = 'died') as steps_died,
        sum(input_tokens + output_tokens) as tokens
    from {{ ref('int_usage__steps_matched') }}
    where match_rule in ('same_turn', 'other_tokens', 'died')
    group by tenant_id
),

tenants as (
    select tenant_id from seen
    union
    select tenant_id from collapsed
    union
    select tenant_id from kept
    union
    select tenant_id from retracted
)

select
    tenants.tenant_id,
    cast(coalesce(seen.raw_turn_lines, 0) as bigint) as raw_turn_lines,
    cast(coalesce(kept.kept_turns, 0) as bigint) as kept_turns,
    cast(coalesce(seen.collapsed_on_device, 0) as bigint) as collapsed_on_device,
    cast(coalesce(collapsed.collapsed_in_warehouse, 0) as bigint) as collapsed_in_warehouse,
    cast(coalesce(retracted.steps, 0) as bigint) as retracted_steps,
    cast(coalesce(retracted.steps_same_turn, 0) as bigint) as retracted_steps_same_turn,
    cast(coalesce(retracted.steps_other_tokens, 0) as bigint) as retracted_steps_other_tokens,
    cast(coalesce(retracted.steps_died, 0) as bigint) as retracted_steps_died,
    cast(coalesce(kept.kept_steps_without_event, 0) as bigint) as kept_steps_without_event,
    cast(coalesce(collapsed.collapsed_tokens, 0) as bigint) as collapsed_tokens,
    cast(coalesce(retracted.tokens, 0) as bigint) as retracted_tokens,
    cast(collapsed.collapsed_reported_cost_usd as decimal(38, 20)) as collapsed_reported_cost_usd
from tenants
left join seen using (tenant_id)
left join kept using (tenant_id)
left join collapsed using (tenant_id)
left join retracted using (tenant_id)
