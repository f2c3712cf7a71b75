"""All made-up content of a home: sentences, paths, addresses, names and fake secrets, with a record of what is private.

Knows nothing about files, sessions or counting.
"""

from __future__ import annotations

import random
import re
import string
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

BUILT_IN_TOOLS = ("read_file", "write_file", "web_search", "terminal_exec", "browser_open")
BUILT_IN_QUEENS = ("queen_technology", "queen_growth", "queen_operations", "queen_legal")

_SENTENCES = (
    "The pears of {mark} go out on Friday, please confirm the crates.",
    "Compare the quote of {mark} with last spring and list what changed.",
    "I sorted the letters about {mark} and two of them need an answer.",
    "Nobody outside may hear about {mark} before the board has met.",
    "Row nine of {mark} does not add up; the ferry was paid twice.",
    "Draft a kind refusal for {mark} and keep the discount out of it.",
    "{mark} asked for the old price again, which we said yes to in June.",
)
_FOREIGN = " Grüße aus Köln — 収穫は明日, сад за домом, été 🍐."
_COLOURS = ("amber", "cobalt", "russet", "ivory", "teal", "umber", "violet", "saffron", "slate", "coral")
_BIRDS = ("heron", "plover", "siskin", "curlew", "wagtail", "dunlin", "linnet", "fulmar", "whimbrel", "redstart")
_TRADES = ("orchard", "harbor", "quarry", "bakery", "sawmill", "foundry", "vineyard", "dairy")
_CHORES = ("ledger", "letters", "quotes", "crates", "rosters", "permits")
_GIVEN = ("nadia", "tomas", "ines", "ravi", "greta", "jonas", "mei", "oskar")
_FAMILY = ("brook", "halloran", "quist", "varga", "lindqvist", "osei", "tanaka", "moreau")
_FILES = ("spring prices (draft).xlsx", "crew list.csv", "minutes, closed part.docx", "ferry claims.pdf")
# How errors of models, tools and networks begin.
_CAUSES = (
    "RuntimeError", "RateLimitError: 429 Too Many Requests", "TimeoutError: deadline exceeded after 120 s",
    "APIConnectionError: connection reset by peer", "BadRequestError: prompt is too long", "ValueError: no such column",
    "PermissionDeniedError: 403 Forbidden", "InternalServerError: 503 Service Unavailable",
)  # fmt: skip
_ODD_NUMBERS = {0: float("nan"), 3: float("inf"), 6: float("-inf")}
_FILE_SAFE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_COLONY_SAFE = re.compile(r"[a-z0-9_]{1,64}")


def fake_keys(rng: random.Random) -> tuple[str, ...]:
    """Strings with the shape of live credentials. Joined from pieces: a whole one in the source would stop a scan."""

    def body(size: int, alphabet: str = string.ascii_letters + string.digits) -> str:
        return "".join(rng.choices(alphabet, k=size))

    return (
        "-".join(("s" + "k", "ant", "api" + "03", body(48))),
        "-".join(("s" + "k", "proj", body(44))),
        "_".join(("gh" + "p", body(36))),
        "AK" + "IA" + body(16, string.ascii_uppercase + string.digits),
        "-".join(("xo" + "xb", body(12, string.digits), body(24))),
        ".".join(("ey" + "J" + body(18), "ey" + "J" + body(40), body(43))),
    )


