"""The client of a judge: gives up an endpoint that cannot be used."""

import asyncio

from ...chat.client import ChatClient, EndpointAccess, FailedRequestError
from .config import JudgeConfig, JudgeError

RETRIES = 3  # of a request that may succeed later: time-outs, lost connections, 408, 409, 429, 5xx
BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
MOST_FAILURES = 10  # in a row; the endpoint is then given up


class Judge:
    """Asks one endpoint for verdicts.

    Raises:
        ValueError: the key is not in the environment.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.config, self._key = config, config.read_key()
        self._in_a_row = 0
        self._given_up: str | None = None

    async def __aenter__(self) -> "Judge":
        self._client = ChatClient(
            EndpointAccess(
                base_url=self.config.url,
                key=self._key,
                attempt_seconds=self.config.seconds,
                concurrency=self.config.at_once,
                retries=RETRIES,
                backoff_s=BACKOFF_S,
                max_backoff_s=MAX_BACKOFF_S,
            )
        )
        # Held while a request waits for its retry: a dead endpoint must not be asked by all.
        self._slots = asyncio.Semaphore(self.config.at_once)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, prompt: str) -> str:
        """The reply to a prompt, not empty.

        Raises:
            JudgeError: there is none after the retries, or the endpoint was given up before.
        """
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt}],
            "extra_body": dict(self.config.body),
        }
        async with self._slots:
            if self._given_up is not None:
                raise JudgeError(f"not asked, the endpoint was given up: {self._given_up}")
            try:
                # At temperature 0 the same question has the same answer.
                text, finish = await self._client.ask(body, [], retry_unusable=False)
            except FailedRequestError as error:
                raise self._failure(str(error), error.hopeless) from None
            if finish == "refused":
                raise self._failure("the judge refused")
            if finish == "length":
                raise self._failure("the answer is cut")
            self._in_a_row = 0
            return text

    def _failure(self, reason: str, hopeless: bool = False) -> JudgeError:
        """Counts a failure; the endpoint may be given up for it."""
        self._in_a_row += 1
        if hopeless or self._in_a_row >= MOST_FAILURES:
            self._given_up = reason
        return JudgeError(reason)
