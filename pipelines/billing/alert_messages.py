"""Messages to people about statements that are missing, late or held back: a webhook, e-mail, or both.

`APIARY_ALERT_WEBHOOK` is a URL that gets one JSON object; `APIARY_ALERT_EMAIL` names a mail server, a sender and a
receiver: `smtp://user:password@host:587/?from=a@x.org&to=b@x.org` (`smtps` for TLS from the start; `smtp` uses STARTTLS
where the server offers it; a password needs either). A channel hears of a set of alerts once, and once that all is well
again; what could not be delivered is tried by the next run.
Does not belong here: finding alerts (export_alerts.py).
"""

import hashlib
import http.client
import json
import os
import smtplib
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.billing import export_alerts
from pipelines.billing.export_alerts import Alert
from pipelines.home import replace_file

WEBHOOK = "APIARY_ALERT_WEBHOOK"
EMAIL = "APIARY_ALERT_EMAIL"
SENT = "alerts_sent.json"
TIMEOUT = 10  # seconds: a server that hangs must not hold the run
OK = "all billing statements are there"


class AlertSettingError(ValueError):
    """A setting that no message can be sent with; its text holds no value of the setting."""


def deliver(exports: Path, alerts: Sequence[Alert]) -> list[str]:
    """Tell each channel that is configured what it has not heard yet; what could not be delivered, one line each.

    Never raises for a server: a message that fails stops no statement. Raises OSError if the note of what was sent
    cannot be written.
    """
    path = exports / SENT
    sent, digest = _sent(path), _digest(alerts)
    failures = []
    for name, send in _channels(os.environ).items():
        if sent.get(name, OK) == digest:
            continue
        try:
            send(alerts)
        except AlertSettingError as error:
            failures.append(f"{name}: {error}")
        except (OSError, ValueError, smtplib.SMTPException, http.client.HTTPException) as error:
            # Its text may hold the address, and that a password.
            failures.append(f"{name}: {type(error).__name__}: the message was not delivered, the next run tries again")
        else:
            sent[name] = digest
            replace_file(path, (json.dumps(sent, indent=1, sort_keys=True) + "\n").encode())
    return failures


def undelivered(exports: Path) -> bool:
    """Whether a channel that is configured has not heard of the alerts as they were written last."""
    sent, digest = _sent(exports / SENT), _digest(export_alerts.read(exports))
    return any(sent.get(name, OK) != digest for name in _channels(os.environ))


def text(alerts: Sequence[Alert]) -> str:
    """The alerts for people, one line each."""
    if not alerts:
        return OK
    return "\n".join(
        f"{alert.kind.replace('_', ' ')}: {alert.usage_date or alert.billing_period}"
        f"{f', account {alert.account}' if alert.account else ''}: {alert.found}"
        for alert in alerts
    )


def _digest(alerts: Sequence[Alert]) -> str:
    return hashlib.sha256(json.dumps([asdict(alert) for alert in alerts]).encode()).hexdigest() if alerts else OK


def _sent(path: Path) -> dict[str, str]:
    """What each channel heard last. Of a note that cannot be read nothing: hearing twice is better than never."""
    try:
        found: dict[str, str] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _channels(environment: Mapping[str, str]) -> dict[str, Callable[[Sequence[Alert]], None]]:
    found: dict[str, Callable[[Sequence[Alert]], None]] = {}
    if url := environment.get(WEBHOOK):
        found["webhook"] = lambda alerts: _post(url, alerts)
    if server := environment.get(EMAIL):
        found["e-mail"] = lambda alerts: _mail(server, alerts)
    return found


def _post(url: str, alerts: Sequence[Alert]) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise AlertSettingError(f"{WEBHOOK} is not an http or https URL")
    body = json.dumps({"text": text(alerts), "alerts": [asdict(alert) for alert in alerts]}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310 - an answer other than 2xx raises
        pass


def _mail(server: str, alerts: Sequence[Alert]) -> None:
    address = urlsplit(server)
    named = parse_qs(address.query)
    if address.scheme not in ("smtp", "smtps") or not address.hostname or not {"from", "to"} <= named.keys():
        raise AlertSettingError(f"{EMAIL} is not smtp://host:port/?from=ADDRESS&to=ADDRESS")
    message = EmailMessage()
    message["From"], message["To"] = named["from"][0], ", ".join(named["to"])
    count = f"{len(alerts)} billing statements need somebody" if alerts else OK
    message["Subject"] = f"Apiary: {count}"
    message.set_content(text(alerts))
    context = ssl.create_default_context()  # checks the server's certificate, which smtplib by itself does not
    with (
        smtplib.SMTP_SSL(address.hostname, address.port or 0, timeout=TIMEOUT, context=context)
        if address.scheme == "smtps"
        else smtplib.SMTP(address.hostname, address.port or 0, timeout=TIMEOUT)
    ) as connection:
        connection.ehlo()
        is_encrypted = address.scheme == "smtps"
        if not is_encrypted and connection.has_extn("starttls"):
            connection.starttls(context=context)
            connection.ehlo()
            is_encrypted = True
        if address.username:
            if not is_encrypted:
                raise AlertSettingError(f"the server of {EMAIL} offers no TLS: the password was not sent")
            connection.login(unquote(address.username), unquote(address.password or ""))
        connection.send_message(message)
