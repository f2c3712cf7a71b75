{{ config(materialized='view') }}

-- A user may have several homes and devices, each with a file of its own.
with claims as (
    select
        tenant_id,
        _user_id as user_id,
        agent_runtime,
        claimed_by,
        model,
        sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens,
        max(observed_at) as observed_at
    from {{ ref('stg_wire__control_totals') }}
    where session_id is null
        and turn_id is null
    group by tenant_id, _user_id, agent_runtime, claimed_by, model
),

-- A claim without a model is of all of them.
counted as (
    select
        tenant_id,
        user_id,
        agent_runtime,
        model,
        sum(input_tokens) as input_tokens,
        sum(output_tokens) as output_tokens
    from {{ ref('mart_usage_rollup') }}
    where user_id is not null
    group by grouping sets (
        (tenant_id, user_id, agent_runtime, model),
        (tenant_id, user_id, agent_runtime)
    )
    having model is not null or grouping(model) = 1
),

compared as (
    select
        claims.*,
        coalesce(counted.input_tokens, 0) as counted_input_tokens,
        coalesce(counted.output_tokens, 0) as counted_output_tokens
    from claims
    left join counted
        on claims.tenant_id = counted.tenant_id
        and claims.user_id = counted.user_id
        and claims.agent_runtime = counted.agent_runtime
        and claims.model is not distinct from counted.model
)

select
    tenant_id,
    user_id,
    agent_runtime,
    claimed_by,
    model,
    case
        when input_tokens = counted_input_tokens and output_tokens = counted_output_tokens then 'none'
        when input_tokens >= counted_input_tokens and output_tokens >= counted_output_tokens then 'deleted_history'
        when input_tokens <= counted_input_tokens and output_tokens <= counted_output_tokens then 'written_before_the_end'
        else 'unexplained'
    end as difference_reason,
    cast(input_tokens as bigint) as claimed_input_tokens,
    cast(output_tokens as bigint) as claimed_output_tokens,
    cast(counted_input_tokens as bigint) as counted_input_tokens,
    cast(counted_output_tokens as bigint) as counted_output_tokens,
    observed_at
from compared
