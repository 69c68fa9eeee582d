"""What a failed attempt means: whether to try again, when, and whether anybody should."""

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
# A wait that an endpoint asks for beyond this is a quota, not a rate.
LONGEST_WAIT_S = 600.0
ERRORS = (openai.OpenAIError, BadAnswerError, ServedError, ValueError, RecursionError)
"""What an attempt may end with, time-outs of one's own apart."""


@dataclass(frozen=True)
class Trouble:
    """Why an attempt failed, and what follows from it."""

    problem: str
    retry: bool = True
    hopeless: bool = False
    """No request to the endpoint can succeed."""
    unreachable: bool = False
    """As hopeless, if retries do not help."""
    wait_s: float | None = None
    """What the endpoint asks to wait."""


def trouble_of(error: Exception) -> Trouble:
    """What one of ``ERRORS`` means."""
    if isinstance(error, openai.APIStatusError):
        served = _served(error.response.text)
        said = str(served or as_text(error.response.text) or error.response.reason_phrase)
        # A code of HTTP wins over the body's, but for a quota, which comes as 429.
        no_credit = served is not None and served.status == 402
        status = 402 if no_credit and error.status_code == 429 else error.status_code
        return _by_status(f"HTTP {error.status_code}", status, said, error.response.headers)
    if isinstance(error, ServedError):
        name = f"HTTP 200 with error {error.status}" if error.status else "HTTP 200 with an error"
        return _by_status(name, error.status, str(error), error.headers)
    if isinstance(error, openai.APIConnectionError):
        # What went wrong is in the cause; the error itself says no more than its name.
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


def _by_status(name: str, status: int | None, said: str, headers: Any) -> Trouble:
    trouble = Trouble(
        f"{name}: {said.rstrip('. ')}. {HOPELESS.get(status or 0, '')}".rstrip(),
        retry=status is None or status in RETRIED or status >= 500,
        hopeless=status in HOPELESS,
        wait_s=asked_wait_s(headers),
    )
    if trouble.wait_s is None or trouble.wait_s <= LONGEST_WAIT_S:
        return trouble
    asked = f"{trouble.problem} It asks to wait {trouble.wait_s:.0f} s."
    return replace(trouble, problem=asked, retry=False, wait_s=None)


def _served(text: str) -> ServedError | None:
    try:
        return served_error(json.loads(text))
    except (ValueError, RecursionError):
        return None
