"""Writes the files derived from the contract: dbt's sources, docs/contract.md. `make contract` runs it.

Does not belong here: anything a person edits. A test fails when a derived file is stale.
"""

import itertools
import sys
import textwrap
from collections import Counter
from pathlib import Path

from pipelines.contract.ddl import BOOKS, LINEAGE
from pipelines.contract.table import DUCKDB, Column, Keep
from pipelines.contract.wire import TABLES, contract_hash

ROOT = Path(__file__).resolve().parents[2]
GENERATED = "Generated from pipelines/contract by `make contract`; do not edit."

KEEP_WORDS = {
    Keep.VERBATIM: "as it is",
    Keep.ID: "as it is if a program made it in a form of this column, else keyed hash",
    Keep.KEYED_HASH: "keyed hash",
    Keep.COUNT: "its length",
    Keep.CLASS: "a class",
}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def sources_yml() -> str:
    """dbt's description of the wire schema. A column that several tables have is written once: the others name it."""
    tables = {
        table.name: [(c.name, DUCKDB[c.type], c.why) for c in table.columns]
        + [(name, kind, why) for name, (kind, why) in LINEAGE.items()]
        for table in TABLES
    }
    tables |= {
        book: [(name, kind.removesuffix(" PRIMARY KEY"), why) for name, (kind, why) in columns.items()]
        for book, columns in BOOKS.items()
    }
    grains = {table.name: table.grain for table in TABLES}
    uses = Counter(column for columns in tables.values() for column in columns)
    anchors: dict[tuple[str, str, str], str] = {}
    lines = [f"# {GENERATED}", "version: 2", "sources:", "  - name: wire", "    schema: wire", "    tables:"]
    for table, columns in tables.items():
        lines.append(f"      - name: {table}")
        if table in grains:
            lines.append(f"        description: {_quoted(grains[table])}")
        lines.append("        columns: [")
        for is_known, group in itertools.groupby(columns, key=lambda column: column in anchors):
            if is_known:
                known = " ".join(f"*{anchors[column]}," for column in group)
                lines += textwrap.wrap(known, 118, initial_indent=" " * 10, subsequent_indent=" " * 10)
                continue
            for name, kind, why in group:
                anchor = ""
                if uses[name, kind, why] > 1:
                    anchors[name, kind, why] = f"c{len(anchors)}_{name}"
                    anchor = f"&{anchors[name, kind, why]} "
                lines.append(
                    f"          {anchor}{{name: {name}, data_type: {_quoted(kind)}, description: {_quoted(why)}}},"
                )
        lines.append("        ]")
    return "\n".join(lines) + "\n"


def _kept(column: Column) -> str:
    words = KEEP_WORDS[column.keep]
    if column.keep is Keep.KEYED_HASH and column.vocabulary:
        words += f"; public {column.vocabulary} in clear"
    if column.values:
        words += ": " + ", ".join(f"`{value}`" for value in column.values)
    return words


def contract_md() -> str:
    """What leaves a device, for its owner to read."""
    lines = [
        "# What may leave a device",
        "",
        f"{GENERATED}",
        "",
        "These tables and columns, and nothing else. There is no column for a prompt, an answer, a tool's arguments or",
        "result, a path, an e-mail address or an error message. A *keyed hash* is made with a key that stays with the",
        "tenant: the warehouse can group by it and cannot name it.",
        "",
        "`record_id` is the identity of a record. It is a plain hash only if all it rests on are generated ids, times,",
        "numbers and words of closed lists; if one part is anything else it is a keyed hash. Devices of a tenant",
        "without a common key may then not recognise each other's copies of that record. Tokens are never affected:",
        "the identity of what counts them never rests on the key.",
        "",
        f"Contract hash: `{contract_hash()}`",
    ]
    for table in TABLES:
        lines += ["", f"## {table.name}", "", f"{table.grain} From: {table.source}.", ""]
        how = "never keyed" if table.is_keyless else "keyed if it holds a name"
        lines += [f"`record_id` rests on: {table.identity} ({how}).", ""]
        lines += ["| column | type | kept | why |", "|---|---|---|---|"]
        lines += [f"| `{c.name}` | {c.type} | {_kept(c)} | {c.why} |" for c in table.columns]
        for rule in table.rules:
            values = ", ".join(f"`{value}`" for value in rule.values)
            lines += ["", f"`{rule.column}` only where `{rule.other}` is one of {values}. {rule.why}"]
    return "\n".join(lines) + "\n"


FILES = {Path("models/staging/wire/_sources.yml"): sources_yml, Path("docs/contract.md"): contract_md}


def stale() -> list[Path]:
    """Derived files that differ from what the contract says."""
    return [p for p, render in FILES.items() if not (ROOT / p).exists() or (ROOT / p).read_text("utf-8") != render()]


def main() -> None:
    """Write every derived file."""
    for path, render in FILES.items():
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(render(), "utf-8")
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
