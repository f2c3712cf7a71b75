"""Messages to people about statements that are missing, late or held back: a webhook, e-mail, or both.

`APIARY_ALERT_WEBHOOK` is a URL that gets one JSON object; `APIARY_ALERT_EMAIL` names a mail server, a sender and a
receiver: `smtp://user:password@host:587/?from=a@x.org&to=b@x.org` (`smtps` for TLS from the start; `smtp` uses STARTTLS
where the server offers it). A channel hears of a set of alerts once, and once that all is well again; what could not be
delivered is tried by the next run.
Does not belong here: finding alerts (export_alerts.py).
"""

import hashlib
import http.client
import json
import os
import smtplib
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.billing.export_alerts import Alert
from pipelines.home import replace_file

WEBHOOK = "APIARY_ALERT_WEBHOOK"
EMAIL = "APIARY_ALERT_EMAIL"
SENT = "alerts_sent.json"
TIMEOUT = 10  # seconds: a server that hangs must not hold the run
OK = "all billing statements are there"


def deliver(exports: Path, alerts: Sequence[Alert]) -> list[str]:
    """Tell each channel that is configured what it has not heard yet; what could not be delivered, one line each.

    Never raises for a server: a message that fails stops no statement. Raises OSError if the note of what was sent
    cannot be written.
    """
    path = exports / SENT
    sent: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    digest = hashlib.sha256(json.dumps([asdict(alert) for alert in alerts]).encode()).hexdigest() if alerts else OK
    failures = []
    for name, send in _channels(os.environ).items():
        if sent.get(name, OK) == digest:
            continue
        try:
            send(alerts)
        except (OSError, ValueError, smtplib.SMTPException, http.client.HTTPException) as error:
            failures.append(f"{name}: {type(error).__name__}: the message was not delivered, the next run tries again")
        else:
            sent[name] = digest
            replace_file(path, (json.dumps(sent, indent=1, sort_keys=True) + "\n").encode())
    return failures


def text(alerts: Sequence[Alert]) -> str:
    """The alerts for people, one line each."""
    if not alerts:
        return OK
    return "\n".join(
        f"{alert.kind.replace('_', ' ')}: {alert.usage_date or alert.billing_period}"
        f"{f', account {alert.account}' if alert.account else ''}: {alert.found}"
        for alert in alerts
    )


def _channels(environment: Mapping[str, str]) -> dict[str, Callable[[Sequence[Alert]], None]]:
    found: dict[str, Callable[[Sequence[Alert]], None]] = {}
    if url := environment.get(WEBHOOK):
        found["webhook"] = lambda alerts: _post(url, alerts)
    if server := environment.get(EMAIL):
        found["e-mail"] = lambda alerts: _mail(server, alerts)
    return found


def _post(url: str, alerts: Sequence[Alert]) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"{WEBHOOK} is no http or https address")
    body = json.dumps({"text": text(alerts), "alerts": [asdict(alert) for alert in alerts]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310 - an answer other than 2xx raises
        pass


def _mail(server: str, alerts: Sequence[Alert]) -> None:
    address = urlsplit(server)
    named = parse_qs(address.query)
    if address.scheme not in ("smtp", "smtps") or not address.hostname or not {"from", "to"} <= named.keys():
        raise ValueError(f"{EMAIL} is not smtp://host:port/?from=ADDRESS&to=ADDRESS")
    message = EmailMessage()
    message["From"], message["To"] = named["from"][0], ", ".join(named["to"])
    count = f"{len(alerts)} billing statements need somebody" if alerts else OK
    message["Subject"] = f"Apiary: {count}"
    message.set_content(text(alerts))
    kind = smtplib.SMTP_SSL if address.scheme == "smtps" else smtplib.SMTP
    with kind(address.hostname, address.port or 0, timeout=TIMEOUT) as connection:
        connection.ehlo()
        if address.scheme == "smtp" and connection.has_extn("starttls"):
            connection.starttls()
            connection.ehlo()
        if address.username:
            connection.login(unquote(address.username), unquote(address.password or ""))
        connection.send_message(message)
