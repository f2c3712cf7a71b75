"""The dbt project itself: the models folder is built, marts keep the house's rules, the tests can fail."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from dbt.contracts.graph.nodes import GenericTestNode, ModelNode

from tests import marts
from tests.warehouse import Warehouse, parsed, schema_of

REPOSITORY = Path(__file__).resolve().parents[2]
LINK = REPOSITORY / "dbt_project" / "models"
# Which layers a model may read, by its own. Statements never read analytics: the bill depends on what it bills alone.
READS = {
    "staging": {"staging"},
    "core": {"staging", "core"},
    "rating": {"staging", "core", "rating"},
    "statements": {"staging", "core", "rating", "statements"},
    "analytics": {"staging", "core", "rating", "analytics"},
}
# How a sentence about a table starts; the grain is what a reader needs first.
GRAIN = re.compile(r"One row for each ")


def layer(node: ModelNode) -> str:
    """The folder of a model."""
    return node.fqn[1]


@pytest.fixture
def models(warehouse):
    """The models of the manifest by name."""
    result = warehouse.dbt("parse")
    assert result.success, result.exception
    return {node.name: node for node in result.result.nodes.values() if node.resource_type == "model"}


def test_models_folder_is_built_through_the_link(models):
    assert LINK.is_symlink()
    assert LINK.readlink() == Path("../models")
    files = {path.stem for path in (REPOSITORY / "models").rglob("*.sql")}
    assert len(files) >= 30
    assert set(models) == files


def test_marts_keep_their_promises(models):
    described = marts.descriptions()
    published = {name: node for name, node in models.items() if node.schema == "marts"}
    assert published.keys() == described.keys()
    for name, node in models.items():
        assert node.schema == schema_of(name), name
    for name, node in published.items():
        columns = node.columns.values()
        assert node.config.contract.enforced, name
        assert node.access == "public", name
        assert node.group, name
        assert node.config.meta["owner"], name
        assert node.config.meta["audience"] == described[name].audience, name
        assert all(column.description and column.data_type for column in columns), name
        assert all(c.data_type == "decimal(38,20)" for c in columns if c.name.endswith("_usd")), name
    for name, node in models.items():
        assert GRAIN.match(node.description), name
        assert node.schema == "marts" or node.access == "private", name


def test_arrows_between_layers_go_one_way(models):
    assert {layer(node) for node in models.values()} == set(READS)
    for name, node in models.items():
        sources = [parent for parent in node.depends_on.nodes if parent.startswith("source.")]
        assert bool(sources) == (layer(node) == "staging"), name
        parents = [models[p.split(".")[-1]] for p in node.depends_on.nodes if p.startswith("model.")]
        assert [p.name for p in parents if layer(p) not in READS[layer(node)]] == [], name


def test_models_keep_the_conventions(models, warehouse):
    """What dbt-project-evaluator asks for, of the rules that hold here: names, roots, leaves, keys, chains of views."""
    prefixes = {"staging": {"stg"}, "marts": {"agg", "dim", "exc", "export", "fct", "mart", "rpt"}}
    by_id = {node.unique_id: node for node in models.values()}
    read = {parent for node in models.values() for parent in node.depends_on.nodes}
    tests = [node for node in parsed(warehouse.path.stem).nodes.values() if isinstance(node, GenericTestNode)]
    keyed = {test.attached_node for test in tests if test.test_metadata.name in ("unique", "unique_combination")}

    def views(unique_id: str) -> int:
        node = by_id.get(unique_id)
        if node is None or node.config.materialized != "view":
            return 0
        return 1 + max(map(views, node.depends_on.nodes), default=0)

    for name, node in models.items():
        assert name.split("_")[0] in prefixes.get(node.schema, {"int"}), name
        assert node.depends_on.nodes, f"{name} reads nothing"
        assert node.schema == "marts" or node.unique_id in read, f"nothing reads {name}"
        assert node.config.materialized != "incremental" or node.unique_id in keyed, f"{name} has no key"
        assert views(node.unique_id) <= 6, f"{name} is worked out again by each reader"  # booked lines: decision 0107


def test_a_column_is_described_once():
    """Within a file by an alias, in several files by a block of models/_columns.md."""
    told: dict[tuple[str, str], Path] = {}
    for path in marts.FILES:
        columns = [c for model in yaml.safe_load(path.read_text("utf-8"))["models"] for c in model["columns"]]
        written = {id(column): column for column in columns}.values()  # an alias is the column that it names
        assert len({json.dumps(column, sort_keys=True) for column in written}) == len(written), path
        for column in written:
            text = column["description"]
            is_block = re.fullmatch(r"\{\{ doc\('\w+'\) \}\}", text) or text.startswith("The same")
            assert is_block or told.setdefault((column["name"], text), path) == path, (path, column["name"])


def test_money_is_never_a_float_nor_divided():
    for path in (path for folder in ("models", "dbt_project/macros") for path in (REPOSITORY / folder).rglob("*.sql")):
        sql = re.sub(r"\{#.*?#\}|--[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        # Shares of counts and seconds; and what an engine has no other word for than to divide what leaves no rest.
        if path.name not in ("statistics.sql", "engine.sql"):
            assert not re.search(r"\b(avg|float|double|real)\b|\s/\s", sql), path
        for part_and_whole in re.findall(r"\b(?:share|wilson)\((.*)\)", sql):
            assert not re.search(r"usd|cost|price|amount", part_and_whole), f"{path}: money is never divided"


JOIN = re.compile(r"^ *(?:inner|left) join [^\n]*?(\w+)\n((?: +(?:on|and) [^\n]*\n)+)", re.MULTILINE)
SAME_NAME = re.compile(r"(?:on|and) (\w+)\.(\w+) = (\w+)\.\2")
# Rows with a star, one under the other: Spark puts the columns of `using` first.
STARS_IN_A_UNION = {"exc_billing_exceptions"}


def joins_to_write_with_using(sql: str) -> list[str]:
    """What is joined by equal columns of the same names, and whose own such columns nothing else in the file reads."""
    found = []
    for joined, on in JOIN.findall(sql):
        same = [SAME_NAME.fullmatch(line.strip()) for line in on.splitlines()]
        names = {match and frozenset(match.group(1, 3)) for match in same}
        keys = "|".join(match[2] for match in same if match)
        if None not in names and len(names) == 1 and not re.search(rf"\b{joined}\.(?:{keys})\b", sql.replace(on, "")):
            found.append(joined)
    return found


def test_joins_by_keys_say_using():
    for path in (path for folder in ("models", "dbt_project") for path in (REPOSITORY / folder).rglob("*.sql")):
        if path.stem not in STARS_IN_A_UNION:
            assert joins_to_write_with_using(path.read_text("utf-8")) == [], path


@pytest.mark.parametrize(
    ("on", "found"),
    [
        ("on a.x = b.x\n    and b.y = a.y", ["b"]),
        ("on a.x = b.x\n    and a.y = b.z", []),
        ("on a.x = b.x\n    and a.y > b.y", []),
        ("on a.x = b.x\nwhere b.x is null", []),
        ("on a.x = b.x\n    and c.y = b.y", []),
    ],
)
def test_a_join_by_keys_without_using_is_found(on, found):
    assert joins_to_write_with_using(f"select a.x\nfrom a\nleft join {{{{ ref('t') }}}} as b\n    {on}\n") == found


def test_a_session_the_loader_forgot_to_name_is_found(warehouse):
    turn = {
        "record_id": "t", "session_id": "s", "agent_role": "queen", "input_tokens": 1, "output_tokens": 1,
        "occurred_at": datetime(2026, 3, 1, tzinfo=UTC), "time_basis": "utc",
    }  # fmt: skip
    warehouse.load([("llm_turns", turn)])
    warehouse.execute("delete from wire.touched_sessions")
    warehouse.run("--select", "+fct_llm_turns", "+mart_held_turns")
    select = ("--select", "assert_every_turn_of_the_wire_counts_once")
    assert not warehouse.dbt("test", *select).success
    warehouse.execute("insert into wire.touched_sessions values ('acme', 's', 1)")
    warehouse.run("--select", "+fct_llm_turns", "+mart_held_turns")
    assert warehouse.dbt("test", *select).success


def test_every_raw_line_is_accounted_for(warehouse):
    def step(number: int, session: str) -> tuple[str, dict]:
        return (
            "node_steps",
            {
                "record_id": f"{session}{number}", "session_id": session, "step_index": number,
                "source_line": number + 2, "input_tokens": 1, "output_tokens": 1,
                "file_modified_at": datetime(2026, 3, 1, tzinfo=UTC),
            },
        )  # fmt: skip

    turn = {
        "record_id": "t", "session_id": "both", "agent_role": "agent", "input_tokens": 1, "output_tokens": 1,
        "occurred_at": datetime(2026, 3, 1, tzinfo=UTC), "time_basis": "utc",
    }  # fmt: skip
    file = {"source_key": "k", "source_kind": "l3", "outcome": "read"}
    rows = [step(-1, "steps"), step(0, "steps"), step(1, "steps"), step(0, "both"), ("llm_turns", turn)]
    # Two devices read the same four usage lines; the second also read one of them twice.
    warehouse.load(
        [*rows, ("source_files", file | {"record_id": "f", "turn_lines_seen": 4, "turn_lines_duplicate": 0})]
    )
    warehouse.load(
        [*rows, ("source_files", file | {"record_id": "g", "turn_lines_seen": 5, "turn_lines_duplicate": 1})]
    )
    warehouse.run_counts()
    ledger = "raw_turn_lines, kept_turns, collapsed_on_device, collapsed_in_warehouse, retracted_steps"
    assert warehouse.query(f"select {ledger} from marts.mart_dedupe_ledger") == [(9, 3, 1, 4, 1)]
    noted = warehouse.dbt("test", "--select", "assert_raw_lines_are_accounted_for")
    assert [result.status for result in noted.result] == ["pass"]


def test_a_build_that_fails_leaves_what_was_built_before(warehouse: Warehouse) -> None:
    """Each relation is replaced in one transaction: one that cannot be built keeps its rows, nothing is left over."""
    at = datetime(2026, 3, 1, tzinfo=UTC)
    turn = {"record_id": "t", "session_id": "one", "agent_role": "queen", "input_tokens": 5, "output_tokens": 1}
    child = turn | {"record_id": "u", "session_id": "two", "parent_session_id": "one"}
    colony = {"record_id": "c", "queen_session_id": "one", "colony_name": "k1"}
    warehouse.load(
        [("llm_turns", turn | {"occurred_at": at}), ("llm_turns", child | {"occurred_at": at}), ("colonies", colony)]
    )
    warehouse.run("--select", "+mart_colony_usage")
    relations = "select schema_name, table_name from duckdb_tables() where schema_name <> 'wire' order by all"
    before, rows = warehouse.query(relations), warehouse.query("from marts.mart_colony_usage")
    assert rows
    warehouse.execute("update marts.mart_session_usage set input_tokens = 9000000000000000000")  # no BIGINT in all
    assert not warehouse.dbt("run", "--select", "mart_colony_usage").success
    assert (warehouse.query(relations), warehouse.query("from marts.mart_colony_usage")) == (before, rows)
