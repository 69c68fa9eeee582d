"""Parses answers with several parts: lists, points, sets, intervals, ratios and ranges."""

import re
from dataclasses import dataclass, replace

from .numbers import grouped, parse_number
from .quantities import parse_quantity

LONGEST = 64  # items
_OPENING, _CLOSING = "([{", ")]}"
_JOINED = re.compile(r"\s*,?\s*(?:\\text\s*)?\b(?:and|or)\b\s*|\s+&\s+", re.IGNORECASE)
_NAMED = re.compile(r"\s*([A-Za-z](?:_?\{?\w\}?)?)\s*=\s*(?=[^=])")
_POINT = re.compile(r"([A-Z])\s*=?\s*(?=\()")
_NUMBERS = re.compile(r"[+-]?\d+(?:\.\d+)?(?:/\d+)?(?: +[+-]?\d+(?:\.\d+)?(?:/\d+)?)+")
_RATIO = re.compile(r"(\d+(?:\.\d+)?)\s*:\s*(\d+(?:\.\d+)?)(?:\s*:\s*(\d+(?:\.\d+)?))?")
_RANGE = re.compile(
    r"(?:from |between )?(?P<start>[^\s-](?:[^-]*?[^\s-])?)"
    r"(?P<sep>\s*-\s*|\s+(?:to|through|and)\s+)(?P<end>[^-]+)",
    re.IGNORECASE,
)
_PLUS_MINUS = re.compile(r"([^\u00b1]*)\u00b1([^\u00b1]+)")


@dataclass(frozen=True)
class Listing:
    """A list of answers."""

    items: tuple[str, ...]
    brackets: str = ""
    """The brackets around the list: "()", "[)", "{}"; empty for a list without brackets."""
    ordered: bool = True
    """The order of the items matters."""
    name: str = ""
    """The variable: "x" in "x = 1 or x = 2"."""


def parse_list(text: str) -> Listing | None:
    """Parses a text that is a list as a whole; None for any other text."""
    text = text.strip()
    point = _POINT.match(text)
    if point:
        coordinates = parse_list(text[point.end() :])
        return coordinates and replace(coordinates, name=point[1])
    plus_minus = _PLUS_MINUS.fullmatch(text)
    if plus_minus and "," not in text:
        left, right = plus_minus.groups()
        named = _NAMED.match(left)
        front = left[named.end() :] if named else left
        items = (front + "+" + right if front.strip() else right, f"{front}-{right}")
        return Listing(items, "", False, named[1] if named else "")
    plain = text.replace("\\{", "{").replace("\\}", "}")
    if plain[:1] + plain[-1:] in ("{}",) and _encloses(plain):
        items = _split(plain[1:-1])
        return Listing(items, "{}", False) if 0 < len(items) <= LONGEST else None
    if text[:1] in "([" and text[-1:] in ")]" and _encloses(text):
        items = _split(text[1:-1])
        return Listing(items, text[0] + text[-1]) if 1 < len(items) <= LONGEST else None
    if text[:1] == "|" and text[-1:] == "|" and "," in text and text.count("|") == 2:
        return Listing(_split(text[1:-1]), "()")
    return _parse_bare_list(plain)


def parse_ratio(text: str) -> tuple[str, ...] | None:
    """The parts of "3:4" or "1:2:3"; None for any other text."""
    match = _RATIO.fullmatch(text)
    return tuple(part for part in match.groups() if part) if match else None


def parse_range(text: str) -> tuple[str, str] | None:
    """The ends of "3-5", "3 to 5 cm", "from $3 to $5" or "between 3 and 5"; None for any other
    text."""
    if len(text) > 100 or not ("-" in text[1:] or " " in text):
        return None
    match = _RANGE.fullmatch(text)
    if match is None or ("and" in match["sep"] and not text.lower().startswith("between")):
        return None
    start, end = match["start"].strip(), match["end"].strip()
    first, last = parse_quantity(start), parse_quantity(end)
    if first is None or last is None or match["start"][0] in "-(":
        return None
    is_difference = match["sep"] == " - " and first.number.value >= last.number.value
    return None if is_difference else (start, end)


def _parse_bare_list(text: str) -> Listing | None:
    """Parses a list without brackets."""
    text = re.sub(r"^(?:either|both)\s+", "", text, flags=re.IGNORECASE)
    joined = len(_JOINED.split(text)) > 1
    items = [item for part in _JOINED.split(text) for item in _split(part)]
    if len(items) == 1 and _NUMBERS.fullmatch(text) and parse_number(text) is None:
        items = text.split()
    if not 1 < len(items) <= LONGEST or not all(items):
        return None
    names = [match[1] if (match := _NAMED.match(item)) else "" for item in items]
    if names[0] and len({name for name in names if name}) == 1:  # x = 1, x = 2; x = 1, 2
        values = [_NAMED.sub("", item, count=1) for item in items]
        return Listing(tuple(values), "", not (joined or all(names)), names[0])
    return Listing(tuple(items), "", not (joined or all(names)))


def _split(text: str) -> tuple[str, ...]:
    """Splits at semicolons, or else at commas outside of brackets. The comma of 1,000 does not
    split if all other commas have a space after them; a decimal comma does not split if semicolons
    separate the items."""
    for separators in (";", ", ", ","):
        items = at_top(text, separators)
        if len(items) == 1:
            continue
        if separators != ", " or all(
            "," not in item or grouped(item) or _inner(item) for item in items
        ):
            return tuple(items)
    whole = text.strip()
    return (whole,) if whole else ()


def _inner(item: str) -> bool:
    """Whether all commas of an item are inside brackets."""
    return len(at_top(item, ",")) == 1


def at_top(text: str, separator: str) -> list[str]:
    """Splits a text at the separators that are outside of brackets."""
    if separator not in text or (separator == "," and grouped(text.strip())):
        return [text.strip()]
    parts, depth, start = [], 0, 0
    for at, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth <= 0 and text.startswith(separator, at):
            parts.append(text[start:at].strip())
            start = at + len(separator)
    return [*parts, text[start:].strip()]


def _encloses(text: str) -> bool:
    """Whether the first bracket is closed by the last character and not before."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0:
            return at == len(text) - 1
    return False
