"""A small S3-like HTTP server whose answers a test decides: it fails, stalls, loses answers, and counts the puts.

It keeps objects in memory and honours `If-None-Match: *`. Does not belong here: what a device must do
(test_transport.py); a server that is trusted to be right is tests/object_server.py.
"""

from __future__ import annotations

import hashlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message></Error>'


@dataclass(frozen=True)
class Fault:
    """What happens instead of, or beside, a proper answer to a put.

    `status`, `code`: the answer. `stores`: whether the object is kept all the same. `cut`: the connection is reset,
    `"body"` while the request is read, `"answer"` before the answer. `stall`: seconds of silence first.
    """

    status: int = 503
    code: str = "SlowDown"
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    stores: bool = False
    cut: str = ""
    stall: float = 0.0


@dataclass
class Stub:
    """The server's memory. `decide` gets the number of the put and its key; None: answer properly."""

    objects: dict[str, bytes] = field(default_factory=dict)
    decide: Callable[[int, str], Fault | None] = lambda _number, _key: None
    puts: list[str] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    clock_offset: float = 0.0
    is_careless: bool = False
    """Conditions and checksums are ignored: the last put stays."""
    endpoint: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """The usual AWS variables."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint, "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not-a-secret",
            "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        }  # fmt: skip


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    stub: Stub

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate((timestamp or time.time()) + self.stub.clock_offset, usegmt=True)

    def do_PUT(self) -> None:
        stub = self.stub
        key = self.path.partition("?")[0].split("/", 2)[2]
        with stub.lock:
            number = len(stub.puts)
            stub.puts.append(key)
            stub.requests.append(("PUT", key, dict(self.headers)))
            fault = stub.decide(number, key)
        if fault and fault.cut == "body":
            self.rfile.read(1)
            self._reset()
            return
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if fault is None or fault.stores:
            with stub.lock:
                existed = key in stub.objects
                if not existed or stub.is_careless:
                    stub.objects[key] = data
            if fault is None:
                if existed and not stub.is_careless and self.headers.get("If-None-Match") == "*":
                    self._answer(412, ERROR.format(code="PreconditionFailed"))
                else:
                    self._answer(200, "", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})
                return
        if fault.stall:
            time.sleep(fault.stall)
        if fault.cut:
            self._reset()
            return
        body = ERROR.format(code=fault.code) if fault.body is None else fault.body
        self._answer(fault.status, body, fault.headers)

    def do_GET(self) -> None:
        self.stub.requests.append(("GET", self.path, dict(self.headers)))
        self._answer(404, ERROR.format(code="NoSuchKey"))

    def _answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode())

    def _reset(self) -> None:
        """Hang up hard, as a router that lost its tables does."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is what some tests are about."""


@contextmanager
def s3_stub() -> Iterator[Stub]:
    """A server on a free port of the loopback."""
    stub = Stub()
    server = _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"stub": stub}))
    stub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
