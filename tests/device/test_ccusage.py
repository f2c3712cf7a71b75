"""What ccusage counts otherwise is explained to the response. Where npm is not there the program is skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.home import Home
from pipelines.peers import ccusage
from tests.device.claude_lines import Json, dump, response, session_id, transcript

FIRST, SECOND = map(session_id, range(2))


def compact(*lines: Json) -> bytes:
    """Lines as the program writes them: ccusage finds no others."""
    return b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines)


def test_without_npm_it_is_skipped_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = tmp_path / ".claude"
    transcript(home, FIRST).write_bytes(dump(response("a", FIRST, 1)))
    monkeypatch.setenv("APIARY_HOME", str(tmp_path / "apiary"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["compare", "--with", "ccusage", "--home", str(home)]) == 0
    assert "skipped: npm and node are not there" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed: it installs ccusage")
def test_each_difference_is_explained(tmp_path: Path) -> None:
    home = tmp_path / ".claude"
    twice = [response("b", FIRST, 5, output=3, stop=None), response("b", FIRST, 6)]
    for line in twice:
        del line["requestId"]
    transcript(home, FIRST).write_bytes(compact(response("a", FIRST, 1), *twice) + dump(response("c", FIRST, 9)))
    aside = response("a", SECOND, 1) | {"requestId": "req_other"}
    transcript(home, SECOND).write_bytes(compact(aside))
    (found,) = ccusage.compare(ccusage.program(Home(tmp_path / "apiary")), [home])
    assert not any(found.not_explained.values())
    reasons = {difference.response_id[-1]: difference.reason for difference in found.differences}
    assert reasons == {
        "a": "a copy under another request id counts again",
        "b": "each line of a response without a request id counts",
        "c": "its line has blanks between its words",
    }
    off = {name: sum(difference.off[name] for difference in found.differences) for name in found.ours}
    assert off == {name: found.peer[name] - found.ours[name] for name in found.ours}
