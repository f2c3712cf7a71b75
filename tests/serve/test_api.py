"""The API: the marts' numbers, one tenant's rows for one key, and an answer to whatever is asked."""

import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from prometheus_client.parser import text_string_to_metric_families
from schemathesis.checks import not_a_server_error
from starlette.testclient import TestClient

from pipelines.home import Home
from pipelines.serve import keys
from pipelines.serve.app import make_app
from pipelines.warehouse.metrics import metrics
from pipelines.warehouse.reading import connect

SERVE = Path(__file__).resolve().parents[2] / "pipelines" / "serve"
ROUTES = {
    "/api/sessions/queen/usage", "/api/sessions/queen/usage/by-model", "/api/usage/by-model",
    "/api/colonies/fork/usage", "/api/queens/queen_technology/usage", "/api/usage/rollup?group_by=model",
    "/api/budgets", "/api/alerts?days=366", "/api/agents", "/api/agents/current", "/api/agents/active",
    "/api/agents/scorecards", "/api/sessions", "/api/status", "/api/agents/timeline?hours=744",
    "/api/agents/types/distribution", "/api/agents/performance/worker?days=366",
    "/api/tools/usage?period=month", "/api/tools/insights",
}  # fmt: skip


@pytest.fixture(scope="module")
def clients(published_home: Home) -> Iterator[dict[str, TestClient]]:
    """A client for each tenant, and one without a key."""
    app = make_app(published_home)
    with pytest.MonkeyPatch.context():
        opened = {name: keys.make(published_home, name)[1] for name in ("tree", "bolt", "nobody")}
        clients = {name: TestClient(app, headers={"X-API-Key": key}) for name, key in opened.items()}
        yield clients | {"": TestClient(app)}


def rows(client: TestClient, path: str) -> list[dict[str, Any]]:
    answer = client.get(path)
    assert answer.status_code == 200, (path, answer.text)
    assert set(answer.json()) == {"known_as_of", "rows", "next"}
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def test_a_session_its_colony_and_its_queen(clients: dict[str, TestClient]) -> None:
    (queen,) = rows(clients["tree"], "/api/sessions/queen/usage")
    assert (queen["turns"], queen["input_tokens"], queen["subtree_input_tokens"]) == (2, 3000, 14800)
    assert (queen["reported_cost_usd"], queen["subtree_cost_usd"]) == ("0.3", "1.65")
    (fork,) = rows(clients["tree"], "/api/colonies/fork/usage")
    assert (fork["sessions"], fork["reported_cost_usd"], fork["own_cost_usd"]) == (2, "0.35", "0.3")
    (used,) = rows(clients["tree"], "/api/queens/queen_technology/usage?start=2026-03-01&end=2026-03-01")
    assert (used["turns"], used["reported_cost_usd"]) == (2, "0.3")
    assert rows(clients["tree"], "/api/queens/queen_technology/usage?start=2026-03-02") == []
    assert rows(clients["tree"], "/api/queens/queen_technology/usage?group_by=day") == [{"day": "2026-03-01"} | used]
    assert clients["tree"].get("/api/sessions/queen_of_others/usage").status_code == 404


@pytest.mark.parametrize("group", ["user", "tenant", "model", "colony", "day", "session"])
def test_rollups_are_what_the_marts_say(clients: dict[str, TestClient], published_home: Home, group: str) -> None:
    with connect(published_home.published) as connection:
        whole = connection.execute(
            "SELECT count(*), sum(input_tokens + output_tokens), count(*) - count(reported_cost_usd)"
            " FROM fct_llm_turns WHERE tenant_id = 'bolt'"
        ).fetchone()
    found = rows(clients["bolt"], f"/api/usage/rollup?group_by={group}")
    assert tuple(sum(row[name] for row in found) for name in ("turns", "total_tokens", "unreported_turns")) == whole
    assert [row["total_tokens"] for row in found] == sorted((row["total_tokens"] for row in found), reverse=True)
    assert len({row[group] for row in found}) == len(found)


