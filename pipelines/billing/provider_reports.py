"""Reports of costs and usage from OpenAI and Anthropic: kept as they came, and read into one form.

A report is one JSON file per pull, named by its content, in `billing/provider/<provider>/<kind>/`. Amounts are read
from the text of the number, never through a float: OpenAI writes dollars, Anthropic cents as text. Token counts come in
two conventions; here the kinds never overlap.
Does not belong here: asking a provider (provider_client.py), comparing (models/rating/rpt_reconciliation.sql).
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.errors import UsageError
from pipelines.home import replace_file

COSTS = pa.schema([
    pa.field("provider_name", pa.string()), pa.field("report_kind", pa.string()), pa.field("project_id", pa.string()),
    pa.field("model", pa.string()), pa.field("token_type", pa.string()), pa.field("service_tier", pa.string()),
    pa.field("context_window", pa.string()), pa.field("currency", pa.string()), pa.field("report_sha256", pa.string()),
    pa.field("quantity", pa.int64()), pa.field("amount", pa.decimal128(38, 15)), pa.field("usage_date", pa.date32()),
    pa.field("pulled_at", pa.timestamp("us", tz="UTC")),
])  # fmt: skip
"""One row per bucket of a report: a day of one project, model and kind of token, with an amount or a quantity."""

CENT = Decimal("0.01")
_PLACES = Decimal("1E-15")
KINDS = ("openai-costs", "openai-usage", "anthropic-costs", "anthropic-usage")
OPENAI_COST_TOKENS = {
    "input_tokens": "input_uncached", "uncached_input_tokens": "input_uncached", "input": "input_uncached",
    "cached_input_tokens": "cache_read", "input_cached_tokens": "cache_read", "cached input": "cache_read",
    "input_cache_write_tokens": "cache_write", "cache_write_tokens": "cache_write", "output_tokens": "output",
    "output": "output",
}  # fmt: skip
ANTHROPIC_TOKENS = {
    "uncached_input_tokens": "input_uncached", "output_tokens": "output", "cache_read_input_tokens": "cache_read",
    "cache_creation.ephemeral_5m_input_tokens": "cache_write",
    "cache_creation.ephemeral_1h_input_tokens": "cache_write",
}  # fmt: skip
Row = dict[str, Any]


class ReportError(UsageError):
    """A file is no report of its kind: the text says what is missing."""


@dataclass(frozen=True)
class Report:
    """One pull: which report, all its pages as they came, and when they were asked for."""

    kind: str
    pulled_at: datetime
    pages: tuple[str, ...]

    @property
    def content(self) -> bytes:
        """The file's bytes."""
        body = {"kind": self.kind, "pulled_at": self.pulled_at.astimezone(UTC).isoformat(), "pages": self.pages}
        return (json.dumps(body, indent=1) + "\n").encode()

    @property
    def buckets(self) -> Iterator[Mapping[str, Any]]:
        """The days of all pages. Raises ReportError."""
        for page in self.pages:
            content = _loaded(page)
            if not isinstance(content, dict) or not isinstance(content.get("data"), list):
                raise ReportError(f"this is no page of {self.kind}: it has no list `data`")
            yield from content["data"]


def parse_pages(kind: str, pages: Iterable[str], *, pulled_at: datetime) -> Report:
    """A report from the pages of an answer, each in the provider's own shape. Raises ReportError."""
    if kind not in KINDS:
        raise ReportError(f"{kind!r} is no kind of report: {', '.join(KINDS)}")
    report = Report(kind, pulled_at, tuple(pages))
    for _ in rows(report):  # a report that cannot be read is not kept
        pass
    return report


def keep(folder: Path, report: Report) -> Path:
    """Keep a report for ever; the same report twice is one file. Raises OSError."""
    path = folder / report.kind / f"{hashlib.sha256(report.content).hexdigest()}.json"
    if not path.exists():
        replace_file(path, report.content)
    return path


def table(folder: Path) -> pa.Table:
    """All kept reports in one form. Raises ReportError for a file that is not what its name says."""
    found: list[Row] = []
    for path in sorted(folder.glob("*/*.json")):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if digest != path.stem:
            raise ReportError(f"{path} was changed: restore it, or pull the report again")
        content = json.loads(data)
        report = Report(content["kind"], datetime.fromisoformat(content["pulled_at"]), tuple(content["pages"]))
        found += [{**row, "report_sha256": digest, "pulled_at": report.pulled_at} for row in rows(report)]
    return pa.Table.from_pylist(found, schema=COSTS)


