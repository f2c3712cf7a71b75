"""The month's end as a job: its steps are assets, started by hand with a name, a reason and a signature.

Does not belong here: the steps (billing/month_end.py), the job (schedules.py).
"""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
from dagster_duckdb import DuckDBResource

from pipelines.billing import closing, ledger, month_end, periods
from pipelines.defs import dbt_project
from pipelines.defs.billing import export_context
from pipelines.defs.ownership import labels
from pipelines.defs.resources import WRITER, FoldersResource
from pipelines.warehouse import definitions


class MonthEndConfig(dg.Config):
    """What whoever closes a month says. Without `actor` nothing is closed: the run tells where the month stands."""

    period: str
    actor: str = ""
    reason: str = ""
    sign: str = ""
    waive: dict[str, str] = {}  # noqa: RUF012 - a config class copies its defaults
    accounts: list[str] = []  # noqa: RUF012
    as_of: str = ""

    @property
    def moment(self) -> datetime:
        """The instant the decision is made for; now, if none is named."""
        return datetime.fromisoformat(self.as_of) if self.as_of else datetime.now(UTC)


@dg.asset(key=["billing", "month_end_step"], **labels("billing"), kinds={"duckdb"}, pool=WRITER)
def month_end_step(
    context: dg.AssetExecutionContext, config: MonthEndConfig, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """One step of each account's month towards closed, if somebody takes it; and what stands in the way."""
    period, books = periods.month_of(config.period), Path(folders.books)
    if config.actor:
        definitions.require_built(Path(duckdb.database), dbt_project.parsed(), "statements")
    with duckdb.get_connection() as connection:
        export = export_context(connection, folders, as_of=config.moment)
        if config.actor:
            month_end.take_step(
                export, books, period, actor=config.actor, reason=config.reason, waived=config.waive,
                signed=config.sign, accounts=config.accounts or None,
            )  # fmt: skip
        book = ledger.load(connection, books)
        ready = closing.readiness(
            connection, book, period, as_of=export.as_of, checks=export.checks, accounts=config.accounts or None
        )
    for item in ready:
        for condition in item.unmet() if item.status != "closed" else ():
            context.log.info(f"{item.account}: {condition.name}: {condition.found}; settled by {condition.settled_by}")
    waiting = [item for item in ready if item.status == "closing"]
    signature = closing.signature(waiting)[: closing.SIGNATURE_LENGTH] if waiting else "-"
    return dg.MaterializeResult(
        metadata={"sign": signature, **{f"account {item.account}": item.status for item in ready}}
    )


@dg.asset(
    key=["billing", "month_end_statements"], deps=[month_end_step], **labels("billing"), kinds={"csv", "parquet"},
    pool=WRITER,
)  # fmt: skip
def month_end_statements(
    context: dg.AssetExecutionContext, config: MonthEndConfig, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """The statements of the month's days and accounts, the signed head and the files of finance."""
    with duckdb.get_connection() as connection:
        export = export_context(connection, folders, as_of=config.moment)
        written = month_end.write_statements(export, Path(folders.books), periods.month_of(config.period))
    for account, reason in written.held.items():
        context.log.warning(f"held back: {account}: {reason}")
    for failure in written.undelivered:
        context.log.warning(failure)
    return dg.MaterializeResult(metadata={"statements": len(written.statements), "held_back": list(written.held)})
