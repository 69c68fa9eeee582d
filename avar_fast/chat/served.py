"""Finds errors in the body of a reply, in the formats that servers and gateways use."""

import json
import re
from typing import Any

_MESSAGE_FIELDS = ("message", "msg", "detail", "error_msg", "error_message", "description", "error")
# HTTP status of errors that a body names without a number.
_STATUS_OF_NAME = {
    "invalid_request_error": 400,
    "invalid_argument": 400,
    "content_filter": 400,
    "context_length_exceeded": 400,
    "authentication_error": 401,
    "invalid_api_key": 401,
    "unauthenticated": 401,
    "insufficient_quota": 402,
    "billing_error": 402,
    "permission_error": 403,
    "permission_denied": 403,
    "model_not_found": 404,
    "not_found_error": 404,
    "not_found": 404,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "resource_exhausted": 429,
    "server_error": 500,
    "api_error": 500,
    "internal": 500,
    "overloaded_error": 503,
    "unavailable": 503,
}
_TAG = re.compile(r"<(script|style)\b.*?</\1>|<[^>]*>", re.DOTALL | re.IGNORECASE)


class ServedError(Exception):
    """A reply holds an error instead of an answer, although its HTTP status reports success."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status that corresponds to the error; None if the body does not tell."""
        self.headers: Any = {}
        """Headers of the reply."""


def served_error(body: Any) -> ServedError | None:
    """Finds the error in the parsed JSON of a reply; None if there is no error.

    Known formats: {"error": {"message", "code", "type", "status"}}, {"error": "..."}, a list with
    one of these, {"object": "error", "message"}, an error inside the first choice, and, in a body
    without choices, {"detail"}, {"message"}, {"msg"}, {"errors"}.
    """
    if isinstance(body, list):
        return served_error(body[0]) if body else None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    error_in_choice = first.get("error") if isinstance(first, dict) else None
    for error in (body.get("error"), error_in_choice):
        if error:
            return ServedError(_message(error), _status(error) or _status(body))
    if body.get("object") == "error" or ("choices" not in body and _has_message(body)):
        return ServedError(_message(body), _status(body))
    return None


def as_text(body: str) -> str:
    """The text of a plain or HTML body, without tags and line breaks."""
    return " ".join(_TAG.sub(" ", body).split())


def status_named(code: object) -> int | None:
    """The HTTP status of an error code such as 429, "429" or "rate_limit_exceeded"; None if the
    code is unknown."""
    if isinstance(code, str):
        code = int(code) if code.isdecimal() else _STATUS_OF_NAME.get(code.lower())
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _has_message(body: dict[str, Any]) -> bool:
    return any(body.get(name) for name in (*_MESSAGE_FIELDS, "errors"))


def _message(error: Any) -> str:
    if isinstance(error, dict):
        for name in _MESSAGE_FIELDS:
            text = error.get(name)
            if isinstance(text, str) and text.strip():
                return text
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def _status(error: Any) -> int | None:
    if not isinstance(error, dict):
        return None
    statuses = (status_named(error.get(name)) for name in ("code", "status", "type", "status_code"))
    return next((status for status in statuses if status is not None), None)
