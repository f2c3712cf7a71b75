"""The published columns of the billing files, in FOCUS 1.4's words, and its metadata objects.

FOCUS (focus.finops.org) names a column in PascalCase; columns of our own begin with `x_` and stand behind the others.
Numbers are decimals, times UTC, periods half open. A column may be added; anything else is another schema.
Does not belong here: what is in a row (models/statements/export_focus_daily.sql), files (statements.py).
"""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from pipelines.contract.numbers import plain

FOCUS_VERSION = "1.4"
AMOUNT = pa.decimal128(38, 15)  # price with nine places times a quantity with six: a product loses no digit
UNIT_PRICE = pa.decimal128(38, 15)  # a purchase is one unit at what it costs
MILLIONS = pa.decimal128(20, 6)
COUNT = pa.decimal128(38, 6)
MONEY = pa.decimal128(18, 2)
TIME = pa.timestamp("us", tz="UTC")
TEXT = pa.string()


def _schema(columns: Mapping[str, tuple[pa.DataType, bool]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, nullable=optional) for name, (kind, optional) in columns.items()])


COST_AND_USAGE = _schema({
    "BilledCost": (AMOUNT, False),
    "BillingAccountId": (TEXT, False),
    "BillingAccountName": (TEXT, True),
    "BillingCurrency": (TEXT, False),
    "BillingPeriodEnd": (TIME, False),
    "BillingPeriodStart": (TIME, False),
    "ChargeCategory": (TEXT, False),
    "ChargeClass": (TEXT, True),
    "ChargeDescription": (TEXT, True),
    "ChargeFrequency": (TEXT, False),
    "ChargePeriodEnd": (TIME, False),
    "ChargePeriodStart": (TIME, False),
    "ConsumedQuantity": (COUNT, True),
    "ConsumedUnit": (TEXT, True),
    "ContractedCost": (AMOUNT, False),
    "ContractedUnitPrice": (UNIT_PRICE, True),
    "EffectiveCost": (AMOUNT, False),
    "HostProviderName": (TEXT, False),
    "InvoiceDetailId": (TEXT, False),
    "InvoiceId": (TEXT, False),
    "InvoiceIssuerName": (TEXT, False),
    "ListCost": (AMOUNT, False),
    "ListUnitPrice": (UNIT_PRICE, True),
    "PricingCategory": (TEXT, True),
    "PricingCurrency": (TEXT, True),
    "PricingCurrencyContractedUnitPrice": (UNIT_PRICE, True),
    "PricingCurrencyEffectiveCost": (AMOUNT, True),
    "PricingCurrencyListUnitPrice": (UNIT_PRICE, True),
    "PricingQuantity": (MILLIONS, True),
    "PricingUnit": (TEXT, True),
    "ServiceCategory": (TEXT, False),
    "ServiceName": (TEXT, False),
    "ServiceProviderName": (TEXT, False),
    "ServiceSubcategory": (TEXT, False),
    "SkuId": (TEXT, True),
    "SkuMeter": (TEXT, True),
    "SkuPriceDetails": (TEXT, True),
    "SkuPriceId": (TEXT, True),
    "SubAccountId": (TEXT, True),
    "SubAccountName": (TEXT, True),
    "SubAccountType": (TEXT, True),
    "x_ColonyId": (TEXT, True),
    "x_ContractRateId": (TEXT, True),
    "x_EventCount": (pa.int64(), False),
    "x_IncurredPeriod": (TEXT, False),
    "x_Model": (TEXT, True),
    "x_ModelBasis": (TEXT, True),
    "x_OriginalPeriod": (TEXT, True),
    "x_PriceValidFrom": (TIME, True),
    "x_QueenId": (TEXT, True),
    "x_RatedAsOf": (TIME, True),
    "x_ReasonCode": (TEXT, True),
    "x_RootSessionId": (TEXT, True),
    "x_RowHash": (TEXT, False),
    "x_RowKey": (TEXT, False),
    "x_SessionId": (TEXT, True),
    "x_TenantId": (TEXT, False),
    "x_TokenType": (TEXT, True),
    "x_TrustGrade": (TEXT, False),
})  # fmt: skip
"""One row per usage day, account, user, session, model, kind of token and price; or one charge; or one correction."""

INVOICE_DETAIL = _schema({
    "BilledCost": (MONEY, False),
    "BillingAccountId": (TEXT, False),
    "BillingCurrency": (TEXT, False),
    "BillingPeriodEnd": (TIME, False),
    "BillingPeriodStart": (TIME, False),
    "ChargeCategory": (TEXT, False),
    "InvoiceDetailCreated": (TIME, False),
    "InvoiceDetailDescription": (TEXT, False),
    "InvoiceDetailGrain": (TEXT, False),
    "InvoiceDetailId": (TEXT, False),
    "InvoiceDetailLastUpdated": (TIME, False),
    "InvoiceId": (TEXT, False),
    "InvoiceIssueDate": (TIME, True),
    "InvoiceIssueStatus": (TEXT, False),
    "InvoiceIssuerName": (TEXT, False),
    "PaymentCurrency": (TEXT, False),
    "PaymentCurrencyBilledCost": (MONEY, False),
    "PaymentCurrencyInvoiceDetailId": (TEXT, True),
    "PaymentDueDate": (TIME, True),
    "PaymentTerms": (TEXT, True),
    "PurchaseOrderNumber": (TEXT, True),
    "ReferenceInvoiceId": (TEXT, True),
    "x_ExactCost": (AMOUNT, False),
    "x_LineCount": (pa.int64(), False),
    "x_RoundingDelta": (AMOUNT, False),
})  # fmt: skip
"""One row per group of lines of an invoice: rounded once, the difference said."""

