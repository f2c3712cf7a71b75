"""Other people's price catalogs, read as data: what they say becomes sheets, and a person or a quorum decides.

Three sources: the installed release of genai-prices, a file in the shape of litellm's price map, and an operator's own
CSV. A model of the book has the id that its provider's catalog entry has, whole; where catalogs name one model
differently the book `catalog_names` says so. Nothing is matched by a pattern.
Does not belong here: deciding (prices.py). Nothing here is called while rating.
"""

import csv
import hashlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipelines.billing import books
from pipelines.billing.books import parsed
from pipelines.billing.prices import DAY, INPUT_RATE, OPERATOR, WEEK, Price, PriceError, Sheet, Source

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # of a price that its source does not date
MILLION = Decimal(1_000_000)
NAMES = books.Book(
    "catalog_names",
    "One model of the price book and its name in one catalog.",
    {"source": "string", "provider_name": "string", "price_model": "string", "catalog_name": "string"},
    key=("source", "provider_name", "price_model"),
)

PROVIDERS = books.Book(
    "catalog_providers",
    "One provider of a catalog, and whose prices the price book calls them.",
    {"source": "string", "catalog_provider": "string", "provider_name": "string"},
    key=("source", "catalog_provider"),
)
TEXT_MODES = frozenset({"chat", "completion", "responses"})


@dataclass(frozen=True, kw_only=True)
class Window:
    """Hours of the UTC week, as a price has them."""

    dow_mask: int = WEEK
    tod_from: int = 0
    tod_to: int = DAY


Names = Mapping[tuple[str, str], str]
Tiers = dict[int, Decimal]

GENAI = {
    "input_uncached": "input_mtok", "cache_read": "cache_read_mtok", "cache_write_5m": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok", "output": "output_mtok",
}  # fmt: skip
LITELLM = {
    "input_uncached": "input_cost_per_token", "cache_read": "cache_read_input_token_cost",
    "cache_write_5m": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr", "output": "output_cost_per_token",
}  # fmt: skip
OPERATOR_REQUIRED = ("provider_name", "model", "component", "unit_price", "valid_from")
OPERATOR_OPTIONAL: dict[str, tuple[books.Type, Any]] = {
    "valid_to": ("timestamp", None), "currency": ("string", "USD"), "service_tier": ("string", "standard"),
    "is_batch": ("bool", False), "is_free": ("bool", False), "context_tier_min": ("int64", 0),
    "dow_mask": ("int64", WEEK), "tod_from": ("int64", 0), "tod_to": ("int64", DAY),
}  # fmt: skip


def names(
    source: str, folders: Sequence[Path], listed: Mapping[str, tuple[str, str]] | None = None
) -> dict[tuple[str, str], str]:
    """What a catalog calls the models of the price book: those of `catalog_names`, then all that it lists itself.

    `listed`: name in the catalog → its provider there and the model's id with that provider. Raises BookError.
    """
    rows = [row for row in books.read(NAMES, folders) if row["source"] == source]
    known = {(row["provider_name"], row["price_model"]): row["catalog_name"] for row in rows}
    claimed = set(known.values())
    providers = {
        row["catalog_provider"]: row["provider_name"]
        for row in books.read(PROVIDERS, folders)
        if row["source"] == source
    }
    for name, (provider, model) in sorted((listed or {}).items(), key=lambda item: (-len(item[0]), item[0])):
        offer = (providers.get(provider, provider), model)
        if name not in claimed and offer not in known:
            known[offer] = name
    return known


def genai_listed() -> dict[str, tuple[str, str]]:
    """Every model of the installed genai-prices."""
    from genai_prices import data

    return {f"{p.id}:{m.id}": (p.id, m.id) for p in data.providers for m in p.models}


def genai_aliases(wanted: Names) -> list[tuple[str, str, str]]:
    """Other whole names that genai-prices gives a model: provider and model of the book, and the name."""
    from genai_prices import data

    offers = {name: offer for offer, name in wanted.items()}
    found = []
    for provider in data.providers:
        for model in provider.models:
            offer = offers.get(f"{provider.id}:{model.id}")
            for clause in getattr(model.match, "or_", [model.match]):
                name = getattr(clause, "equals", None)
                if offer and name and (offer[0], name) not in wanted:
                    found.append((*offer, name))
    return sorted(set(found))


