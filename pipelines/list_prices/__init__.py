"""What usage costs by the shipped price book, in a base install: the rules of models/rating/fct_rated_turns.sql
for one turn at a time, without a site's own prices or agreements.

Does not belong here: reading what a site signed (books.py, which needs the warehouse's stack), rating for statements
(models/).
"""

import csv
import gzip
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

FIRST_BOOKS = Path(__file__).parent / "first_books"
_WRITES = ("cache_write_5m", "cache_write_1h")  # a write of unknown time to live costs the first
_MILLION = Decimal(1_000_000)
_Row = dict[str, str]


@dataclass(frozen=True)
class Usage:
    """The tokens of one turn and what its price depends on. `input_tokens` include all cache tokens."""

    model: str
    occurred_at: datetime
    input_tokens: int
    cache_read: int = 0
    cache_write: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output_tokens: int = 0
    service_tier: str | None = None
    speed: str | None = None


class _Offer(NamedTuple):
    provider_name: str
    model: str


class ListPrices:
    """The shipped price book, read once."""

    def __init__(self, folder: Path = FIRST_BOOKS) -> None:
        # Tens of thousands of rows, of which a home needs a few: only those become dicts.
        self._names, *lines = _lines(folder / "price_book.csv.gz")
        provider, model = self._names.index("provider_name"), self._names.index("model")
        self._lines: dict[_Offer, list[list[str]]] = {}
        for line in lines:
            self._lines.setdefault(_Offer(line[provider], line[model]), []).append(line)
        self._sheets: dict[_Offer, dict[str, list[_Row]]] = {}
        self._decisions: dict[str, tuple[datetime, str]] = {}
        for row in _rows(folder / "price_decisions.csv"):
            said = (_time(row["decided_at"]), row["decision"])
            self._decisions[row["sheet_id"]] = max(self._decisions.get(row["sheet_id"], said), said)
        aliases = sorted(_rows(folder / "model_aliases.csv"), key=lambda row: _time(row["recorded_at"]))
        self._aliases: dict[str, dict[str, _Offer]] = {}
        for row in aliases:  # by the day from which a name means it, "" for always; the newest row speaks
            spans = self._aliases.setdefault(row["model"], {})
            spans[row.get("valid_from") or ""] = _Offer(row["provider_name"], row["price_model"])
        self._prefixes = {(row["prefix"], row["provider_name"]) for row in _rows(folder / "model_prefixes.csv")}
        self._offers: dict[str, _Offer | None] = {}

    def cost(self, usage: Usage) -> Decimal | None:
        """The cost of a turn in USD, exact; None if any of its tokens has no approved price in USD."""
        offer = self._offer(usage.model, usage.occurred_at.astimezone(UTC).date().isoformat())
        sheet = self._sheet_in_force(offer, usage) if offer else None
        if sheet is None:
            return None
        total, is_priced = Decimal(0), False
        with localcontext(prec=80):
            for component, quantity in _components(usage):
                price = _price(sheet, component, usage)
                if price is None and quantity:
                    return None
                if price is not None:
                    is_priced = True
                    total += quantity * price / _MILLION
        return total if is_priced else None

    def _offer(self, model: str, day: str) -> _Offer | None:
        """Whose model a name of the logs means: by an alias, else by the whole id behind the prefix of its provider."""
        if model in self._aliases:
            spans = self._aliases[model]
            last = max((start for start in spans if start <= day), default=None)
            return spans[last] if last is not None else None
        if model not in self._offers:
            found = {
                _Offer(provider, model[len(begin) :])
                for prefix, provider in self._prefixes
                if model.startswith(begin := f"{prefix}/" if prefix else "")
            }
            sold = [offer for offer in found if offer in self._lines]
            self._offers[model] = sold[0] if len(sold) == 1 else None
        return self._offers[model]

    def _sheets_of(self, offer: _Offer) -> dict[str, list[_Row]]:
        if offer not in self._sheets:
            sheets: dict[str, list[_Row]] = {}
            for line in self._lines.get(offer, ()):
                row = dict(zip(self._names, line, strict=True))
                sheets.setdefault(row["sheet_id"], []).append(row)
            self._sheets[offer] = sheets
        return self._sheets[offer]

    def _sheet_in_force(self, offer: _Offer, usage: Usage) -> list[_Row] | None:
        """The rows of the sheet in force; where approved sheets overlap, the one approved last."""
        tier = usage.service_tier or "standard"
        offered = ("fast" if usage.speed == "fast" else "standard" if tier == "batch" else tier, tier == "batch")
        fitting = []
        for sheet_id, rows in self._sheets_of(offer).items():
            first = rows[0]
            decided_at, decision = self._decisions.get(sheet_id, (None, "propose"))
            if (
                decided_at is not None
                and decision == "approve"
                and (first["service_tier"], first["is_batch"] == "true") == offered
                and _time(first["valid_from"]) <= usage.occurred_at
                and (not first["valid_to"] or usage.occurred_at < _time(first["valid_to"]))
            ):
                fitting.append((decided_at, sheet_id))
        return self._sheets[offer][max(fitting)[1]] if fitting else None


def edition(folder: Path = FIRST_BOOKS) -> str:
    """Another text for other prices."""
    files = (file for file in sorted(folder.iterdir()) if file.suffix in (".csv", ".gz"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _components(usage: Usage) -> Iterator[tuple[str, int]]:
    yield "output", usage.output_tokens
    parts = {
        "input_uncached": usage.input_tokens - usage.cache_read - usage.cache_write, "cache_read": usage.cache_read,
        "cache_write_5m": usage.cache_write_5m, "cache_write_1h": usage.cache_write_1h,
        "cache_write_unknown": usage.cache_write - usage.cache_write_5m - usage.cache_write_1h,
    }  # fmt: skip
    yield from ((name, quantity) for name, quantity in parts.items() if quantity > 0)


def _price(sheet: list[_Row], component: str, usage: Usage) -> Decimal | None:
    """USD for a million tokens: of several context tiers the lowest, as a turn may be the sum of several requests."""
    kinds = _WRITES if component == "cache_write_unknown" else (component,)
    at = usage.occurred_at.astimezone(UTC)
    second = at.hour * 3600 + at.minute * 60 + at.second
    fitting = [
        (int(row["context_tier_min"]), kinds.index(row["component"]), row["price_id"], row)
        for row in sheet
        if row["component"] in kinds
        and int(row["context_tier_min"]) <= usage.input_tokens
        and int(row["tod_from"]) <= second < int(row["tod_to"])
        and int(row["dow_mask"]) >> at.weekday() & 1
    ]
    if not fitting or (row := min(fitting)[3])["currency"] != "USD":
        return None
    return Decimal(row["unit_price"])


def _rows(path: Path) -> Iterable[_Row]:
    names, *lines = _lines(path)
    return (dict(zip(names, line, strict=True)) for line in lines)


def _lines(path: Path) -> Iterator[list[str]]:
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    return csv.reader(io.StringIO(text, newline=""))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
