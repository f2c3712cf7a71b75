"""The metric dictionary: derived files are fresh, a version stands for one formula, and every formula runs."""

import re
from pathlib import Path

import pytest

from pipelines.warehouse import metrics
from pipelines.warehouse.metrics import Metric
from tests import marts

REPOSITORY = Path(__file__).resolve().parents[2]


def test_derived_files_are_fresh() -> None:
    assert list(metrics.stale()) == [], "run `make contract`"


def test_a_version_stands_for_one_formula() -> None:
    assert metrics.unlocked() == []


def test_a_changed_formula_needs_a_new_version(monkeypatch: pytest.MonkeyPatch) -> None:
    changed = metrics.metrics()["turns"]._replace(formula="sum(turns) + 1")
    monkeypatch.setattr(metrics, "metrics", lambda: {"turns": changed})
    assert metrics.unlocked() == ["turns version 1 changed: give it a new version"]
    monkeypatch.setattr(metrics, "metrics", lambda: {"turns": changed._replace(version=2)})
    assert metrics.unlocked() == ["turns version 2 is not in models/metrics.lock"]
    # `make contract` adds the new version and leaves the old one as it was.
    lines = metrics.lock_file().splitlines()
    assert f"turns,2,{changed._replace(version=2).sha256}" in lines
    assert set((REPOSITORY / metrics.LOCK).read_text("utf-8").splitlines()) < set(lines)


def test_words_may_be_improved_within_a_version() -> None:
    metric = Metric("m", "words", "agg", "sum(x)", "tokens", 1)
    assert metric.sha256 == metric._replace(meaning="better words", version=2).sha256
    others = [metric._replace(formula="sum(y)"), metric._replace(unit="turns"), metric._replace(of="fct")]
    assert len({metric.sha256, *(other.sha256 for other in others)}) == 4


def test_formulas_name_columns_of_their_mart() -> None:
    words = re.compile(r"'[^']*'|\b[a-z_]+\b(?!\()")
    for metric in metrics.metrics().values():
        named = {word for word in words.findall(metric.formula) if not word.startswith("'")}
        assert named <= marts.types()[metric.of].keys(), metric.name
        assert named, metric.name


def test_columns_of_marts_are_described_by_the_dictionary() -> None:
    """dbt's docs say of a measure what the dictionary says."""
    text = "".join(file.read_text("utf-8") for file in marts.FILES)
    used = set(re.findall(r"doc\('metric_(\w+)'\)", text))
    assert used <= metrics.metrics().keys()
    assert {"turns", "input_tokens", "reported_cost_usd", "wasted_tokens", "inherited_input_tokens"} <= used


def test_accepted_values_are_the_vocabularies() -> None:
    columns = {(mart, column["name"]): column for mart, found in marts.columns().items() for column in found}
    for vocabulary in metrics.vocabularies().values():
        for named in vocabulary.columns:
            mart, _, name = named.partition(".")
            column = columns[mart, name]
            assert column["description"].startswith(f"{{{{ doc('vocabulary_{vocabulary.name}') }}}}"), named
            (accepted,) = (test["accepted_values"] for test in column["data_tests"] if "accepted_values" in test)
            assert set(accepted["arguments"]["values"]) == set(vocabulary.values), named
