"""`apiary prices …` and `apiary what-if`: what finance types to keep the price book and to try another one.

Does not belong here: what the book is (pipelines/billing/prices.py), what catalogs say (pipelines/billing/catalogs.py).
"""

import argparse
import difflib
import hashlib
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from pipelines.commands.names import model_named, say
from pipelines.commands.tables import as_json, show
from pipelines.commands.terminal import Shared, Stop
from pipelines.commands.terminal import day as parse_day
from pipelines.contract.numbers import money, plain, pluralize
from pipelines.home import Home

# Columns that a narrow terminal does without, in this order.
HOURS = ("weekdays", "from second", "to second", "tokens seen", "from input tokens")
SHEETS = ("hours utc", "from input tokens", "source", "valid from", "currency", "approved by", "sheet id")
BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # of what is said without a date


def _folders() -> list[Path]:
    from pipelines.billing import books

    return [books.SHIPPED, Home.from_environment().books]


def _import(options: argparse.Namespace) -> int:
    from pipelines.billing import books, catalogs, prices

    folders, now = _folders(), datetime.now(UTC)
    as_of = options.as_of or datetime(now.year, now.month, now.day, tzinfo=UTC)
    if options.source == "genai-prices":
        wanted = catalogs.names(options.source, folders, catalogs.genai_listed())
        sheets = catalogs.genai_prices(wanted)
    elif options.file is None or not options.version:
        raise Stop(2, "name litellm's file and the release it is from: --file PATH --version V")
    else:
        wanted = catalogs.names(options.source, folders, catalogs.litellm_listed(options.file))
        sold = {entry.sheet.offer[:2] for entry in prices.entries(folders) if entry.sheet.source.name != "litellm"}
        sheets = catalogs.litellm(
            options.file, wanted, version=options.version, as_of=as_of, undated=wanted.keys() - sold
        )
    proposed = prices.propose(folders, sheets, now=now)
    if options.source == "genai-prices":
        aliases = catalogs.new_aliases(folders, wanted, now=now)
        say(f"{books.append(books.ALIASES, folders[-1], aliases)} other names of models are known now")
    approved, against = prices.quorum(folders, as_of=as_of, now=now)
    say(f"{pluralize(len(sheets), 'sheet')} read, {len(proposed)} of them say something new")
    say(f"{len(approved)} approved because two sources state the same")
    if against:
        offers = sorted({found.sheet.name for found in against})
        say(f"the sources contradict each other on {', '.join(offers)}: `apiary prices diff` shows what is at stake")
    return 0


def _propose(options: argparse.Namespace) -> int:
    from pipelines.billing import catalogs, plausibility, prices

    now = datetime.now(UTC)
    proposed = prices.propose(_folders(), catalogs.operator(options.file), now=now)
    for sheet in proposed:
        say(f"proposed {sheet.sheet_id}: {sheet.name} from {sheet.valid_from:%Y-%m-%d %H:%M:%S} UTC")
    for doubt in plausibility.doubts(_folders(), proposed, now=now):
        say(f"warning: {doubt}")
    say(f"{pluralize(len(proposed), 'sheet')} proposed; nothing is billed by them before `apiary prices approve`")
    return 0


def _approve(options: argparse.Namespace) -> int:
    from pipelines.billing import plausibility, prices

    folders, now = _folders(), datetime.now(UTC)
    ids = options.sheet or ()
    if options.unopposed:
        ids = [*ids, *(sheet.sheet_id for sheet in prices.unopposed(folders, as_of=now))]
    if not ids:
        raise Stop(2, "name a sheet as `apiary prices show --undecided` prints it, or say --unopposed")
    if options.reject:
        decided = prices.decide(folders, ids, "reject", by=options.by, reason=options.reason, now=now)
    else:
        decided = plausibility.approve(
            folders, ids, by=options.by, reason=options.reason, now=now, is_accepted=options.accept_implausible
        )
    word = "rejected" if options.reject else "approved"
    for sheet in decided:
        say(f"{word} {sheet.sheet_id}: {sheet.name} from {sheet.valid_from:%Y-%m-%d %H:%M:%S} UTC")
    say("`apiary run` rates the days again that it touches")
    return 0