def rows(report: Report) -> Iterator[Row]:
    """One row per bucket: dollars, currencies in capitals, kinds of tokens that do not overlap. Raises ReportError."""
    read = {
        "openai-costs": _openai_cost, "openai-usage": _openai_usage,
        "anthropic-costs": _anthropic_cost, "anthropic-usage": _anthropic_usage,
    }[report.kind]  # fmt: skip
    provider, _, kind = report.kind.partition("-")
    base: Row = dict.fromkeys(COSTS.names) | {
        "provider_name": provider,
        "report_kind": "cost" if kind == "costs" else "usage",
    }
    for bucket in report.buckets:
        try:
            day = _day(bucket)
            for result in bucket["results"]:
                for row in read(result):
                    yield {**base, "usage_date": day, **row}
        except (KeyError, TypeError, ValueError, InvalidOperation) as error:
            raise ReportError(f"a bucket of {report.kind} cannot be read: {type(error).__name__} {error}") from None


def _openai_cost(result: Mapping[str, Any]) -> Iterator[Row]:
    model, _, meter = (result.get("line_item") or "").partition(", ")
    token_type = OPENAI_COST_TOKENS.get(meter)
    quantity = result.get("quantity")
    yield {
        "project_id": result.get("project_id"), "model": model or None, "token_type": token_type,
        "currency": result["amount"]["currency"].upper(), "amount": _amount(result["amount"]["value"]),
        "quantity": int(_decimal(quantity)) if quantity is not None and token_type else None,
    }  # fmt: skip


def _openai_usage(result: Mapping[str, Any]) -> Iterator[Row]:
    # The input includes what was read from a cache and what was written to one.
    cached = _tokens(result, "input_cached_tokens")
    written = _tokens(result, "input_cache_write_tokens")
    uncached = result.get("input_uncached_tokens")
    counts = {
        "input_uncached": _tokens(result, "input_tokens") - cached - written if uncached is None else int(uncached),
        "cache_read": cached,
        "cache_write": written,
        "output": _tokens(result, "output_tokens"),
    }
    tier = "batch" if result.get("batch") else result.get("service_tier")
    yield from _counted(counts, result.get("project_id"), result.get("model"), tier, None)


def _anthropic_cost(result: Mapping[str, Any]) -> Iterator[Row]:
    is_tokens = result.get("cost_type", "tokens") == "tokens"
    yield {
        "project_id": result.get("workspace_id"), "model": result.get("model"),
        "token_type": ANTHROPIC_TOKENS.get(result.get("token_type") or "") if is_tokens else None,
        "service_tier": result.get("service_tier"), "context_window": result.get("context_window"),
        "currency": result["currency"].upper(), "amount": _amount(_decimal(result["amount"]) * CENT),
    }  # fmt: skip


def _anthropic_usage(result: Mapping[str, Any]) -> Iterator[Row]:
    created = result.get("cache_creation") or {}
    counts = {
        "input_uncached": _tokens(result, "uncached_input_tokens"),
        "cache_read": _tokens(result, "cache_read_input_tokens"),
        "cache_write": _tokens(created, "ephemeral_5m_input_tokens") + _tokens(created, "ephemeral_1h_input_tokens"),
        "output": _tokens(result, "output_tokens"),
    }
    yield from _counted(
        counts, result.get("workspace_id"), result.get("model"), result.get("service_tier"),
        result.get("context_window"),
    )  # fmt: skip


def _counted(
    counts: Mapping[str, int], project: str | None, model: str | None, tier: str | None, window: str | None
) -> Iterator[Row]:
    for token_type, quantity in counts.items():
        if quantity < 0:
            raise ValueError(f"{token_type} is {quantity}")
        if quantity:
            yield {
                "project_id": project, "model": model, "service_tier": tier, "context_window": window,
                "token_type": token_type, "quantity": quantity,
            }  # fmt: skip


def _tokens(result: Mapping[str, Any], name: str) -> int:
    return int(result.get(name) or 0)


def _day(bucket: Mapping[str, Any]) -> date:
    """The UTC day of a bucket: seconds since 1970 or a text, the end not in it."""
    start = bucket["starting_at"] if "starting_at" in bucket else bucket["start_time"]
    if isinstance(start, str):
        return datetime.fromisoformat(start).astimezone(UTC).date()
    return datetime.fromtimestamp(int(start), UTC).date()


def _amount(value: Any) -> Decimal:
    """An amount with fifteen places. A number that was a float at the provider has noise behind them."""
    return _decimal(value).quantize(_PLACES)


def _decimal(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        raise TypeError(f"{value!r} is no number")
    found = Decimal(value)
    if not found.is_finite():
        raise ValueError(f"{value!r} is no number")
    return found


def _loaded(page: str) -> Any:
    try:
        return json.loads(page, parse_float=Decimal)
    except ValueError:
        raise ReportError("the file is not JSON") from None
