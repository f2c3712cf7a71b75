"""What a turn costs, worked out a second time: from the books' rows, in Python's decimals, one turn after another.

It shares nothing with the SQL or with pipelines.billing.prices. Does not belong here: tests.
"""

from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Any

Row = dict[str, Any]
NANO = Decimal("0.000000001")
MILLIONTH = Decimal("0.000001")
WRITES = ("cache_write_5m", "cache_write_1h")


def stated(turn: Row, books: dict[str, list[Row]]) -> str | None:
    """What somebody said of how the source of a turn counts cache tokens."""
    named = ("tenant_id", "model", "gateway")
    gateway = turn["model"].split("/")[0] if "/" in turn["model"] else None
    words = [
        word
        for word in books["cache_conventions"]
        if all(
            word[n] in (None, value)
            for n, value in zip(named, (turn["tenant_id"], turn["model"], gateway), strict=True)
        )
        and word["valid_from"] <= turn["occurred_at"]
        and (word["valid_to"] is None or turn["occurred_at"] < word["valid_to"])
    ]
    last = max(words, key=lambda word: ([word[n] is not None for n in named], word["recorded_at"]), default=None)
    return last["convention"] if last else None


def normalized(turns: list[Row], books: dict[str, list[Row]]) -> list[Row]:
    """The turns, as they were reported, with an input that includes the cache and what is in doubt about it."""
    made = []
    for turn in turns:
        given, read, write = (turn[n] for n in ("input_tokens", "cache_read_input_tokens", "cache_write_input_tokens"))
        said = stated(turn, books)
        if not read + write:
            found = ("inclusive", "none", given)
        elif max(read, write) > given:
            found = ("exclusive", "evidence", given)
        elif said in ("exclusive", "read_inclusive"):
            found = (said, "rule", given if said == "exclusive" else given - read)
        elif read + write > given:
            found = ("unproven", "evidence", given - max(read, write))
        elif said == "unknown":
            found = ("unproven", "rule", given - read - write)
        else:
            found = ("inclusive", "rule" if said else "default", given - read - write)
        made.append(
            turn | {
                "cache_convention": found[0], "cache_convention_basis": found[1], "reported_input_tokens": given,
                "input_tokens": found[2] + read + write,
            }
        )  # fmt: skip
    proven = {(turn["tenant_id"], turn["model"]) for turn in made if turn["cache_convention_basis"] == "evidence"}
    for turn in made:
        is_assumed = turn["cache_convention_basis"] == "default" and (turn["tenant_id"], turn["model"]) in proven
        turn["is_convention_unknown"] = turn["cache_convention"] == "unproven" or is_assumed
    return made


def components(turn: Row) -> dict[str, tuple[int, int]]:
    """The tokens of a normalized turn by component, and the most that they may be."""
    read, write = turn["cache_read_input_tokens"], turn["cache_write_input_tokens"]
    uncached = turn["input_tokens"] - read - write
    most = turn["reported_input_tokens"] if turn["is_convention_unknown"] else uncached
    five, hour = turn.get("cache_write_5m_input_tokens", 0), turn.get("cache_write_1h_input_tokens", 0)
    parts = {
        "input_uncached": (uncached, most), "cache_read": (read, read), "cache_write_5m": (five, five),
        "cache_write_1h": (hour, hour), "cache_write_unknown": (write - five - hour,) * 2,
    }  # fmt: skip
    found = {name: part for name, part in parts.items() if part[0]}
    if turn["is_convention_unknown"]:
        found["input_uncached"] = parts["input_uncached"]
    return {"output": (turn["output_tokens"],) * 2} | found


def offer(model: str, books: dict[str, list[Row]], known_at: datetime, day: date) -> Row | None:
    """The provider and the model of the book that a name of the logs means: by an alias, else by its whole id."""
    aliases = [a for a in books["model_aliases"] if a["model"] == model and a["recorded_at"] <= known_at]
    if aliases:
        begun = [a for a in aliases if (a.get("valid_from") or date.min) <= day]
        return max(begun, key=lambda a: (a.get("valid_from") or date.min, a["recorded_at"]), default=None)
    found = set()
    for row in books["model_prefixes"]:
        begin = f"{row['prefix']}/" if row["prefix"] else ""
        if model.startswith(begin):
            rest = model[len(begin) :]
            sold = any((p["provider_name"], p["model"]) == (row["provider_name"], rest) for p in books["price_book"])
            found |= {(row["provider_name"], rest)} if sold else set()
    if len(found) != 1:
        return None
    ((provider, rest),) = found
    return {"provider_name": provider, "price_model": rest}


def offered(turn: Row) -> tuple[str, bool]:
    """The service tier whose price a turn has, and whether it is that of batches."""
    tier = turn.get("service_tier") or "standard"
    if turn.get("speed") == "fast":
        return "fast", tier == "batch"
    return ("standard" if tier == "batch" else tier), tier == "batch"


