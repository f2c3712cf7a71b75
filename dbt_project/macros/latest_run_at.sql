{# The run in which each thing happened that happened during one: of runs that went on at once, the one that began last.
   `moments` names a query of tenant_id, session_id, kind, happened_id and occurred_at, `runs` one of tenant_id, session_id,
   run_key, started_at and ended_at, which is null while a run goes on. Rows of tenant_id, session_id, kind, happened_id
   and run_key.

   To try each moment with each run of its session would cost their product. Instead a run is a range of the moments'
   positions, split into blocks of aligned powers of two, at most two of each width; a moment looks at one block of each
   width (a segment tree). n runs and moments of a session cost n log n, however many of the runs go on at once. #}
{% macro latest_run_at(moments, runs) -%}
    with timeline as (
        select tenant_id, session_id, kind, happened_id as id, occurred_at as moment, 1 as moments
        from {{ moments }}
        union all
        select tenant_id, session_id, 'run_start' as kind, run_key as id, started_at as moment, 0 as moments
        from {{ runs }}
        union all
        select tenant_id, session_id, 'run_end' as kind, run_key as id, ended_at as moment, 0 as moments
        from {{ runs }}
    ),

    -- How many moments there were until then, those of the same instant included: a moment has the position before that.
    -- An end that is not known comes after all of them.
    counted as (
        select
            *,
            cast(
                sum(moments) over (
                    partition by tenant_id, session_id
                    order by moment asc nulls last
                    range between unbounded preceding and current row
                ) as bigint
            ) as moments_until
        from timeline
    ),

    ranges as (
        select
            runs.tenant_id,
            runs.session_id,
            runs.run_key,
            runs.started_at,
            starts.moments_until as first_position,
            ends.moments_until as end_position
        from {{ runs }} as runs
        inner join counted as starts
            on runs.tenant_id = starts.tenant_id
            and runs.session_id = starts.session_id
            and runs.run_key = starts.id
            and starts.kind = 'run_start'
        inner join counted as ends
            on runs.tenant_id = ends.tenant_id
            and runs.session_id = ends.session_id
            and runs.run_key = ends.id
            and ends.kind = 'run_end'
    ),

    widths as (
        select cast(pow(2, exponent) as bigint) as width
        from (select {{ numbers_between(0, 40) }} as exponent) as exponents
    ),

    covered as (
        select
            ranges.*,
            widths.width,
            (ranges.first_position + widths.width - 1) // widths.width as first_block,
            ranges.end_position // widths.width as end_block
        from ranges
        inner join widths
            on ranges.end_position >= widths.width
    ),

    blocks as (
        select tenant_id, session_id, run_key, started_at, width, first_block as block
        from covered
        where first_block < end_block and first_block % 2 = 1
        union all
        select tenant_id, session_id, run_key, started_at, width, end_block - 1 as block
        from covered
        where first_block < end_block and end_block % 2 = 1
    ),

    latest_of_block as (
        select
            tenant_id,
            session_id,
            width,
            block,
            {{ latest('run_key', pair('started_at', 'run_key')) }} as run_key,
            max(started_at) as started_at
        from blocks
        group by tenant_id, session_id, width, block
    ),

    widths_of_session as (
        select distinct tenant_id, session_id, width
        from latest_of_block
    ),

    looked_at as (
        select
            counted.tenant_id,
            counted.session_id,
            counted.kind,
            counted.id as happened_id,
            widths_of_session.width,
            (counted.moments_until - 1) // widths_of_session.width as block
        from counted
        inner join widths_of_session using (tenant_id, session_id)
        where counted.moments = 1
    )

    select
        tenant_id,
        session_id,
        looked_at.kind,
        looked_at.happened_id,
        {{ latest('latest_of_block.run_key', pair('latest_of_block.started_at', 'latest_of_block.run_key')) }} as run_key
    from looked_at
    inner join latest_of_block using (tenant_id, session_id, width, block)
    group by tenant_id, session_id, looked_at.kind, looked_at.happened_id
{%- endmacro %}
