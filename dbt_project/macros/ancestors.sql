{# The walk from each session of the CTE `sessions` up to its top, as a recursive CTE `ancestors`. #}
{% macro ancestors_of_sessions() -%}
-- A parent that no device has shown yet is still an ancestor. The walk ends at a session it has passed (a cycle)
-- and after 64 steps.
ancestors as (
    select
        tenant_id,
        session_id,
        session_id as ancestor_id,
        0 as depth,
        {{ path_of('session_id') }} as path
    from sessions
    union all
    select
        ancestors.tenant_id,
        ancestors.session_id,
        sessions.parent_session_id as ancestor_id,
        ancestors.depth + 1 as depth,
        {{ path_with('ancestors.path', 'sessions.parent_session_id') }} as path
    from ancestors
    inner join sessions
        on ancestors.tenant_id = sessions.tenant_id
        and ancestors.ancestor_id = sessions.session_id
    where sessions.parent_session_id is not null
        and not {{ path_holds('ancestors.path', 'sessions.parent_session_id') }}
        and ancestors.depth < 64
)
{%- endmacro %}
