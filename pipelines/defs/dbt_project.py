"""The dbt project as Dagster sees it, and its manifest, made when it is missing or older than the models.

Does not belong here: the assets made of it (transform.py).
"""

import json
from pathlib import Path
from typing import Any

from dagster_dbt import DbtProject

from pipelines import __version__
from pipelines.home import IS_CHECKOUT, MODELS, ROOT, Home
from pipelines.warehouse.publish import Description

# An installed project is written by nobody: what dbt parses lies with the site's own files.
TARGET = Path("target") if IS_CHECKOUT else Home.from_environment().root / "dbt" / f"parsed-{__version__}"
PROJECT = DbtProject(project_dir=ROOT / "dbt_project", profiles_dir=ROOT / "dbt_project", target_path=TARGET)
SOURCES = (
    MODELS,
    ROOT / "dbt_project" / "macros",
    ROOT / "dbt_project" / "tests",
    ROOT / "dbt_project" / "seeds",
)


def forget_moved(folder: Path, project: Path) -> None:
    """Remove what dbt parsed of a project that lay in another folder: it would look for the seeds there, in every run.

    `folder`: where a home keeps dbt's files. Programs move when they are installed anew. Raises OSError.
    """
    here = f'"root_path": {json.dumps(str(project))}'
    for parsed in folder.rglob("partial_parse.msgpack"):
        told = parsed.with_name("manifest.json")
        if not told.exists() or here not in told.read_text("utf-8"):
            parsed.unlink(missing_ok=True)


def manifest() -> Path:
    """The path of a manifest that is up to date. Raises RuntimeError if the project does not parse or has no model."""
    forget_moved(Home.from_environment().root / "dbt", PROJECT.project_dir)
    if not any(MODELS.rglob("*.sql")):  # dbt would build nothing, and say that it is well
        raise RuntimeError(f"{MODELS} holds no model: install apiary-warehouse again")
    path = PROJECT.manifest_path
    files = [file for source in SOURCES for file in source.rglob("*") if file.is_file()]
    newest = max(file.stat().st_mtime for file in [*files, ROOT / "dbt_project" / "dbt_project.yml"])
    if not path.exists() or path.stat().st_mtime < newest:
        from dbt.cli.main import dbtRunner

        folder = str(PROJECT.project_dir)
        places = ["--target-path", str(path.parent), *([] if IS_CHECKOUT else ["--log-path", str(path.parent)])]
        result = dbtRunner().invoke(["parse", "--quiet", "--project-dir", folder, "--profiles-dir", folder, *places])
        if not result.success:
            raise RuntimeError("the dbt project does not parse: run `dbt parse` in dbt_project to see why")
    return path


def parsed() -> dict[str, Any]:
    """The manifest. Raises RuntimeError as `manifest` does."""
    found: dict[str, Any] = json.loads(manifest().read_text("utf-8"))
    return found


def descriptions() -> dict[str, Description]:
    """What each mart and its columns mean and who reads it, as the models' YAML says. Raises RuntimeError as `manifest`
    does."""
    nodes = parsed()["nodes"].values()
    return {
        node["name"]: Description(
            " ".join(node["description"].split()),
            {name: " ".join(column["description"].split()) for name, column in node["columns"].items()},
            node["config"]["meta"].get("audience") or (),
        )
        for node in nodes
        if node["resource_type"] == "model" and node["schema"] == "marts"
    }