def prices_at(turn: Row, component: str, books: dict[str, list[Row]], known_at: datetime) -> list[Row]:
    """The rows of the book that may be the price of a component of a turn, the one to charge first."""
    alias = offer(turn["model"], books, known_at, turn["occurred_at"].astimezone(UTC).date())
    if alias is None:
        return []
    at = turn["occurred_at"].astimezone(UTC)
    second = at.hour * 3600 + at.minute * 60 + at.second
    best: tuple[datetime, str] | None = None
    for row in books["price_book"]:
        if (row["provider_name"], row["model"]) != (alias["provider_name"], alias["price_model"]):
            continue
        if (row["service_tier"], row["is_batch"]) != offered(turn) or row["recorded_at"] > known_at:
            continue
        if at < row["valid_from"] or (row["valid_to"] is not None and at >= row["valid_to"]):
            continue
        words = [
            d for d in books["price_decisions"] if d["sheet_id"] == row["sheet_id"] and d["decided_at"] <= known_at
        ]
        if words and (last := max(words, key=lambda d: d["decided_at"]))["decision"] == "approve":
            best = max(best or (last["decided_at"], row["sheet_id"]), (last["decided_at"], row["sheet_id"]))
    if best is None:
        return []
    kinds = WRITES if component == "cache_write_unknown" else (component,)
    fitting = [
        row
        for row in books["price_book"]
        if row["sheet_id"] == best[1]
        and row["component"] in kinds
        and row["context_tier_min"] <= turn["input_tokens"]
        and row["tod_from"] <= second < row["tod_to"]
        and row["dow_mask"] >> at.weekday() & 1
    ]
    return sorted(fitting, key=lambda row: (row["context_tier_min"], kinds.index(row["component"])))


def rate(turn: Row, books: dict[str, list[Row]], known_at: datetime) -> dict[str, tuple[Any, ...]]:
    """By component: quantity, status, price id, list price, agreed price, list cost, billed cost, lowest, highest."""
    accounts = [a for a in books["billing_accounts"] if a["tenant_id"] == turn["tenant_id"]]
    account = max(accounts, key=lambda a: a["recorded_at"]) if accounts else None
    currency = account["currency"] if account else "USD"
    rated = {}
    for component, (quantity, most) in components(turn).items():
        found = prices_at(turn, component, books, known_at)
        if not found:
            price = _agreed(None, _offer(turn, books), component, account, turn, books)
            is_plan = account is not None and account["charged_by"] != "tokens"
            if price is None:
                status, billed = ("excluded", Decimal(0)) if is_plan else ("unpriced", None)
                rated[component] = (quantity, status, None, None, billed, None, None)
                continue
            cost = quantity * MILLIONTH * price
            status = "excluded" if is_plan else "rated"
            rated[component] = (quantity, status, None, cost, Decimal(0) if is_plan else cost, cost,
                                most * MILLIONTH * price)  # fmt: skip
            continue
        rows = [found[0], min(found, key=lambda r: r["unit_price"]), max(found, key=lambda r: r["unit_price"])]
        with localcontext(prec=80):
            listed = [_exchanged(row["unit_price"], row["currency"], currency, turn, books) for row in rows]
            agreed = [_agreed(price, found[0], component, account, turn, books) for price in listed]
            counts = (quantity, quantity, most)
            amount = [count * MILLIONTH * price for count, price in zip(counts, agreed, strict=True)]
            status = "rated" if account and account["charged_by"] == "tokens" else "excluded"
            status = status if account else "unattributed"
            billed = Decimal(0) if status == "excluded" else amount[0]
            rated[component] = (quantity, status, found[0]["price_id"], quantity * MILLIONTH * listed[0], billed,
                                amount[1], amount[2])  # fmt: skip
    return rated


def _offer(turn: Row, books: dict[str, list[Row]]) -> Row:
    day = turn["occurred_at"].astimezone(UTC).date()
    found = offer(turn["model"], books, datetime.max.replace(tzinfo=UTC), day)
    if found is None:
        return {"provider_name": None, "model": None}
    return {"provider_name": found["provider_name"], "model": found["price_model"]}


def _exchanged(price: Decimal, source: str, target: str, turn: Row, books: dict[str, list[Row]]) -> Decimal:
    if source == target:
        return price
    day = turn["occurred_at"].astimezone(UTC).date()
    rates = [
        fx
        for fx in books["fx_rates"]
        if (fx["currency_from"], fx["currency_to"]) == (source, target) and fx["valid_from"] <= day
    ]
    rate = max(rates, key=lambda fx: (fx["valid_from"], fx["recorded_at"]))["rate"]
    return (price * rate).quantize(NANO, ROUND_HALF_UP)


def _agreed(
    price: Decimal | None, row: Row, component: str, account: Row | None, turn: Row, books: dict[str, list[Row]]
) -> Any:
    day = turn["occurred_at"].astimezone(UTC).date()
    mine = [
        c
        for c in books["contract_rates"]
        if account
        and c["billing_account_id"] == account["billing_account_id"]
        and c["provider_name"] in (None, row["provider_name"])
        and c["model"] in (None, row["model"])
        and c["component"] in (None, component, "cache_write" if component.startswith("cache_write") else component)
        and c["valid_from"] <= day
        and (c["valid_to"] is None or day < c["valid_to"])
    ]
    if not mine:
        return price
    best = max(
        mine,
        key=lambda c: (c["model"] is not None, c["provider_name"] is not None, c["component"] is not None,
                       c["recorded_at"], c["contract_rate_id"]),
    )  # fmt: skip
    if best["unit_price"] is not None:
        return best["unit_price"]
    return price and (price * best["factor"]).quantize(NANO, ROUND_HALF_UP)
