"""`python -m bench.prove_rows`: proves every row of every statement under APIARY_HOME, as `apiary prove` does one.

Ends with 1 and names what is broken if a row does not hold. Does not belong here: what a proof is (billing/prove.py).
"""

import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow.parquet as pq

from pipelines.billing import ledger, periods
from pipelines.billing.exports import COSTS
from pipelines.billing.prove import prove
from pipelines.billing.statements import StatementStore
from pipelines.home import Home
from pipelines.store import open_store


def main() -> int:
    """Prove all rows that are valid now."""
    home = Home.from_environment()
    store = open_store(os.environ.get("APIARY_STORE") or home.store_url)
    book = periods.read(ledger.book_path(home.books))
    kinds: dict[str, str] = {}
    for version in StatementStore.open(home.exports).newest.values():
        for row in pq.read_table(version.folder / f"{COSTS}.parquet", partitioning=None).to_pylist():
            kinds[row["x_RowKey"]] = f"{row['ChargeCategory']} {row['x_ReasonCode'] or ''}".strip()
    broken = []
    with TemporaryDirectory() as folder:
        copy = shutil.copy(home.warehouse, Path(folder) / home.warehouse.name)
        connection = duckdb.connect(copy)
        connection.execute("SET TimeZone = 'UTC'")
        # Each proof asks for the booked lines of one row: worked out once for all of them.
        connection.execute("CREATE TABLE main.booked AS FROM statements.int_billing__booked_lines")
        connection.execute("CREATE OR REPLACE VIEW statements.int_billing__booked_lines AS FROM main.booked")
        for key in kinds:
            links = prove(connection, key, home.exports, store, book).links
            broken += [f"{key}: {text}" for text, holds in links if not holds]
        connection.close()
    print(f"{len(kinds)} rows: {dict(Counter(kinds.values()))}; {len(broken)} links are broken")
    print("\n".join(broken[:20]), file=sys.stderr)
    return 1 if broken or not kinds else 0


if __name__ == "__main__":
    raise SystemExit(main())
