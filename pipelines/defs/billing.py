"""Billing statements: of every day with each run, and once a month of the month that has ended.

They stand behind what they bill and its gate, and before analytics. Does not belong here: rows and files of a statement
(billing/exports.py), what is checked (expectations/).
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_duckdb import DuckDBResource
from duckdb import DuckDBPyConnection

from pipelines.billing import (
    alert_messages,
    attestation,
    closing,
    current,
    export_alerts,
    exports,
    gate,
    ledger,
    periods,
)
from pipelines.billing.statements import StatementStore
from pipelines.contract.numbers import pluralize
from pipelines.defs.gates import billing_gate, is_in_run
from pipelines.defs.ownership import labels
from pipelines.defs.partitions import BY_ARRIVAL
from pipelines.defs.resources import WRITER, FoldersResource
from pipelines.defs.transform import BILLING, billing_models, require_tested
from pipelines.quality import gates

READ = (
    "dim_billing_accounts", "export_focus_daily", "fct_charges", "fct_invoice_lines", "fct_llm_turns",
    "fct_rated_lines", "mart_held_turns",
)  # fmt: skip
"""The marts that statements of days, their alerts and the gate before them read."""
BEFORE_ANALYTICS = {"dagster/priority": "1"}  # of steps that could run now: whatever analytics do, the bill is there
BILLED = """
    SELECT "BillingCurrency", sum("BilledCost") FROM marts.export_focus_daily
    WHERE "BillingAccountId" <> 'UNATTRIBUTED' GROUP BY ALL ORDER BY ALL
"""


def export_context(
    connection: DuckDBPyConnection, folders: FoldersResource, *, as_of: datetime
) -> exports.ExportContext:
    """What statements are made from, with the billing gate's verdicts."""
    connection.execute("SET TimeZone = 'UTC'")
    suites = gates.suites("billing")
    checks = [check for suite in suites for check in gate.judged(suite.name, gates.run(suite, connection))]
    return exports.ExportContext(
        connection=connection, statements=StatementStore.open(Path(folders.exports)),
        book=periods.read(ledger.book_path(Path(folders.books))), as_of=as_of, checks=checks, issuer=exports.issuer(),
        is_attested=True,
    )  # fmt: skip


@dg.asset(
    key=["billing", "statements"], deps=[dg.AssetKey(["marts", mart]) for mart in READ], **labels("billing"),
    kinds={"csv", "parquet"}, pool=WRITER, op_tags=BEFORE_ANALYTICS, **BY_ARRIVAL,
)  # fmt: skip
def billing_statements(
    context: dg.AssetExecutionContext, dbt: DbtCliResource, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """Statements of days whose rows have changed. The billing gate is judged once more: each manifest says how."""
    if not (is_in_run(context, billing_models) and is_in_run(context, billing_gate)):
        require_tested(dbt, Path(duckdb.database), BILLING)
    with duckdb.get_connection() as connection:
        now = datetime.now(UTC)
        export = export_context(connection, folders, as_of=now)
        done = exports.export_days(export)
        last_month = (now.date().replace(day=1) - timedelta(days=1)).replace(day=1)
        alerts = export_alerts.find(export, closing.accounts_of(connection, export.book, last_month))
        billed = connection.execute(BILLED).fetchall()
    attestation.attest(Path(folders.exports), Path(folders.books), as_of=now)
    export_alerts.write(Path(folders.exports), alerts)
    for failure in alert_messages.deliver(Path(folders.exports), alerts):
        context.log.warning(failure)
    written = [item for item in done if item.is_new]
    context.log.info(f"{pluralize(len(done), 'statement')} looked at, {len(written)} of them written now")
    rows = sum(item.rows for item in done)
    return dg.MaterializeResult(
        metadata={
            "statements": len(done), "written": len(written), "rows": rows,
            "folder": dg.MetadataValue.path(folders.exports),
            # Dagster draws floats; the amounts to the last digit stand in the manifests.
            **{f"billed cost {currency}": float(amount) for currency, amount in billed},
        }
    )  # fmt: skip


@dg.asset_check(
    asset=billing_statements, name="exports_complete", op_tags=BEFORE_ANALYTICS,
    description="No statement is missing, late or held back; what is stands in exports/alerts.json.",
)  # fmt: skip
def exports_complete(folders: FoldersResource) -> dg.AssetCheckResult:
    """The alerts of the run, as a warning: a statement that is not there stops nothing else."""
    alerts = export_alerts.read(Path(folders.exports))
    return dg.AssetCheckResult(
        passed=not alerts,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            f"{number}": f"{alert.kind} {alert.usage_date or alert.billing_period} {alert.account or ''}: {alert.found}"
            for number, alert in enumerate(alerts[:20], 1)
        },
    )


@dg.asset(
    key=["billing", "monthly_statement"], deps=[billing_statements], **labels("billing"), kinds={"csv", "parquet"},
    pool=WRITER,
)  # fmt: skip
def monthly_statement(
    context: dg.AssetExecutionContext, duckdb: DuckDBResource, folders: FoldersResource
) -> dg.MaterializeResult[None]:
    """Statements of the month that has ended. One that is closing is somebody's already: `apiary export month`."""
    with duckdb.get_connection() as connection:
        export = export_context(connection, folders, as_of=datetime.now(UTC))
        last_month = (export.as_of.date().replace(day=1) - timedelta(days=1)).replace(day=1)
        accounts = [
            account
            for account in closing.accounts_of(connection, export.book, last_month)
            if export.book.status(last_month, account) == "open"
        ]
        done, held = exports.export_months(export, last_month, accounts)
    current.refresh(export.statements)
    attestation.attest(Path(folders.exports), Path(folders.books), as_of=export.as_of)
    for account, reason in held.items():
        context.log.warning(f"held back: {account}: {reason}")
    rows = sum(item.rows for item in done)
    context.log.info(f"{last_month:%Y-%m}: {pluralize(len(done), 'statement')}, {pluralize(rows, 'row')}")
    return dg.MaterializeResult(
        metadata={"rows": rows, "period": f"{last_month:%Y-%m}", "statements": len(done), "held_back": list(held)}
    )
