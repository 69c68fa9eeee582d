"""The endpoint of one step. It sends requests within the budget and accounts for their cost."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..chat.access import read_key
from ..chat.answer import Answer
from ..chat.client import ChatClient, EndpointAccess, FailedRequestError
from .ledger import BudgetExceededError, Ledger, Usage, text_tokens
from .step_config import StepConfig


class RequestFailedError(Exception):
    """One request failed permanently. Other requests may succeed."""

    def __init__(self, problems: list[str], usage: Usage, seconds: float) -> None:
        super().__init__(problems[-1])
        self.problems, self.usage, self.seconds = tuple(problems), usage, seconds


class EndpointError(RequestFailedError):
    """No request to this endpoint can succeed: it is unreachable, refuses the key or does not have
    the model."""


@dataclass
class Halt:
    """Whether a run must stop, and why. All its requests share it. Replies to requests that were
    already sent are still received."""

    reason: str | None = None
    """Why the run must stop; None while it may continue."""
    over_budget: bool = False
    """Whether the budget is the reason."""

    def set(self, reason: str, over_budget: bool = False) -> None:
        if self.reason is None:
            self.reason, self.over_budget = reason, over_budget


class HaltedError(Exception):
    """A request was not sent because the run must stop."""


@dataclass(frozen=True)
class Reply:
    """The answer to a request."""

    text: str
    finish: str
    """stop, length or refused."""
    usage: Usage
    """Tokens of all attempts."""
    problems: tuple[str, ...]
    """Problems of the failed attempts."""
    seconds: float
    """Time from the first attempt to the answer."""


class Endpoint:
    """Sends the requests of one step."""

    def __init__(self, name: str, step: StepConfig, ledger: Ledger, halt: Halt) -> None:
        """
        Raises:
            MissingKeyError: as ``read_key``.
        """
        self.name, self.step, self.ledger, self.halt = name, step, ledger, halt
        self._client = ChatClient(
            EndpointAccess(
                base_url=step.base_url,
                key=read_key(f"{name}.key_env", step.key_env),
                attempt_seconds=step.timeout_s,
                concurrency=step.concurrency,
                retries=step.retries,
                backoff_s=step.backoff_s,
                max_backoff_s=step.max_backoff_s,
                requests_per_minute=step.requests_per_minute,
            )
        )

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]], input_tokens: int, sample: int) -> Reply:
        """Sends a request until it is answered or the retries are used up.

        Args:
            messages: turns of the chat.
            input_tokens: estimated tokens of the messages, for the budget and for endpoints that
                report no usage.
            sample: number of the sample; it is added to the step's seed.

        Raises:
            EndpointError: no request to this endpoint can succeed.
            RequestFailedError: this request failed permanently.
            BudgetExceededError: the request was not sent because it could exceed the budget.
            HaltedError: the request was not sent because the run must stop.
        """
        started = time.monotonic()
        problems: list[str] = []
        paid = [Usage()]
        attempt = partial(self._paid_attempt, input_tokens, paid)
        try:
            text, finish = await self._client.ask(
                self._body(messages, sample),
                problems,
                take_reasoning=self.step.take_reasoning,
                attempt=attempt,
            )
        except (BudgetExceededError, HaltedError) as error:
            if not problems:
                raise
            # Earlier attempts cost something, and the journal must record it.
            problems.append(self._client.masked(str(error)))
        except FailedRequestError as error:
            if error.hopeless:
                problems[-1] = (
                    f"{self.name}: {self.step.model} at {self.step.base_url} cannot be used, tried"
                    f" {error.attempts} time{'s' * (error.attempts > 1)}; {problems[-1]}"
                )
                seconds = time.monotonic() - started
                raise EndpointError(problems, paid[0], seconds) from None
        else:
            return Reply(text, finish, paid[0], tuple(problems), time.monotonic() - started)
        raise RequestFailedError(problems, paid[0], time.monotonic() - started)

    @asynccontextmanager
    async def _paid_attempt(
        self, input_tokens: int, paid: list[Usage], answer: Answer
    ) -> AsyncIterator[None]:
        """Reserves the largest possible cost of an attempt, then books its actual cost."""
        worst = Usage(input_tokens, self.step.max_tokens)
        async with self.ledger.hold(worst, self.step):
            if self.halt.reason:
                raise HaltedError(self.halt.reason)
            try:
                yield
            finally:  # an answer that broke off has cost something as well
                usage = _usage(answer, input_tokens)
                self.ledger.spend(usage, usage.cost(self.step))
                paid[0] += usage

    def _body(self, messages: list[dict[str, Any]], sample: int) -> dict[str, Any]:
        step = self.step
        body: dict[str, Any] = {"model": step.model, "messages": messages}
        body[step.max_tokens_field] = step.max_tokens
        if step.temperature is not None:
            body["temperature"] = step.temperature
        if step.top_p is not None:
            body["top_p"] = step.top_p
        if step.seed is not None:
            body["seed"] = step.seed + sample
        body["extra_body"] = step.extra_body
        if step.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


def _usage(answer: Answer, input_tokens: int) -> Usage:
    """Tokens of an attempt: as counted by the endpoint, else estimated from the received text, and
    none if nothing was received."""
    if answer.counts is not None:
        return Usage(*answer.counts)
    if not answer.received:
        return Usage()
    return Usage(input_tokens, text_tokens(answer.received), estimated=True)