def test_agents_of_the_present_and_over_time(clients: dict[str, TestClient]) -> None:
    """The tree has three workers: one failed, one was stopped, one never ended. Every view counts the same runs."""
    tree = clients["tree"]
    types = {row["agent_type"]: row for row in rows(tree, "/api/agents/types/distribution")}
    worker = types["worker"]
    assert (worker["failures"], worker["stops"], worker["finished"], worker["successes"]) == (1, 1, 2, 0)
    # w1: 1500 + 10 + 1700 + 10, deep: 900 + 10, w2: 3000 + 30.
    assert (worker["executions"], worker["total_tokens"], worker["reported_cost_usd"]) == (3, 7160, "1.05")
    assert sum(row["share"] for row in types.values()) == pytest.approx(1)
    executions = sum(row["executions"] for row in types.values())
    hours = rows(tree, "/api/agents/timeline?hours=744")
    assert sum(row["executions"] for row in hours) <= executions
    whole, *days = rows(tree, "/api/agents/performance/worker?days=366")
    assert whole["day"] is None
    for name in ("executions", "failures", "stops", "turns", "total_tokens"):
        assert whole[name] == sum(row[name] for row in days), name
    assert whole["failures"] == 1
    assert rows(tree, "/api/agents/performance/nobody") == []
    (now,) = rows(tree, "/api/agents/current")
    assert now["day"] == "2026-03-01"
    # Heard of last two months before the tenant was: nobody is active who is silent.
    assert (now["active_agents"], rows(tree, "/api/agents/active")) == (0, [])


def test_tools_by_calls_and_together(clients: dict[str, TestClient]) -> None:
    tools = {row["tool_name"]: row for row in rows(clients["tree"], "/api/tools/usage?period=month")}
    assert {name: (row["calls"], row["errors"], row["sessions"]) for name, row in tools.items()} == {
        "web_search": (2, 0, 2),
        "read_file": (1, 1, 1),
    }
    assert sum(row["share"] for row in tools.values()) == pytest.approx(1)
    insights = rows(clients["tree"], "/api/tools/insights?period=month")
    assert [(row["tool_name"], row["most_used_rank"], row["least_used_rank"]) for row in insights] == [
        ("web_search", 1, 2),
        ("read_file", 2, 1),
    ]
    # One of two sessions used both; each tool's own share is 1 and 1/2: no more often than by chance.
    assert rows(clients["tree"], "/api/tools/correlations?min_sessions=1") == []
    assert clients["tree"].get("/api/tools/usage?period=century").status_code == 422


def test_a_key_opens_one_tenants_rows(clients: dict[str, TestClient]) -> None:
    """Both have the same ids; each sees its own numbers, whatever it asks, and a tenant without data sees none."""
    for path in sorted(ROUTES - {"/api/queens/queen_technology/usage", "/api/agents/active"}):
        own, other = rows(clients["tree"], path), rows(clients["bolt"], path)
        assert own, path
        assert other, path
        # Both have the same runs, sessions and calls; what they used differs.
        assert own != other or not re.search("(input|total)_tokens", str(own)), path
        answer = clients["nobody"].get(path)
        assert answer.status_code == 404 or answer.json() == {"known_as_of": None, "rows": [], "next": None}, path
    for query in ("&tenant=bolt", "&tenant_id=bolt"):
        assert clients["tree"].get(f"/api/usage/rollup?group_by=tenant{query}").status_code == 422
    assert rows(clients["tree"], "/api/usage/rollup?group_by=tenant")[0]["tenant"] == "tree"
    assert [row["tenant"] for row in rows(clients["bolt"], "/api/usage/rollup?group_by=tenant")] == ["bolt"]


def test_questions_see_the_rows_of_the_tenant_only() -> None:
    """No question names a published table but through `mart`, where the tenant is bound."""
    text = (SERVE / "api.py").read_text("utf-8") + (SERVE / "agents.py").read_text("utf-8")
    assert set(re.findall(r"\b(?:FROM|JOIN) (\w+)", text)) <= {"mart", "counted"}


def test_active_runs_are_measured_to_what_is_known(tmp_path: Path) -> None:
    """Not to the newest start of a run: a run that began last would have taken no time at all."""
    home = published(
        tmp_path,
        "CREATE TABLE dim_tenants AS SELECT 'acme' AS tenant_id, TIMESTAMPTZ '2026-03-01 12:00:00Z' AS known_as_of",
        "CREATE TABLE mart_agent_executions AS SELECT 'acme' AS tenant_id, 's' AS session_id, 'k' AS run_key, NULL AS"
        " parent_session_id, 'a' AS agent_name, 'worker' AS agent_type, 'running' AS state, 3 AS turns, true"
        " AS is_active, TIMESTAMPTZ '2026-03-01 11:50:00Z' AS started_at,"
        " TIMESTAMPTZ '2026-03-01 11:59:00Z' AS last_heard_at",
    )
    (run,) = rows(TestClient(make_app(home), headers=of_tenant(home)), "/api/agents/active")
    assert run["seconds_so_far"] == 600


def published(root: Path, *statements: str) -> Home:
    """A home with a publication of a few tables."""
    home = Home(root)
    version = home.published / "versions" / "1"
    version.mkdir(parents=True)
    with duckdb.connect(str(version / "marts.duckdb")) as connection:
        for statement in statements:
            connection.execute(statement)
    (home.published / "current").symlink_to(version)
    return home


def of_tenant(home: Home, tenant: str = "acme") -> dict[str, str]:
    return {"X-API-Key": keys.make(home, tenant)[1]}


