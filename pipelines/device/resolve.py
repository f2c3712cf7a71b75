"""Names keyed hashes, at home: the names are read from the agents' own files once more, nothing is written down.

Nowhere else can this be done: it takes the tenant's key and the files. Does not belong here: what a name means.
"""

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from pipelines.contract.keys import is_keyed
from pipelines.contract.pseudonyms import is_pseudonym, pseudonym_of
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
    """The names behind keyed hashes or pseudonyms, of those that still stand in these homes.

    A pseudonym that several names have is given them all, with commas. Raises UsageError, DeviceError.
    """
    for asked in hashes:
        if not is_keyed(asked) and not is_pseudonym(asked):
            raise UsageError(
                f"{asked!r} is no keyed hash and no pseudonym: write k1_ and 32 digits or letters a to f, or two words"
                " and a number such as amber-otter-42"
            )
    enrolled = enrolment.require(home)
    now = datetime.now(UTC)
    redactor = NamingRedactor(enrolment.tenant_key(home))
    everything = Consent("0" * 32, "granted", now, "include", contract_hash())
    with closing(State(MEMORY)) as state:
        scratch = home.device / "copy-preview"
        Collector(state, enrolled, redactor, everything, now=now, progress=progress, scratch=scratch).run(homes)
    found = {
        asked: sorted({name for keyed, name in redactor.names.items() if asked == keyed or pseudonym_of(asked, keyed)})
        for asked in hashes
    }
    return {asked: ", ".join(names) for asked, names in found.items() if names}
