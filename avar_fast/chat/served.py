"""Errors in the body of a reply, in the shapes that servers and gateways give them."""

import json
import re
from typing import Any

_MESSAGE_FIELDS = ("message", "msg", "detail", "error_msg", "error_message", "description", "error")
# Where a body names an error but not by number: the number that it would have.
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
    """An error in place of an answer, under a status that says all is well."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status that it amounts to, where it says."""
        self.headers: Any = {}


def served_error(body: Any) -> ServedError | None:
    """The error that a body of JSON holds, None where it holds none.

    Known shapes: {"error": {"message", "code", "type", "status"}}, {"error": "..."}, a list of one
    of these, {"object": "error", "message"}, an error inside the first choice, and, where there are
    no choices, {"detail"}, {"message"}, {"msg"}, {"errors"}.
    """
    if isinstance(body, list):
        return served_error(body[0]) if body else None
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    inside = first.get("error") if isinstance(first, dict) else None
    for error in (body.get("error"), inside):
        if error:
            return ServedError(_message(error), _status(error) or _status(body))
    if body.get("object") == "error" or ("choices" not in body and _speaks(body)):
        return ServedError(_message(body), _status(body))
    return None


def as_text(body: str) -> str:
    """What a page or a text says, without tags."""
    return " ".join(_TAG.sub(" ", body).split())


def status_named(code: object) -> int | None:
    """The HTTP status that a code amounts to: 429, "429" or "rate_limit_exceeded"."""
    if isinstance(code, str):
        code = int(code) if code.isdecimal() else _STATUS_OF_NAME.get(code.lower())
    return code if isinstance(code, int) and 400 <= code < 600 else None


def _speaks(body: dict[str, Any]) -> bool:
    return any(body.get(name) for name in (*_MESSAGE_FIELDS, "errors"))


def _message(error: Any) -> str:
    if isinstance(error, dict):
        for name in _MESSAGE_FIELDS:
            said = error.get(name)
            if isinstance(said, str) and said.strip():
                return said
    return error if isinstance(error, str) else json.dumps(error, ensure_ascii=False)


def _status(error: Any) -> int | None:
    if not isinstance(error, dict):
        return None
    named = (status_named(error.get(name)) for name in ("code", "status", "type", "status_code"))
    return next((status for status in named if status is not None), None)
