"""Steps that are tried again by themselves when the store does not answer.

The resource `duckdb` waits for the file's lock by itself. Does not belong here: what a device does about its store
(device/retry.py).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from pipelines.store import StoreUnavailableError

MOST = 3
FIRST_SECONDS = 10.0  # then twice as long each time, or as long as the store asks for
MAX_SECONDS = 300.0


@contextmanager
def retried(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Iterator[None]:
    """Have the step run again, up to MOST times, if the store is unavailable; its last error ends the run.

    Only for what may be run again from the start. Raises dagster.RetryRequested.
    """
    try:
        yield
    except StoreUnavailableError as error:
        seconds = min(MAX_SECONDS, max(FIRST_SECONDS * 2**context.retry_number, error.retry_after or 0.0))
        if context.retry_number < MOST:
            context.log.warning(f"{error}; the step is tried again in {seconds:.0f} s")
        raise dg.RetryRequested(max_retries=MOST, seconds_to_wait=seconds) from error