def _show(options: argparse.Namespace) -> int:
    from pipelines.billing import prices

    now, model = datetime.now(UTC), model_named(options.model) if options.model else None
    known_at = options.known_at or now
    book = prices.entries(_folders())
    if options.undecided:
        shown = [entry for entry in book if not entry.decisions]
    else:
        shown = [*prices.in_force(book, as_of=options.as_of or now, known_at=known_at).values()]
    rows = []
    for entry in sorted(shown, key=lambda entry: (entry.sheet.offer, entry.sheet.valid_from)):
        decided = entry.last_decision(known_at)
        rows += [
            {
                "sheet_id": entry.sheet.sheet_id, "offer": entry.sheet.name, "component": price.component,
                "from_input_tokens": price.context_tier_min, "hours_utc": _hours(price),
                "price": plain(price.unit_price),
                "currency": entry.sheet.currency, "valid_from": f"{entry.sheet.valid_from:%Y-%m-%d}",
                "source": f"{entry.sheet.source.name} {entry.sheet.source.version}",
                "approved_by": decided[2] if decided else None,
            }
            for price in entry.sheet.prices
            if model is None or entry.sheet.model == model
        ]  # fmt: skip
    show(rows, nothing="no price", is_json=options.json, optional=SHEETS)
    return 0


def _diff(options: argparse.Namespace) -> int:
    from pipelines.billing import disagreements

    now = datetime.now(UTC)
    rows = disagreements.report(_folders(), Home.from_environment().published, as_of=options.as_of or now)
    if not options.json:
        rows = [row | {"at_stake": Decimal(row["at_stake"])} for row in rows]
    show(rows, nothing="the sources agree", is_json=options.json, optional=HOURS, is_exact=options.exact)
    return 0


def _coverage(options: argparse.Namespace) -> int:
    from pipelines.billing import coverage

    first, end = options.period or (None, None)
    models = coverage.used(_folders(), Home.from_environment().published, now=datetime.now(UTC), first=first, end=end)
    total = sum(one.tokens for one in models)
    rows = [
        {
            "model": one.model, "status": one.status, "tokens": one.tokens, "share": _share(one.tokens, total),
            "unpriced_tokens": one.unpriced_tokens, "provider": one.provider_name,
            "may_cost": {
                currency: [plain(low), None if high is None else plain(high)]
                for currency, (low, high) in one.may_cost.items()
            },
            "at_stake": {source: [plain(low), plain(high)] for source, (low, high) in one.at_stake().items()},
        }
        for one in models
    ]  # fmt: skip
    counted = dict.fromkeys(("agreed", "priced", "contested", "proposed", "missing"), 0)
    for one in models:
        counted[one.status] += one.unpriced_tokens or one.tokens
        if one.unpriced_tokens:
            counted["priced"] += one.tokens - one.unpriced_tokens
    shares = {name: {"tokens": tokens, "share": _share(tokens, total)} for name, tokens in counted.items()}
    if options.json:
        print(as_json({"tokens": total, "statuses": shares, "models": rows}))
        return 0
    shown = [
        row | {"may_cost": _may_cost(one), "at_stake": _stakes(one)}
        for row, one in zip(rows, models, strict=True)
        if options.all or one.unpriced_tokens
    ]
    show(shown, nothing="every token of a used model has a price", optional=("provider", "share"))
    say("; ".join(f"{name} {_share(tokens, total)} ({pluralize(tokens, 'token')})" for name, tokens in counted.items()))
    return 0


def _settle(options: argparse.Namespace) -> int:
    from pipelines.billing import coverage

    folders, now = _folders(), datetime.now(UTC)
    chosen = set(map(model_named, options.model or ()))
    models = [
        one
        for one in coverage.used(folders, Home.from_environment().published, now=now)
        if one.unpriced_tokens and (not chosen or one.model in chosen)
    ]
    settled = coverage.settle(
        folders, models, prefer=options.prefer, by=options.by, reason=options.reason, now=now,
        is_accepted=options.accept_implausible,
    )  # fmt: skip
    for sheet in settled:
        say(f"approved {sheet.sheet_id}: {sheet.name} by {sheet.source.name} from {sheet.valid_from:%Y-%m-%d}")
    for one in models:
        if not one.candidates:
            say(
                f"no source has a price for {one.model} ({pluralize(one.unpriced_tokens, 'token')}):"
                " `apiary prices propose FILE`, or `apiary prices alias` where it is another name of one that has"
            )
    say(f"{pluralize(len(settled), 'sheet')} approved; `apiary run` rates the days again that they touch")
    return 0