class Words:
    """Hands out content for one home and remembers every private string it handed out."""

    def __init__(self, rng: random.Random, *, secrets: Sequence[str]) -> None:
        self._rng = rng
        self._planted: dict[str, None] = {}
        self._marks: dict[str, str] = {}
        self._secrets = tuple(secrets)
        self._names = 0
        self._tool_calls = 0
        self._errors = 0
        self._keys = fake_keys(rng)
        self.person = f"{rng.choice(_GIVEN)}.{rng.choice(_FAMILY)}.{self._hex(4)}"
        company = f"{rng.choice(_COLOURS)}-{rng.choice(_TRADES)}-{self._hex(4)}.example"
        self._addresses = tuple(f"{given}.{self._hex(5)}@{company}" for given in _GIVEN)
        self.user_home = f"/Users/{self.person}"

    def _hex(self, digits: int) -> str:
        return f"{self._rng.getrandbits(4 * digits):0{digits}x}"

    def _plant(self, text: str) -> str:
        self._planted.setdefault(text)
        return text

    @property
    def planted(self) -> tuple[str, ...]:
        """Every private string handed out so far."""
        return tuple(self._planted)

    def everything_kept(self) -> Json:
        """What a credential store and an address book hold: all of it, so that none is planted in vain."""
        addresses, keys = ([self._plant(text) for text in texts] for texts in (self._addresses, self._keys))
        return {"people": addresses, "keys": keys}

    def _with_secrets(self, text: str) -> str:
        for secret in self._secrets:
            self._plant(secret)
        return " ".join((text, *self._secrets))

    def tag(self, position: str) -> str:
        """A short private text: a title, a reason, a key a model made up."""
        return self._with_secrets(self.mark(position))

    def mark(self, position: str) -> str:
        """The word that gives this position away when it leaks: one per position and home."""
        if position not in self._marks:
            self._marks[position] = f"{self._rng.choice(_COLOURS)}-{self._rng.choice(_BIRDS)}-{position}-{self._hex(6)}"
        return self._plant(self._marks[position])

    def text(self, position: str, *, foreign: bool = False, rich: bool = False) -> str:
        """A private sentence. `foreign` adds letters beyond ASCII, `rich` an address, a path and a key."""
        said = self._rng.choice(_SENTENCES).format(mark=self.mark(position))
        if rich:
            said += f" Write to {self.address()}, use {self.key()}, see {self.path(position)}."
        if foreign:
            said += _FOREIGN + "\u2028"
        return self._with_secrets(said)

    def address(self) -> str:
        """An e-mail address."""
        return self._plant(self._rng.choice(self._addresses))

    def key(self) -> str:
        """A string with the shape of a credential."""
        return self._plant(self._rng.choice(self._keys))

    def path(self, position: str) -> str:
        """A path in the person's folders."""
        self._plant(self.user_home)
        return self._with_secrets(
            f"{self.user_home}/Clients/{self.mark(position + '-path')}/{self._rng.choice(_FILES)}"
        )

    def own_path(self, tail: str) -> str:
        """A path below the person's home, as Hive writes it into its own records."""
        self._plant(self.user_home)
        return f"{self.user_home}/.hive/{tail}"

    def name(self, base: str, *, colony: bool = False) -> str:
        """An identifier a person chose: not content, but it can name a customer, so it must not leave in clear."""
        safe = _COLONY_SAFE if colony else _FILE_SAFE
        fitting = [secret for secret in self._secrets if safe.fullmatch(secret)]
        self._names += 1
        parts = [base, self._rng.choice(_TRADES), self._rng.choice(_CHORES), self._hex(4)]
        if fitting:
            # One at a time: a folder name longer than 255 bytes cannot be made.
            parts.append(self._plant(fitting[self._names % len(fitting)]))
        return self._plant("_".join(parts))

    def arguments(self, tool: str) -> Json:
        """Tool input, with numbers strict JSON does not know and keys which are content themselves."""
        made: Json = {"timeout_s": self._rng.randint(3, 60)}
        if tool in {"read_file", "write_file"}:
            made["path"] = self.path("tool-argument")
        if tool == "write_file":
            made["content"] = self.text("tool-argument-content", foreign=True)
        if tool == "web_search":
            made["query"] = self.text("tool-argument-query")
        if tool == "terminal_exec":
            made["command"] = f"grep -r '{self.tag('tool-argument-command')}' ./crates | head"
            made["env"] = {"SERVICE_KEY": self.key()}
        if tool == "browser_open":
            made["url"] = f"https://crm.example/{self.tag('tool-argument-url')}?owner={self.address()}"
        if tool not in BUILT_IN_TOOLS:
            made["fields"] = {self.tag("tool-argument-key"): self.address()}
        self._tool_calls += 1
        if odd := _ODD_NUMBERS.get(self._tool_calls % 9):
            made["limit"] = odd
        return made

    def result(self, *, failed: bool) -> str:
        """What a tool gave back, with NUL characters now and then."""
        if failed:
            return f"PermissionError: {self.mark('tool-error')} may not open {self.path('tool-error')}"
        tail = "" if self._tool_calls % 5 else "\x00\x00"
        return self.text("tool-result", foreign=self._rng.random() < 0.4) + "\nsum,41\nrest,7\n" + tail

    def error(self, position: str) -> str:
        """The text of an error: several causes in turn."""
        cause = _CAUSES[self._errors % len(_CAUSES)]
        self._errors += 1
        return self._with_secrets(f"{cause}: could not finish {self.mark(position)} for {self.address()}")

    def traceback(self, position: str) -> str:
        """A stack trace with paths."""
        return (
            "Traceback (most recent call last):\n"
            f'  File "{self.path(position)}", line 12, in run\n    {self.mark(position)}()\n{self.error(position)}'
        )
