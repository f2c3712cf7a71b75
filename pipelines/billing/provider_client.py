"""Asks OpenAI and Anthropic for their reports of costs and usage, page by page.

The key comes from the environment and goes into one header; no message of ours holds it, nor the answer's body.
Does not belong here: what a report says (provider_reports.py).
"""

import json
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from pipelines.billing.provider_reports import Report, ReportError, parse_pages
from pipelines.errors import ExpectedError, UsageError

TIMEOUT_SECONDS = 60
MAX_PAGES = 1000  # a server whose pages never end must not keep us for ever
MAX_BYTES = 64 << 20


class ProviderError(ExpectedError):
    """A provider does not answer, or not as it should. The text holds no key and nothing of the answer."""


@dataclass(frozen=True)
class Endpoint:
    """Where a report is, which variable holds the key, and in which words days are asked for."""

    path: str
    key_variable: str
    url_variable: str
    url: str
    groups: tuple[str, ...]
    limit: int

    @property
    def is_openai(self) -> bool:
        """Seconds since 1970 and a bearer's key; else ISO times and a key of its own header."""
        return self.key_variable.startswith("OPENAI")


_OPENAI = ("OPENAI_ADMIN_KEY", "OPENAI_REPORTS_URL", "https://api.openai.com")
_ANTHROPIC = ("ANTHROPIC_ADMIN_KEY", "ANTHROPIC_REPORTS_URL", "https://api.anthropic.com")
ENDPOINTS = {
    "openai-costs": Endpoint("/v1/organization/costs", *_OPENAI, ("project_id", "line_item"), 180),
    "openai-usage": Endpoint(
        "/v1/organization/usage/completions", *_OPENAI, ("project_id", "model", "batch", "service_tier"), 31
    ),
    "anthropic-costs": Endpoint("/v1/organizations/cost_report", *_ANTHROPIC, ("workspace_id", "description"), 31),
    "anthropic-usage": Endpoint(
        "/v1/organizations/usage_report/messages", *_ANTHROPIC,
        ("workspace_id", "model", "service_tier", "context_window"), 31,
    ),
}  # fmt: skip


def fetch(kind: str, first: date, last: date, *, pulled_at: datetime) -> Report:
    """All pages of a report for the UTC days from `first` to `last`, both in it.

    Raises UsageError without a key or for an address that is not https (another than this machine's own),
    ProviderError, ReportError.
    """
    endpoint = ENDPOINTS.get(kind)
    if endpoint is None:
        raise ReportError(f"{kind!r} is no kind of report: {', '.join(ENDPOINTS)}")
    if last < first:
        raise UsageError(f"{last} is before {first}: name the first day first")
    key = os.environ.get(endpoint.key_variable, "")
    if not key:
        raise UsageError(f"there is no key: set {endpoint.key_variable} to an administrator's key of the organisation")
    url = os.environ.get(endpoint.url_variable) or endpoint.url
    parts = urllib.parse.urlparse(url)
    if parts.scheme != "https" and parts.hostname not in ("127.0.0.1", "localhost"):
        raise UsageError(f"{endpoint.url_variable} must begin with https://: the key would travel in clear")
    pages: list[str] = []
    page: str | None = None
    for _ in range(MAX_PAGES):
        text = _get(f"{url.rstrip('/')}{endpoint.path}?{_query(endpoint, first, last, page)}", _headers(endpoint, key))
        pages.append(text)
        page = _next(kind, text, page)
        if page is None:
            return parse_pages(kind, pages, pulled_at=pulled_at)
    raise ProviderError(f"{kind}: the pages do not end; ask for fewer days")


def _query(endpoint: Endpoint, first: date, last: date, page: str | None) -> str:
    days = (first, last + timedelta(days=1))
    starts = [datetime.combine(day, datetime.min.time(), UTC) for day in days]
    if endpoint.is_openai:
        asked = [
            (name, str(int(start.timestamp()))) for name, start in zip(("start_time", "end_time"), starts, strict=True)
        ]
        groups = [("group_by", name) for name in endpoint.groups]
    else:
        asked = [
            (name, f"{start:%Y-%m-%dT%H:%M:%SZ}")
            for name, start in zip(("starting_at", "ending_at"), starts, strict=True)
        ]
        groups = [("group_by[]", name) for name in endpoint.groups]
    query = [
        *asked,
        ("bucket_width", "1d"),
        ("limit", str(endpoint.limit)),
        *groups,
        *([("page", page)] if page else []),
    ]
    return urllib.parse.urlencode(query)


def _headers(endpoint: Endpoint, key: str) -> dict[str, str]:
    if endpoint.is_openai:
        return {"Authorization": f"Bearer {key}"}
    return {"x-api-key": key, "anthropic-version": "2023-06-01"}


def _get(url: str, headers: Mapping[str, str]) -> str:
    where = urllib.parse.urlparse(url)
    asked = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - https, or this machine
    try:
        # A redirect would carry the key to somebody else.
        with urllib.request.build_opener(_NoRedirect).open(asked, timeout=TIMEOUT_SECONDS) as answer:
            body: bytes = answer.read(MAX_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise ProviderError(f"{where.hostname}{where.path} answered {error.code}; see the key's rights") from None
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ProviderError(f"{where.hostname} cannot be reached: {type(error).__name__}") from None
    if len(body) > MAX_BYTES:
        raise ProviderError(f"{where.hostname}{where.path}: a page is larger than {MAX_BYTES >> 20} MB")
    return body.decode("utf-8", "replace")


def _next(kind: str, text: str, before: str | None) -> str | None:
    try:
        content = json.loads(text)
        if not content.get("has_more"):
            return None
        page = content["next_page"]
    except (ValueError, KeyError, AttributeError):
        raise ProviderError(f"{kind}: the answer is no page of a report") from None
    if not isinstance(page, str) or page == before:
        raise ProviderError(f"{kind}: the answer names no next page")
    return page


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object, **__: object) -> None:
        return None
