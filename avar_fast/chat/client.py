"""The client of one endpoint: concurrency, rate limit, retries, masked keys."""

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
# A shorter key may be an ordinary word, which answers may hold.
LEAST_KEY_CHARS = 16

Attempt = Callable[[Answer], AbstractAsyncContextManager[object]]
"""What surrounds an attempt that fills an answer, such as a budget."""


@dataclass(frozen=True, kw_only=True)
class EndpointAccess:
    """Where an endpoint is and how hard it may be asked."""

    base_url: str
    """As far as /v1."""
    key: str | None
    attempt_seconds: float
    """For one attempt, from sending to its last piece."""
    concurrency: int
    """Attempts at the same time."""
    retries: int
    """Further attempts after one that failed and may succeed."""
    backoff_s: float
    """Wait before the first retry; doubles with each further one, with jitter."""
    max_backoff_s: float
    requests_per_minute: float | None = None
    """None for no limit."""


class FailedRequestError(Exception):
    """No attempt was answered; the message is the last problem."""

    def __init__(self, problem: str, *, hopeless: bool, attempts: int) -> None:
        super().__init__(problem)
        self.hopeless = hopeless
        """No request to the endpoint can succeed."""
        self.attempts = attempts


class ChatClient:
    """Asks one endpoint; safe for many requests at the same time in one event loop."""

    def __init__(self, access: EndpointAccess) -> None:
        self.access = access
        direct = is_loopback(access.base_url)
        self._openai = openai.AsyncOpenAI(
            base_url=access.base_url,
            api_key=access.key or "none",
            max_retries=0,  # retries are counted and paid for here
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
            body: of the request, as openai's ``chat.completions.create`` takes it.
            problems: gets what went wrong in each failed attempt, in order.
            take_reasoning: puts thoughts that come apart from the answer in front of it.
            retry_unusable: asks again after an answer that came whole but cannot be used, such as
                an empty one.
            attempt: is entered around each attempt, with the answer that it fills. What it raises
                ends the request.

        Returns:
            (text, finish); finish is stop, length or refused. A key in the text is masked.

        Raises:
            FailedRequestError: no attempt was answered.
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
        """What an endpoint said: short, on one line and without the key."""
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
