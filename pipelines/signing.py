"""Requests to an S3-compatible server signed with a corrected time: it refuses a signature 15 minutes off.

A machine whose clock is wrong must not be shut out, and its clock is not ours to set: the server's answer tells the
difference, and the signature is made with it. Does not belong here: when a request is made (store.py).
"""

from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.auth import AUTH_TYPE_MAPS, SIGV4_TIMESTAMP, S3SigV4Auth

SIGNATURE = "apiary-s3v4"
SKEWED = "RequestTimeTooSkewed"


class CorrectedAuth(S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """The usual signature, at this machine's time and `ahead`: how far the server's clock is ahead of it."""

    ahead = timedelta(0)

    def _modify_request_before_signing(self, request: Any) -> None:
        if self.ahead:
            request.context["timestamp"] = (datetime.now(UTC) + self.ahead).strftime(SIGV4_TIMESTAMP)
        super()._modify_request_before_signing(request)


AUTH_TYPE_MAPS[SIGNATURE] = CorrectedAuth


def ahead_of_us(headers: dict[str, str]) -> timedelta | None:
    """How far the clock of a server is ahead of this machine's, to the second; None if its answer has no time."""
    try:
        return parsedate_to_datetime(headers["date"]) - datetime.now(UTC)
    except (KeyError, ValueError, TypeError):  # TypeError: a time without a zone
        return None


def correct(headers: dict[str, str]) -> bool:
    """Sign with the server's time from now on. Whether that is another time than before."""
    found = ahead_of_us(headers)
    if found is None or abs(found - CorrectedAuth.ahead) < timedelta(minutes=1):
        return False
    CorrectedAuth.ahead = found
    return True
