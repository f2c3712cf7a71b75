"""Who this device is: tenant, user, region, zone, store, and the key that hashes names. Kept apart from the state, so
that a damaged state never forgets whose device it is.

Does not belong here: consent (consent.py).
"""

import json
import os
import secrets
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pipelines.contract.keys import is_slug
from pipelines.device.errors import DeviceError
from pipelines.errors import UsageError
from pipelines.home import Home, private_folder, replace_file

if TYPE_CHECKING:
    from pipelines.store import Store

KEY_BYTES = 32


@dataclass(frozen=True)
class Enrolment:
    """What `apiary device enroll` was told."""

    device_id: str
    tenant: str
    user: str
    region: str
    timezone: str
    store: str
    enrolled_at: str


def enroll(
    home: Home, *, tenant: str, user: str, region: str, timezone: str | None, store: str | None,
    tenant_key: Path | None, now: datetime, credentials: Path | None = None,
) -> Enrolment:  # fmt: skip
    """Enrol this device, or enrol it anew; sessions seen before keep the user they were bound to. Raises UsageError.

    `credentials`: a file with this device's own store credentials; a copy that only this user can read is kept.
    """
    for name, value in (("tenant", tenant), ("user", user), ("region", region)):
        if not is_slug(value):
            raise UsageError(f"--{name} {value!r} does not match [a-z0-9][a-z0-9_-]{{0,62}}: choose a short plain name")
    before = load(home)
    zone = timezone or (before.timezone if before else local_zone())
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"--timezone {zone!r} is no IANA zone: name one such as Europe/Berlin") from None
    if before is not None and before.tenant != tenant:
        raise UsageError(
            f"this device is enrolled with tenant {before.tenant!r}: use another APIARY_HOME for tenant {tenant!r}"
        )
    device_id = before.device_id if before else secrets.token_hex(16)
    # A folder of the default store moves with APIARY_HOME, so it is not written down.
    enrolment = Enrolment(
        device_id, tenant, user, region, zone, store or (before.store if before else ""), now.isoformat()
    )
    own = _given_credentials(credentials)
    private_folder(home.device)
    if own is not None:
        replace_file(_credentials_path(home), own)
    key = _given_key(tenant_key)
    if key is not None or not _key_path(home).exists():
        replace_file(_key_path(home), (key or secrets.token_bytes(KEY_BYTES)).hex().encode())
    replace_file(_path(home), (json.dumps(asdict(enrolment), indent=1) + "\n").encode())
    return enrolment


def load(home: Home) -> Enrolment | None:
    """This device's enrolment, or None."""
    try:
        found = json.loads(_path(home).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    try:
        return Enrolment(**found)
    except TypeError:
        raise DeviceError(f"{_path(home)} is damaged: remove it and enrol this device again") from None


def require(home: Home) -> Enrolment:
    """This device's enrolment. Raises UsageError if there is none."""
    enrolment = load(home)
    if enrolment is None:
        raise UsageError("this device is not enrolled: run `apiary device enroll --tenant T --user U`")
    return replace(enrolment, store=enrolment.store or home.store_url)


def credentials(home: Home) -> Path | None:
    """The file with this device's own store credentials, if it was enrolled with some."""
    path = _credentials_path(home)
    return path if path.exists() else None


def open_store(home: Home, url: str) -> "Store":
    """A store, spoken to with this device's own credentials if it has some. Raises UsageError."""
    from pipelines.store import open_store as open_any  # only here: a quota check has no time for it

    try:
        return open_any(url, credentials=credentials(home))
    except ValueError as error:
        raise UsageError(str(error)) from None


def tenant_key(home: Home) -> bytes:
    """The key of keyed hashes. It never leaves this machine by our hand."""
    return bytes.fromhex(_key_path(home).read_text("ascii").strip())


def local_zone() -> str:
    """The zone of this machine by its IANA name, UTC if it cannot be told."""
    named = os.environ.get("TZ", "").removeprefix(":")
    if named:
        return named
    parts = Path("/etc/localtime").resolve().parts
    return "/".join(parts[parts.index("zoneinfo") + 1 :]) if "zoneinfo" in parts else "UTC"


def _credentials_path(home: Home) -> Path:
    return home.device / "credentials"


def _given_credentials(path: Path | None) -> bytes | None:
    """The bytes of a credentials file, if they are those of one."""
    if path is None:
        return None
    from pipelines.store import StoreRefusedError, read_credentials

    try:
        read_credentials(path.expanduser())
    except StoreRefusedError as error:
        raise UsageError(f"--credentials: {error}") from None
    return path.expanduser().read_bytes()


def _given_key(path: Path | None) -> bytes | None:
    """The key from `--tenant-key FILE` or `APIARY_TENANT_KEY` (a file's path, or the key itself in hex)."""
    given = str(path) if path else os.environ.get("APIARY_TENANT_KEY", "")
    if not given:
        return None
    file = Path(given).expanduser()
    if path is not None and not file.is_file():
        raise UsageError(f"--tenant-key {given}: there is no such file")
    data = file.read_bytes().strip() if file.is_file() else given.encode()
    try:
        key = bytes.fromhex(data.decode("ascii"))
    except ValueError:
        key = data
    if len(key) < 16:
        raise UsageError("the tenant key is shorter than 16 bytes: make one with `openssl rand -hex 32`")
    return key


def _path(home: Home) -> Path:
    return home.device / "enrolment.json"


def _key_path(home: Home) -> Path:
    return home.device / "tenant.key"
