"""The models: every dbt model is an asset named by its schema and table, every dbt test an asset check.

Two steps: what a bill is made from, then everything else, so that an error in analytics stops no bill. Does not belong
here: SQL (models/), how dbt builds it (dbt_project/).
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, DbtProject, dbt_assets
from dagster_duckdb import DuckDBResource

from pipelines.contract.numbers import pluralize
from pipelines.defs import dbt_project
from pipelines.defs.dbt_checks import with_readable_tests
from pipelines.defs.gates import arrival_gate, is_in_run, require
from pipelines.defs.ownership import FRESHNESS, labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.resources import HOME, WRITER, StoreResource
from pipelines.defs.setting_aside import MOST_ROUNDS, OVER_BUDGET, Failure, failure_after, failure_of, set_aside, told
from pipelines.home import private_folder
from pipelines.quality.gates import Edge
from pipelines.warehouse import budgets, database, definitions, load, registry, schemas

MANIFEST = with_readable_tests(dbt_project.parsed())
INDIRECT_SELECTION = "DBT_INDIRECT_SELECTION"
# Dagster keeps what dbt prints. A file beside it takes a twentieth of a build, at dbt's own level an eighth and 13 MB.
NO_LOG_FILE = ("--log-level-file", "none")


class BuildConfig(dg.Config):
    """How a run builds the models. `full_refresh`: from the start, as after a change that no definition shows."""

    full_refresh: bool = False


class Translator(DagsterDbtTranslator):
    """Names assets as the warehouse names relations."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """`[schema, table]`."""
        schema = dbt_resource_props["schema"] if dbt_resource_props["resource_type"] != "seed" else "seeds"
        return dg.AssetKey([schema, dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """The layer, which is the folder of a model."""
        return str(dbt_resource_props["fqn"][1] if dbt_resource_props["resource_type"] == "model" else "seeds")

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: DbtProject | None) -> dg.AssetSpec:
        """With the team that the model names; what a mart is about, by its folder; what is published is kept fresh."""
        spec = super().get_asset_spec(manifest, unique_id, project)
        node = self.get_resource_props(manifest, unique_id)
        given = labels(spec.group_name or node["schema"])
        if owner := node.get("meta", {}).get("owner"):
            given["owners"] = [f"team:{owner}"]
        if subject := [folder for folder in node["fqn"][2:-1] if folder != "internal"]:
            given["tags"]["subject"] = subject[0]
        if node["schema"] == schemas.MARTS:
            given["freshness_policy"] = FRESHNESS
        return spec.replace_attributes(**given)


@contextmanager
def _buildable_selection() -> Iterator[None]:
    """Of a build of some models: a test over several runs if the others are built too, or built from already.

    Dagster reads the variable and overrides it where a person chose single checks; an option would override Dagster.
    """
    before = os.environ.get(INDIRECT_SELECTION)
    os.environ[INDIRECT_SELECTION] = "buildable"
    try:
        yield
    finally:
        if before is None:
            del os.environ[INDIRECT_SELECTION]
        else:
            os.environ[INDIRECT_SELECTION] = before


@dataclass(frozen=True)
class Part:
    """Models that one step builds: dbt's selection of them, the gate that judges them, the parts they read."""

    select: str
    edge: Edge
    reads: "tuple[Part, ...]" = ()


def _no_statement_needs() -> str:
    """The other models and seeds, by name: to exclude the billed ones would exclude the tests that compare both."""
    built = {key: node for key, node in MANIFEST["nodes"].items() if node["resource_type"] in ("model", "seed")}
    left = {key for key, node in built.items() if Translator().get_group_name(node) == "statements"}
    needed: set[str] = set()
    while left:
        needed |= left
        left = {parent for key in left for parent in built[key]["depends_on"].get("nodes", ())} & built.keys() - needed
    return " ".join(sorted(node["name"] for key, node in built.items() if key not in needed))


BILLING = Part("+fqn:statements", "billing")
ANALYTICS = Part(_no_statement_needs(), "departure", reads=(BILLING,))
TRANSLATOR = Translator(settings=DagsterDbtTranslatorSettings(enable_asset_checks=True))


@dbt_assets(
    manifest=MANIFEST, select=BILLING.select, name="billing_models", dagster_dbt_translator=TRANSLATOR, pool=WRITER,
    **BY_ARRIVAL,
)  # fmt: skip
def billing_models(
    context: dg.AssetExecutionContext, config: BuildConfig, dbt: DbtCliResource, duckdb: DuckDBResource,
    store: StoreResource,
) -> Iterator[Any]:  # fmt: skip
    """Build and test what statements are made from, by what is new; batches on whose rows it fails are set aside.

    After an upgrade that changed the definition of an incremental model all of them are built from the start, once.
    """
    yield from _build(context, config, dbt, duckdb, store, part=BILLING)


@dbt_assets(
    manifest=MANIFEST, select=ANALYTICS.select, name="analytics_models", dagster_dbt_translator=TRANSLATOR, pool=WRITER,
    **BY_ARRIVAL,
)  # fmt: skip
def analytics_models(
    context: dg.AssetExecutionContext, config: BuildConfig, dbt: DbtCliResource, duckdb: DuckDBResource,
    store: StoreResource,
) -> Iterator[Any]:  # fmt: skip
    """Build and test every other model, in the same way. No statement waits for them."""
    yield from _build(context, config, dbt, duckdb, store, part=ANALYTICS)


