"""The commands of docs/runbook.md and docs/backfills.md, by section, and the tests that execute them.

Does not belong here: the situations in which they are executed (tests/end_to_end/rehearsal.py).
"""

import re
import shlex
from pathlib import Path

from tests.warehouse import REPOSITORY

PAGES = ("runbook", "backfills")
# Sections whose commands are executed elsewhere, in the situation that they are for: a build of all models, a run that
# was killed, a server that does not end by itself. A command, or all that the section has.
ELSEWHERE = {
    ("runbook", "A batch was set aside"): "tests/end_to_end/test_setting_aside.py",
    ("runbook", "Rebuilding the warehouse from the landing"): "tests/warehouse_part/test_recovery.py",
    ("runbook", "The books do not balance"): "tests/warehouse_part/test_recovery.py",
    ("runbook", "Before a new version is switched on"): "tests/warehouse_part/test_shadow.py",
    ("runbook", "Erasing somebody"): "tests/end_to_end/test_erasure.py",
    ("runbook", "An erasure waits"): "tests/end_to_end/test_withdrawal.py",
    ("runbook", "What starts by itself"): "tests/defs/test_ui.py",
    ("backfills", "Running an arrival day"): "tests/end_to_end/test_job.py",
}
# Commands that many sections end with: a whole run in each situation would take hours. They are executed after a kill
# (test_kill_matrix.py, test_killed_runs.py), after a failed gate and with nothing new (test_job.py), after bad data
# (test_services.py, test_setting_aside.py), an upgrade (test_upgrade.py) and an erasure (test_erasure.py).
RUNS = ("apiary run", "apiary run --force")
# Names of commands that a text speaks of, which need more than their name.
MENTIONED = {
    f"apiary {name}"
    for name in ("devices expel", "devices readmit", "erase", "account", "contract", "plan", "seat", "model-policy",
                 "credit", "report")
}  # fmt: skip


def sections(page: str) -> dict[str, str]:
    """The text of each section of a page, by its heading; of one with sections in it without these."""
    parts = re.split(r"^#+ (.*)$", (REPOSITORY / "docs" / f"{page}.md").read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def commands(text: str) -> list[str]:
    """The commands of a section, each once, in their order: lines of its blocks, and code in its text."""
    found: list[str] = []
    for number, part in enumerate(text.split("```")):
        lines = part.splitlines() if number % 2 else re.findall(r"`([^`]+)`", part)
        found += [" ".join(line.split()) for line in lines if line.startswith("apiary ")]
    return list(dict.fromkeys(found))


def arguments(command: str) -> list[str]:
    """What the program is given."""
    return shlex.split(command)[1:]


def source(test: str) -> str:
    """The text of a file of tests."""
    return Path(REPOSITORY / test).read_text("utf-8")
