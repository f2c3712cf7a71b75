"""The models: every dbt model is an asset named by its schema and table, every dbt test an asset check.

Does not belong here: SQL (models/), how dbt builds it (dbt_project/).
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, dbt_assets

from pipelines.defs.dbt_project import manifest
from pipelines.defs.resources import HOME, WRITER
from pipelines.home import private_folder


class Translator(DagsterDbtTranslator):
    """Names assets as the warehouse names relations."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """`[schema, table]`."""
        schema = dbt_resource_props["schema"] if dbt_resource_props["resource_type"] != "seed" else "seeds"
        return dg.AssetKey([schema, dbt_resource_props["name"]])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str | None:
        """The layer."""
        return str(dbt_resource_props["schema"])


@dbt_assets(
    manifest=manifest(),
    dagster_dbt_translator=Translator(settings=DagsterDbtTranslatorSettings(enable_asset_checks=True)),
    name="models",
    pool=WRITER,
)
def models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """Build and test every model, by what is new since the last build."""
    folder = private_folder(HOME.root / "dbt")
    folder.chmod(0o700)  # dbt made it for everybody once
    command = ["build", "--exclude-resource-type", "unit_test"]
    yield from dbt.cli(command, context=context, target_path=folder).stream()
