"""Names keyed hashes, at home: the names are read from the agents' own files once more, nothing is written down.

Nowhere else can this be done: it takes the tenant's key and the files. Does not belong here: what a name means.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pipelines.contract.keys import is_keyed
from pipelines.contract.wire import contract_hash
from pipelines.device import enrolment
from pipelines.device.collect import Collector, Progress
from pipelines.device.consent import Consent
from pipelines.device.redact import NamingRedactor
from pipelines.device.state import MEMORY, State
from pipelines.errors import UsageError
from pipelines.home import Home


def resolve(
    home: Home, homes: Sequence[Path], hashes: Sequence[str], *, progress: Progress | None = None
) -> dict[str, str]:
    """The names behind keyed hashes, of those that still stand in these homes. Raises UsageError, DeviceError."""
    for keyed in hashes:
        if not is_keyed(keyed):
            raise UsageError(f"{keyed!r} is no keyed hash: it looks like k1_ and 32 digits or letters a to f")
    enrolled = enrolment.require(home)
    now = datetime.now(UTC)
    redactor = NamingRedactor(enrolment.tenant_key(home))
    everything = Consent("0" * 32, "granted", now, "include", contract_hash())
    with closing(State(MEMORY)) as state:
        scratch = home.device / "copy-preview"
        Collector(state, enrolled, redactor, everything, now=now, progress=progress, scratch=scratch).run(homes)
    return {keyed: redactor.names[keyed] for keyed in hashes if keyed in redactor.names}
