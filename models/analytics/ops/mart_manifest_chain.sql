with batches as (
    select *
    from {{ ref('stg_wire__batches') }}
    where device_id is not null
),

horizon as (
    select max(received_at) as known_as_of
    from batches
),

places as (
    select
        tenant_id,
        device_id,
        epoch,
        seq,
        count(*) as manifests,
        min(manifest_sha256) as manifest_sha256,
        min(previous_manifest_sha256) as previous_manifest_sha256,
        min(received_at) as received_at
    from batches
    group by tenant_id, device_id, epoch, seq
),

-- The place before, and since when the chain shows that it is missing: since anything that stands behind it arrived.
linked as (
    select
        *,
        lag(seq, 1, cast(0 as bigint)) over chain as seq_before,
        lag(manifests) over chain as manifests_before,
        lag(manifest_sha256) over chain as sha256_before,
        min(received_at) over (
            partition by tenant_id, device_id, epoch
            order by seq
            rows between current row and unbounded following
        ) as shown_at
    from places
    window chain as (partition by tenant_id, device_id, epoch order by seq)
),

-- A manifest that names another one before it than the one that is there: the device's state was set back, or cloned.
judged as (
    select
        *,
        seq - seq_before - 1 as missing,
        manifests > 1 as is_fork,
        seq_before = seq - 1
            and manifests = 1
            and manifests_before = 1
            and sha256_before <> previous_manifest_sha256 as is_rollback
    from linked
),

chains as (
    select
        tenant_id,
        device_id,
        epoch,
        count(*) as places,
        max(seq) as last_seq,
        sum(missing) as missing_batches,
        count(*) filter (where missing > 0) as gaps,
        count(*) filter (where is_fork) as forks,
        count(*) filter (where is_rollback) as rollbacks,
        min(shown_at) filter (where missing > 0) as oldest_gap_at,
        max(received_at) as last_received_at
    from judged
    group by tenant_id, device_id, epoch
)

select
    chains.tenant_id,
    chains.device_id,
    chains.epoch,
    chains.places,
    cast(chains.last_seq as bigint) as last_seq,
    cast(chains.missing_batches as bigint) as missing_batches,
    chains.gaps,
    chains.forks,
    chains.rollbacks,
    chains.missing_batches = 0 and chains.forks = 0 and chains.rollbacks = 0 as is_dense,
    coalesce(chains.oldest_gap_at < horizon.known_as_of - interval '48 hours', false) as is_overdue,
    chains.oldest_gap_at,
    chains.last_received_at,
    horizon.known_as_of
from chains
cross join horizon
