"""The metric dictionary (models/metrics.yml) and what is derived from it. `make contract` writes the files.

Does not belong here: numbers. A formula is run by who asks for it (usage.py, api.py).
"""

import csv
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from pipelines.home import MODELS, ROOT

DICTIONARY = Path("models/metrics.yml")
LOCK = Path("models/metrics.lock")
GENERATED = "Generated from models/metrics.yml by `make contract`; do not edit."


class Metric(NamedTuple):
    """One metric. `formula` is SQL over the published model `of`."""

    name: str
    meaning: str
    of: str
    formula: str
    unit: str
    version: int

    @property
    def sha256(self) -> str:
        """What a version stands for: the formula, its model and its unit. Words may be improved."""
        return hashlib.sha256("\0".join((self.of, self.formula, self.unit)).encode()).hexdigest()


class Vocabulary(NamedTuple):
    """The words that columns (`mart.column`) hold, each with its meaning."""

    name: str
    columns: tuple[str, ...]
    meaning: str
    values: dict[str, str]

    @property
    def text(self) -> str:
        """Meaning and words, for a description."""
        return " ".join([self.meaning, *(f"{word}: {text}" for word, text in self.values.items())])


@cache
def vocabularies() -> dict[str, Vocabulary]:
    """Every vocabulary by its name."""
    found = yaml.safe_load((ROOT / DICTIONARY).read_text("utf-8"))["vocabularies"]
    return {entry["name"]: Vocabulary(**entry | {"columns": tuple(entry["columns"])}) for entry in found}


@cache
def metrics() -> dict[str, Metric]:
    """Every metric by its name. Raises ValueError for a name that stands there twice."""
    found = [Metric(**entry) for entry in yaml.safe_load((MODELS / DICTIONARY.name).read_text("utf-8"))["metrics"]]
    by_name = {metric.name: metric for metric in found}
    if len(by_name) < len(found):
        raise ValueError(f"{DICTIONARY} names a metric twice")
    return by_name


def locked() -> dict[tuple[str, int], str]:
    """The hash of each version there ever was, by name and version."""
    with (MODELS / LOCK.name).open(encoding="utf-8", newline="") as file:
        return {(row["name"], int(row["version"])): row["sha256"] for row in csv.DictReader(file)}


def unlocked() -> list[str]:
    """What is wrong between the dictionary and the lock: a formula that changed under its version, a new version."""
    pinned = locked()
    wrong = []
    for metric in metrics().values():
        known = pinned.get((metric.name, metric.version))
        if known is None:
            wrong.append(f"{metric.name} version {metric.version} is not in {LOCK}")
        elif known != metric.sha256:
            wrong.append(f"{metric.name} version {metric.version} changed: give it a new version")
    return wrong


def describe(name: str) -> str:
    """One line for a heading or a help text: meaning, unit and version."""
    metric = metrics()[name]
    return f"{metric.meaning} [{metric.unit}; {metric.name} v{metric.version}]"


def dbt_docs() -> str:
    """One block for each metric and vocabulary, which descriptions of columns refer to."""
    blocks = [f"{{% docs metric_{m.name} %}}{describe(m.name)}{{% enddocs %}}" for m in metrics().values()]
    blocks += [f"{{% docs vocabulary_{v.name} %}}{v.text}{{% enddocs %}}" for v in vocabularies().values()]
    return "\n".join([f"{{# {GENERATED} #}}", *blocks]) + "\n"


def page() -> str:
    """docs/metrics.md."""
    lines = ["# Metrics", "", GENERATED, ""]
    lines += ["| metric | version | unit | meaning | formula | of |", "|---|---|---|---|---|---|"]
    for m in metrics().values():
        formula = m.formula.replace("|", "\\|")
        lines.append(f"| `{m.name}` | {m.version} | {m.unit} | {m.meaning} | `{formula}` | `{m.of}` |")
    for v in vocabularies().values():
        lines += ["", f"## `{v.name}`", "", f"{v.meaning} In {', '.join(f'`{column}`' for column in v.columns)}.", ""]
        lines += ["| word | meaning |", "|---|---|", *(f"| `{word}` | {text} |" for word, text in v.values.items())]
    return "\n".join(lines) + "\n"


def lock_file() -> str:
    """The lock with what is new added; a version that is in it already stays as it is."""
    known = locked() if (MODELS / LOCK.name).exists() else {}
    rows = known | {(m.name, m.version): m.sha256 for m in metrics().values() if (m.name, m.version) not in known}
    return "name,version,sha256\n" + "".join(f"{name},{version},{sha}\n" for (name, version), sha in rows.items())


FILES = {Path("models/_metrics.md"): dbt_docs, Path("docs/metrics.md"): page, LOCK: lock_file}


def stale() -> Iterator[Path]:
    """Derived files that differ from what the dictionary says."""
    for path, render in FILES.items():
        if not (ROOT / path).exists() or (ROOT / path).read_text("utf-8") != render():
            yield path


def write() -> None:
    """Write the derived files that are stale. A changed formula without a new version stays an error of the tests."""
    for path in list(stale()):
        (ROOT / path).write_text(FILES[path](), "utf-8")
        sys.stdout.write(f"written: {path}\n")


if __name__ == "__main__":
    write()
