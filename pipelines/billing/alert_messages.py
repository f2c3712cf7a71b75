"""Messages to people about statements that are missing, late or held back.

A channel hears of a set of alerts once, and once that all is well again; what could not be delivered is tried by the
next run. Does not belong here: the channels and their settings (alert_channels.py), finding alerts (export_alerts.py).
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from pipelines import alert_channels
from pipelines.billing import export_alerts
from pipelines.billing.export_alerts import Alert
from pipelines.contract.numbers import pluralize

SENT = "alerts_sent.json"
OK = "all billing statements are there"


def deliver(exports: Path, alerts: Sequence[Alert]) -> list[str]:
    """Tell each channel that is configured what it has not heard yet; what could not be delivered, one line each.

    Never raises for a server: a message that fails stops no statement. Raises OSError if the note of what was sent
    cannot be written.
    """
    return alert_channels.deliver(exports / SENT, _message(alerts), well=OK)


def undelivered(exports: Path) -> bool:
    """Whether a channel that is configured has not heard of the alerts as they were written last."""
    return bool(alert_channels.undelivered(exports / SENT, _message(export_alerts.read(exports)), well=OK))


def text(alerts: Sequence[Alert]) -> str:
    """The alerts for people, one line each."""
    if not alerts:
        return OK
    return "\n".join(
        f"{alert.kind.replace('_', ' ')}: {alert.usage_date or alert.billing_period}"
        f"{f', account {alert.account}' if alert.account else ''}: {alert.found}"
        for alert in alerts
    )


def _message(alerts: Sequence[Alert]) -> alert_channels.Message:
    subject = (
        (pluralize(len(alerts), "billing statement needs", "billing statements need") + " somebody") if alerts else OK
    )
    return alert_channels.Message([asdict(alert) for alert in alerts], subject, text(alerts))
