"""Lists, points, sets, intervals, ratios and ranges: several answers in one, not yet compared."""

import re
from dataclasses import dataclass, replace

from .numbers import grouped, number
from .quantities import quantity

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
    items: tuple[str, ...]
    brackets: str = ""
    """Those around it: "()", "[)", "{}"; none around a bare list."""
    ordered: bool = True
    name: str = ""
    """Of "x = 1 or x = 2"."""


def listing(text: str) -> Listing | None:
    """The list that the whole text is; None for any other text."""
    text = text.strip()
    point = _POINT.match(text)
    if point:
        found = listing(text[point.end() :])
        return found and replace(found, name=point[1])
    both = _PLUS_MINUS.fullmatch(text)
    if both and "," not in text:
        named = _NAMED.match(both[1])
        front = both[1][named.end() :] if named else both[1]
        items = (front + "+" + both[2] if front.strip() else both[2], f"{front}-{both[2]}")
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
    return _bare(plain)


def ratio(text: str) -> tuple[str, ...] | None:
    """The parts of "3:4" or "1:2:3"."""
    found = _RATIO.fullmatch(text)
    return tuple(part for part in found.groups() if part) if found else None


def span(text: str) -> tuple[str, str] | None:
    """The ends of "3-5", "3 to 5 cm", "from $3 to $5", "between 3 and 5"."""
    if len(text) > 100 or not ("-" in text[1:] or " " in text):
        return None
    found = _RANGE.fullmatch(text)
    if found is None or ("and" in found["sep"] and not text.lower().startswith("between")):
        return None
    ends = quantity(found["start"].strip()), quantity(found["end"].strip())
    if ends[0] is None or ends[1] is None or found["start"][0] in "-(":
        return None
    subtracted = found["sep"] == " - " and ends[0].number.value >= ends[1].number.value
    return None if subtracted else (found["start"].strip(), found["end"].strip())


def _bare(text: str) -> Listing | None:
    text = re.sub(r"^(?:either|both)\s+", "", text, flags=re.IGNORECASE)
    joined = len(_JOINED.split(text)) > 1
    items = [item for part in _JOINED.split(text) for item in _split(part)]
    if len(items) == 1 and _NUMBERS.fullmatch(text) and number(text) is None:
        items = text.split()
    if not 1 < len(items) <= LONGEST or not all(items):
        return None
    names = [found[1] if (found := _NAMED.match(item)) else "" for item in items]
    if names[0] and len({name for name in names if name}) == 1:  # x = 1, x = 2; x = 1, 2
        bare = [_NAMED.sub("", item, count=1) for item in items]
        return Listing(tuple(bare), "", not (joined or all(names)), names[0])
    return Listing(tuple(items), "", not (joined or all(names)))


def _split(text: str) -> tuple[str, ...]:
    """At semicolons, or else at commas outside of brackets; those of 1,000 stay where all others
    have a space behind them, and decimal commas where items are kept apart by semicolons."""
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
    """Whether the commas of an item all stand in brackets."""
    return len(at_top(item, ",")) == 1


def at_top(text: str, separator: str) -> list[str]:
    """The parts of a text between the separators that stand in no brackets."""
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
    """Whether the first bracket is closed by the last character alone."""
    depth = 0
    for at, char in enumerate(text):
        depth += (char in _OPENING) - (char in _CLOSING)
        if depth == 0:
            return at == len(text) - 1
    return False