def new_aliases(folders: Sequence[Path], wanted: Names, *, now: datetime) -> list[books.Row]:
    """Rows for names of the logs that genai-prices gives a model beside its id, where no name means it yet."""
    known = {row["model"] for row in books.read(books.ALIASES, folders)}
    offers = {(row["provider_name"], row["model"]) for row in books.read(books.PRICES, folders)}
    prefixes = books.read(books.PREFIXES, folders)
    rows = []
    for provider_name, price_model, name in genai_aliases(wanted):
        if (provider_name, name) in offers or (provider_name, price_model) not in offers:
            continue
        for prefix in sorted(row["prefix"] or "" for row in prefixes if row["provider_name"] == provider_name):
            logged = f"{prefix}/{name}" if prefix else name
            # Bedrock is reached by its vendor's segment; without one the name is the maker's own.
            if logged in known or (not prefix and provider_name == "aws" and "." not in name):
                continue
            known.add(logged)
            rows.append(
                {
                    "alias_id": hashlib.sha256(logged.encode()).hexdigest()[:16], "model": logged,
                    "provider_name": provider_name, "price_model": price_model,
                    "note": "another whole name in genai-prices", "recorded_at": now,
                }
            )  # fmt: skip
    return rows


def litellm_listed(path: Path) -> dict[str, tuple[str, str]]:
    """Every text model of a price map in litellm's shape that has a price. Raises OSError, PriceError."""
    listed = {}
    for name, stated in _litellm_table(path.read_bytes(), path).items():
        provider = str(stated.get("litellm_provider", ""))
        if stated.get("mode") not in TEXT_MODES or not stated.get("input_cost_per_token"):
            continue
        prefix, _, rest = name.partition("/")
        is_prefixed = rest and _family(prefix) == _family(provider)  # `bedrock/x` is of bedrock_converse
        listed[name] = (provider, rest if is_prefixed else name)
    return listed


def genai_prices(wanted: Names) -> list[Sheet]:
    """The sheets of the installed genai-prices, dated where it dates them. Raises PriceError."""
    from importlib.metadata import version

    from genai_prices import data

    content = Path(data.__file__ or "").read_bytes()
    source = Source(name="genai-prices", version=version("genai-prices"), sha256=hashlib.sha256(content).hexdigest())
    models = {f"{provider.id}:{model.id}": model for provider in data.providers for model in provider.models}
    sheets: list[Sheet] = []
    for (provider_name, price_model), name in sorted(wanted.items()):
        if name not in models:
            raise PriceError(f"genai-prices {source.version} has no model {name}: correct catalog_names.csv")
        model = models[name]
        steps = _steps([model] if isinstance(model.prices, data.ModelPrice) else model.prices)
        sheets += _sheets(provider_name, price_model, source, steps, is_batch=False)
        batch = [variant for variant in model.price_variants or () if variant.when == {"processing": "batch"}]
        sheets += _sheets(provider_name, price_model, source, _steps(batch), is_batch=True)
    return sheets


def litellm(
    path: Path, wanted: Names, *, version: str, as_of: datetime, undated: Collection[tuple[str, str]] = ()
) -> list[Sheet]:
    """The sheets of a price map in litellm's shape. It has no history: it speaks of the day it was taken.

    `undated`: offers of no other catalog, whose price is taken to have been the same before, as one is that another
    catalog does not date. Numbers are read from the text, never through a float. Raises OSError, PriceError.
    """
    content = path.read_bytes()
    table = _litellm_table(content, path)
    source = Source(name="litellm", version=version, sha256=hashlib.sha256(content).hexdigest())
    sheets = []
    for (provider_name, price_model), name in sorted(wanted.items()):
        if name not in table:
            raise PriceError(f"{path} has no model {name}: correct catalog_names.csv")
        for is_batch in (False, True):
            prices = _litellm_prices(table[name], "_batches" if is_batch else "")
            if prices:
                sheets.append(
                    Sheet(
                        provider_name=provider_name, model=price_model, source=source, is_batch=is_batch,
                        prices=prices, valid_from=BEGINNING if (provider_name, price_model) in undated else as_of,
                    )
                )  # fmt: skip
    return sheets


