"""Providers' reports: read to the last digit, compared bucket by bucket; each variance in one class, parts exact."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlparse

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipelines.billing import provider_client, provider_reports
from pipelines.billing.provider_reports import ReportError, parse_pages
from pipelines.errors import UsageError
from tests.billing.ledgers import Ledger, line

DAY = date(2025, 1, 5)
PULLED = datetime(2025, 2, 1, tzinfo=UTC)
MODEL = "claude-sonnet-4-5"
PARTS = ("timing_cost", "quantity_cost", "price_cost", "rounding_cost")


def anthropic_costs(*buckets: tuple[date, str, str]) -> str:
    """Days with a kind of token and an amount in cents, as the provider writes them."""
    data = [
        {
            "starting_at": f"{day}T00:00:00Z", "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
            "results": [{
                "currency": "USD", "amount": cents, "workspace_id": None, "description": "x", "cost_type": "tokens",
                "context_window": "0-200k", "model": f"{MODEL}-20250929", "service_tier": "standard",
                "token_type": kind,
            }],
        }
        for day, kind, cents in buckets
    ]  # fmt: skip
    return json.dumps({"data": data, "has_more": False, "next_page": None})


def anthropic_usage(*buckets: tuple[date, int]) -> str:
    """Days with output tokens."""
    data = [
        {
            "starting_at": f"{day}T00:00:00Z",
            "ending_at": f"{day + timedelta(days=1)}T00:00:00Z",
            "results": [{"model": f"{MODEL}-20250929", "output_tokens": tokens, "uncached_input_tokens": 0}],
        }
        for day, tokens in buckets
    ]
    return json.dumps({"data": data, "has_more": False, "next_page": None})


def reconciled(ledger: Ledger) -> dict[date, dict[str, object]]:
    ledger.build()
    cursor = ledger.connection.execute("select * from marts.rpt_reconciliation order by usage_date")
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert len({row["usage_date"] for row in rows}) == len(rows)
    return {row["usage_date"]: row for row in rows}


# reading --------------------------------------------------------------------------------------------------------------


def test_p1_openai_writes_dollars_and_counts_the_cache_in() -> None:
    """P1: lower-case currency, dollars with a point, the cache within the input."""
    start = int(datetime(2025, 1, 5, tzinfo=UTC).timestamp())
    costs = f"""{{"data": [{{"start_time": {start}, "end_time": {start + 86400}, "results": [
        {{"amount": {{"value": 0.06000000000000001, "currency": "usd"}}, "line_item": "gpt-5.5, cached_input_tokens",
          "project_id": "proj_1", "quantity": 120000.0}},
        {{"amount": {{"value": 1e-7, "currency": "usd"}}, "line_item": "web search"}}]}}]}}"""
    rows = list(provider_reports.rows(parse_pages("openai-costs", [costs], pulled_at=PULLED)))
    assert [(row["usage_date"], row["currency"], row["amount"], row["quantity"]) for row in rows] == [
        (DAY, "USD", Decimal("0.06"), 120_000),
        (DAY, "USD", Decimal("0.0000001"), None),
    ]
    assert [(row["model"], row["token_type"]) for row in rows] == [("gpt-5.5", "cache_read"), ("web search", None)]
    usage = json.dumps({"data": [{"start_time": start, "end_time": start + 86400, "results": [{
        "model": "gpt-5.5", "input_tokens": 1000, "input_cached_tokens": 600, "input_cache_write_tokens": 100,
        "output_tokens": 7, "batch": True,
    }]}]})  # fmt: skip
    rows = list(provider_reports.rows(parse_pages("openai-usage", [usage], pulled_at=PULLED)))
    counts = {row["token_type"]: row["quantity"] for row in rows}
    assert counts == {"input_uncached": 300, "cache_read": 600, "cache_write": 100, "output": 7}
    assert {row["service_tier"] for row in rows} == {"batch"}


def test_p1_anthropic_writes_cents_and_counts_apart() -> None:
    """P1: cents, and each kind of token by itself."""
    costs = anthropic_costs((DAY, "output_tokens", "123.45"))
    (row,) = provider_reports.rows(parse_pages("anthropic-costs", [costs], pulled_at=PULLED))
    assert (row["amount"], row["currency"], row["token_type"]) == (Decimal("1.2345"), "USD", "output")
    usage = json.dumps({"data": [{"starting_at": "2025-01-05T00:00:00Z", "results": [{
        "model": MODEL, "uncached_input_tokens": 300, "cache_read_input_tokens": 600, "output_tokens": 7,
        "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    }]}]})  # fmt: skip
    rows = provider_reports.rows(parse_pages("anthropic-usage", [usage], pulled_at=PULLED))
    counts = {row["token_type"]: row["quantity"] for row in rows}
    assert counts == {"input_uncached": 300, "cache_read": 600, "cache_write": 100, "output": 7}


@pytest.mark.parametrize("page", ["nope", "[]", '{"data": {}}', '{"data": [{"results": [{}]}]}',
                                  '{"data": [{"start_time": 0, "results": [{"amount": {"value": "NaN", "currency": "usd"}}]}]}'])  # fmt: skip  # noqa: E501
def test_p1_what_is_no_report_is_refused(page: str) -> None:
    with pytest.raises(ReportError):
        parse_pages("openai-costs", [page], pulled_at=PULLED)


# comparing ------------------------------------------------------------------------------------------------------------


def test_p3_a_planted_price_error_is_the_price(ledger: Ledger) -> None:
    """P3: two per cent on the amount, the same tokens."""
    ledger.tell([line("a", DAY, 2_000_000, "15")])
    ledger.report("anthropic-costs", anthropic_costs((DAY, "output_tokens", "3060")))
    ledger.report("anthropic-usage", anthropic_usage((DAY, 2_000_000)))
    row = reconciled(ledger)[DAY]
    assert (row["variance_class"], row["explained_by"]) == ("price_gap", "price")
    assert [row[part] for part in PARTS] == [0, 0, Decimal("0.6"), 0]


def test_p3_a_lost_batch_is_the_quantity(ledger: Ledger) -> None:
    """P3: a quarter of the tokens never arrived."""
    ledger.tell([line("a", DAY, 1_500_000, "15")])
    ledger.report("anthropic-costs", anthropic_costs((DAY, "output_tokens", "3000")))
    ledger.report("anthropic-usage", anthropic_usage((DAY, 2_000_000)))
    row = reconciled(ledger)[DAY]
    assert (row["variance_class"], row["explained_by"]) == ("quantity_gap", "quantity")
    assert [row[part] for part in PARTS] == [0, Decimal("7.5"), 0, 0]


def test_p3_tokens_of_the_neighbouring_day_are_timing(ledger: Ledger) -> None:
    after = DAY + timedelta(days=1)
    ledger.tell([line("a", DAY, 1_000_000, "15"), line("b", after, 1_000_000, "15")])
    ledger.report("anthropic-costs", anthropic_costs((DAY, "output_tokens", "1200"), (after, "output_tokens", "1800")))
    ledger.report("anthropic-usage", anthropic_usage((DAY, 800_000), (after, 1_200_000)))
    rows = reconciled(ledger)
    assert [rows[day]["explained_by"] for day in (DAY, after)] == ["timing", "timing"]
    assert [rows[day]["timing_cost"] for day in (DAY, after)] == [Decimal(-3), Decimal(3)]


def test_p3_cents_are_rounding_and_agreement_is_trust(ledger: Ledger) -> None:
    ledger.tell([line("a", DAY, 333_333, "15"), line("b", DAY + timedelta(days=1))])
    ledger.report("anthropic-costs", anthropic_costs((DAY, "output_tokens", "500")))
    ledger.report("anthropic-usage", anthropic_usage((DAY, 333_333)))
    rows = reconciled(ledger)
    assert (rows[DAY]["variance_class"], rows[DAY]["explained_by"]) == ("within_tolerance", "rounding")
    assert rows[DAY]["rounding_cost"] == Decimal("0.000005")
    assert rows[DAY + timedelta(days=1)]["variance_class"] == "missing_theirs"
    grades = dict(
        ledger.connection.execute('select usage_date, "x_TrustGrade" from marts.export_focus_daily').fetchall()
    )
    assert grades == {DAY: "provider_matched", DAY + timedelta(days=1): "self_reported"}


def test_a_revised_day_is_the_last_pull(ledger: Ledger) -> None:
    ledger.tell([line("a", DAY, 2_000_000, "15")])
    ledger.report("anthropic-costs", anthropic_costs((DAY, "output_tokens", "1")))
    later = PULLED + timedelta(days=40)
    ledger.report("anthropic-costs", anthropic_costs((DAY, "output_tokens", "3000")), pulled_at=later)
    assert reconciled(ledger)[DAY]["variance_class"] == "match"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ours=st.dictionaries(st.integers(0, 6), st.integers(1, 10**9), max_size=6),
    theirs=st.dictionaries(st.integers(0, 6), st.tuples(st.integers(1, 10**9), st.integers(0, 10**7)), max_size=6),
)
def test_p2_every_bucket_has_one_class_and_its_parts_are_its_variance(
    new_ledger: Callable[[], Ledger], ours: dict[int, int], theirs: dict[int, tuple[int, int]]
) -> None:
    """P2: whatever both sides say; the parts of a variance are the variance."""
    ledger = new_ledger()
    ledger.tell(line(f"l{day}", DAY + timedelta(days=day), tokens, "15") for day, tokens in ours.items())
    days = {day: DAY + timedelta(days=day) for day in theirs}
    ledger.report("anthropic-usage", anthropic_usage(*((days[day], tokens) for day, (tokens, _) in theirs.items())))
    ledger.report(
        "anthropic-costs",
        anthropic_costs(*((days[day], "output_tokens", str(cents)) for day, (_, cents) in theirs.items())),
    )
    rows = reconciled(ledger)
    assert rows.keys() == {DAY + timedelta(days=day) for day in ours.keys() | theirs.keys()}
    for row in rows.values():
        assert sum(row[part] for part in PARTS) == row["variance_cost"] == row["their_cost"] - row["our_cost"]
    assert sum(row["timing_tokens"] for row in rows.values()) == 0, "a token of another day is missing there"


# asking ---------------------------------------------------------------------------------------------------------------


class Provider(BaseHTTPRequestHandler):
    """A provider with pages; what it was asked is kept."""

    asked: list[tuple[str, dict[str, list[str]], dict[str, str]]] = []  # noqa: RUF012
    answers: list[tuple[int, str]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        parts = urlparse(self.path)
        self.asked.append((parts.path, parse_qs(parts.query), dict(self.headers)))
        status, body = self.answers[len(self.asked) - 1]
        self.send_response(status)
        if status == 302:
            self.send_header("Location", body)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Provider]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Provider.asked, Provider.answers = [], []
    monkeypatch.setenv("ANTHROPIC_REPORTS_URL", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("ANTHROPIC_ADMIN_KEY", "key-of-the-test")
    yield Provider
    server.shutdown()
    server.server_close()


def page(day: date, following: str | None) -> str:
    content = json.loads(anthropic_costs((day, "output_tokens", "1.5")))
    return json.dumps(content | {"has_more": following is not None, "next_page": following})


def test_a_report_is_fetched_page_by_page(provider: type[Provider], tmp_path) -> None:
    provider.answers = [(200, page(DAY, "two")), (200, page(DAY + timedelta(days=1), None))]
    report = provider_client.fetch("anthropic-costs", DAY, DAY + timedelta(days=1), pulled_at=PULLED)
    assert [row["usage_date"] for row in provider_reports.rows(report)] == [DAY, DAY + timedelta(days=1)]
    (path, query, headers), (_, second, _) = provider.asked
    assert path == "/v1/organizations/cost_report"
    assert query["starting_at"] == ["2025-01-05T00:00:00Z"]
    assert query["ending_at"] == ["2025-01-07T00:00:00Z"]
    assert second["page"] == ["two"]
    assert {name.lower(): value for name, value in headers.items()}["x-api-key"] == "key-of-the-test"
    kept = provider_reports.keep(tmp_path, report)
    assert provider_reports.keep(tmp_path, report) == kept, "the same report is one file"
    assert len(provider_reports.table(tmp_path)) == 2
    assert b"key-of-the-test" not in kept.read_bytes()
    kept.write_bytes(kept.read_bytes().replace(b"1.5", b"1.6"))
    with pytest.raises(ReportError, match="was changed"):
        provider_reports.table(tmp_path)


@pytest.mark.parametrize(
    "answers",
    [[(401, "key-of-the-test is wrong")], [(302, "http://127.0.0.1:9/")], [(200, "<html>")],
     [(200, page(DAY, "two")), (200, page(DAY, "two"))]],
    ids=["refused", "sent elsewhere", "no report", "a page that leads to itself"],
)  # fmt: skip
def test_trouble_says_nothing_of_the_key(provider: type[Provider], answers: list[tuple[int, str]]) -> None:
    provider.answers = answers
    with pytest.raises((provider_client.ProviderError, ReportError)) as failure:
        provider_client.fetch("anthropic-costs", DAY, DAY, pulled_at=PULLED)
    assert "key-of-the-test" not in str(failure.value)
    assert len(provider.asked) == len(answers)


def test_no_key_and_no_plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_ADMIN_KEY", raising=False)
    with pytest.raises(UsageError, match="set OPENAI_ADMIN_KEY"):
        provider_client.fetch("openai-costs", DAY, DAY, pulled_at=PULLED)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "k")
    monkeypatch.setenv("OPENAI_REPORTS_URL", "http://provider.example")
    with pytest.raises(UsageError, match="https"):
        provider_client.fetch("openai-costs", DAY, DAY, pulled_at=PULLED)
