"""The client of the judge. It gives up an endpoint that cannot be used."""

import asyncio

from ...chat.client import ChatClient, EndpointAccess, FailedRequestError
from .config import JudgeConfig, JudgeError

RETRIES = 3  # after time-outs, lost connections and the statuses 408, 409, 429 and 5xx
BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
MOST_FAILURES = 10  # after this many failures in a row, the endpoint is given up


class Judge:
    """Asks one endpoint for verdicts.

    Raises:
        ValueError: the key is not in the environment.
    """

    def __init__(self, config: JudgeConfig) -> None:
        self.config, self._key = config, config.read_key()
        self._failures_in_a_row = 0
        self._given_up: str | None = None
        """Why the endpoint was given up; None while it is in use."""

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
        # A request keeps its slot while it waits for a retry, so that a dead endpoint does not get
        # every request.
        self._slots = asyncio.Semaphore(self.config.at_once)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def ask(self, prompt: str) -> str:
        """Sends a prompt and returns the reply, which is not empty.

        Raises:
            JudgeError: all retries failed, the reply cannot be used, or the endpoint was given up
                earlier.
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
                # At temperature 0 a repeated question gets the same unusable answer.
                text, finish = await self._client.ask(body, [], retry_unusable=False)
            except FailedRequestError as error:
                raise self._failure(str(error), error.hopeless) from None
            if finish == "refused":
                raise self._failure("the judge refused")
            if finish == "length":
                raise self._failure("the answer is cut")
            self._failures_in_a_row = 0
            return text

    def _failure(self, reason: str, hopeless: bool = False) -> JudgeError:
        """Counts a failure, gives the endpoint up if there are too many, and makes the error."""
        self._failures_in_a_row += 1
        if hopeless or self._failures_in_a_row >= MOST_FAILURES:
            self._given_up = reason
        return JudgeError(reason)