def operator(path: Path) -> list[Sheet]:
    """The sheets of an operator's CSV: one for each offer and span of time in it. Raises OSError, PriceError."""
    content = path.read_bytes()
    source = Source(name=OPERATOR, version=path.name, sha256=hashlib.sha256(content).hexdigest())
    reader = csv.DictReader(content.decode("utf-8-sig").splitlines())
    columns = set(reader.fieldnames or ())
    if missing := set(OPERATOR_REQUIRED) - columns:
        raise PriceError(f"{path} lacks the columns {', '.join(sorted(missing))}")
    if unknown := columns - {*OPERATOR_REQUIRED, *OPERATOR_OPTIONAL}:
        raise PriceError(f"{path} has unknown columns {', '.join(sorted(unknown))}")
    grouped: dict[tuple[Any, ...], list[Price]] = {}
    for line, cells in enumerate(reader, start=2):
        try:
            row = {
                name: parsed(kind, cells[name]) if cells.get(name) else default
                for name, (kind, default) in OPERATOR_OPTIONAL.items()
            }
            row["unit_price"] = parsed("price", cells["unit_price"])
            row["valid_from"] = parsed("timestamp", cells["valid_from"])
        except (ValueError, KeyError, TypeError) as error:
            raise PriceError(f"{path}, line {line}: {error}") from None
        head = (cells["provider_name"], cells["model"], row["service_tier"], row["is_batch"], row["currency"],
                row["valid_from"], row["valid_to"])  # fmt: skip
        price = {
            name: row[name] for name in ("unit_price", "is_free", "context_tier_min", "dow_mask", "tod_from", "tod_to")
        }
        grouped.setdefault(head, []).append(Price(component=cells["component"], **price))
    return [
        Sheet(
            provider_name=provider, model=model, service_tier=tier, is_batch=is_batch, currency=currency,
            valid_from=valid_from, valid_to=valid_to, source=source, prices=tuple(prices),
        )
        for (provider, model, tier, is_batch, currency, valid_from, valid_to), prices in grouped.items()
    ]  # fmt: skip


def _steps(listed: Sequence[Any]) -> list[tuple[datetime, list[tuple[int, int, Any]]]]:
    """The dates on which prices changed, each with its windows of the day (second from, second to, prices).

    A rule by the hour carries no date in the catalog. It counts from the last date above it in the list: dated back
    to the beginning it would bill months at a price that did not exist.
    """
    base: list[tuple[datetime, Any]] = []
    hours: list[tuple[datetime, Any, Any]] = []
    for item in listed:
        constraint = getattr(item, "constraint", None)
        if constraint is None:
            base.append((BEGINNING, item.prices))
        elif hasattr(constraint, "start_date"):
            start: date = constraint.start_date
            base.append((datetime.combine(start, time(), UTC), item.prices))
        else:
            hours.append((base[-1][0] if base else BEGINNING, constraint, item.prices))
    steps = []
    for start, prices in sorted(base, key=lambda step: step[0]):
        rules = [(constraint, special) for since, constraint, special in hours if since <= start]
        edges = {0, DAY} | {_second(edge) for rule, _ in rules for edge in (rule.start_time, rule.end_time)}
        marks = sorted(edges)
        windows: list[tuple[int, int, Any]] = []
        for begin, end in pairwise(marks):
            fitting = [special for rule, special in rules if _within(begin, rule)]
            chosen = fitting[-1] if fitting else prices
            if windows and windows[-1][2] is chosen:
                windows[-1] = (windows[-1][0], end, chosen)
            else:
                windows.append((begin, end, chosen))
        steps.append((start, windows))
    return steps


def _sheets(
    provider_name: str, model: str, source: Source, steps: Sequence[tuple[datetime, list[tuple[int, int, Any]]]], *,
    is_batch: bool,
) -> list[Sheet]:  # fmt: skip
    sheets = []
    for number, (start, windows) in enumerate(steps):
        prices: list[Price] = []
        for begin, end, stated in windows:
            components = {name: _genai_tiers(getattr(stated, key, None)) for name, key in GENAI.items()}
            prices += _completed(components, Window(tod_from=begin, tod_to=end))
        # A sheet that says nothing of input or output is no price; neither is zero.
        if {"input_uncached", "output"} <= {price.component for price in prices}:
            end_at = steps[number + 1][0] if number + 1 < len(steps) else None
            sheets.append(
                Sheet(
                    provider_name=provider_name, model=model, source=source, prices=tuple(prices), valid_from=start,
                    valid_to=end_at, is_batch=is_batch,
                )
            )  # fmt: skip
    return sheets