STEPS = {BILLING: billing_models, ANALYTICS: analytics_models}


def _build(
    context: dg.AssetExecutionContext, config: BuildConfig, dbt: DbtCliResource, duckdb: DuckDBResource,
    store: StoreResource, *, part: Part,
) -> Iterator[Any]:  # fmt: skip
    warehouse, folder = Path(duckdb.database), _target()
    if not is_in_run(context, arrival_gate):
        with duckdb.get_connection() as connection:
            load.prepare(connection)  # of models that were chosen alone, before anything was loaded
            require("arrival", connection)
    chosen = {".".join(key.path) for key in context.selected_asset_keys}
    manifest = dbt_project.parsed()
    is_whole = context.selected_asset_keys >= STEPS[part].keys  # not `context.assets_def`: that is what was chosen
    changed = [model for model in definitions.changed(warehouse, manifest) if model in chosen]
    if changed:
        context.log.warning(  # the terminal shows no less of this step
            f"{pluralize(len(changed), 'model')} with a changed definition, such as {changed[0]}: full refresh"
        )
    refresh = ["--full-refresh"] if changed or config.full_refresh else []
    for is_last in (*[False] * MOST_ROUNDS, True):
        (folder / "run_results.json").unlink(missing_ok=True)  # of an earlier build
        with _buildable_selection():
            invocation = dbt.cli(
                ["build", "--exclude-resource-type", "unit_test", *NO_LOG_FILE, *refresh], context=context,
                target_path=folder, raise_on_error=False,
            )  # fmt: skip
        events = list(invocation.stream())  # an asset is told of once: what an earlier round said is out of date
        failure = _failure(invocation, warehouse, (part,) if is_whole else ())
        if failure is None or is_last:
            break
        context.log.warning(f"{failure.reason}: looking for the batches that it comes from")
        lines = list(set_aside(warehouse, store.open(), failure))
        for line in lines:
            context.log.warning(line)
        if not lines:
            context.log.warning("it comes from no batch: the models or the books are at fault")
            break
        for read in part.reads:
            _build_again(dbt, warehouse, read)  # it still holds the rows of these batches
    for line in told(registry.load(warehouse.parent).batches):
        context.log.warning(line)
    _add_row_counts(context, warehouse)
    yield from events
    if invocation.is_successful():
        definitions.record(warehouse, manifest, built=chosen)
    if (error := invocation.get_error()) is not None:
        raise error
    if failure is not None and failure.reason.startswith(OVER_BUDGET):  # a gate that stops says so itself
        raise dg.Failure(f"{failure.reason}: more rows than max_rows_per_input_row allows, and no batch is the cause")


def _add_row_counts(context: dg.AssetExecutionContext, warehouse: Path) -> None:
    with database.connect(warehouse) as connection:
        for (schema, table), rows in budgets.row_counts(connection, ("seeds", *schemas.TABLES)).items():
            if (key := dg.AssetKey([schema, table])) in context.selected_asset_keys:
                context.add_asset_metadata({"dagster/row_count": rows}, key)


def _build_again(dbt: DbtCliResource, warehouse: Path, part: Part) -> None:
    """Build and judge a part that another step built, after its batches were set aside. Raises dagster.Failure."""
    with _buildable_selection():
        command = ["build", "--exclude-resource-type", "unit_test", *NO_LOG_FILE, "--select", part.select]
        invocation = dbt.cli(command, target_path=_target(), raise_on_error=False).wait()
    _raise_what_failed(invocation, warehouse, part)


def require_tested(dbt: DbtCliResource, warehouse: Path, *parts: Part) -> None:
    """Judge what is built, for a run that did not build it: every dbt test, the budgets, the gate of each part.

    Raises dagster.Failure.
    """
    for part in parts:
        with _buildable_selection():
            command = ["build", "--resource-type", "test", *NO_LOG_FILE, "--select", part.select]
            invocation = dbt.cli(command, target_path=_target(), raise_on_error=False).wait()
        _raise_what_failed(invocation, warehouse, part)


def _raise_what_failed(invocation: Any, warehouse: Path, part: Part) -> None:
    failure = _failure(invocation, warehouse, (part,))
    if failure is not None:
        raise dg.Failure(f"{failure.reason}: nothing is published; run the job `daily`", allow_retries=False)
    if (error := invocation.get_error()) is not None:
        raise error


def _target() -> Path:
    folder = private_folder(HOME.root / "dbt")
    folder.chmod(0o700)  # dbt made it for everybody once
    return folder


def _failure(invocation: Any, warehouse: Path, parts: tuple[Part, ...]) -> Failure | None:
    """What failed; `parts`: those that were built whole, which are judged over all of their models."""
    if not invocation.is_successful():
        try:
            return failure_of(invocation.get_artifact("run_results.json"))
        except FileNotFoundError:
            return None  # dbt did not come so far: its error says why
    found = (
        failure_after(warehouse, MANIFEST, {".".join(key.path) for key in STEPS[part].keys}, part.edge)
        for part in parts
    )
    return next(filter(None, found), None)
