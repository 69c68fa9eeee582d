"""Classifies a failed attempt: whether a retry may help, when, and whether the endpoint is
usable at all."""

import json
from dataclasses import dataclass, replace
from typing import Any

import httpx2  # the HTTP library of openai
import openai

from .answer import BadAnswerError
from .retry_after import asked_wait_s
from .served import ServedError, as_text, served_error

RETRIED = (408, 409, 425, 429)
HOPELESS = {
    401: "Check key_env and the key.",
    402: "Check the account's credit.",
    403: "Check key_env, the key and what it may use.",
    404: "Check model, and that base_url goes as far as /v1.",
}
# An endpoint that asks for a longer wait enforces a quota and not a rate limit.
LONGEST_WAIT_S = 600.0
ERRORS = (openai.OpenAIError, BadAnswerError, ServedError, ValueError, RecursionError)
"""Exceptions that an attempt may raise, besides the client's own time-outs."""


@dataclass(frozen=True)
class Trouble:
    """Why an attempt failed, and what the client should do about it."""

    problem: str
    """Description for messages."""
    retry: bool = True
    """Whether another attempt may succeed."""
    hopeless: bool = False
    """Whether no request to the endpoint can succeed."""
    unreachable: bool = False
    """Whether the endpoint could not be reached. It is hopeless if retries do not help."""
    wait_s: float | None = None
    """Seconds that the endpoint asks to wait; None if it does not ask."""


def trouble_of(error: Exception) -> Trouble:
    """Classifies one of ``ERRORS``."""
    if isinstance(error, openai.APIStatusError):
        served = _served(error.response.text)
        message = str(served or as_text(error.response.text) or error.response.reason_phrase)
        # The HTTP status takes precedence over the code in the body. The exception is a used-up
        # quota, which is sent with status 429.
        no_credit = served is not None and served.status == 402
        status = 402 if no_credit and error.status_code == 429 else error.status_code
        return _by_status(f"HTTP {error.status_code}", status, message, error.response.headers)
    if isinstance(error, ServedError):
        name = f"HTTP 200 with error {error.status}" if error.status else "HTTP 200 with an error"
        return _by_status(name, error.status, str(error), error.headers)
    if isinstance(error, openai.APIConnectionError):
        # The cause holds the reason. The message of the error itself says nothing useful.
        cause = error.__cause__ or error
        unreachable = isinstance(cause, httpx2.ConnectError)
        return Trouble(f"connection: {cause or type(cause).__name__}", unreachable=unreachable)
    if isinstance(error, BadAnswerError):
        return Trouble(str(error), retry=error.retry)
    if isinstance(error, RecursionError):
        return Trouble("the answer is malformed: JSON nested without end")
    if isinstance(error, json.JSONDecodeError):
        return Trouble("the answer is not JSON")
    return Trouble(str(error) or type(error).__name__)


def _by_status(name: str, status: int | None, message: str, headers: Any) -> Trouble:
    trouble = Trouble(
        f"{name}: {message.rstrip('. ')}. {HOPELESS.get(status or 0, '')}".rstrip(),
        retry=status is None or status in RETRIED or status >= 500,
        hopeless=status in HOPELESS,
        wait_s=asked_wait_s(headers),
    )
    if trouble.wait_s is None or trouble.wait_s <= LONGEST_WAIT_S:
        return trouble
    problem = f"{trouble.problem} It asks to wait {trouble.wait_s:.0f} s."
    return replace(trouble, problem=problem, retry=False, wait_s=None)


def _served(text: str) -> ServedError | None:
    try:
        return served_error(json.loads(text))
    except (ValueError, RecursionError):
        return None