def _alias(options: argparse.Namespace) -> int:
    from pipelines.billing import books, prices

    folders, now, model = _folders(), datetime.now(UTC), model_named(options.model)
    provider_name, _, price_model = options.means.partition("/")
    sold = sorted(
        {
            f"{one.sheet.provider_name}/{one.sheet.model}"
            for one in prices.entries(folders)
            if (last := one.last_decision(now)) and last[1] != "reject"
        }
    )
    if options.means not in sold:
        near = difflib.get_close_matches(options.means, sold, n=1)
        raise Stop(
            2,
            f"{options.means!r} has no approved price"
            + (f": did you mean {near[0]!r}?" if near else ": write PROVIDER/MODEL as `apiary prices show` does"),
        )
    named = f"{model}\0{options.valid_from or ''}\0{now.isoformat()}"
    row = {
        "alias_id": hashlib.sha256(named.encode()).hexdigest()[:16], "model": model,
        "provider_name": provider_name, "price_model": price_model, "note": options.reason,
        "valid_from": options.valid_from, "recorded_at": now, "recorded_by": options.by,
        "approved_by": options.approved_by,
    }  # fmt: skip
    books.append(books.ALIASES, folders[-1], [row])
    since = f" from {options.valid_from} on" if options.valid_from else ""
    say(f"{options.model} is {options.means}{since}; `apiary run` rates the days again that it touches")
    return 0


def _share(part: int, whole: int) -> str:
    return f"{Decimal(100 * part) / Decimal(whole):.2f} %" if whole else "-"


def _stakes(model: Any) -> str | None:
    stakes = model.at_stake().items()
    texts = [f"{source} {plain(low)}" + (f" to {plain(high)}" if high != low else "") for source, (low, high) in stakes]
    return "; ".join(texts) or None


def _may_cost(model: Any) -> str | None:
    texts = [
        f"at least {money(low)} {currency}" if high is None else f"{money(low)} to {money(high)} {currency}"
        for currency, (low, high) in model.may_cost.items()
    ]
    return "; ".join(texts) or None


def _cache_convention(options: argparse.Namespace) -> int:
    from pipelines.billing import books, cache_conventions

    model = model_named(options.model) if options.model else None
    named = {"tenant_id": options.tenant, "model": model, "gateway": options.gateway}
    if options.convention is None:
        published = Home.from_environment().published
        rows: list[dict[str, Any]] = [
            {"statement": row["convention"], **{name: row[name] for name in cache_conventions.NAMED},
             "valid_from": books.written(row["valid_from"]), "valid_to": books.written(row["valid_to"]) or None,
             "decided_by": row["decided_by"], "charged": None, "at_most": None, "currency": None}
            for row in books.read(books.CACHE_CONVENTIONS, _folders())
        ]  # fmt: skip
        rows += [
            {"statement": "nobody said", "tenant_id": row["tenant_id"], "model": row["model"], "gateway": None,
             "valid_from": row["first_day"], "valid_to": None, "decided_by": None, "charged": _text(row["charged"]),
             "at_most": _text(row["at_most"]), "currency": row["currency"]}
            for row in cache_conventions.unknown(published)
        ]  # fmt: skip
        show(
            rows,
            nothing="every source counts cache tokens within its input, as far as its numbers tell",
            is_json=options.json,
        )
        return 0
    if options.by is None or options.reason is None:
        raise Stop(2, "say who states it and why: --by NAME --reason TEXT")
    row = cache_conventions.state(
        _folders(), options.convention, named=named, by=options.by, reason=options.reason,
        valid_from=options.valid_from or BEGINNING, valid_to=options.valid_to, now=datetime.now(UTC),
    )  # fmt: skip
    about = ", ".join(f"{name.removesuffix('_id')} {row[name]}" for name in cache_conventions.NAMED if row[name])
    say(f"cache tokens of {about} are counted as {row['convention']} from {books.written(row['valid_from'])} on")
    say("`apiary run` counts and rates the turns again that it touches")
    return 0