@pytest.mark.parametrize("path", ["/api/usage/rollup?group_by=session", "/api/sessions", "/api/agents", "/api/status"])
def test_parts_of_a_list_are_the_list(clients: dict[str, TestClient], path: str) -> None:
    whole = rows(clients["tree"], path)
    assert len(whole) > 2
    found: list[dict[str, Any]] = []
    link: str | None = f"{path}{'&' if '?' in path else '?'}limit=2"
    while link:
        answer = clients["tree"].get(link)
        assert answer.status_code == 200, answer.text
        found += answer.json()["rows"]
        assert len(answer.json()["rows"]) <= 2
        link = answer.json()["next"]
    assert found == whole
    assert clients["tree"].get(f"{path.partition('?')[0]}?limit=0").status_code == 422


def test_a_part_of_another_publication_is_refused(tmp_path: Path) -> None:
    """Parts of two publications are no list: rows would be missing or twice."""
    home = published(
        tmp_path,
        "CREATE TABLE dim_tenants AS SELECT 'acme' AS tenant_id, now() AS known_as_of",
        "CREATE TABLE dim_sessions AS SELECT 'acme' AS tenant_id, range::VARCHAR AS session_id, 'ada' AS user_id,"
        " 'c' AS colony_id, 'a' AS agent_id, TIMESTAMPTZ '2026-03-01 00:00:00Z' + to_hours(range) AS started_at"
        " FROM range(1500)",
    )
    client = TestClient(make_app(home), headers=of_tenant(home))
    first = client.get("/api/sessions").json()
    assert len(first["rows"]) == 1000, "a list is never cut without a link to the rest"
    assert len(client.get(first["next"]).json()["rows"]) == 500
    # UTC days, both included, on whatever clock the server is.
    assert len(rows(client, "/api/sessions?start=2026-03-02&end=2026-03-03")) == 48
    (home.published / "versions" / "1").rename(home.published / "versions" / "2")
    (home.published / "current").unlink()
    (home.published / "current").symlink_to(home.published / "versions" / "2")
    refused = client.get(first["next"])
    assert (refused.status_code, "ask for the list again" in refused.text) == (410, True)


def test_sessions_by_what_they_are_of(clients: dict[str, TestClient]) -> None:
    everything = rows(clients["tree"], "/api/sessions")
    for name, column in (("user", "user_id"), ("colony", "colony_id"), ("agent", "agent_id")):
        value = next(row[column] for row in everything if row[column])
        found = rows(clients["tree"], f"/api/sessions?{name}={value}")
        assert found == [row for row in everything if row[column] == value]


def test_a_key_travels_in_either_header(clients: dict[str, TestClient]) -> None:
    key = clients["tree"].headers["X-API-Key"]
    answer = clients[""].get("/api/budgets", headers={"Authorization": f"Bearer {key}"})
    assert answer.json() == clients["tree"].get("/api/budgets").json()


def test_the_documentation_loads_nothing_and_has_every_route(clients: dict[str, TestClient]) -> None:
    page = clients[""].get("/docs")
    assert page.status_code == 200
    assert "default-src 'none'" in page.text
    assert not re.search(r"<script|https?://(?!testserver)|@import|src=", page.text)
    for path, methods in clients[""].get("/openapi.json").json()["paths"].items():
        assert f"GET {path}" in page.text
        for parameter in methods["get"].get("parameters", ()):
            assert f"<td>{parameter['name']}" in page.text
    assert "&lt;" not in page.text, "an object is shown instead of its text"
    assert clients[""].get("/").url.path == "/docs"


def test_a_parameter_that_a_route_does_not_know_is_refused(clients: dict[str, TestClient]) -> None:
    for path in ("/api/sessions?colour=red", "/api/budgets?usr=ada&limit=1"):
        answer = clients["tree"].get(path)
        assert answer.status_code == 422
        assert "unknown parameter" in answer.json()["detail"]
    following = clients["tree"].get("/api/sessions?limit=1").json()["next"]
    assert following
    assert clients["tree"].get(following).status_code == 200


def test_health_says_whether_there_is_something_to_serve(clients: dict[str, TestClient], tmp_path: Path) -> None:
    healthy = clients[""].get("/health")
    assert (healthy.status_code, healthy.json()["status"]) == (200, "ok")
    assert "tree" not in healthy.text
    empty = TestClient(make_app(Home(tmp_path))).get("/health")
    assert (empty.status_code, empty.json()["status"]) == (503, "nothing is published yet")


