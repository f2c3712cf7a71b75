with recursive grants as (
    select * from {{ ref('stg_billing__credit_grants') }}
),

plan_charges as (
    select * from {{ ref('int_billing__plan_charges') }}
),

terms as (
    select * from {{ ref('int_billing__account_terms') }}
),

-- Whose the day of a grant was by what was known when it was granted: credit of an account that had it neither then nor
-- now pays nothing.
known_then as (
    select
        grants.credit_grant_id,
        accounts.billing_account_id as owner_id
    from grants
    inner join {{ ref('stg_billing__billing_accounts') }} as accounts
        on grants.recorded_at >= accounts.recorded_at
        and grants.granted_on >= accounts.valid_from
        and (accounts.valid_to is null or grants.granted_on < accounts.valid_to)
    qualify row_number() over (
        partition by grants.credit_grant_id, accounts.tenant_id order by accounts.recorded_at desc
    ) = 1
),

-- The terms of the day; of an account that had the day once, those before it, or else after it.
granted_in as (
    select
        grants.credit_grant_id,
        terms.currency
    from grants
    inner join terms using (billing_account_id)
    left join known_then
        on grants.credit_grant_id = known_then.credit_grant_id
        and grants.billing_account_id = known_then.owner_id
    where known_then.owner_id is not null
        or (grants.granted_on >= terms.valid_from and (terms.valid_to is null or grants.granted_on < terms.valid_to))
    qualify row_number() over (
        partition by grants.credit_grant_id
        order by {{ nearest_terms('terms', 'grants.granted_on + 1') }}
    ) = 1
),

-- Credit is in the currency that its account had on the day it was granted, and pays charges in no other.
ordered as (
    select
        grants.*,
        {{ month_of('grants.granted_on') }} as first_month,
        terms.currency,
        -- What expires first is used first; then what was granted first.
        row_number() over (
            partition by grants.billing_account_id, terms.currency
            order by grants.expires_on nulls last, grants.granted_on, grants.credit_grant_id
        ) as place
    from grants
    inner join granted_in as terms using (credit_grant_id)
),

-- Each line is owed in its own currency; the charges of a plan in the one that the account had last in their month.
charged as (
    select
        charges.billing_account_id,
        terms.currency,
        charges.billing_month,
        charges.amount
    from plan_charges as charges
    inner join terms
        on charges.billing_account_id = terms.billing_account_id
        and ({{ counts_usage('charges') }} or {{ is_in_month('terms', 'charges.billing_month') }})
    qualify row_number() over (
        partition by charges.charge_id
        order by {{ nearest_terms('terms', next_month('charges.billing_month')) }}
    ) = 1
),

due as (
    select
        billing_account_id,
        currency,
        {{ month_of('usage_date') }} as billing_month,
        billed_cost as amount
    from {{ ref('int_billing__counted_lines') }}
    where billed_cost is not null
    union all
    select billing_account_id, currency, billing_month, amount
    from charged
),

owed as (
    select
        billing_account_id,
        currency,
        billing_month,
        sum(amount) as amount
    from due
    where billing_account_id in (select grants.billing_account_id from grants)
    group by billing_account_id, currency, billing_month
),

-- Grant after grant: each pays, month after month of its life, what those before it have left. A grant that ends within
-- a month still pays that month.
drawn as (
    select
        billing_account_id,
        currency,
        billing_month,
        cast(0 as bigint) as place,
        cast(null as varchar) as credit_grant_id,
        cast(0 as decimal(38, 15)) as drawn,
        cast(amount as decimal(38, 15)) as left_over
    from owed
    union all
    select
        billing_account_id,
        currency,
        billing_month,
        place,
        credit_grant_id,
        drawn,
        cast(left_over - drawn as decimal(38, 15)) as left_over
    from (
        select
            running.* exclude (so_far),
            cast(
                least(granted, so_far) - least(granted, so_far - can_pay) as decimal(38, 15)
            ) as drawn
        from (
            select
                drawn.billing_account_id,
                drawn.currency,
                drawn.billing_month,
                ordered.place,
                ordered.credit_grant_id,
                ordered.amount as granted,
                drawn.left_over,
                case
                    when drawn.billing_month >= ordered.first_month
                        and (ordered.expires_on is null or drawn.billing_month < ordered.expires_on)
                        then drawn.left_over
                    else 0
                end as can_pay,
                sum(
                    case
                        when drawn.billing_month >= ordered.first_month
                            and (ordered.expires_on is null or drawn.billing_month < ordered.expires_on)
                            then drawn.left_over
                        else 0
                    end
                ) over (
                    partition by drawn.billing_account_id, drawn.currency order by drawn.billing_month
                ) as so_far
            from drawn
            inner join ordered
                on drawn.billing_account_id = ordered.billing_account_id
                and drawn.currency = ordered.currency
                and drawn.place + 1 = ordered.place
        ) as running
    ) as paid
),

last_month as (
    select max(billing_month) as billing_month
    from owed
),

entries as (
    select
        credit_grant_id as credit_entry_id,
        credit_grant_id,
        billing_account_id,
        'grant' as entry_kind,
        reason,
        granted_by as created_by,
        currency,
        amount,
        granted_on as entry_date,
        first_month as billing_month,
        0 as place
    from ordered
    union all
    select
        {{ id_of(['credit_grant_id', 'billing_month', "'drawdown'"]) }} as credit_entry_id,
        credit_grant_id,
        billing_account_id,
        'drawdown' as entry_kind,
        'charges of the month' as reason,
        'rating' as created_by,
        currency,
        -drawn as amount,
        {{ next_month('billing_month') }} as entry_date,
        billing_month,
        1 as place
    from drawn
    where drawn > 0
    union all
    -- What nobody used until it expired; after the last month with charges nothing has expired yet.
    select
        {{ id_of(['ordered.credit_grant_id', "'expiry'"]) }} as credit_entry_id,
        ordered.credit_grant_id,
        ordered.billing_account_id,
        'expiry' as entry_kind,
        'expired' as reason,
        'rating' as created_by,
        ordered.currency,
        coalesce(sum(drawn.drawn), 0) - ordered.amount as amount,
        ordered.expires_on as entry_date,
        {{ month_of('ordered.expires_on - 1') }} as billing_month,
        2 as place
    from ordered
    cross join last_month
    left join drawn using (credit_grant_id)
    where ordered.expires_on <= {{ next_month('last_month.billing_month') }}
    group by ordered.credit_grant_id, ordered.billing_account_id, ordered.currency, ordered.amount, ordered.expires_on
    having coalesce(sum(drawn.drawn), 0) < ordered.amount
)

select
    credit_entry_id,
    credit_grant_id,
    billing_account_id,
    entry_kind,
    reason,
    created_by,
    currency,
    cast(amount as decimal(38, 15)) as amount,
    cast(sum(amount) over (
        partition by billing_account_id, currency
        order by billing_month, place, entry_date, credit_entry_id
    ) as decimal(38, 15)) as balance,
    entry_date,
    billing_month
from entries
