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
    year: int | None
    month: int
    day: int | None
    weekday: str = ""
    unclear: bool = False
    """Written as 03/05/1990: month and day as they stand there."""


def date(text: str) -> Date | None:
    """The date that the whole text is."""
    if len(text) > 60 or not (re.search(r"\d", text) or _month(text.rstrip("."))):
        return None
    found = _WEEKDAY.match(text)
    weekday = found[1][:3].lower() if found else ""
    text = text[found.end() :] if found else text
    numeric = _NUMERIC.fullmatch(text)
    if numeric:
        return _of_numbers(int(numeric[1]), int(numeric[3]), int(numeric[4]), numeric[2], weekday)
    for pattern in _WRITTEN:
        found = pattern.fullmatch(text)
        if not found:
            continue
        parts = found.groupdict()
        month = int(parts["month"]) if parts["month"].isdigit() else _month(parts["month"])
        day = int(parts["day"]) if parts.get("day") else None
        if month is not None and _is_day(month, day):
            year = int(parts["year"]) if parts.get("year") else None
            return Date(year, month, day, weekday)
    return None


def same_date(given: Date, gold: Date) -> bool:
    """Days that are not clear are the same where they are written with the same numbers."""
    if given.weekday and gold.weekday and given.weekday != gold.weekday:
        return False
    one, other = (given.year, given.month, given.day), (gold.year, gold.month, gold.day)
    return one == other and given.unclear == gold.unclear


def seconds(text: str) -> int | None:
    """The seconds of a time of day, on a 24-hour clock unless it says am or pm."""
    if len(text) > 30:
        return None
    named = {"noon": 12 * 3600, "midday": 12 * 3600, "midnight": 0}.get(text.casefold())
    if named is not None:
        return named
    found = _CLOCK.fullmatch(text)
    if found is None or (found["minute"] is None and text.isdigit()):
        return None
    if found["minute"] is None and not (found["half"] or "clock" in text.casefold()):
        return None  # 5 h is as long as 5 hours
    if found["sep"] == "." and not found["half"]:
        return None
    hour = int(found["hour"])
    if found["half"]:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found["half"].lower() == "p" else 0)
    if hour > 24 or (hour == 24 and int(found["minute"] or 0)):
        return None
    return hour % 24 * 3600 + int(found["minute"] or 0) * 60 + int(found["second"] or 0)


def _of_numbers(first: int, second: int, year: int, sep: str, weekday: str) -> Date | None:
    """03/05/1990 may be either; 05.03.1990 has its day first, as has what cannot be a month."""
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
