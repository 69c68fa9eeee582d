"""Numbers with what they count: a unit, a currency, percent, or nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .numbers import Number, leading_number, number, rounds_to_other, same_number, without_brackets
from .units import Unit, is_no_unit, units_of

_SCALES = {
    "hundred": 100, "thousand": 10**3, "k": 10**3, "million": 10**6, "mn": 10**6, "billion": 10**9,
    "bn": 10**9, "trillion": 10**12, "dozen": 12, "lakh": 10**5, "crore": 10**7, "\u4e07": 10**4,
    "\u4ebf": 10**8,
}  # fmt: skip
_SCALE = re.compile(rf"\s*({'|'.join(_SCALES)})(?![A-Za-z])", re.IGNORECASE)
_CURRENCY = re.compile(
    r"([+-]?)\s*(US\$|USD|EUR|GBP|JPY|CNY|INR|RMB|Rs\.?|[$\u20ac\u00a3\u00a5\u20b9\u20a9])\s*(?=[-+.\d])",
    re.IGNORECASE,
)
_PERCENT = re.compile(r"\s*(?:%|per ?cent\b|pct\b|percentage points?\b)", re.IGNORECASE)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b", re.IGNORECASE)
DECADE = re.compile(r"\d{1,3}0'?s")  # 1990s are no seconds
TURN = re.compile(r"sin|cos|tan|cot|sec|csc")  # what takes degrees
_SIZE = re.compile(
    r"\s+(?:long|wide|high|tall|deep|thick|away|old|in (?:total|all|length|height|width))$|^of\s+",
    re.IGNORECASE,
)
_THINGS = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*(?: [^\W\d_]+(?:['-][^\W\d_]+)*){0,2}")
_GREEK = re.compile("[\u0370-\u03ff]")  # constants and variables
# Words behind a number that make another thing of it.
_CONNECTING = (
    "or and to of in on at by per plus minus times over squared cubed half out less more than not"
    " but no e pi i x y z st nd rd th am pm bc ad mod choose"
)
_NO_THINGS = frozenset(_CONNECTING.split())


@dataclass(frozen=True)
class Quantity:
    number: Number
    units: tuple[Unit, ...] = ()
    """What its unit may mean; none where it has none, or one that is not known."""
    things: str = ""
    """An unknown unit, in lower case."""
    percent: bool = False
    together: bool = False
    """It is written in several units: 5 ft 10 in."""

    @property
    def plain(self) -> bool:
        return not (self.units or self.things or self.percent)


def quantity(text: str) -> Quantity | None:
    """The quantity that the whole text is; None for any other text."""
    lone = number(text)
    if lone is not None:
        return Quantity(lone)
    if DECADE.fullmatch(text):
        return None
    text = without_brackets(text)
    sign, units, things = Fraction(1), (), ""
    money = _CURRENCY.match(text)
    if money:
        sign = Fraction(-1 if money[1] == "-" else 1)
        units = units_of(money[2].rstrip(".").replace("rs", "Rs"))
        text = text[money.end() :]
    found = leading_number(text) or _leading_name(text)
    if found is None:
        return None
    value, rest = found[0].times(sign), text[found[1] :]
    value, rest = _scaled(value, rest, bool(money))
    percent = _PERCENT.match(rest)
    if percent:
        rest = rest[percent.end() :]
    attached = rest[:1].isalpha() and rest[:1].isascii()
    rest = _SIZE.sub("", _ORDINAL.sub("", rest, count=1) if attached else rest)
    rest = re.sub(r"^-(?=\w)", "", rest.strip())  # 5-cm
    if percent or not rest or is_no_unit(rest):
        if rest and percent and not _things(rest):
            return None
        return Quantity(value, units, percent=percent is not None)
    if money:
        same = set(units_of(rest)) & set(units)
        return Quantity(value, units) if same else None
    units = units_of(rest)
    if units:
        return Quantity(value, units)
    together = _together(text)
    if together is not None:
        return together
    things = _things(rest)
    if not things or attached:
        return None
    return Quantity(value, things=things)


def same_quantity(
    given: Quantity, gold: Quantity, same: Callable[[Number, Number], bool] = same_number
) -> bool:
    """A unit that one of them lacks is taken to be the other's; a percent sign too, unless the
    reference is below one, where 0.5 is 50 %.

    Args:
        given: the answer's.
        gold: the reference's.
        same: compares the numbers, in the same unit.
    """
    a, b = given.number, gold.number
    if given.percent != gold.percent:
        as_share = Fraction(1, 100)
        if gold.percent:
            return given.plain and (same(a, b) or same(a, b.times(as_share)))
        bare = same(a, b) and abs(b.value) >= 1
        return gold.plain and (bare or same(a.times(as_share), b))
    if given.things or gold.things:
        one, other = _single(given.things), _single(gold.things)
        if one and other and not (one.endswith(other) or other.endswith(one)):
            return False
        return not (given.units or gold.units) and same(a, b)
    if not given.units or not gold.units:
        return not (given.together or gold.together) and same(a, b)
    for one in given.units:
        for other in gold.units:
            pair = a.times(one.size), b.times(other.size)
            if one.kind == other.kind and (
                same(*pair) or (one.size != other.size and rounds_to_other(*pair))
            ):
                return True
    return False


def unit_behind(text: str) -> tuple[str, tuple[Unit, ...]]:
    """An expression and the known unit behind it: "2\\sqrt{3} cm"."""
    found = re.fullmatch(
        r"(.*[\d)}\u03c0\u221e])\s*(%|[^\d\s{}()=<>][^={}()<>]*(?:\^\{?\d\}?)?)", text
    )
    if not found or (found[2] == "\u00b0" and TURN.search(text)):
        return text, ()
    units = units_of(found[2]) if found[2][0] not in "+-*/^" else ()
    return (found[1].strip(), units) if units or is_no_unit(found[2]) else (text, ())


def _leading_name(text: str) -> tuple[Number, int] | None:
    """The number that the first words of a text name, and where they end."""
    ends = [found.start() for found in re.finditer(" ", text[:60])]
    for end in reversed(ends):
        named = number(text[:end])
        if named is not None:
            return named, end
    return None


def _scaled(value: Number, rest: str, money: bool) -> tuple[Number, str]:
    found = _SCALE.match(rest)
    if found and (found[1] != "K"):
        return value.times(Fraction(_SCALES[found[1].lower()])), rest[found.end() :]
    if money and (short := re.match(r"\s*([KMB])(?![A-Za-z])", rest)):
        factor = {"K": 10**3, "M": 10**6, "B": 10**9}[short[1]]
        return value.times(Fraction(factor)), rest[short.end() :]
    return value, rest


def _together(text: str) -> Quantity | None:
    """The sum of parts of one kind, the larger units first: 5 ft 10 in, 1 hour and 30 minutes."""
    total, last, at = Fraction(0), None, 0
    while at < len(text):
        found = leading_number(text[at:])
        name = (
            re.match(r"\s*([^\W\d_]+)[\s,]*(?:and\s+)?", text[at + found[1] :]) if found else None
        )
        units = units_of(name[1]) if name else ()
        if found is None or name is None or not units:
            return None
        if last and (units[0].kind != last.kind or units[0].size >= last.size):
            return None
        total += found[0].value * units[0].size
        last, at = units[0], at + found[1] + name.end()
    return Quantity(Number(total), (Unit(Fraction(1), last.kind),), together=True) if last else None


def _things(text: str) -> str:
    text = text.strip()
    known = _THINGS.fullmatch(text) and not _NO_THINGS & set(text.casefold().split())
    return text.casefold() if known and not _GREEK.search(text) else ""


def _single(things: str) -> str:
    """Without the plural."""
    return " ".join(word.removesuffix("s") for word in things.split())
