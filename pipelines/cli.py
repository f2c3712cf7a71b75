"""The one entry point `apiary`: reads the arguments, calls the command, turns errors into one line and an exit code.

It imports lazily: the device commands work in a base install, and the others say which extra they need.
Exit codes: 0 done, 1 could not be done, 2 wrong use or no consent, 3 a quota blocks. Does not belong here: commands
(pipelines/commands).
"""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from pipelines import __version__, log_format
from pipelines.commands import completion
from pipelines.commands.terminal import Parser, Shared, Stop, tell
from pipelines.errors import ExpectedError

COMMANDS = (
    "me", "device", "doctor", "warehouse", "orchestration", "loading", "erasure", "reading", "periods", "finance",
    "accounts", "prices", "agent", "upgrade", "backup", "compare", "demo", "simulate",
)  # fmt: skip
"""The modules of pipelines/commands in the order of the help. An installed device part has only its own."""
WAREHOUSE_COMMANDS = frozenset({
    "account", "agent", "backup", "budget", "contract", "credit", "daemon", "dev", "devices", "erase", "export",
    "fx-rate", "held", "ingest", "landing", "model-policy", "month-end", "period", "plan", "prices", "prove",
    "quarantine", "rebuild", "reconcile", "report", "restore", "retain", "retention", "run", "seat", "serve",
    "session-user", "shadow", "usage", "verify", "webserver", "what-if",
})  # fmt: skip
"""What an installed device part has not."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    if arguments is None and sys.argv[1:2] in DEVICE_COMMANDS:
        # pyarrow imports both wherever they are installed, which takes longer than an idle pass, and needs neither.
        # It asks once: only for a process that ends with the command.
        for name in ("numpy", "pandas"):
            sys.modules.setdefault(name, None)  # type: ignore[arg-type]
    try:
        log_format.is_json()
    except ValueError as error:
        sys.stderr.write(f"apiary: {error}\n")
        return 2
    command = next(iter(sys.argv[1:] if arguments is None else arguments), "")
    if command in WAREHOUSE_COMMANDS and find_spec("pipelines.commands.warehouse") is None:
        return tell(1, f"`apiary {command}` is a command of the warehouse: install apiary-warehouse")
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except KeyboardInterrupt:
        return tell(1, "stopped; what was done stays done, run it again to go on")
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if options.debug:
            raise
        return tell(*_explain(error))


def _explain(error: Exception) -> tuple[int, str]:
    """The exit code and the one line for an error."""
    if isinstance(error, Stop):
        return error.code, str(error)
    if isinstance(error, ExpectedError):
        return error.exit_code, str(error)
    if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] in WAREHOUSE_MODULES:
        return 1, f"this command needs {error.name}: install apiary-warehouse, or run `make setup` in a checkout"
    if type(error).__name__ == "IOException" and "lock" in str(error):
        return 1, "the warehouse is open in another process: close it, or wait for the run in the UI, and try again"
    if "disk I/O error" in str(error) or "disk is full" in str(error) or "No space left" in str(error):
        return 1, "the disk is full or failing: free some space and run it again; nothing is lost"
    if isinstance(error, OSError) and error.strerror and error.filename:
        return 1, f"{error.filename}: {error.strerror}"
    first = next(iter(str(error).strip().splitlines()), "")
    return 1, f"{type(error).__name__}: {first}; run it again with --debug to see where"


DEVICE_COMMANDS = (["device"], ["me"])
WAREHOUSE_MODULES = {
    "dagster",
    "dagster_dbt",
    "dagster_duckdb",
    "duckdb",
    "dbt",
    "polars",
    "pandas",
    "yaml",
    "genai_prices",
    "fastapi",
    "uvicorn",
    "cryptography",
    "jinja2",
    "openpyxl",
    "reportlab",
    "prometheus_client",
}


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="apiary", description="What AI agents used, counted once, without people's content.")
    parser.add_argument("--version", action="version", version=f"apiary {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    shared = Shared()
    for name in COMMANDS:
        if find_spec(f"pipelines.commands.{name}"):
            import_module(f"pipelines.commands.{name}").add(commands, shared)
    completion.add(commands, shared, parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