def _preview(options: argparse.Namespace) -> int:
    from pipelines.billing import prices, what_if

    home, folders = Home.from_environment(), _folders()
    sheets = [sheet.sheet_id for sheet in prices.named(folders, options.sheet)]
    first, end = options.period
    rows = what_if.what_if(
        home.published, folders, home.root / "what_if" / "preview", what_if.Scenario(sheets=sheets),
        first_day=first, end_day=end,
    )  # fmt: skip
    show(what_if.by_account(rows), nothing="no usage in this period", is_json=options.json, is_exact=options.exact)
    return 0


def _what_if(options: argparse.Namespace) -> int:
    from pipelines.billing import what_if

    models: dict[str, str] = {}
    for pair in options.model or ():
        model, _, other = pair.partition("=")
        if not model or not other:
            raise Stop(2, f"{pair!r} is no pair: write --model anthropic/claude-opus-4-6=openai/gpt-5.5")
        models[model] = other
    first, end = options.period
    scenario = what_if.Scenario(book=options.book, models=models, is_batch=options.batch, cache_ttl=options.cache_ttl)
    home = Home.from_environment()
    folder = home.root / "what_if" / options.name
    rows = what_if.what_if(home.published, _folders(), folder, scenario, first_day=first, end_day=end)
    show(rows, nothing="no usage in this period", is_json=options.json, is_exact=options.exact)
    if not options.json:
        for currency in sorted({row["currency"] for row in rows}):
            parts = [row["difference"] or Decimal(0) for row in rows if row["currency"] == currency]
            total = sum(parts, Decimal(0))
            amount = plain(total) if options.exact else money(total)
            say(f"difference: {amount} {currency}, where both have a price")
        say(f"every line: {folder / 'rated_lines.parquet'}")
    return 0


def month(text: str) -> tuple[date, date]:
    """A UTC month like `2026-10`: its first day and the next month's."""
    try:
        first = date.fromisoformat(f"{text}-01")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no month: write YYYY-MM") from None
    return first, (first + timedelta(days=32)).replace(day=1)


def _text(amount: Decimal | None) -> str | None:
    return None if amount is None else plain(amount)


def _hours(price: Any) -> str:
    if price.tod_from == 0 and price.tod_to == 86_400 and price.dow_mask == 127:
        return "always"
    days = "".join(name if price.dow_mask & 1 << number else "-" for number, name in enumerate("MTWTFSS"))
    begin, end = (f"{second // 3600:02}:{second // 60 % 60:02}" for second in (price.tod_from, price.tod_to))
    return f"{days} {begin}-{end}"


