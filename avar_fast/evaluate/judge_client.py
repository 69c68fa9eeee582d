"""A judge behind OpenAI's HTTP protocol."""

import asyncio
import json
from typing import Any

import openai

from ..loopback import is_loopback
from .judge import JudgeConfig, JudgeError

RETRIES = 3  # of a request: time-outs, lost connections, 408, 409, 429, 5xx; the waits are openai's
LONGEST_WAITS_S = 30.0  # between them
MOST_FAILURES = 10  # in a row; the endpoint is then given up
HOPELESS = (401, 402, 403, 404)
LONGEST_REASON_CHARS = 200


class Judge:
    """The client; it gives an endpoint up that cannot be used.

    Raises:
        ValueError: the key is not in the environment.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.config, self._key = config, config.read_key()
        self._in_a_row = 0
        self._given_up: str | None = None

    async def __aenter__(self) -> "Judge":
        direct = is_loopback(self.config.url)
        self._client = openai.AsyncOpenAI(
            base_url=self.config.url,
            api_key=self._key or "none",
            timeout=self.config.seconds,
            max_retries=RETRIES,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None,
        )
        self._slots = asyncio.Semaphore(self.config.at_once)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, prompt: str) -> str:
        """The reply to a prompt, not empty.

        Raises:
            JudgeError: there is none after the retries, or the endpoint was given up before.
        """
        async with self._slots:
            if self._given_up is not None:
                raise JudgeError(f"not asked, the endpoint was given up: {self._given_up}")
            try:
                reply = _text_of(await self._send(prompt))
            except (openai.OpenAIError, TimeoutError, ValueError) as error:
                reason = self._reason(error)
                self._count_failure(error, reason)
                raise JudgeError(reason) from None
            self._in_a_row = 0
            return reply

    async def _send(self, prompt: str) -> Any:
        longest_s = (1 + RETRIES) * self.config.seconds + LONGEST_WAITS_S
        async with asyncio.timeout(longest_s):  # an answer that trickles in has no pause to time
            return await self._client.chat.completions.create(
                model=self.config.model,
                messages=[{"role": "user", "content": prompt}],
                extra_body=dict(self.config.body),
            )

    def _count_failure(self, error: Exception, reason: str) -> None:
        self._in_a_row += 1
        hopeless = getattr(error, "status_code", None) in HOPELESS
        if hopeless or self._in_a_row >= MOST_FAILURES:
            self._given_up = reason

    def _reason(self, error: Exception) -> str:
        """What went wrong, short, on one line and without the key."""
        if isinstance(error, openai.APIStatusError):
            said = f"HTTP {error.status_code}: {error.message}"
        elif isinstance(error, TimeoutError | openai.APITimeoutError):
            said = f"no answer within {self.config.seconds:g} s"
        elif isinstance(error, openai.APIConnectionError):
            said = f"connection: {error.__cause__ or type(error.__cause__).__name__}"
        elif isinstance(error, json.JSONDecodeError):
            said = "the answer is not JSON"
        else:
            said = str(error) or type(error).__name__
        said = " ".join(said.split())
        if self._key:
            said = said.replace(self._key, "***")
        return said[:LONGEST_REASON_CHARS]


def _text_of(answer: Any) -> str:
    """Raises ValueError where an answer holds no whole text."""
    choices = getattr(answer, "choices", None)
    if not isinstance(choices, list) or not choices:
        raise ValueError("the answer is malformed")
    message, finish = getattr(choices[0], "message", None), choices[0].finish_reason
    text = getattr(message, "content", None)
    if finish == "content_filter" or getattr(message, "refusal", None):
        raise ValueError("the judge refused")
    if not isinstance(text, str) or not text.strip():
        raise ValueError("the answer is empty")
    if finish == "length":
        raise ValueError("the answer is cut")
    return text
