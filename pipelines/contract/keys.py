"""Identifiers and object keys: pure functions from facts to names.

Does not belong here: hashing under a tenant's key (device/redact.py), talking to a store (pipelines/store.py).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

PROTOCOL = "v1"
# Everything that a device writes to a store lies under one of these: a writer elsewhere leaves what no erasure clears
# (tests/device/test_written_keys.py observes every put of every command).
LANDING = f"landing/{PROTOCOL}/"
REQUESTS = f"requests/{PROTOCOL}/"  # owners' requests, beside the landing
# Where release 0.1.0 put them: what lies there is read and erased, and credentials of then may allow no other place.
EARLIER_REQUESTS = "x1/"
PROBES = f"probe/{PROTOCOL}/"
WRITTEN_BY_DEVICES = (LANDING, REQUESTS, PROBES)
SLUG = r"[a-z0-9][a-z0-9_-]{0,62}"
SESSION_ID = r"session_\d{8}_\d{6}_[0-9a-f]{8}"
RUN_STAMP = r"\d{8}T\d{6}_[0-9a-f]{8}"
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
HEX_12, HEX_16, HEX_32 = (rf"(?!\d+$)[0-9a-f]{{{length}}}" for length in (12, 16, 32))
"""Random hexadecimal digits of one length. Decimal digits alone may be a telephone or a card number."""
GENERATED_ID = rf"{SESSION_ID}|{RUN_STAMP}|worker:{SESSION_ID}|[0-9a-f]{{12}}|[0-9a-f]{{16}}|[0-9a-f]{{32}}|{UUID}"
# As providers write them: of a fixed form, so no person chose them.
RESPONSE_ID = r"(msg|resp|chatcmpl|gen|req)([_-](bdrk|vrtx))?[_-][0-9A-Za-z]{16,64}"
TOOL_USE_ID = r"(toolu|call)_((bdrk|vrtx)_)?(?=\D*\d)([0-9a-f]{12,32}|[0-9A-Za-z]{20,32})"
TIMESTAMP = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?"
KEYED = r"k1_[0-9a-f]{32}"
RECORD_ID = r"[0-9a-f]{32}"
SHA256 = r"[0-9a-f]{64}"

_GENERATED = re.compile(GENERATED_ID, re.ASCII)
_FIXED_FORM = re.compile(rf"\d{{1,6}}|{TIMESTAMP}|{RESPONSE_ID}|{TOOL_USE_ID}", re.ASCII)
_SLUG = re.compile(SLUG)
_KEYED = re.compile(KEYED)
_MANIFEST = re.compile(
    rf"landing/{PROTOCOL}/(?P<region>{SLUG})/(?P<tenant>{SLUG})/(?P<device>[0-9a-f]{{32}})/(?P<epoch>[0-9a-f]{{16}})"
    r"/m/(?P<seq>\d{10})-(?P<sha16>[0-9a-f]{16})\.json"
)
_UNDER_PREFIX = re.compile(
    rf"landing/{PROTOCOL}/(?P<region>{SLUG})/(?P<tenant>{SLUG})/(?P<device>[0-9a-f]{{32}})/(?P<epoch>[0-9a-f]{{16}})/.+"
)
_OWNED = re.compile(
    rf"(?:landing/{PROTOCOL}/{SLUG}/|{REQUESTS}|{EARLIER_REQUESTS}|probe/{PROTOCOL}/)(?P<tenant>{SLUG})/(?P<device>[0-9a-f]{{32}})/"
    r"(?:(?P<epoch>[0-9a-f]{16})/)?.*",
    re.DOTALL,
)
_NAMED_BY_CONTRACT = re.compile(
    rf"landing/{PROTOCOL}/{SLUG}/{SLUG}/[0-9a-f]{{32}}/[0-9a-f]{{16}}/"
    r"(?:d/\d{10}-[a-z_]+-[0-9a-f]{16}\.parquet|m/\d{10}-[0-9a-f]{16}\.json)"
    rf"|(?:{REQUESTS}|{EARLIER_REQUESTS}){SLUG}/[0-9a-f]{{32}}/[0-9a-f]{{16}}/\d{{10}}-[0-9a-f]{{16}}\.json"
    rf"|probe/{PROTOCOL}/{SLUG}/[0-9a-f]{{32}}/[0-9a-f]{{16}}(?:-checksum)?"
)


def is_slug(text: str) -> bool:
    """Whether `text` may name a tenant, a user or a region. An e-mail address may not."""
    return _SLUG.fullmatch(text) is not None


def is_generated(text: str) -> bool:
    """Whether `text` has the form of some identifier that a program made (it says nothing about a person).

    Digits alone are not taken for hexadecimal ones: they may be a telephone or a card number. Which of these forms may
    travel in clear in a column is the column's `pattern`: where no source makes a form, a person wrote it.
    """
    return _GENERATED.fullmatch(text) is not None and not text.isdecimal()


def is_keyed(value: object) -> bool:
    """Whether a value is a keyed hash: a name that only its tenant can tell."""
    return isinstance(value, str) and _KEYED.fullmatch(value) is not None


class Constant(str):
    """A word of ours in a natural key, such as the type of an event: of a closed list, whatever the source says."""

    __slots__ = ()


def is_fixed_form(part: object) -> bool:
    """Whether a part of a natural key may stand in a hash that needs no key: a number, a time, a generated id, a keyed
    hash or a constant. Anything else may be a word, and a word in such a hash is found again with a list of words.
    """
    if not isinstance(part, str):
        return part is None or isinstance(part, (bool, int, float, Decimal, datetime))
    if isinstance(part, Constant) or not part:
        return True
    return is_generated(part) or is_keyed(part) or _FIXED_FORM.fullmatch(part) is not None


def record_id(tenant: str, kind: str, *natural_key: object) -> str:
    """The identity of a record: 32 hex digits, equal on every device of a tenant that holds the same record.

    Made of the tenant, the kind of record and its natural key as the source wrote it; never of a device, folder, file
    or offset: forks copy history, and a copy must collapse onto its original. Every part must be `is_fixed_form`; a
    natural key that holds anything else needs the tenant's key (device/redact.py).
    """
    return hashlib.sha256(identity_text("rec/1", tenant, kind, natural_key)).hexdigest()[:32]


def identity_text(rule: str, tenant: str, kind: str, natural_key: Iterable[object]) -> bytes:
    """What an identity is the hash of."""
    parts = [rule, tenant, kind, *("" if part is None else str(part) for part in natural_key)]
    return "\x1f".join(parts).encode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Prefix:
    """Where one epoch of one device puts its batches: the only place its credentials reach."""

    region: str
    tenant: str
    device: str
    epoch: str

    @property
    def path(self) -> str:
        """The key prefix, without a trailing slash."""
        return f"landing/{PROTOCOL}/{self.region}/{self.tenant}/{self.device}/{self.epoch}"

    def data(self, seq: int, table: str, sha256: str) -> str:
        """Key of a Parquet object: named by its content, so that sending it twice is harmless."""
        return f"{self.path}/d/{seq:010}-{table}-{sha256[:16]}.parquet"

    def manifest(self, seq: int, sha256: str) -> str:
        """Key of a manifest, the commit mark of a batch; written last."""
        return f"{self.path}/m/{seq:010}-{sha256[:16]}.json"


def probe_key(tenant: str, device: str, nonce: str) -> str:
    """Key of a small object by which a device learns what kind of store it speaks to; `nonce`: 16 hex digits."""
    return f"{PROBES}{tenant}/{device}/{nonce}"


def request_key(prefix: Prefix, seq: int, sha256: str) -> str:
    """Key of a request of a device's owner, such as a withdrawal: apart from batches, exempt from every limit."""
    return f"{REQUESTS}{prefix.tenant}/{prefix.device}/{prefix.epoch}/{seq:010}-{sha256[:16]}.json"


