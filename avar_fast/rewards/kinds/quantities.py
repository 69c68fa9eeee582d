"""Parses and compares quantities: numbers with a unit, a currency, a percent sign, or nothing."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .numbers import (
    Number,
    parse_leading_number,
    parse_number,
    rounds_to_other,
    same_number,
    without_brackets,
)
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
DECADE = re.compile(r"\d{1,3}0'?s")  # the s of 1990s does not mean seconds
TURN = re.compile(r"sin|cos|tan|cot|sec|csc")  # functions of an angle
_SIZE = re.compile(
    r"\s+(?:long|wide|high|tall|deep|thick|away|old|in (?:total|all|length|height|width))$|^of\s+",
    re.IGNORECASE,
)
_THINGS = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*(?: [^\W\d_]+(?:['-][^\W\d_]+)*){0,2}")
_GREEK = re.compile("[\u0370-\u03ff]")  # constants and variables
# Words after a number that are no unknown unit: they change the meaning of the number.
_CONNECTING = (
    "or and to of in on at by per plus minus times over squared cubed half out less more than not"
    " but no e pi i x y z st nd rd th am pm bc ad mod choose"
)
_NO_THINGS = frozenset(_CONNECTING.split())


@dataclass(frozen=True)
class Quantity:
    """A number and its unit."""

    number: Number
    units: tuple[Unit, ...] = ()
    """The possible meanings of its unit; empty if the unit is missing or unknown."""
    things: str = ""
    """An unknown unit, in lower case: "apples"."""
    percent: bool = False
    together: bool = False
    """It is written in several units: 5 ft 10 in."""

    @property
    def plain(self) -> bool:
        """Whether it is just a number."""
        return not (self.units or self.things or self.percent)


def parse_quantity(text: str) -> Quantity | None:
    """Parses a text that is a quantity as a whole; None for any other text."""
    number = parse_number(text)
    if number is not None:
        return Quantity(number)
    if DECADE.fullmatch(text):
        return None
    text = without_brackets(text)
    sign, units, things = Fraction(1), (), ""
    money = _CURRENCY.match(text)
    if money:
        sign = Fraction(-1 if money[1] == "-" else 1)
        units = units_of(money[2].rstrip(".").replace("rs", "Rs"))
        text = text[money.end() :]
    leading = parse_leading_number(text) or _parse_leading_words(text)
    if leading is None:
        return None
    value, rest = leading[0].times(sign), text[leading[1] :]
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
    """Whether two quantities are the same.

    A quantity without a unit takes the unit of the other. It also takes the other's percent sign,
    unless the reference is below one: then 0.5 equals 50 %.

    Args:
        given: quantity of the answer.
        gold: quantity of the reference.
        same: compares two numbers in the same unit.
    """
    a, b = given.number, gold.number
    if given.percent != gold.percent:
        as_share = Fraction(1, 100)
        if gold.percent:
            return given.plain and (same(a, b) or same(a, b.times(as_share)))
        bare = same(a, b) and abs(b.value) >= 1
        return gold.plain and (bare or same(a.times(as_share), b))
    if given.things or gold.things:
        given_thing, gold_thing = _singular(given.things), _singular(gold.things)
        ends = given_thing.endswith(gold_thing) or gold_thing.endswith(given_thing)
        if given_thing and gold_thing and not ends:
            return False
        return not (given.units or gold.units) and same(a, b)
    if not given.units or not gold.units:
        return not (given.together or gold.together) and same(a, b)
    for given_unit in given.units:
        for gold_unit in gold.units:
            pair = a.times(given_unit.size), b.times(gold_unit.size)
            if given_unit.kind == gold_unit.kind and (
                same(*pair) or (given_unit.size != gold_unit.size and rounds_to_other(*pair))
            ):
                return True
    return False


def unit_behind(text: str) -> tuple[str, tuple[Unit, ...]]:
    """Splits a text such as "2\\sqrt{3} cm" into an expression and the known unit after it."""
    match = re.fullmatch(
        r"(.*[\d)}\u03c0\u221e])\s*(%|[^\d\s{}()=<>][^={}()<>]*(?:\^\{?\d\}?)?)", text
    )
    if not match or (match[2] == "\u00b0" and TURN.search(text)):
        return text, ()
    units = units_of(match[2]) if match[2][0] not in "+-*/^" else ()
    return (match[1].strip(), units) if units or is_no_unit(match[2]) else (text, ())


def _parse_leading_words(text: str) -> tuple[Number, int] | None:
    """The number that the first words of a text spell, and the index of their end."""
    ends = [match.start() for match in re.finditer(" ", text[:60])]
    for end in reversed(ends):
        number = parse_number(text[:end])
        if number is not None:
            return number, end
    return None


def _scaled(value: Number, rest: str, money: bool) -> tuple[Number, str]:
    """Applies a scale word after a number ("3 million", and "$3M" if it is money); returns the
    number and the rest of the text."""
    match = _SCALE.match(rest)
    if match and (match[1] != "K"):
        return value.times(Fraction(_SCALES[match[1].lower()])), rest[match.end() :]
    if money and (short := re.match(r"\s*([KMB])(?![A-Za-z])", rest)):
        factor = {"K": 10**3, "M": 10**6, "B": 10**9}[short[1]]
        return value.times(Fraction(factor)), rest[short.end() :]
    return value, rest


def _together(text: str) -> Quantity | None:
    """The sum of parts in several units of one kind, larger units first: 5 ft 10 in, 1 hour and 30
    minutes."""
    total, last, at = Fraction(0), None, 0
    while at < len(text):
        leading = parse_leading_number(text[at:])
        name = None
        if leading:
            name = re.match(r"\s*([^\W\d_]+)[\s,]*(?:and\s+)?", text[at + leading[1] :])
        units = units_of(name[1]) if name else ()
        if leading is None or name is None or not units:
            return None
        if last and (units[0].kind != last.kind or units[0].size >= last.size):
            return None
        total += leading[0].value * units[0].size
        last, at = units[0], at + leading[1] + name.end()
    return Quantity(Number(total), (Unit(Fraction(1), last.kind),), together=True) if last else None


def _things(text: str) -> str:
    """The text in lower case if it can be an unknown unit, else an empty text."""
    text = text.strip()
    possible = _THINGS.fullmatch(text) and not _NO_THINGS & set(text.casefold().split())
    return text.casefold() if possible and not _GREEK.search(text) else ""


def _singular(things: str) -> str:
    """Words without the plural s."""
    return " ".join(word.removesuffix("s") for word in things.split())
