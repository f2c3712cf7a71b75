"""Each kind of reader gets its marts and columns, each tenant its rows, and a file that opens opens nothing else."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from pipelines.defs import dbt_project
from pipelines.errors import UsageError
from pipelines.warehouse import access, publish, reading
from tests import marts

SESSIONS = {"acme": "session_20260301_120000_aaaaaaaa", "bolt": "session_20260301_120000_bbbbbbbb"}
# What a person may have typed as a name, had one a way in: as a value it is stored literally, in every file.
HOSTILE = (
    "'; DROP TABLE marts.dim_tenants; --", '" OR 1=1 --', "x') UNION SELECT * FROM duckdb_settings() --",
    "../../../etc/passwd", "%2e%2e%2f", "a\x00b", "=cmd|' /C calc'!A0", "{{ config.password }}", "${HOME}", "$(reboot)",
    "read_csv('/etc/passwd')", "\\'; ATTACH 'x'; --", "name\nnewline", "\uff53elect", "k1_" + "0" * 32,
)  # fmt: skip
# The marts of the project by the roles that read them.
READERS = {
    "finance": """
        dim_billing_accounts dim_billing_periods dim_prices exc_billing_exceptions export_focus_daily
        fct_adjustments fct_charges fct_credit_ledger fct_invoice_lines fct_period_events fct_provider_costs
        fct_rated_lines fct_rated_turns mart_billing_model_comparison mart_budget mart_cost_reconciliation
        rpt_reconciliation rpt_restatement
    """,
    "finance analyst": "agg_usage_model_daily agg_usage_tenant_daily",
    "finance operator": "agg_erased_usage_daily",
    "finance analyst operator": "dim_tenants mart_dedupe_ledger",
    "analyst": """
        agg_concurrency_hourly agg_models_daily agg_nodes_daily agg_tasks_daily agg_tool_pairs agg_tools_daily
        agg_usage_colony_daily agg_usage_quarter_hourly agg_usage_session_daily dim_agents dim_colonies
        dim_sessions fct_agent_runs fct_fan_outs fct_llm_turns fct_node_exits fct_requests fct_status_events
        fct_status_intervals fct_task_changes fct_tasks fct_tool_calls fct_trigger_firings fct_triggers
        mart_agent_executions mart_agent_routing mart_agent_scorecard mart_alerts mart_colony_health
        mart_colony_usage mart_concurrency mart_control_totals mart_home_claims mart_operator_actions
        mart_queen_usage mart_session_tree mart_session_usage mart_status_snapshot mart_task_progress
        mart_turn_claims mart_usage_by_model mart_usage_rollup mart_worker_health
    """,
    "analyst operator": "mart_coverage mart_held_turns mart_unknown_records mart_usage_crosscheck",
    "operator": "mart_delivery_balance mart_manifest_chain",
}


@pytest.fixture(scope="module")
def connection() -> Iterator[duckdb.DuckDBPyConnection]:
    """A warehouse in which every mart has a row of two tenants, and hostile text where text may stand."""
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA marts")
        for mart, types in marts.types().items():
            columns = types.items()
            typed = ", ".join(f"{name} {kind}" for name, kind in columns)
            opened.execute(f"CREATE TABLE marts.{mart} ({typed})")
            known = {"tenant_id"} | {name for name, _ in columns if name.endswith("session_id") or name == "colony_id"}
            texts = [name for name, kind in columns if kind == "varchar" and name not in known]
            for tenant, session in SESSIONS.items():
                for number, text in enumerate(HOSTILE):
                    row = {name: session for name, _ in columns if name in known} | {"tenant_id": tenant}
                    row |= dict.fromkeys(texts, f"{text}{number}")
                    row = {name: value for name, value in row.items() if name in dict(columns)}
                    marks = ", ".join("?" * len(row))
                    opened.execute(f"INSERT INTO marts.{mart} ({', '.join(row)}) VALUES ({marks})", [*row.values()])
        yield opened


@pytest.fixture(scope="module")
def folder(connection: duckdb.DuckDBPyConnection, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything published by the policy of the checkout, and a file for each tenant."""
    policy = access.load()
    analyst = next(role for role in policy.roles if role.name == "analyst")
    root = tmp_path_factory.mktemp("published")
    given = access.Access(policy.roles, analyst)
    return publish.publish(connection, root, access=given, descriptions=marts.descriptions()).folder


