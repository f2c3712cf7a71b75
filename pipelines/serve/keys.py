"""API keys: one opens the data of one tenant, or the metrics of operation. The file holds hashes only; a key is shown
once, when it is made.

Does not belong here: what a key opens (api.py).
"""

import hashlib
import hmac
import json
import secrets
from typing import Any

from pipelines.contract.keys import is_slug
from pipelines.errors import UsageError
from pipelines.home import Home, replace_file

METRICS = "metrics"
PREFIX = "apiary_"  # a scanner for leaked secrets knows it by this


def make(home: Home, tenant: str) -> tuple[str, str]:
    """A new key of a tenant and the name it can be revoked by. Raises UsageError for a tenant that is none."""
    if not is_slug(tenant):
        raise UsageError(f"{tenant!r} is no tenant: small letters, digits, - and _")
    return _add(home, tenant, {"tenant": tenant})


def make_for_metrics(home: Home) -> tuple[str, str]:
    """A new key that opens `/metrics`, of all tenants, and nothing else; and the name it can be revoked by."""
    return _add(home, METRICS, {"opens": METRICS})


def _add(home: Home, prefix: str, opened: dict[str, str]) -> tuple[str, str]:
    key = PREFIX + secrets.token_urlsafe(32)
    name = f"{prefix}-{secrets.token_hex(4)}"
    _write(home, [*_entries(home), {"name": name, **opened, "sha256": _sha256(key)}])
    return name, key


def revoke(home: Home, name: str) -> None:
    """Take a key back; it opens nothing from the next request on. Raises UsageError if there is none of that name."""
    entries = _entries(home)
    kept = [entry for entry in entries if entry["name"] != name]
    if len(kept) == len(entries):
        known = ", ".join(entry["name"] for entry in entries) or "none"
        raise UsageError(f"there is no key {name!r}; there are: {known}")
    _write(home, kept)


def tenant_of(home: Home, key: str) -> str | None:
    """The tenant that a key opens."""
    return _found(home, key).get("tenant")


def opens_metrics(home: Home, key: str) -> bool:
    """Whether a key opens the metrics of operation."""
    return _found(home, key).get("opens") == METRICS


def _found(home: Home, key: str) -> dict[str, Any]:
    """The entry of a key. Every hash is compared, in a time that does not depend on the key.

    The keys are random and long: a slow hash would only make each request slow.
    """
    digest = _sha256(key)
    found: dict[str, Any] = {}
    for entry in _entries(home):
        if hmac.compare_digest(entry["sha256"], digest):
            found = entry
    return found


def _sha256(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _entries(home: Home) -> list[dict[str, Any]]:
    try:
        return list(json.loads(home.api_keys.read_bytes()))
    except FileNotFoundError:
        return []


def _write(home: Home, entries: list[dict[str, Any]]) -> None:
    replace_file(home.api_keys, (json.dumps(entries, indent=1) + "\n").encode())
