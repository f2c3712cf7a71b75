"""Makes LLM turns: model, tokens, cost and tool calls, within one UTC day each.

Does not know in which file a turn ends up, nor who made it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import NamedTuple

from pipelines.simulate.counts import Usage
from pipelines.simulate.words import BUILT_IN_TOOLS, Json, Words


class Price(NamedTuple):
    """US dollars per million tokens."""

    input: float
    output: float
    cache_read: float
    cache_write: float


_PRICES: dict[str, Price | None] = {
    "anthropic/claude-haiku-4-5-20251001": Price(1.0, 5.0, 0.1, 1.25),
    "anthropic/claude-opus-4-6": Price(5.0, 25.0, 0.5, 6.25),
    "openai/gpt-5.5": Price(5.0, 30.0, 0.5, 5.0),
    "anthropic/glm-5.1": Price(1.4, 4.4, 0.26, 1.4),
    "openrouter/z-ai/glm-5.1": Price(1.4, 4.4, 0.26, 1.4),
    "gemini/gemini-3-flash-preview": Price(0.5, 3.0, 0.05, 0.5),
    "ollama_chat/llama3.1:8b": None,
}


@dataclass(frozen=True, kw_only=True)
class ToolCall:
    """One finished tool call."""

    use_id: str
    name: str
    arguments: Json
    result: str
    is_error: bool
    at: datetime
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn. An old one is written as early versions did, without the cache and cost keys."""

    model: str
    input_tokens: int
    output_tokens: int
    cache_read: int
    cache_write: int
    cost: float
    stop_reason: str
    text: str
    tools: tuple[ToolCall, ...]
    started_at: datetime
    at: datetime
    is_old: bool = False

    @property
    def latency_ms(self) -> int:
        """From the start of the iteration, tools included."""
        return int((self.at - self.started_at).total_seconds() * 1000)

    def reported(self) -> Usage:
        """As an event tells it."""
        cost = Decimal(0) if self.is_old else Decimal(repr(self.cost))
        return Usage(
            turns=1,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            cache_read_input_tokens=0 if self.is_old else self.cache_read,
            cache_write_input_tokens=0 if self.is_old else self.cache_write,
            tool_calls=len(self.tools),
            reported_cost_usd=cost,
            unreported_turns=0 if cost else 1,
        )

    def logged(self) -> Usage:
        """As an L3 line tells it: tokens and tool calls only."""
        return Usage(
            turns=1,
            input_tokens=self.input_tokens,
            output_tokens=self.output_tokens,
            tool_calls=len(self.tools),
            unreported_turns=1,
        )


class Clock:
    """The time in one stream of work. Moves forward only."""

    def __init__(self, now: datetime, rng: random.Random) -> None:
        self.now = now
        self._rng = rng

    def wait(self, low: float, high: float) -> datetime:
        """Go on by a random number of seconds."""
        self.now += timedelta(microseconds=self._rng.randint(int(low * 1e6), int(high * 1e6)))
        return self.now

    def stay_within_day(self, seconds: float) -> datetime:
        """Step over UTC midnight now, if it would fall into the next seconds: a turn and its tools share one day."""
        midnight = datetime.combine(self.now.date() + timedelta(days=1), datetime.min.time(), tzinfo=UTC)
        if self.now + timedelta(seconds=seconds) >= midnight:
            self.now = midnight + timedelta(microseconds=self._rng.randint(1, 2_000_000))
        return self.now


class Mill:
    """Grinds out turns for one home."""

    def __init__(self, rng: random.Random, words: Words, *, private_model: str, custom_tool: str) -> None:
        self._rng = rng
        self._words = words
        self.private_model = private_model
        self.custom_tool = custom_tool
        self._models = (*_PRICES, private_model)
        self._next_model = rng.randrange(len(self._models))
        self._tools = (*BUILT_IN_TOOLS, *BUILT_IN_TOOLS, custom_tool)

    def model(self) -> str:
        """The models in rotation, so that a home with enough sessions has them all."""
        self._next_model = (self._next_model + 1) % len(self._models)
        return self._models[self._next_model]

    def priced_model(self) -> str:
        """A model whose turns always report a cost."""
        return next(name for name, price in _PRICES.items() if price)

    def _cost(self, model: str, fresh: int, read: int, write: int, output: int) -> float:
        price = _PRICES.get(model)
        if price is None:
            return 0.0
        spent = fresh * price.input + output * price.output + read * price.cache_read + write * price.cache_write
        return spent / 1e6

    def _tool(self, clock: Clock, model: str) -> ToolCall:
        name = self._rng.choice(self._tools)
        failed = self._rng.random() < 0.12
        prefix, digits = ("call_", 24) if model.startswith("openai/") else ("toolu_", 12)
        started = clock.wait(0.3, 2.5)
        seconds = self._rng.randint(5, 9000) / 1000
        clock.now += timedelta(seconds=seconds)
        return ToolCall(
            use_id=f"{prefix}{self._rng.getrandbits(4 * digits):0{digits}x}",
            name=name,
            arguments=self._words.arguments(name),
            result=self._words.result(failed=failed),
            is_error=failed,
            at=started,
            seconds=seconds,
        )

    def turn(
        self,
        clock: Clock,
        *,
        model: str,
        step: int,
        tools: int | None = None,
        is_old: bool = False,
        free: bool = False,
    ) -> Turn:
        """One turn; `step` makes the context grow. `tools` None lets chance decide."""
        calls = self._rng.choice((0, 0, 1, 1, 2, 3)) if tools is None else tools
        started = clock.stay_within_day(20 + 12 * calls)
        made = tuple(self._tool(clock, model) for _ in range(calls))
        context = self._rng.randint(4000, 16000) + min(step, 40) * self._rng.randint(900, 3500)
        read = int(context * self._rng.uniform(0.2, 0.6)) if step else 0
        write = self._rng.randrange(0, 12) * 128
        output = self._rng.randint(60, 1800)
        return Turn(
            model=model,
            input_tokens=context,
            output_tokens=output,
            cache_read=read,
            cache_write=write,
            cost=0.0 if free else self._cost(model, context - read - write, read, write, output),
            stop_reason="tool_calls" if calls else "stop",
            text=self._words.text("turn-text", foreign=self._rng.random() < 0.5, rich=self._rng.random() < 0.2),
            tools=made,
            started_at=started,
            at=clock.wait(1.5, 15),
            is_old=is_old,
        )