def instant(text: str) -> datetime:
    """A UTC day or instant: `2026-03-13`, `2026-03-13T08:30:00Z`."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no instant: write 2026-03-13 or 2026-03-13T08:30:00Z") from None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def add(group: Any, shared: Shared) -> None:
    """The commands under `apiary`."""
    parser = group.add_parser("prices", help="the price book: import, propose, approve, show, diff")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    read = shared.add(commands, "import", "read a public catalog as data and propose what is new", _import)
    read.add_argument("source", choices=["genai-prices", "litellm"])
    read.add_argument("--file", type=Path, metavar="PATH", help="litellm's price map, as JSON")
    read.add_argument("--version", metavar="V", help="the release that the file is from")
    read.add_argument("--as-of", type=instant, metavar="T", help="the day it was taken (default: today)")
    propose = shared.add(commands, "propose", "propose an operator's own prices from a CSV", _propose)
    propose.add_argument("file", type=Path, metavar="FILE")
    approve = shared.add(commands, "approve", "make proposed sheets billable", _approve)
    approve.add_argument("sheet", nargs="*", metavar="SHEET", help="ids, or the beginnings of them")
    approve.add_argument("--unopposed", action="store_true", help="all that no source contradicts")
    approve.add_argument("--reject", action="store_true", help="refuse them, or take an approval back")
    coverage = shared.add(commands, "coverage", "how much of what was used has a price", _coverage)
    coverage.add_argument("--period", type=month, metavar="YYYY-MM", help="of one UTC month (default: all)")
    coverage.add_argument("--all", action="store_true", help="models that have a price as well")
    settle = shared.add(
        commands, "settle", "approve a price for every used model without one that a source has", _settle
    )
    settle.add_argument("--prefer", required=True, metavar="SOURCE", help="a source by name, `lowest` or `highest`")
    settle.add_argument("--model", action="append", metavar="M", help="this model only, as the log names it")
    _add_alias(commands, shared)
    for command in (approve, settle):
        command.add_argument("--by", required=True, metavar="NAME", help="who decides")
        command.add_argument("--reason", required=True, metavar="TEXT")
        command.add_argument(
            "--accept-implausible", action="store_true", help="also prices that are far from all that is known"
        )
    preview = shared.add(
        commands,
        "preview",
        "what approving sheets would change of a published month, by account",
        _preview,
        shared.exact,
    )
    preview.add_argument("sheet", nargs="+", metavar="SHEET", help="ids, or the beginnings of them")
    preview.add_argument("--period", type=month, required=True, metavar="YYYY-MM", help="the UTC month")
    listed = shared.add(commands, "show", "the prices of an instant, as known at another", _show)
    listed.add_argument("--as-of", type=instant, metavar="T", help="the instant they hold for (default: now)")
    listed.add_argument("--known-at", type=instant, metavar="K", help="the instant up to which decisions count")
    listed.add_argument("--model", metavar="M", help="of one model of the book only")
    listed.add_argument("--undecided", action="store_true", help="the sheets that wait for a decision")
    text = "where the sources contradict each other, and the money at stake"
    diff = shared.add(commands, "diff", text, _diff, shared.exact)
    diff.add_argument("--as-of", type=instant, metavar="T", help="the instant they are compared at (default: now)")
    convention = shared.add(
        commands, "cache-convention", "say how a source counts cache tokens; without a word, list what is known",
        _cache_convention, shared.exact,
    )  # fmt: skip
    convention.add_argument(
        "convention", nargs="?", metavar="HOW", choices=["inclusive", "exclusive", "read_inclusive", "unknown"],
        help="inclusive: within the input; exclusive: beside it; read_inclusive: reads within and writes beside;"
        " unknown: how it counts is not known",
    )  # fmt: skip
    convention.add_argument("--tenant", metavar="T")
    convention.add_argument("--model", metavar="M", help="the model's name as the log has it")
    convention.add_argument(
        "--gateway", metavar="G", help="the first segment of the model's name: `openai` of openai/x"
    )
    convention.add_argument(
        "--from", dest="valid_from", type=instant, metavar="T", help="of turns from this instant on"
    )
    convention.add_argument("--to", dest="valid_to", type=instant, metavar="T", help="of turns before this instant")
    convention.add_argument("--by", metavar="NAME", help="who states it")
    convention.add_argument("--reason", metavar="TEXT")
    for command in (listed, diff, convention, coverage, preview):
        command.add_argument("--json", action="store_true", help="one array on standard output")
    _add_what_if(group, shared)


def _add_alias(commands: Any, shared: Shared) -> None:
    alias = shared.add(commands, "alias", "say which model of the price book a name of the logs means", _alias)
    alias.add_argument("model", metavar="MODEL", help="the name as the log has it, such as `sonnet`")
    alias.add_argument("--means", required=True, metavar="PROVIDER/MODEL", help="of the price book")
    alias.add_argument("--from", dest="valid_from", type=parse_day, metavar="D",
                       help="for a floating name: the UTC day from which it means this model")  # fmt: skip
    alias.add_argument("--by", required=True, metavar="NAME", help="who records it")
    alias.add_argument("--approved-by", required=True, metavar="NAME")
    alias.add_argument("--reason", required=True, metavar="TEXT")


def _add_what_if(group: Any, shared: Shared) -> None:
    scenario = shared.add(group, "what-if", "rate a published month again under other prices", _what_if, shared.exact)
    scenario.add_argument("--period", type=month, required=True, metavar="YYYY-MM", help="the UTC month")
    scenario.add_argument("--book", type=Path, metavar="FILE", help="a CSV of prices, as `apiary prices propose` takes")
    scenario.add_argument("--model", action="append", metavar="A=B", help="rate the tokens of A as those of B")
    scenario.add_argument("--batch", action="store_true", help="at batch prices")
    scenario.add_argument("--cache-ttl", choices=["5m", "1h"], default="5m", help="how long written caches live")
    scenario.add_argument("--name", default="last", metavar="NAME", help="folder of the result under what_if/")
    scenario.add_argument("--json", action="store_true", help="one array on standard output")
