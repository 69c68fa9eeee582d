"""One endpoint that speaks OpenAI's HTTP protocol: requests, limits, retries."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import openai

from ..chat import Answer, Pace, Trouble, receive, trouble_of
from ..chat.api_key import read_key
from ..chat.loopback import is_loopback
from ..chat.trouble import ERRORS
from .ledger import BudgetExceededError, Ledger, Usage, text_tokens
from .recipe import StageConfig

LONGEST_PROBLEM_CHARS = 300
# A shorter key may be an ordinary word, which answers may hold.
LEAST_KEY_CHARS = 16


class RequestFailedError(Exception):
    """One request failed for good; others may succeed."""

    def __init__(self, problems: list[str], usage: Usage, seconds: float) -> None:
        super().__init__(problems[-1])
        self.problems, self.usage, self.seconds = tuple(problems), usage, seconds


class EndpointError(RequestFailedError):
    """No request to this endpoint can succeed: unreachable, key refused, no such model."""


@dataclass
class Halt:
    """Why a run is to stop, shared by all its requests; those under way are still received."""

    reason: str | None = None
    over_budget: bool = False

    def set(self, reason: str, over_budget: bool = False) -> None:
        if self.reason is None:
            self.reason, self.over_budget = reason, over_budget


class HaltedError(Exception):
    """A request was not sent because the run is to stop."""


@dataclass(frozen=True)
class Reply:
    text: str
    finish: str
    """stop, length or refused."""
    usage: Usage
    """Of all attempts."""
    problems: tuple[str, ...]
    """What attempts before the last ran into."""
    seconds: float


class Endpoint:
    """Sends the requests of one stage."""

    def __init__(self, name: str, stage: StageConfig, ledger: Ledger, halt: Halt) -> None:
        """
        Raises:
            MissingKeyError: as ``read_key``.
        """
        self.name, self.stage, self.ledger, self.halt = name, stage, ledger, halt
        self._key = read_key(f"{name}.key_env", stage.key_env)
        direct = is_loopback(stage.base_url)
        self._client = openai.AsyncOpenAI(
            base_url=stage.base_url,
            api_key=self._key or "none",
            max_retries=0,  # retries are counted and paid for here
            timeout=stage.timeout_s,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None,
        )
        self._slots = asyncio.Semaphore(stage.concurrency)
        rate = stage.requests_per_minute
        self._pace = Pace(60.0 / rate if rate else 0.0, stage.backoff_s, stage.max_backoff_s)

    async def close(self) -> None:
        await self._client.close()

    async def ask(self, messages: list[dict[str, Any]], input_tokens: int, sample: int) -> Reply:
        """Sends a request until it is answered or the retries are used up.

        Args:
            messages: of the chat.
            input_tokens: estimate, for the budget and where the endpoint reports no usage.
            sample: added to the stage's seed.

        Raises:
            EndpointError: no request can succeed.
            RequestFailedError: this one did not; has all that was tried.
            BudgetExceededError: it was not sent, as it could exceed the budget.
            HaltedError: it was not sent, as the run is to stop.
        """
        stage, started = self.stage, time.monotonic()
        worst = Usage(input_tokens, stage.max_tokens)
        problems: list[str] = []
        paid = Usage()
        for attempt in range(1 + stage.retries):
            answer = Answer()
            try:
                async with self._slots:
                    await self._pace.turn()
                    async with self.ledger.hold(worst, stage):
                        if self.halt.reason:
                            raise HaltedError(self.halt.reason)
                        try:
                            async with asyncio.timeout(stage.timeout_s):
                                await self._receive(messages, sample, answer)
                        finally:  # an answer that broke off was computed all the same
                            usage = _usage(answer, input_tokens)
                            self.ledger.spend(usage, usage.cost(stage))
                            paid += usage
                text, finish = answer.read(stage.take_reasoning)
                if self._key and len(self._key) >= LEAST_KEY_CHARS:
                    text = text.replace(self._key, "***")
                return Reply(text, finish, paid, tuple(problems), time.monotonic() - started)
            except (BudgetExceededError, HaltedError) as error:
                if not problems:
                    raise
                # What the attempts so far cost must reach the journal.
                trouble = Trouble(str(error), retry=False)
            except (TimeoutError, openai.APITimeoutError):
                trouble = Trouble(f"no whole answer within {stage.timeout_s:g} s")
            except ERRORS as error:
                trouble = trouble_of(error)
            problems.append(self._told(trouble.problem))
            last = attempt == stage.retries or not trouble.retry
            if trouble.hopeless or (trouble.unreachable and last):
                problems[-1] = (
                    f"{self.name}: {stage.model} at {stage.base_url} cannot be used, tried"
                    f" {attempt + 1} time{'s' * (attempt > 0)}; {problems[-1]}"
                )
                raise EndpointError(problems, paid, time.monotonic() - started)
            if last:
                break
            await self._pace.back_off(attempt, trouble.wait_s)
        raise RequestFailedError(problems, paid, time.monotonic() - started)

    async def _receive(self, messages: list[dict[str, Any]], sample: int, answer: Answer) -> None:
        """Sends one request and fills ``answer``, piece by piece where the stage streams."""
        stage = self.stage
        body: dict[str, Any] = {"model": stage.model, "messages": messages}
        body[stage.max_tokens_field] = stage.max_tokens
        if stage.temperature is not None:
            body["temperature"] = stage.temperature
        if stage.top_p is not None:
            body["top_p"] = stage.top_p
        if stage.seed is not None:
            body["seed"] = stage.seed + sample
        body["extra_body"] = stage.extra_body
        if stage.stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        await receive(self._client, body, answer)

    def _told(self, text: str) -> str:
        """What an endpoint said, short, on one line and without the key."""
        text = " ".join(text.split())
        if self._key:
            text = text.replace(self._key, "***")
        short = text[:LONGEST_PROBLEM_CHARS]
        return text if text == short else f"{short}..."


def _usage(answer: Answer, input_tokens: int) -> Usage:
    """As the endpoint counted; by rule of thumb where it did not and something was received;
    nothing where nothing came."""
    if answer.counts is not None:
        return Usage(*answer.counts)
    if not answer.received:
        return Usage()
    return Usage(input_tokens, text_tokens(answer.received), estimated=True)