def request_keys(key: str) -> tuple[str, str]:
    """The places of a request, by its key in either: the one of this release and the earlier one."""
    name = key.removeprefix(REQUESTS).removeprefix(EARLIER_REQUESTS)
    return REQUESTS + name, EARLIER_REQUESTS + name


@dataclass(frozen=True)
class ManifestKey:
    """What a manifest's key says."""

    prefix: Prefix
    seq: int
    sha16: str


def parse_manifest_key(key: str) -> ManifestKey | None:
    """The parts of a manifest's key, or None if the key is not one."""
    match = _MANIFEST.fullmatch(key)
    if match is None:
        return None
    prefix = Prefix(match["region"], match["tenant"], match["device"], match["epoch"])
    return ManifestKey(prefix, int(match["seq"]), match["sha16"])


def parse_prefix(key: str) -> Prefix | None:
    """Whose place in the landing an object lies in, whatever it is; None if it is no device's."""
    match = _UNDER_PREFIX.fullmatch(key)
    return None if match is None else Prefix(**match.groupdict())


@dataclass(frozen=True)
class Owner:
    """Whose credentials a key is bound to. `epoch`: None where the key names none."""

    tenant: str
    device: str
    epoch: str | None


def parse_owner(key: str) -> Owner | None:
    """The device that wrote an object, whatever it is; None if it lies in no device's place."""
    match = _OWNED.fullmatch(key)
    return None if match is None else Owner(**match.groupdict())


def is_named_by_contract(key: str) -> bool:
    """Whether an object of a device has a name that a device of ours gives."""
    return _NAMED_BY_CONTRACT.fullmatch(key) is not None
