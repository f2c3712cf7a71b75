"""A run from a terminal is a run like those of the daemon: in the same place of the UI, with the same records.

Does not belong here: what it says (tests/end_to_end/test_job.py), runs that die (test_orphaned_runs.py).
"""

from pathlib import Path

import dagster as dg
import pytest


def test_a_run_from_a_terminal_stands_in_the_timeline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The UI shows runs by the code location and repository of their job; one of neither is in no line of it."""
    monkeypatch.setenv("APIARY_WAREHOUSE", str(tmp_path / "none.duckdb"))
    import yaml

    from pipelines.defs import foreground
    from pipelines.home import ROOT

    @dg.op
    def load() -> None:
        raise ValueError("the wire is torn")

    @dg.job(executor_def=dg.in_process_executor)
    def daily() -> None:
        load()

    with dg.instance_for_test() as instance:
        result = foreground.execute(daily, instance, {"apiary/pid": "1"}, {})
        run = instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.remote_job_origin is not None
    origin = run.remote_job_origin.repository_origin
    (place,) = yaml.safe_load((ROOT / "workspace.yaml").read_text("utf-8"))["load_from"]
    assert origin.code_location_origin.location_name == place["python_module"]["location_name"]
    assert (origin.repository_name, run.remote_job_origin.job_name) == ("__repository__", "daily")
    assert run.tags["apiary/pid"] == "1"
    assert run.status is dg.DagsterRunStatus.FAILURE
    assert foreground._why(result) == "failed in: load (ValueError: the wire is torn)"
