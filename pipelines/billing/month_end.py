"""The steps of a month's end, each whole by itself: the book and the signed head, then the files that follow from them.

What a kill leaves undone the next call makes up for. Does not belong here: what may be closed (closing.py), what people
type (commands/periods.py), the same steps as assets (defs/month_end.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from pipelines.billing import alert_messages, attestation, closing, current, export_alerts, exports
from pipelines.billing.closing import Closed
from pipelines.billing.exports import ExportContext, Exported


@dataclass(frozen=True)
class Written:
    """The statements of a month: those that are there, what holds back the others, by account, and the messages about
    them that could not be delivered."""

    statements: tuple[Exported, ...]
    held: Mapping[str, str]
    undelivered: tuple[str, ...]


def take_step(
    export: ExportContext, books: Path, period: date, *, actor: str, reason: str, waived: Mapping[str, str],
    signed: str, accounts: Sequence[str] | None = None,
) -> Closed:  # fmt: skip
    """open → closing, or closing → closed, for some accounts or all; the book is signed with it.

    Raises like closing.close, and attestation.AttestationError.
    """
    done = closing.close(
        export.connection, books, period, actor=actor, reason=reason, as_of=export.as_of, checks=export.checks,
        waived=waived, signed=signed, accounts=accounts,
    )  # fmt: skip
    attestation.attest(export.statements.root, books, as_of=export.as_of)
    return done


def write_statements(
    export: ExportContext, books: Path, period: date, *, accounts: Sequence[str] | None = None
) -> Written:
    """The statements of a period's days and accounts, the head, the files of finance and the alerts; of some accounts'
    month or all's.

    What is there already is passed over. Raises GateError, OSError, attestation.AttestationError.
    """
    there = closing.accounts_of(export.connection, export.book, period)
    wanted = [account for account in there if accounts is None or account in accounts]
    exports.export_days(export)
    done, held = exports.export_months(export, period, wanted)
    current.refresh(export.statements)
    attestation.attest(export.statements.root, books, as_of=export.as_of)
    alerts = export_alerts.find(export, there)
    export_alerts.write(export.statements.root, alerts)
    return Written(tuple(done), held, tuple(alert_messages.deliver(export.statements.root, alerts)))
