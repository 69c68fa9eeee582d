"""Dates and times of day."""

import re
from dataclasses import dataclass

_MONTHS = "january february march april may june july august september october november december"
_DAYS = "monday tuesday wednesday thursday friday saturday sunday"
_NAME = r"(?P<month>[A-Za-z]{3,9})\.?"
_YEAR = r"(?P<year>\d{4})"
_DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_WRITTEN = tuple(
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        rf"(?:the )?{_DAY}(?: of)?[ -]{_NAME}(?:,?[ -]{_YEAR})?",
        rf"{_NAME}[ -](?:the )?{_DAY}(?:,? {_YEAR})?",
        rf"{_NAME},? {_YEAR}",
        rf"{_NAME}",
        rf"{_YEAR}[ ,]+{_NAME} {_DAY}",
        r"(?P<year>\d{4})(?P<sep>[-/.])(?P<month>\d{1,2})(?P=sep)(?P<day>\d{1,2})",
        r"(?P<year>\d{4})-(?P<month>0[1-9]|1[0-2])",
        "(?P<year>\\d{4})\\s*\u5e74\\s*(?P<month>\\d{1,2})\\s*\u6708\\s*(?P<day>\\d{1,2})\\s*\u65e5",
    )
)
_NUMERIC = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4}|\d{2})")
_WEEKDAY = re.compile(
    rf"(?:on\s+)?({'|'.join(f'{d[:3]}(?:{d[3:]})?' for d in _DAYS.split())})\.?,?\s+", re.IGNORECASE
)
_CLOCK = re.compile(
    r"(?:at\s+)?(?P<hour>\d{1,2})(?:(?:(?P<sep>[:h.])|\s*:\s*)(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?)?"
    r"\s*(?:(?P<half>[ap])\.?\s?m\.?|o'?\s?clock|h|hours)?",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Date:
    """A date, or a month."""

    year: int | None
    month: int
    day: int | None
    weekday: str = ""
    unclear: bool = False
    """Month and day are ambiguous, as in 03/05/1990; they are stored in the order of the text."""


def parse_date(text: str) -> Date | None:
    """Parses a text that is a date as a whole; None for any other text."""
    if len(text) > 60 or not (re.search(r"\d", text) or _month(text.rstrip("."))):
        return None
    match = _WEEKDAY.match(text)
    weekday = match[1][:3].lower() if match else ""
    text = text[match.end() :] if match else text
    numeric = _NUMERIC.fullmatch(text)
    if numeric:
        return _from_numbers(int(numeric[1]), int(numeric[3]), int(numeric[4]), numeric[2], weekday)
    for pattern in _WRITTEN:
        match = pattern.fullmatch(text)
        if not match:
            continue
        parts = match.groupdict()
        month = int(parts["month"]) if parts["month"].isdigit() else _month(parts["month"])
        day = int(parts["day"]) if parts.get("day") else None
        if month is not None and _is_day(month, day):
            year = int(parts["year"]) if parts.get("year") else None
            return Date(year, month, day, weekday)
    return None


def same_date(given: Date, gold: Date) -> bool:
    """Whether two dates are the same. Ambiguous dates are the same if their numbers are."""
    if given.weekday and gold.weekday and given.weekday != gold.weekday:
        return False
    same_day = (given.year, given.month, given.day) == (gold.year, gold.month, gold.day)
    return same_day and given.unclear == gold.unclear


def parse_clock(text: str) -> int | None:
    """Parses a time of day to seconds after midnight, on a 24-hour clock unless it says am or pm;
    None for any other text."""
    if len(text) > 30:
        return None
    named = {"noon": 12 * 3600, "midday": 12 * 3600, "midnight": 0}.get(text.casefold())
    if named is not None:
        return named
    match = _CLOCK.fullmatch(text)
    if match is None or (match["minute"] is None and text.isdigit()):
        return None
    if match["minute"] is None and not (match["half"] or "clock" in text.casefold()):
        return None  # 5 h is a duration
    if match["sep"] == "." and not match["half"]:
        return None
    hour = int(match["hour"])
    if match["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if match["half"].lower() == "p" else 0)
    if hour > 24 or (hour == 24 and int(match["minute"] or 0)):
        return None
    return hour % 24 * 3600 + int(match["minute"] or 0) * 60 + int(match["second"] or 0)


def _from_numbers(first: int, second: int, year: int, sep: str, weekday: str) -> Date | None:
    """The date of three numbers. 03/05/1990 is ambiguous. The day comes first in 05.03.1990, and if
    the first number cannot be a month."""
    if sep == "." or (first > 12 and second <= 12):
        first, second = second, first
        unclear = False
    else:
        unclear = second <= 12 and first != second
    return Date(year, first, second, weekday, unclear) if _is_day(first, second) else None


def _month(name: str) -> int | None:
    name = name.lower()
    for number, month in enumerate(_MONTHS.split(), start=1):
        if name == month or name == month[:3] or (name == "sept" and month == "september"):
            return number
    return None


def _is_day(month: int, day: int | None) -> bool:
    if not 1 <= month <= 12:
        return False
    return day is None or 1 <= day <= (30 if month in (4, 6, 9, 11) else 29 if month == 2 else 31)
