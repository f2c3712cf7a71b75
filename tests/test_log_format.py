"""What programs say of themselves, for people and for programs.

Does not belong here: what they say (tests of the commands).
"""

import json
import logging
import sys
from datetime import datetime
from typing import Any

import pytest

from pipelines import cli, log_format
from pipelines.commands import terminal


@pytest.fixture
def as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("APIARY_LOG_FORMAT", "json")


def objects(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    """What was said, each line an object."""
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_note_is_one_object(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    terminal.note("running the warehouse job")
    (first,) = objects(capsys)
    assert (first["level"], first["message"]) == ("info", "running the warehouse job")
    assert datetime.fromisoformat(first["time"]).tzinfo is not None


def test_a_command_that_fails_says_so_at_the_level_of_errors(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert terminal.tell(1, "the disk is full") == 1
    (said,) = objects(capsys)
    assert (said["level"], said["message"]) == ("error", "the disk is full")


def test_a_step_of_a_run_is_told_with_its_name_and_seconds(as_json: None, capsys: pytest.CaptureFixture[str]) -> None:
    import dagster as dg

    from pipelines.defs.progress import progress_logger

    @dg.op
    def wire(context: dg.OpExecutionContext) -> None:
        context.log.warning("2 batches are refused")

    @dg.job(logger_defs={"progress": progress_logger}, executor_def=dg.in_process_executor)
    def daily() -> None:
        wire()

    done = daily.execute_in_process(run_config={"loggers": {"progress": {}}})
    start, warned, success = objects(capsys)
    assert [line["run_id"] for line in (start, warned, success)] == [done.run_id] * 3
    assert (start["event"], success["event"]) == ("STEP_START", "STEP_SUCCESS")
    assert (warned["level"], warned["step"], warned["message"]) == ("warning", "wire", "2 batches are refused")
    assert success["seconds"] >= 0


def test_the_server_s_own_messages_have_their_errors(as_json: None) -> None:
    try:
        raise OSError("the disk is full")
    except OSError:
        record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "failed: %s", ("x",), sys.exc_info())
    said = json.loads(log_format.JsonFormatter().format(record))
    assert (said["level"], said["logger"], said["message"]) == ("error", "uvicorn.error", "failed: x")
    assert "OSError: the disk is full" in said["exception"]


def test_a_format_that_is_none_is_said_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("APIARY_LOG_FORMAT", "xml")
    assert cli.main(["doctor"]) == 2
    assert capsys.readouterr().err == "apiary: APIARY_LOG_FORMAT is 'xml': say text or json\n"