def tables(file: Path) -> dict[str, list[str]]:
    with reading.open_published(file) as opened:
        names = [name for (name,) in opened.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        return {name: [column for (column, *_) in opened.execute(f"DESCRIBE {name}").fetchall()] for name in names}


@pytest.mark.parametrize("role", ["finance", "analyst", "operator"])
def test_a_role_reads_its_marts_in_both_formats(folder: Path, role: str) -> None:
    own = folder / "roles" / role
    found = tables(own / "marts.duckdb")
    assert found
    assert {path.stem for path in own.glob("*.parquet")} == set(found)
    for mart, columns in found.items():
        assert pq.read_schema(own / f"{mart}.parquet").names == columns


def test_finance_sees_no_session(folder: Path) -> None:
    found = tables(folder / "roles" / "finance" / "marts.duckdb")
    assert {"agg_erased_usage_daily", "fct_rated_lines"} <= set(found)
    assert not [mart for mart in found if mart in ("fct_llm_turns", "dim_sessions", "agg_usage_session_daily")]
    of_analysts = tables(folder / "roles" / "analyst" / "marts.duckdb")
    assert not [mart for mart in of_analysts if "billing" in mart or "erased" in mart]
    for path in (folder / "roles" / "finance").iterdir():
        with duckdb.connect() as opened:
            if path.suffix == ".parquet":
                opened.execute("CREATE TABLE t AS FROM read_parquet(?)", [str(path)])
                values = str(opened.execute("FROM t").fetchall())
            else:
                values = path.read_bytes().decode("latin-1")
        assert not [session for session in SESSIONS.values() if session in values], path.name


def test_only_the_operator_sees_devices_and_no_session(folder: Path) -> None:
    columns = {
        role: {column for names in tables(folder / "roles" / role / "marts.duckdb").values() for column in names}
        for role in ("finance", "analyst", "operator")
    }
    assert "session_id" not in columns["operator"]
    assert "session_id" in columns["analyst"]
    assert "device_id" not in columns["analyst"] | columns["finance"]
    assert "billed_cost" not in columns["analyst"] | columns["operator"], "bills are finance's"


def test_every_mart_has_a_reader() -> None:
    """And those alone that stand here: who may read a mart changes in two places or in none."""
    policy = access.load()
    found: dict[str, set[str]] = {}
    for mart, described in dbt_project.descriptions().items():
        readers = [role.name for role in policy.readers(mart, described.audience)]
        found.setdefault(" ".join(readers), set()).add(mart)
    assert found == {readers: set(names.split()) for readers, names in READERS.items()}


@pytest.fixture
def two_marts() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA marts")
        opened.execute("CREATE TABLE marts.fct_provider_costs AS SELECT 'acme' AS tenant_id, 1 AS amount")
        opened.execute("CREATE TABLE marts.mart_of_the_site AS SELECT 'acme' AS tenant_id, 1 AS amount")
        yield opened


def test_a_mart_that_names_nobody_is_in_no_folder(two_marts: duckdb.DuckDBPyConnection, tmp_path: Path) -> None:
    """Of the project or of the site, described or not: neither of a role nor of a tenant."""
    roles = access.load().roles
    told = {"fct_provider_costs": publish.Description("what is paid")}
    for role in roles:
        folder = publish.publish(
            two_marts, tmp_path / role.name, access=access.Access(roles, role), descriptions=told
        ).folder
        assert (folder / "mart_of_the_site.parquet").is_file(), "the pipeline's own user has every mart"
        assert [path.name for path in folder.rglob("roles/*/*.parquet")] == []
        assert {mart for file in folder.rglob("roles/*/marts.duckdb") for mart in tables(file)} == set()
        assert [path.name for path in folder.rglob("tenants/*")] == []


@pytest.mark.parametrize("audience", [["finance", "analist"], "finance"])
def test_an_audience_that_is_no_list_of_roles_publishes_nothing(
    two_marts: duckdb.DuckDBPyConnection, tmp_path: Path, audience: list[str]
) -> None:
    told = {"mart_of_the_site": publish.Description("", audience=audience)}
    with pytest.raises(UsageError, match=r"^mart_of_the_site: audience .* roles: finance, analyst, operator$"):
        publish.publish(two_marts, tmp_path / "p", descriptions=told)
    assert not (tmp_path / "p").exists()


def test_a_tenant_gets_its_rows_and_no_byte_of_another(folder: Path) -> None:
    for tenant, other in (("acme", "bolt"), ("bolt", "acme")):
        file = folder / "tenants" / tenant / "marts.duckdb"
        found = tables(file)
        assert len(found) > 5
        content = file.read_bytes()
        assert SESSIONS[tenant].encode() in content
        assert SESSIONS[other].encode() not in content
        assert other.encode() not in content
        with reading.open_published(file) as opened:
            for mart in found:
                assert opened.execute(f"SELECT DISTINCT tenant_id FROM {mart}").fetchall() == [(tenant,)]


def test_a_tenants_file_is_of_its_role(folder: Path) -> None:
    """The marts and columns that the policy names for tenants, and no others."""
    (role,) = (role for role in access.load().roles if role.name == "analyst")
    known = marts.types()
    expected = {
        mart: [name for name in columns if not name.startswith("_") and name not in role.without]
        for mart, columns in known.items()
        if role.name in marts.descriptions()[mart].audience and "tenant_id" in dict(columns)
    }
    assert len(expected) < len([mart for mart, columns in known.items() if "tenant_id" in dict(columns)])
    assert tables(folder / "tenants" / "acme" / "marts.duckdb") == expected


def test_only_its_owner_reads_what_is_published(folder: Path) -> None:
    assert {path.stat().st_mode & 0o077 for path in [folder, *folder.rglob("*")]} == {0}


def test_names_are_stored_literally(connection: duckdb.DuckDBPyConnection, folder: Path) -> None:
    """They were bound, quoted or copied, never run: what comes out is what was put in, in every file."""
    expected = {f"{text}{number}" for number, text in enumerate(HOSTILE)}
    with reading.open_published(folder / "marts.duckdb") as opened:
        assert {model for (model,) in opened.execute("SELECT model FROM fct_llm_turns").fetchall()} == expected
    assert set(pq.read_table(folder / "fct_llm_turns.parquet")["model"].to_pylist()) == expected
    schemas = connection.execute("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'marts'")
    assert schemas.fetchone() == (len(marts.types()),)


@pytest.mark.parametrize("tenant", ["../../outside", "a/b", "=1+1", "Acme", ""])
def test_a_tenant_that_is_no_name_becomes_no_folder(tenant: str, tmp_path: Path) -> None:
    with duckdb.connect() as opened:
        opened.execute("CREATE SCHEMA marts")
        opened.execute("CREATE TABLE marts.dim_a AS SELECT ? AS tenant_id", [tenant])
        role = access.Role("analyst", ())
        told = {"dim_a": publish.Description("", audience=["analyst"])}
        with pytest.raises(ValueError, match="names a tenant"):
            publish.publish(opened, tmp_path / "p", access=access.Access((role,), role), descriptions=told)
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    assert not (tmp_path / "p" / "current").exists()


@pytest.mark.parametrize(
    "text",
    [
        "", "roles: []", "roles: {analyst: {without: []}}\ntenants: {role: null}", "{",
        "roles: {analyst: {why: x, without: '*_id'}}\ntenants: {role: null}",
        "roles: {../x: {why: x, without: []}}\ntenants: {role: null}",
        "roles: {analyst: {why: x, without: []}}\ntenants: {role: nobody}",
    ],
)  # fmt: skip
def test_a_policy_that_is_none_publishes_nothing(text: str, tmp_path: Path) -> None:
    (tmp_path / "access.yml").write_text(text)
    with pytest.raises(UsageError, match=r"access\.yml is no access policy"):
        access.load(tmp_path / "access.yml")


def test_patterns_of_marts_are_refused(tmp_path: Path) -> None:
    """A site's own policy of 0.1.0: to publish without its `!` patterns might show more than it did."""
    (tmp_path / "access.yml").write_text(
        "roles: {analyst: {why: x, marts: ['*', '!*bill_*'], without: []}}\ntenants: {role: null}"
    )
    with pytest.raises(UsageError, match=r"access\.yml: `marts` of analyst is not read any more: remove it, and name"):
        access.load(tmp_path / "access.yml")


# a published file opens nothing else ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def surroundings(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies about: a file, a link to it, another database."""
    root = tmp_path_factory.mktemp("surroundings")
    (root / "secret.csv").write_text("a\n1\n")
    (root / "link.csv").symlink_to(root / "secret.csv")
    (folder.parent / "beside.csv").write_text("a\n1\n")
    shutil.copy(folder / "marts.duckdb", root / "other.duckdb")
    return root


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM read_csv('{root}/secret.csv')", "SELECT * FROM '{root}/secret.csv'",
        "SELECT * FROM read_text('/etc/hostname')", "SELECT * FROM read_blob('{root}/secret.csv')",
        "SELECT * FROM read_csv('{root}/link.csv')", "SELECT * FROM read_csv('{folder}/../beside.csv')",
        "SELECT * FROM read_parquet('{folder}/dim_tenants.parquet')", "SELECT * FROM glob('/*')",
        "SELECT * FROM read_csv('http://127.0.0.1:9/x.csv')", "SELECT * FROM read_parquet('s3://bucket/x.parquet')",
        "COPY dim_tenants TO '{root}/out.csv'", "COPY dim_tenants FROM '{root}/secret.csv'",
        "EXPORT DATABASE '{root}/out'", "IMPORT DATABASE '{root}'", "ATTACH '{root}/other.duckdb' AS other",
        "ATTACH ':memory:' AS other", "INSTALL httpfs", "LOAD httpfs", "LOAD '{root}/x.duckdb_extension'",
        "SET enable_external_access = true", "SET lock_configuration = false", "SET allowed_directories = ['/']",
        "SET autoload_known_extensions = true", "SET temp_directory = '{root}'", "RESET enable_external_access",
        "SET allow_unsigned_extensions = true", "SET home_directory = '{root}'", "CREATE TABLE mine (a INT)",
        "PRAGMA profiling_output = '{root}/out.json'", "SELECT getenv('HOME')", "SELECT * FROM surroundings",
        "CREATE PERSISTENT SECRET s (TYPE s3)", "DELETE FROM dim_tenants",
    ],
)  # fmt: skip
def test_sql_reaches_nothing_outside_the_file(folder: Path, surroundings: Path, statement: str) -> None:
    """Test 61: files, other databases, extensions, the network, settings."""
    before = sorted(surroundings.iterdir())
    with reading.open_published(folder / "marts.duckdb") as opened:
        assert opened.execute("SELECT count(*) FROM dim_tenants").fetchone() == (2 * len(HOSTILE),)
        with pytest.raises(duckdb.Error):
            opened.execute(statement.format(root=surroundings, folder=folder)).fetchall()
    assert sorted(surroundings.iterdir()) == before
