"""A judge behind OpenAI's HTTP protocol."""

import asyncio

import openai

from ...chat import Answer, BadAnswerError, Pace, Trouble, receive, trouble_of
from ...chat.loopback import is_loopback
from ...chat.trouble import ERRORS
from .config import JudgeConfig, JudgeError

RETRIES = 3  # of a request that may succeed later: time-outs, lost connections, 408, 409, 429, 5xx
BACKOFF_S, MAX_BACKOFF_S = 0.5, 8.0
MOST_FAILURES = 10  # in a row; the endpoint is then given up
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
            max_retries=0,  # retries are the same as the synthesis has
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if direct else None,
        )
        self._slots = asyncio.Semaphore(self.config.at_once)
        self._pace = Pace(0.0, BACKOFF_S, MAX_BACKOFF_S)
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
                reply = _text_of(await self._answer(prompt))
            except BadAnswerError as error:
                raise self._failure(trouble_of(error)) from None
            self._in_a_row = 0
            return reply

    async def _answer(self, prompt: str) -> Answer:
        """A whole reply of the protocol, whatever it says.

        Raises:
            JudgeError: there is none after the retries.
        """
        for attempt in range(1 + RETRIES):
            await self._pace.turn()
            answer = Answer()
            try:
                async with asyncio.timeout(self.config.seconds):  # one that trickles in too
                    await self._receive(prompt, answer)
                return answer
            except (TimeoutError, openai.APITimeoutError):
                trouble = Trouble(f"no answer within {self.config.seconds:g} s")
            except ERRORS as error:
                trouble = trouble_of(error)
            if attempt == RETRIES or not trouble.retry:
                break
            await self._pace.back_off(attempt, trouble.wait_s)
        raise self._failure(trouble)

    async def _receive(self, prompt: str, answer: Answer) -> None:
        body = {
            "model": self.config.model,
            "messages": [{"role": "user", "content": prompt}],
            "extra_body": dict(self.config.body),
        }
        await receive(self._client, body, answer)

    def _failure(self, trouble: Trouble) -> JudgeError:
        """Counts a failure; the endpoint may be given up for it."""
        said = " ".join(trouble.problem.split())
        if self._key:
            said = said.replace(self._key, "***")
        reason = said[:LONGEST_REASON_CHARS]
        self._in_a_row += 1
        if trouble.hopeless or self._in_a_row >= MOST_FAILURES:
            self._given_up = reason
        return JudgeError(reason)


def _text_of(answer: Answer) -> str:
    """Raises BadAnswerError where an answer holds no whole text."""
    text, finish = answer.read()
    if finish == "refused":
        raise BadAnswerError("the judge refused")
    if finish == "length":
        raise BadAnswerError("the answer is cut")
    return text
