"""Accounts for the cost of a synthesis and enforces its budget."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from .recipe import BudgetConfig
from .step_config import StepConfig

# Rules of thumb for requests whose usage is not known: English text, and Qwen-VL's tokens of
# 28 x 28 pixels.
CHARS_PER_TOKEN = 4
PIXELS_PER_TOKEN = 28 * 28
IMAGE_LEAST_TOKENS = 64


class BudgetExceededError(Exception):
    """The next request could exceed the budget."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one or more requests."""

    input: int = 0
    """Tokens sent."""
    output: int = 0
    """Tokens received."""
    estimated: bool = False
    """Whether a part of it is estimated because the endpoint reported no counts."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            self.input + other.input,
            self.output + other.output,
            self.estimated or other.estimated,
        )

    @property
    def total(self) -> int:
        return self.input + self.output

    def cost(self, step: StepConfig) -> float:
        """USD at the step's prices."""
        return (self.input * step.input_price + self.output * step.output_price) / 1e6


def text_tokens(text: str) -> int:
    """Estimated tokens of a text."""
    return -(-len(text) // CHARS_PER_TOKEN)


def image_tokens(size: tuple[int, int]) -> int:
    """Estimated tokens of an image of (width, height) pixels."""
    return max(IMAGE_LEAST_TOKENS, size[0] * size[1] // PIXELS_PER_TOKEN)


class Ledger:
    """What was spent, and what the requests in progress may still cost."""

    def __init__(self, budget: BudgetConfig) -> None:
        self.budget = budget
        self.usd, self.tokens = 0.0, 0
        self._held_usd, self._held_tokens = 0.0, 0
        self._settled = asyncio.Condition()

    def spend(self, usage: Usage, cost: float) -> None:
        """Books tokens, and a cost in USD."""
        self.usd += cost
        self.tokens += usage.total

    @asynccontextmanager
    async def hold(self, worst: Usage, step: StepConfig) -> AsyncIterator[None]:
        """Reserves the largest possible cost of a request while it runs. If the budget does not
        allow it at the moment, waits until other requests have finished.

        Raises:
            BudgetExceededError: the request could exceed the budget even with no other request in
                progress.
        """
        usd, tokens = worst.cost(step), worst.total
        async with self._settled:
            while not self._fits(usd, tokens):
                if self._held_tokens == 0:
                    raise BudgetExceededError(self._exceeded(usd, tokens))
                await self._settled.wait()
            self._held_usd += usd
            self._held_tokens += tokens
        try:
            yield
        finally:
            async with self._settled:
                self._held_tokens -= tokens
                self._held_usd = self._held_usd - usd if self._held_tokens else 0.0
                self._settled.notify_all()

    def _fits(self, usd: float, tokens: int) -> bool:
        budget = self.budget
        return (budget.usd is None or self.usd + self._held_usd + usd <= budget.usd) and (
            budget.tokens is None or self.tokens + self._held_tokens + tokens <= budget.tokens
        )

    def _exceeded(self, usd: float, tokens: int) -> str:
        budget = self.budget
        if budget.usd is not None and self.usd + usd > budget.usd:
            spent = f"budget.usd = {budget.usd}: {self.usd:.4f} spent, the next request may take"
            return f"{spent} {usd:.4f}"
        spent = f"budget.tokens = {budget.tokens}: {self.tokens} spent, the next request may take"
        return f"{spent} {tokens}"
