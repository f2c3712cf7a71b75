"""`apiary serve` and `apiary report`: published data for people and programs.

Does not belong here: what is served or drawn (pipelines/serve).
"""

import argparse
import ipaddress
import socket
from pathlib import Path
from typing import Any

from pipelines import log_format
from pipelines.commands.terminal import Shared, Stop, note, say
from pipelines.home import Home

LOG_CONFIG = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"json": {"()": "pipelines.log_format.JsonFormatter"}},
    "handlers": {"default": {"formatter": "json", "class": "logging.StreamHandler"}},
    "loggers": {"uvicorn": {"handlers": ["default"], "propagate": False}},
}
"""Of the server's own messages where logs are JSON."""


def _serve(options: argparse.Namespace) -> int:
    from pipelines.serve import keys

    home = Home.from_environment()
    if options.make_key:
        from pipelines.serve.tenant_data import tenants

        known = tenants(home.published)
        if options.make_key not in known:
            raise Stop(
                2, f"nothing is published of tenant {options.make_key!r}; there are: {', '.join(known) or 'none'}"
            )
        name, key = keys.make(home, options.make_key)
        note(f"{name} opens the data of {options.make_key}; it is shown this once:")
        print(key)
        return 0
    if options.make_metrics_key:
        name, key = keys.make_for_metrics(home)
        note(f"{name} opens /metrics, of all tenants; it is shown this once:")
        print(key)
        return 0
    if options.revoke_key:
        keys.revoke(home, options.revoke_key)
        return 0
    if not options.beyond_loopback and not is_loopback(options.host):
        raise Stop(2, f"{options.host} can be reached from elsewhere: say --beyond-loopback if that is meant")
    import uvicorn
    from uvicorn.config import LOGGING_CONFIG

    from pipelines.serve.app import make_app

    require_free(options.host, options.port, "--port")
    url = f"http://{options.host}:{options.port}"
    note(f"{url}/docs describes the API, {url}/report/ is for people")
    uvicorn.run(
        make_app(home), host=options.host, port=options.port, log_level="warning", server_header=False,
        log_config=LOG_CONFIG if log_format.is_json() else LOGGING_CONFIG,
    )  # fmt: skip
    return 0


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine reaches a host. A name other than localhost may lead anywhere."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def port_number(text: str) -> int:
    """A TCP port. Raises argparse.ArgumentTypeError."""
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= 65535:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 1 to 65535")


def require_free(host: str, port: int, option: str) -> None:
    """Raises Stop if nothing can listen on a port of a host. `option`: what names another one."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Stop(2, f"port {port}: {error.strerror}; name another with {option}") from None


def _report(options: argparse.Namespace) -> int:
    from pipelines.serve.report import write

    say(write(Home.from_environment().published, options.out, tenant=options.tenant))
    return 0


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    serve = shared.add(group, "serve", "answer HTTP requests from the published data, read-only", _serve)
    serve.add_argument("--host", default="127.0.0.1", help="where to listen (127.0.0.1)")
    serve.add_argument("--port", type=port_number, default=8321, metavar="N", help="(8321)")
    serve.add_argument("--beyond-loopback", action="store_true", help="listen where other machines reach it")
    serve.add_argument("--make-key", metavar="TENANT", help="make a key that opens one tenant's data, and end")
    serve.add_argument("--make-metrics-key", action="store_true", help="make a key that opens /metrics, and end")
    serve.add_argument("--revoke-key", metavar="NAME", help="take a key back, and end")
    report = shared.add(group, "report", "write the published data as a folder of HTML pages", _report)
    out = Path("apiary-report")
    report.add_argument("--out", type=Path, default=out, metavar="FOLDER", help=f"({out})")
    report.add_argument("--tenant", metavar="T", help="only this tenant")
