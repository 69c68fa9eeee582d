"""How long an endpoint asks to wait."""

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SPAN = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d))+")
_SPAN_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
# A bare number so large is a moment since 1970 rather than a span: in seconds, or milliseconds.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12
_LIMITS = ("", "-requests", "-tokens")


def asked_wait_s(headers: Mapping[str, str]) -> float | None:
    """Seconds from now until which an endpoint asks not to be asked; None where it does not say, or
    where the moment has passed.

    Read in this order: ``retry-after-ms``; ``retry-after`` in seconds or as a date; the
    ``x-ratelimit-reset`` of a limit of which nothing remains. A date counts from the ``date`` that
    the endpoint gives itself, so that it may have another clock.
    """
    now = _moment(headers.get("date", "")) or time.time()
    waits = [_number(headers.get("retry-after-ms", ""))]
    waits[0] = None if waits[0] is None else waits[0] / 1000
    said = headers.get("retry-after", "")
    waits += [_number(said), _until(_moment(said), now), _reset(headers, now)]
    found = next((wait for wait in waits if wait is not None), None)
    return found if found is not None and found > 0 else None


def _reset(headers: Mapping[str, str], now: float) -> float | None:
    """Until every limit that is used up starts anew."""
    waits = []
    for limit in _LIMITS:
        for prefix in ("x-ratelimit", "ratelimit"):
            said = headers.get(f"{prefix}-reset{limit}")
            remaining = _number(headers.get(f"{prefix}-remaining{limit}", ""))
            if said is not None and remaining is not None and remaining <= 0:
                waits.append(_span(said.strip(), now))
    return max((wait for wait in waits if wait is not None), default=None)


def _span(said: str, now: float) -> float | None:
    """ "6m0s", "120ms", "1.5", a moment since 1970, or a date."""
    number = _number(said)
    if number is not None:
        if number >= _EPOCH_MS:
            return number / 1000 - now
        return number - now if number >= _EPOCH_S else number
    if _SPAN.fullmatch(said):
        return sum(float(n) * _UNITS_S[unit] for n, unit in _SPAN_PART.findall(said))
    return _until(_moment(said), now)


def _number(said: str) -> float | None:
    try:
        number = float(said)
    except ValueError:
        return None
    return number if number == number else None


def _moment(said: str) -> float | None:
    """Seconds since 1970 of a date as HTTP has it, or as ISO 8601 has it."""
    for read in (parsedate_to_datetime, datetime.fromisoformat):
        try:
            found = read(said)
            return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
        except (ValueError, TypeError, IndexError, OverflowError):
            continue
    return None


def _until(moment: float | None, now: float) -> float | None:
    return None if moment is None else moment - now