def _genai_tiers(value: Any) -> Tiers:
    """Price by least input tokens. The catalog's tier holds for more than its start, so it begins one token later."""
    if value is None:
        return {}
    if isinstance(value, Decimal):
        return {0: value}
    return {0: value.base} | {tier.start + 1: tier.price for tier in value.tiers}


def _litellm_table(content: bytes, path: Path) -> dict[str, dict[str, Any]]:
    try:
        table: dict[str, dict[str, Any]] = json.loads(content, parse_float=Decimal, parse_int=Decimal)
    except ValueError:
        raise PriceError(f"{path} is no JSON: name a price map in litellm's shape") from None
    return table


def _family(provider: str) -> str:
    return provider.replace("-", "_").partition("_")[0]


def _litellm_prices(stated: Mapping[str, Any], suffix: str) -> tuple[Price, ...]:
    special = stated.get("off_peak_pricing") if not suffix else None
    if not special:
        components = {name: _litellm_tiers(stated, key, suffix) for name, key in LITELLM.items()}
        return tuple(_completed(components, Window()))
    off_peak: list[tuple[int, int, int]] = []  # weekdays, from, to
    for window in special["windows"]:
        days = sum(1 << (int(day) - 1) for day in window["weekdays"])
        spans = window["hours_utc"] if isinstance(window["hours_utc"], list) else [window["hours_utc"]]
        off_peak += [(days, *_span(span)) for span in spans]
    cheap: dict[tuple[tuple[int, int], ...], int] = {}  # the weekdays that share their hours
    for bit in (1 << number for number in range(7)):
        hours = tuple(sorted((begin, end) for days, begin, end in off_peak if days & bit))
        cheap[hours] = cheap.get(hours, 0) | bit
    prices: list[Price] = []
    for hours, mask in cheap.items():
        for begin, end in pairwise(sorted({0, DAY} | {edge for span in hours for edge in span})):
            table = special if any(start <= begin < stop for start, stop in hours) else stated
            components = {name: _litellm_tiers(table, key, "") for name, key in LITELLM.items()}
            prices += _completed(components, Window(dow_mask=mask, tod_from=begin, tod_to=end))
    return tuple(prices)


def _litellm_tiers(stated: Mapping[str, Any], key: str, suffix: str) -> Tiers:
    if stated.get(key + suffix) is None:
        return {}
    tiers = {0: stated[key + suffix] * MILLION}
    for name, price in stated.items():
        if name.startswith(f"{key}_above_") and name.endswith(f"k_tokens{suffix}"):
            thousands = name.removeprefix(f"{key}_above_").removesuffix(f"k_tokens{suffix}")
            if thousands.isdigit():
                tiers[int(thousands) * 1000 + 1] = price * MILLION
    return tiers


def _completed(components: Mapping[str, Tiers], window: Window) -> Iterable[Price]:
    """The prices of one window. Cache classes without a price of their own, or of zero, are billed as input.

    A price of more than nine decimals is somebody's division, no published price: it counts as not stated.
    """
    stated = {
        name: tiers
        for name, tiers in components.items()
        if tiers and any(tiers.values()) and all(price == round(price, 9) for price in tiers.values())
    }
    if "input_uncached" in stated:
        for name in ("cache_read", "cache_write_5m"):
            if name not in stated and not (name == "cache_write_5m" and "cache_write_1h" in stated):
                for tier, price in stated["input_uncached"].items():
                    yield Price(
                        component=name, unit_price=price, context_tier_min=tier, note=INPUT_RATE, **asdict(window)
                    )
    for name, tiers in stated.items():
        for tier, price in tiers.items():
            yield Price(component=name, unit_price=price, context_tier_min=tier, **asdict(window))


def _second(moment: time) -> int:
    return moment.hour * 3600 + moment.minute * 60 + moment.second


def _within(second: int, rule: Any) -> bool:
    begin, end = _second(rule.start_time), _second(rule.end_time)
    return begin <= second < end if begin <= end else second >= begin or second < end


def _span(text: str) -> tuple[int, int]:
    begin, end = (_second(time.fromisoformat(part)) for part in text.split("-"))
    return begin, end or DAY