def test_metrics_are_of_everybody_and_need_a_key_of_their_own(
    clients: dict[str, TestClient], published_home: Home
) -> None:
    name, key = keys.make_for_metrics(published_home)
    published_home.last_run.write_text('{"ended_at": "2026-03-01T00:00:10+00:00", "seconds": 12.5}')
    found = clients[""].get("/metrics", headers={"Authorization": f"Bearer {key}"})
    assert found.status_code == 200
    samples = {
        (sample.name, sample.labels.get("tenant")): sample.value
        for family in text_string_to_metric_families(found.text)
        for sample in family.samples
    }
    with connect(published_home.published) as connection:
        asked = connection.execute("SELECT tenant_id, epoch(known_as_of) FROM dim_tenants").fetchall()
        used = connection.execute("SELECT tenant_id, used_amount / limit_amount FROM mart_budget WHERE is_current")
        budgets = {tenant: float(share) for tenant, share in used.fetchall()}
    for tenant, known in asked:
        assert samples["apiary_known_as_of_timestamp_seconds", tenant] == known
    assert {key[1]: value for key, value in samples.items() if key[0] == "apiary_budget_used_ratio"} == budgets
    assert samples["apiary_published_timestamp_seconds", None] > 0
    assert samples["apiary_run_seconds", None] == 12.5
    assert samples["apiary_run_ended_timestamp_seconds", None] == datetime(2026, 3, 1, 0, 0, 10, tzinfo=UTC).timestamp()
    published_home.last_run.unlink()
    without = clients[""].get("/metrics", headers={"Authorization": f"Bearer {key}"})
    assert "apiary_run" not in without.text
    for other in ({}, {"X-API-Key": clients["tree"].headers["X-API-Key"]}):
        assert clients[""].get("/metrics", headers=other).status_code == 401
    assert clients[""].get("/api/budgets", headers={"X-API-Key": key}).status_code == 401
    keys.revoke(published_home, name)
    assert clients[""].get("/metrics", headers={"Authorization": f"Bearer {key}"}).status_code == 401


def test_the_report_is_that_of_the_keys_tenant(clients: dict[str, TestClient]) -> None:
    key = clients["tree"].headers["X-API-Key"]
    browser = TestClient(clients[""].app, headers={"Authorization": f"Basic {b64encode(f'x:{key}'.encode()).decode()}"})
    page = browser.get("/report/")
    assert page.url.path == "/report/tenant-tree/overview.html"
    assert "bolt" not in page.text
    for name in ("spend-7d", "status", "agents-all"):
        assert browser.get(f"/report/tenant-tree/{name}.html").status_code == 200
    for path in ("tenant-bolt/overview.html", "all/overview.html", "tenant-tree/nothing.html"):
        assert browser.get(f"/report/{path}").status_code == 404
    refused = clients[""].get("/report/")
    assert (refused.status_code, refused.headers["WWW-Authenticate"][:5]) == (401, "Basic")


def test_without_a_key_nothing_is_said(clients: dict[str, TestClient]) -> None:
    for path in ROUTES:
        for headers in ({}, {"X-API-Key": ""}, {"X-API-Key": "apiary_x"}, {"Authorization": "Bearer x"},
                        {"Authorization": "Basic eDp4"}):  # fmt: skip
            answer = clients[""].get(path, headers=headers)
            assert answer.status_code == 401, path
            assert "rows" not in answer.text


def test_nothing_can_be_changed(clients: dict[str, TestClient]) -> None:
    described = clients[""].get("/openapi.json").json()
    assert {method for path in described["paths"].values() for method in path} == {"get"}
    for method in ("post", "put", "delete", "patch"):
        assert getattr(clients["tree"], method)("/api/budgets").status_code == 405


def test_the_description_is_the_dictionary(clients: dict[str, TestClient]) -> None:
    text = clients[""].get("/openapi.json").json()["info"]["description"]
    for name in ("turns", "total_tokens", "reported_cost_usd", "unreported_tokens"):
        assert metrics()[name].meaning in text


def test_before_anything_is_published(tmp_path: Path) -> None:
    home = Home(tmp_path)
    _, key = keys.make(home, "tree")
    client = TestClient(make_app(home), headers={"X-API-Key": key})
    assert client.get("/api/budgets").status_code == 404


@pytest.mark.services
def test_junk_is_refused_not_a_crash(published_home: Home, clients: dict[str, TestClient]) -> None:
    """Every route with whatever its description allows, and with what it does not."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", make_app(published_home))
    key = clients["tree"].headers["X-API-Key"]
    tried = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        tried.add(operation.path)

        @settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @schemathesis_given(operation)
        def ask(case: schemathesis.Case) -> None:
            response = case.call(headers={"X-API-Key": key})
            case.validate_response(response, checks=[not_a_server_error])

        ask()
    assert len(tried) >= len(ROUTES)


def schemathesis_given(operation: Any) -> Any:
    from hypothesis import given

    return given(case=operation.as_strategy())
