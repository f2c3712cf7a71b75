"""Metadata of the wheel of the warehouse: version and requirements stand in the pyproject.toml of the checkout."""

import tomllib
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

EXTRAS = ("postgres", "prices", "notebooks", "ducklake", "spark")


class CheckoutMetadata(MetadataHookInterface):
    """Version, requirements and extras of the warehouse."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Fill in what pyproject.toml calls dynamic. Raises OSError."""
        checkout = tomllib.loads((Path(self.root).parents[1] / "pyproject.toml").read_text("utf-8"))
        version, groups = checkout["project"]["version"], checkout["dependency-groups"]
        metadata["version"] = version
        metadata["dependencies"] = [f"apiary=={version}", *groups["warehouse"]]
        metadata["optional-dependencies"] = {name: groups[name] for name in EXTRAS}
