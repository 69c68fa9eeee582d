"""One endpoint that speaks OpenAI's HTTP protocol: requests, limits, retries."""

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import httpx2  # the HTTP library of openai
import openai

from ..api_key import read_key
from ..loopback import is_loopback
from .answer import Answer, BadAnswerError
from .ledger import BudgetExceededError, Ledger, Usage
from .recipe import StageConfig

RETRIED = (408, 409, 429)
HOPELESS = {
    401: "Check key_env and the key.",
    402: "Check the account's credit.",
    403: "Check key_env, the key and what it may use.",
    404: "Check model, and that base_url goes as far as /v1.",
}
# A wait that an endpoint asks for beyond this is a quota, not a rate.
LONGEST_RETRY_AFTER_S = 600.0
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


@dataclass(frozen=True)
class _Trouble:
    """Why an attempt failed, and what follows from it."""

    problem: str
    retry: bool = True
    hopeless: bool = False
    """No request to the endpoint can succeed."""
    unreachable: bool = False
    """As hopeless, if retries do not help."""
    wait_s: float | None = None
    """What the endpoint asks to wait."""


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
        self._interval_s = 60.0 / rate if rate else 0.0
        self._next = 0.0
        self._paused_until = 0.0

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
                    await self._turn()
                    async with self.ledger.hold(worst, stage):
                        if self.halt.reason:
                            raise HaltedError(self.halt.reason)
                        try:
                            async with asyncio.timeout(stage.timeout_s):
                                await self._receive(messages, sample, answer)
                        finally:  # an answer that broke off was computed all the same
                            usage = answer.usage(input_tokens)
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
                trouble = _Trouble(str(error), retry=False)
            except (openai.OpenAIError, BadAnswerError, TimeoutError, ValueError) as error:
                trouble = self._trouble(error)
            except RecursionError:
                trouble = _Trouble("the answer is malformed: JSON nested without end")
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
            await self._back_off(attempt, trouble.wait_s)
        raise RequestFailedError(problems, paid, time.monotonic() - started)

    async def _turn(self) -> None:
        """Waits for the rate limit, and for the end of a pause that the endpoint asked for."""
        clock = asyncio.get_running_loop().time
        while True:
            at = max(clock(), self._next, self._paused_until)
            self._next = at + self._interval_s
            await asyncio.sleep(at - clock())
            if clock() >= self._paused_until:
                return
            # The pause came meanwhile: after it, requests are as far apart as ever.

    async def _back_off(self, attempt: int, asked_s: float | None) -> None:
        clock = asyncio.get_running_loop().time
        if asked_s is not None:  # holds for every request to this endpoint
            self._paused_until = max(self._paused_until, clock() + asked_s)
            return
        wait = min(self.stage.backoff_s * 2**attempt, self.stage.max_backoff_s)
        await asyncio.sleep(wait * random.uniform(0.5, 1.0))

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
        create: Any = self._client.chat.completions.create
        if not stage.stream:
            answer.take(await create(**body), "message")
            return
        pieces = await create(**body, stream=True, stream_options={"include_usage": True})
        async with pieces:
            async for piece in pieces:
                answer.take(piece, "delta")

    def _trouble(self, error: Exception) -> _Trouble:
        if isinstance(error, openai.APIStatusError):
            code = error.status_code
            # The client's message has the code once more, and nothing of a body it does not know.
            said = error.message.removeprefix(f"Error code: {code}").removeprefix(" - ")
            said = said or error.response.text or error.response.reason_phrase
            return _Trouble(
                f"HTTP {code}: {said.rstrip('. ')}. {HOPELESS.get(code, '')}",
                retry=code in RETRIED or code >= 500,
                hopeless=code in HOPELESS or error.code == "insufficient_quota",
                wait_s=_retry_after(error),
            )
        if isinstance(error, TimeoutError | openai.APITimeoutError):
            return _Trouble(f"no whole answer within {self.stage.timeout_s:g} s")
        if isinstance(error, openai.APIConnectionError):
            # What went wrong is in the cause; the error itself says no more than its name.
            cause = error.__cause__ or error
            unreachable = isinstance(cause, httpx2.ConnectError)
            return _Trouble(f"connection: {cause or type(cause).__name__}", unreachable=unreachable)
        return _Trouble(str(error) or type(error).__name__)

    def _told(self, text: str) -> str:
        """What an endpoint said, short, on one line and without the key."""
        text = " ".join(text.split())
        if self._key:
            text = text.replace(self._key, "***")
        short = text[:LONGEST_PROBLEM_CHARS]
        return text if text == short else f"{short}..."


def _retry_after(error: openai.APIStatusError) -> float | None:
    """Seconds that the endpoint asks to wait; None where it does not say."""
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST_RETRY_AFTER_S else None
