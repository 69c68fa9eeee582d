"""Reads from response headers how long an endpoint asks clients to wait."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_SPAN_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
# A plain number this large is a time since 1970 and not a duration: in seconds or milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12
_LIMITS = ("", "-requests", "-tokens")


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that an endpoint asks the client to wait before the next request; None if the headers
    ask for no wait or the time has passed.

    The headers are read in this order: ``retry-after-ms``; ``retry-after`` in seconds or as a date;
    ``x-ratelimit-reset`` of a limit that is used up. A date is compared with the ``date`` header of
    the same response, because the endpoint's clock may differ from this machine's.
    """
    now = _moment(headers.get("date", "")) or time.time()
    waits = [_number(headers.get("retry-after-ms", ""))]
    waits[0] = None if waits[0] is None else waits[0] / 1000
    retry_after = headers.get("retry-after", "")
    waits += [_number(retry_after), _until(_moment(retry_after), now), _reset(headers, now)]
    wait = next((wait for wait in waits if wait is not None), None)
    return wait if wait is not None and wait > 0 else None


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds until every limit that is used up has been reset; None if no limit is used up."""
    waits = []
    for limit in _LIMITS:
        for prefix in ("x-ratelimit", "ratelimit"):
            reset = headers.get(f"{prefix}-reset{limit}")
            remaining = _number(headers.get(f"{prefix}-remaining{limit}", ""))
            if reset is not None and remaining is not None and remaining <= 0:
                waits.append(_span(reset.strip(), now))
    return max((wait for wait in waits if wait is not None), default=None)


def _span(text: str, now: float) -> float | None:
    """Seconds from now of "6m0s", "120ms", "1.5", a time since 1970 or a date."""
    seconds = _number(text)
    if seconds is not None:
        if seconds >= _EPOCH_MS:
            return seconds / 1000 - now
        return seconds - now if seconds >= _EPOCH_S else seconds
    if _SPAN.fullmatch(text):
        return sum(float(number) * _UNITS_S[unit] for number, unit in _SPAN_PART.findall(text))
    return _until(_moment(text), now)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if number == number else None


def _moment(text: str) -> float | None:
    """Seconds since 1970 of a date in HTTP or ISO 8601 format; None if the text is no date."""
    for parse in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            date = parse(text)
            return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _until(moment: float | None, now: float) -> float | None:
    return None if moment is None else moment - now
