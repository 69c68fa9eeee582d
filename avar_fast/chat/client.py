"""The client of one endpoint. It limits concurrency and rate, retries, and masks keys."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import openai

from .access import is_loopback
from .answer import Answer, BadAnswerError
from .exchange import exchange
from .pace import Pace
from .trouble import ERRORS, Trouble, trouble_of

LONGEST_PROBLEM_CHARS = 300
# A shorter key may be an ordinary word that also occurs in answers.
LEAST_KEY_CHARS = 16

Attempt = Callable[[Answer], AbstractAsyncContextManager[object]]
"""Makes the context of an attempt from the answer that it fills. A budget can be held there."""


@dataclass(frozen=True, kw_only=True)
class EndpointAccess:
    """The address of an endpoint, its key, and the limits on requests to it."""

    base_url: str
    """Address up to and including /v1."""
    key: str | None
    """API key; None if the endpoint needs none."""
    attempt_seconds: float
    """Time limit of one attempt, from sending the request to the last piece of the answer."""
    concurrency: int
    """Largest number of attempts at the same time."""
    retries: int
    """Largest number of further attempts after one that failed and may succeed."""
    backoff_s: float
    """Seconds before the first retry. They double with each retry, with jitter."""
    max_backoff_s: float
    """Largest number of seconds before a retry."""
    requests_per_minute: float | None = None
    """Rate limit; None for no limit."""


class FailedRequestError(Exception):
    """All attempts failed. The message is the problem of the last one."""

    def __init__(self, problem: str, *, hopeless: bool, attempts: int) -> None:
        super().__init__(problem)
        self.hopeless = hopeless
        """Whether no request to the endpoint can succeed."""
        self.attempts = attempts
        """Number of attempts that were made."""


class ChatClient:
    """Sends requests to one endpoint. One event loop may send many of them concurrently."""

    def __init__(self, access: EndpointAccess) -> None:
        self.access = access
        direct = is_loopback(access.base_url)
        self._openai = openai.AsyncOpenAI(
            base_url=access.base_url,
            api_key=access.key or "none",
            max_retries=0,  # ``ask`` retries, so that each attempt is counted and paid for
            timeout=access.attempt_seconds,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None,
        )
        self._slots = asyncio.Semaphore(access.concurrency)
        rate = access.requests_per_minute
        self._pace = Pace(60.0 / rate if rate else 0.0, access.backoff_s, access.max_backoff_s)

    async def close(self) -> None:
        await self._openai.close()

    async def ask(
        self,
        body: dict[str, Any],
        problems: list[str],
        *,
        take_reasoning: bool = False,
        retry_unusable: bool = True,
        attempt: Attempt = nullcontext,
    ) -> tuple[str, str]:
        """Sends a request until it is answered or the retries are used up.

        Args:
            body: the request, as arguments of openai's ``chat.completions.create``.
            problems: list to which each failed attempt appends its problem.
            take_reasoning: put reasoning that arrives separately in front of the answer.
            retry_unusable: also retry after an answer that is complete but unusable, such as an
                empty one.
            attempt: context manager around each attempt; called with the answer being filled. An
                exception that it raises ends the request.

        Returns:
            (text, finish); finish is stop, length or refused. A key in the text is masked.

        Raises:
            FailedRequestError: all attempts failed.
        """
        seconds, retries = self.access.attempt_seconds, self.access.retries
        for number in range(1 + retries):
            answer = Answer()
            try:
                async with self._slots:
                    await self._pace.turn()
                    async with attempt(answer), asyncio.timeout(seconds):
                        await exchange(self._openai, body, answer)
                text, finish = _read(answer, take_reasoning, retry_unusable)
                return self._without_key(text), finish
            except (TimeoutError, openai.APITimeoutError):
                trouble = Trouble(f"no whole answer within {seconds:g} s")
            except ERRORS as error:
                trouble = trouble_of(error)
            problems.append(self.masked(trouble.problem))
            is_last = number == retries or not trouble.retry
            hopeless = trouble.hopeless or (trouble.unreachable and is_last)
            if is_last or hopeless:
                raise FailedRequestError(problems[-1], hopeless=hopeless, attempts=number + 1)
            await self._pace.back_off(number, trouble.wait_s)
        raise AssertionError("the last attempt returns or raises")

    def masked(self, text: str) -> str:
        """Shortens a message of the endpoint, puts it on one line and masks the key."""
        text = " ".join(text.split())
        if self.access.key:
            text = text.replace(self.access.key, "***")
        short = text[:LONGEST_PROBLEM_CHARS]
        return text if text == short else f"{short}..."

    def _without_key(self, text: str) -> str:
        key = self.access.key
        return text.replace(key, "***") if key and len(key) >= LEAST_KEY_CHARS else text


def _read(answer: Answer, take_reasoning: bool, retry_unusable: bool) -> tuple[str, str]:
    try:
        return answer.read(take_reasoning)
    except BadAnswerError as error:
        raise BadAnswerError(str(error), retry=error.retry and retry_unusable) from None