BILLING_PERIOD = _schema({
    "BillingPeriodCreated": (TIME, False),
    "BillingPeriodEnd": (TIME, False),
    "BillingPeriodLastUpdated": (TIME, False),
    "BillingPeriodStart": (TIME, False),
    "BillingPeriodStatus": (TEXT, False),
    "InvoiceIssuerName": (TEXT, False),
})  # fmt: skip
"""One row per period and issuer. A period in closing is still open to FOCUS."""

UNPRICED = pa.schema([
    pa.field("billing_account_id", TEXT, nullable=False),
    pa.field("tenant_id", TEXT, nullable=False),
    pa.field("model", TEXT, nullable=False),
    pa.field("component", TEXT, nullable=False),
    pa.field("currency", TEXT),
    pa.field("rating_status", TEXT, nullable=False),
    pa.field("lines", pa.int64(), nullable=False),
    pa.field("quantity", pa.int64(), nullable=False),
    pa.field("low_exposure", AMOUNT),
    pa.field("high_exposure", AMOUNT),
])  # fmt: skip
"""Usage that has no price yet: no row of the cost file can hold it, because a cost must not be empty there."""

RESTATEMENT = pa.schema([
    pa.field("row_key", TEXT, nullable=False),
    pa.field("change", TEXT, nullable=False),
    pa.field("cause", TEXT, nullable=False),
    pa.field("currency", TEXT, nullable=False),
    pa.field("billed_cost_before", AMOUNT),
    pa.field("billed_cost_after", AMOUNT),
    pa.field("quantity_before", MILLIONS),
    pa.field("quantity_after", MILLIONS),
    pa.field("row_before", TEXT),
    pa.field("row_after", TEXT),
])  # fmt: skip
"""Every row that differs from the version before, with both of its forms."""

SCHEMAS: dict[str, pa.Schema] = {
    "focus_cost_and_usage": COST_AND_USAGE,
    "focus_billing_period": BILLING_PERIOD,
    "focus_invoice_detail": INVOICE_DETAIL,
}
DATASETS = {
    "focus_cost_and_usage": "Cost and Usage",
    "focus_billing_period": "Billing Period",
    "focus_invoice_detail": "Invoice Detail",
}


def metadata(*, issuer: str, created_at: datetime, complete: bool, start: datetime, end: datetime) -> bytes:
    """FOCUS' metadata objects of one statement: data generator, dataset instances, recency, schemas.

    `created_at` is the statement's `as_of`. Returns JSON.
    """
    moment = _time(created_at)
    objects: dict[str, Any] = {
        "DataGenerator": {"DataGenerator": issuer},
        "DatasetInstance": [
            {"DatasetInstanceId": name, "DatasetInstanceName": title, "FocusDatasetId": title.replace(" ", "")}
            for name, title in DATASETS.items()
        ],
        "Recency": [
            {
                "DatasetInstanceId": name,
                "DatasetInstanceComplete": complete,
                "DatasetInstanceLastUpdated": moment,
                "TimeSectors": [
                    {
                        "TimeSectorStart": _time(start), "TimeSectorEnd": _time(end), "TimeSectorComplete": complete,
                        "TimeSectorLastUpdated": moment,
                    }
                ],
            }
            for name in DATASETS
        ],
        "Schema": [
            {
                "SchemaId": f"{name}/1",
                "FocusVersion": FOCUS_VERSION,
                "CreationDate": "2026-11-20T00:00:00Z",
                "ColumnDefinition": [_column(field) for field in schema],
            }
            for name, schema in SCHEMAS.items()
        ],
    }  # fmt: skip
    return (json.dumps(objects, indent=1) + "\n").encode()


def compatible(schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> tuple[pa.Schema, list[dict[str, Any]]]:
    """The cost rows as rule set 1.0 of the public validator reads them.

    Five columns stand under the names it looks for too, columns that were mandatory then and mean nothing here are
    empty, and a whole number has a point: it takes a column of whole numbers for no decimals.
    """
    names = {
        "ChargeType": "ChargeCategory", "InvoiceIssuer": "InvoiceIssuerName", "Provider": "ServiceProviderName",
        "Publisher": "HostProviderName", "ResourceID": "x_SessionId",
    }  # fmt: skip
    empty = (
        "CommitmentDiscountCategory", "CommitmentDiscountId", "CommitmentDiscountName", "CommitmentDiscountStatus",
        "CommitmentDiscountType", "RegionId", "RegionName", "ResourceName", "ResourceType", "Tags",
    )  # fmt: skip
    wide = pa.schema([*((name, TEXT) for name in (*schema.names, *names, *empty))])

    def text(value: object) -> object:
        if isinstance(value, Decimal):
            number = plain(value)
            return number if "." in number else f"{number}.0"
        return _time(value) if isinstance(value, datetime) else value

    return wide, [
        {name: text(value) for name, value in row.items()}
        | {name: row[source] for name, source in names.items()}
        | dict.fromkeys(empty)
        for row in rows
    ]


def _column(field: pa.Field) -> dict[str, Any]:
    described: dict[str, Any] = {"ColumnName": field.name, "DataType": _kind(field.type), "Nullable": field.nullable}
    if pa.types.is_decimal(field.type):
        described |= {"NumericPrecision": field.type.precision, "NumberScale": field.type.scale}
    return described


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_timestamp(kind):
        return "DATETIME"
    return "STRING" if pa.types.is_string(kind) else "DECIMAL"


def _time(moment: datetime) -> str:
    return moment.isoformat().replace("+00:00", "Z")
