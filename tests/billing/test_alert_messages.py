"""People hear of statements that are missing, late or held back, by webhook and by e-mail."""

import json
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from pipelines.alert_channels import EMAIL, WEBHOOK
from pipelines.billing.alert_messages import deliver
from pipelines.billing.export_alerts import Alert

MISSING = Alert("missing", "2025-01", "2025-01-03", None, "4 rows, no statement")
HELD = Alert("held_back", "2025-01", None, "acct-bolt", "x.cost_off is acct-bolt: 1")


class _Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.server.heard.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


class _Mail(socketserver.StreamRequestHandler):
    """As much of a mail server as a message needs."""

    def handle(self) -> None:
        self.wfile.write(b"220 here\r\n")
        while line := self.rfile.readline():
            word = line[:4].upper()
            if word == b"DATA":
                self.wfile.write(b"354 go on\r\n")
                text = b""
                while (part := self.rfile.readline()) != b".\r\n":
                    text += part
                self.server.heard.append(text.decode())
            self.wfile.write(b"221 bye\r\n" if word == b"QUIT" else b"250 yes\r\n")
            if word == b"QUIT":
                return


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, Any]]:
    """A webhook and a mail server that write down what they hear."""
    made: list[Any] = [HTTPServer(("127.0.0.1", 0), _Hook), socketserver.TCPServer(("127.0.0.1", 0), _Mail)]
    for server in made:
        server.heard, server.answer = [], 200
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    hook, mail = made
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{hook.server_port}/alerts")
    monkeypatch.setenv(EMAIL, f"smtp://127.0.0.1:{mail.server_address[1]}/?from=apiary@x.org&to=f@x.org&to=g@x.org")
    yield hook, mail
    for server in made:
        server.shutdown()
        server.server_close()


def test_each_channel_hears_of_it_once_and_once_that_all_is_well(servers: tuple[Any, Any], tmp_path: Path) -> None:
    hook, mail = servers
    assert deliver(tmp_path, []) == []
    assert (hook.heard, mail.heard) == ([], []), "nobody is told that nothing is wrong"
    for _ in range(2):
        assert deliver(tmp_path, [MISSING, HELD]) == []
    assert [told["alerts"][1]["account"] for told in hook.heard] == ["acct-bolt"]
    assert hook.heard[0]["text"].splitlines() == [
        "missing: 2025-01-03: 4 rows, no statement",
        "held back: 2025-01, account acct-bolt: x.cost_off is acct-bolt: 1",
    ]
    (said,) = mail.heard
    for part in (
        "Subject: Apiary: 2 billing statements need somebody",
        "To: f@x.org, g@x.org",
        "acct-bolt: x.cost_off",
    ):
        assert part in said
    assert deliver(tmp_path, [HELD]) == []
    assert deliver(tmp_path, []) == []
    assert [len(told["alerts"]) for told in hook.heard] == [2, 1, 0]
    assert "all billing statements are there" in mail.heard[-1]


def test_what_is_not_delivered_stops_nothing_and_is_tried_again(
    servers: tuple[Any, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook, mail = servers
    hook.answer = 500
    (failure,) = deliver(tmp_path, [MISSING])
    assert failure.startswith("webhook: HTTPError")
    assert len(mail.heard) == 1
    hook.answer = 204
    assert deliver(tmp_path, [MISSING]) == []
    assert (len(hook.heard), len(mail.heard)) == (2, 1)
    for wrong in ("file:///etc/passwd", "nothing"):
        monkeypatch.setenv(WEBHOOK, wrong)
        assert [line.split(":")[0] for line in deliver(tmp_path, [HELD])] == ["webhook"]
    monkeypatch.setenv(EMAIL, "smtp://user:secret@127.0.0.1:1/")
    (*_, failure) = deliver(tmp_path, [MISSING, HELD])
    assert failure == f"e-mail: {EMAIL} is not smtp://host:port/?from=ADDRESS&to=ADDRESS"
    heard = len(mail.heard)
    monkeypatch.setenv(EMAIL, f"smtp://user:secret@127.0.0.1:{mail.server_address[1]}/?from=a@x.org&to=b@x.org")
    (*_, failure) = deliver(tmp_path, [MISSING, HELD])
    assert failure == f"e-mail: the server of {EMAIL} offers no TLS: the password was not sent"
    assert len(mail.heard) == heard
    monkeypatch.setenv(EMAIL, "smtp://user:secret@127.0.0.1:secret/?from=a@x.org&to=b@x.org")
    (*_, failure) = deliver(tmp_path, [MISSING, HELD])
    assert failure.startswith("e-mail: ValueError")
    assert "secret" not in failure
    (tmp_path / "alerts_sent.json").write_text("{")
    monkeypatch.setenv(WEBHOOK, f"http://127.0.0.1:{hook.server_port}/alerts")
    monkeypatch.delenv(EMAIL)
    assert deliver(tmp_path, [MISSING]) == [], "a note that cannot be read stops nothing"
