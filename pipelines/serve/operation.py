"""What a monitoring system asks: is there something to serve (`/health`), and how is the pipeline (`/metrics`).

Gauges are read from the publication at each scrape, so there is no state here that could be wrong.
Does not belong here: alerts (mart_alerts), usage (api.py).
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pipelines.home import Home
from pipelines.serve import keys
from pipelines.serve.dependencies import Key
from pipelines.warehouse.reading import NothingPublishedError, connect

# A gauge: what it says, its labels, and the query: a column for each label, then the value.
GAUGES = {
    "apiary_known_as_of_timestamp_seconds": (
        "When the last of what is known of the tenant had arrived.", ("tenant",),
        "SELECT tenant_id, epoch(known_as_of) FROM dim_tenants WHERE known_as_of IS NOT NULL ORDER BY 1",
    ),
    "apiary_device_known_as_of_timestamp_seconds": (
        "When the newest batch of the device had arrived.", ("tenant", "device"),
        "SELECT tenant_id, device_id, epoch(max(last_received_at)) FROM mart_manifest_chain"
        " WHERE last_received_at IS NOT NULL GROUP BY ALL ORDER BY 1, 2",
    ),
    "apiary_missing_batches": (
        "Batches of devices that are missing between others that arrived.", ("tenant", "device"),
        "SELECT tenant_id, device_id, sum(missing_batches) FROM mart_manifest_chain GROUP BY ALL ORDER BY 1, 2",
    ),
    **{
        f"apiary_rows_{name}": (
            f"Rows of arrived batches that were {words}.", ("tenant",),
            f"SELECT tenant_id, sum(rows_{name}) FROM mart_delivery_balance GROUP BY ALL ORDER BY 1",
        )
        for name, words in (
            ("loaded", "loaded"), ("duplicate", "known already"), ("conflict", "set aside as contradictions"),
            ("quarantined", "refused: they wait in quarantine"), ("unexplained", "lost; always 0"),
        )
    },
    "apiary_budget_used_ratio": (
        "Use of the present period of a budget, as a share of its limit.", ("tenant", "budget", "measure"),
        "SELECT tenant_id, budget_id, measure, used_amount / limit_amount FROM mart_budget"
        " WHERE is_current AND limit_amount > 0 ORDER BY 1, 2",
    ),
    "apiary_alerts": (
        "Alerts of the newest day with one.", ("tenant", "severity", "kind"),
        "SELECT coalesce(tenant_id, ''), severity, alert_kind, count(*) FROM mart_alerts"
        " WHERE alert_date = (SELECT max(alert_date) FROM mart_alerts) GROUP BY ALL ORDER BY 1, 2, 3",
    ),
    "apiary_sessions": (
        "Sessions by status, as of when the tenant's devices were last heard.", ("tenant", "status"),
        "SELECT tenant_id, status, count(*) FROM mart_status_snapshot GROUP BY ALL ORDER BY 1, 2",
    ),
}  # fmt: skip


class _Gauges:
    """Reads the gauges of a home; the interface of prometheus_client's collectors."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every gauge. Raises NothingPublishedError."""
        published = self._home.published
        with connect(published) as connection:
            for name, (text, labels, query) in GAUGES.items():
                gauge = GaugeMetricFamily(name, text, labels=labels)
                for row in connection.execute(query).fetchall():
                    gauge.add_metric([str(value) for value in row[:-1]], float(row[-1]))
                yield gauge
        yield _gauge(
            "apiary_published_timestamp_seconds", "When the data was published.", published_at(published).timestamp()
        )
        last = _last_run(self._home)
        if last:
            ended = datetime.fromisoformat(last["ended_at"]).timestamp()
            yield _gauge("apiary_run_ended_timestamp_seconds", "When the last run of `apiary run` ended well.", ended)
        if "seconds" in last:
            yield _gauge("apiary_run_seconds", "How long that run took.", last["seconds"])


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(name, text)
    gauge.add_metric([], value)
    return gauge


def _last_run(home: Home) -> dict[str, Any]:
    """The record of the last run; empty while one runs, after one failed, or if it is damaged."""
    try:
        said = json.loads(home.last_run.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return said if isinstance(said, dict) and "ended_at" in said else {}


def published_at(published: Path) -> datetime:
    """When the present publication was made. Raises NothingPublishedError."""
    try:
        manifest = json.loads((published / "current" / "manifest.json").read_bytes())
    except FileNotFoundError:
        raise NothingPublishedError("nothing is published yet") from None
    return datetime.fromisoformat(manifest["published_at"])


def operation_routes(app: FastAPI) -> None:
    """Health and metrics."""

    @app.get("/health", tags=["operation"])
    def health(request: Request) -> JSONResponse:
        """200 and when the data was published, if it can be read; else 503. Needs no key and names no tenant."""
        published = request.app.state.home.published
        try:
            at = published_at(published)
            with connect(published) as connection:
                connection.execute("SELECT count(*) FROM dim_tenants").fetchone()
        except NothingPublishedError:
            return JSONResponse({"status": "nothing is published yet"}, 503)
        except (OSError, ValueError, KeyError, duckdb.Error) as error:
            return JSONResponse({"status": f"the publication cannot be read: {type(error).__name__}"}, 503)
        return JSONResponse({"status": "ok", "published_at": at.isoformat()})

    @app.get("/metrics", tags=["operation"], response_class=PlainTextResponse)
    def metrics(request: Request, key: Key) -> PlainTextResponse:
        """Gauges of all tenants for Prometheus; takes a key of `apiary serve --make-metrics-key`."""
        home: Home = request.app.state.home
        if key is None or not keys.opens_metrics(home, key):
            raise HTTPException(401, "no key of `apiary serve --make-metrics-key`", {"WWW-Authenticate": "Bearer"})
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Gauges(home))
        return PlainTextResponse(generate_latest(registry).decode(), media_type=CONTENT_TYPE_LATEST)
