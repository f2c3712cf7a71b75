with reports as (
    select * from {{ ref('stg_billing__provider_costs') }}
),

-- Providers revise their days: the report pulled last speaks for a day, also by what it does not name any more.
newest as (
    select
        provider_name,
        report_kind,
        usage_date,
        max(pulled_at) as pulled_at
    from reports
    group by provider_name, report_kind, usage_date
),

revisions as (
    select
        provider_name,
        report_kind,
        usage_date,
        pulled_at,
        dense_rank() over (partition by provider_name, report_kind, usage_date order by pulled_at) as revision
    from (select distinct provider_name, report_kind, usage_date, pulled_at from reports) as pulls
)

select
    reports.provider_name,
    reports.report_kind,
    reports.project_id,
    reports.model,
    reports.token_type,
    reports.service_tier,
    reports.context_window,
    reports.currency,
    reports.report_sha256,
    reports.quantity,
    revisions.revision,
    reports.amount,
    newest.pulled_at is not null as is_current,
    reports.usage_date,
    reports.pulled_at
from reports
inner join revisions using (provider_name, report_kind, usage_date, pulled_at)
left join newest
    on reports.provider_name = newest.provider_name
    and reports.report_kind = newest.report_kind
    and reports.usage_date = newest.usage_date
    and reports.pulled_at = newest.pulled_at
