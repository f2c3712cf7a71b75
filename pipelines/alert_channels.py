"""Messages to people who must act: by a webhook, by e-mail, or both.

`APIARY_ALERT_WEBHOOK` is a URL that gets one JSON object; `APIARY_ALERT_EMAIL` names a mail server, a sender and a
receiver: `smtp://user:password@host:587/?from=a@x.org&to=b@x.org` (`smtps` for TLS from the start; `smtp` uses STARTTLS
where the server offers it; a password needs either). A channel hears of a set of alerts once, and once that all is well
again; what could not be delivered is tried by the next run.
Does not belong here: what there is to tell (billing/alert_messages.py, defs/operation_alerts.py).
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
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from pipelines.home import replace_file

WEBHOOK = "APIARY_ALERT_WEBHOOK"
EMAIL = "APIARY_ALERT_EMAIL"
TIMEOUT = 10  # seconds: a server that hangs must not hold the run


@dataclass(frozen=True)
class Message:
    """What is to be told: the rows for programs, the rest for people. Without rows all is well."""

    rows: Sequence[Mapping[str, object]]
    subject: str
    text: str


class AlertSettingError(ValueError):
    """A setting that no message can be sent with; its text holds no value of the setting."""


def deliver(note: Path, message: Message, *, well: str) -> list[str]:
    """Tell each channel that is configured what it has not heard yet; what could not be delivered, one line each.

    `note` is the file that remembers what each channel heard last; `well` stands in it for a message without rows.
    Never raises for a server: a message that fails stops nothing else. Raises OSError if the note cannot be written.
    """
    sent, digest = _sent(note), _digest(message, well)
    failures = []
    for name in undelivered(note, message, well=well):
        send = _channels(os.environ)[name]
        try:
            send(message)
        except AlertSettingError as error:
            failures.append(f"{name}: {error}")
        except (OSError, ValueError, smtplib.SMTPException, http.client.HTTPException) as error:
            # Its text may hold the address, and that a password.
            failures.append(f"{name}: {type(error).__name__}: the message was not delivered, the next run tries again")
        else:
            sent[name] = digest
            replace_file(note, (json.dumps(sent, indent=1, sort_keys=True) + "\n").encode())
    return failures


def undelivered(note: Path, message: Message, *, well: str) -> list[str]:
    """The channels that are configured and have not heard this."""
    sent, digest = _sent(note), _digest(message, well)
    return [name for name in _channels(os.environ) if sent.get(name, well) != digest]


def _digest(message: Message, well: str) -> str:
    return hashlib.sha256(json.dumps(message.rows).encode()).hexdigest() if message.rows else well


def _sent(path: Path) -> dict[str, str]:
    """What each channel heard last. Of a note that cannot be read nothing: hearing twice is better than never."""
    try:
        found: dict[str, str] = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return found


def _channels(environment: Mapping[str, str]) -> dict[str, Callable[[Message], None]]:
    found: dict[str, Callable[[Message], None]] = {}
    if url := environment.get(WEBHOOK):
        found["webhook"] = lambda message: _post(url, message)
    if server := environment.get(EMAIL):
        found["e-mail"] = lambda message: _mail(server, message)
    return found


def _post(url: str, message: Message) -> None:
    if urlsplit(url).scheme not in ("http", "https"):
        raise AlertSettingError(f"{WEBHOOK} is not an http or https URL")
    body = json.dumps({"text": message.text, "alerts": message.rows}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=TIMEOUT):  # noqa: S310 - an answer other than 2xx raises
        pass


def _mail(server: str, told: Message) -> None:
    address = urlsplit(server)
    named = parse_qs(address.query)
    if address.scheme not in ("smtp", "smtps") or not address.hostname or not {"from", "to"} <= named.keys():
        raise AlertSettingError(f"{EMAIL} is not smtp://host:port/?from=ADDRESS&to=ADDRESS")
    message = EmailMessage()
    message["From"], message["To"] = named["from"][0], ", ".join(named["to"])
    message["Subject"] = f"Apiary: {told.subject}"
    message.set_content(told.text)
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
