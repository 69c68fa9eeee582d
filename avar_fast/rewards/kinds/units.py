"""Units with their dimensions and exact sizes."""

import functools
import re
from dataclasses import dataclass
from fractions import Fraction

_PREFIXES = {
    "f": "1e-15", "p": "1e-12", "n": "1e-9", "u": "1e-6", "\u03bc": "1e-6", "m": "1e-3",
    "c": "1e-2", "d": "1e-1", "h": "1e2", "k": "1e3", "M": "1e6", "G": "1e9", "T": "1e12",
}  # fmt: skip
_LONG_PREFIXES = {
    "nano": "1e-9", "micro": "1e-6", "milli": "1e-3", "centi": "1e-2", "deci": "1e-1",
    "hecto": "1e2", "kilo": "1e3", "mega": "1e6", "giga": "1e9", "tera": "1e12",
}  # fmt: skip
# Units that take a prefix: symbol, names, size, dimensions.
_METRIC = (
    ("m", "metre meter", "1", "m"), ("g", "gram gramme", "1", "g"), ("s", "second sec", "1", "s"),
    ("A", "ampere amp", "1", "A"), ("K", "kelvin", "1", "K"), ("mol", "mole", "1", "mol"),
    ("L", "litre liter", "1e-3", "m3"), ("l", "", "1e-3", "m3"), ("Hz", "hertz", "1", "s-1"),
    ("N", "newton", "1e3", "g m s-2"), ("J", "joule", "1e3", "g m2 s-2"),
    ("W", "watt", "1e3", "g m2 s-3"), ("Pa", "pascal", "1e3", "g m-1 s-2"),
    ("C", "coulomb", "1", "A s"), ("V", "volt", "1e3", "g m2 s-3 A-1"),
    ("\u03a9", "ohm", "1e3", "g m2 s-3 A-2"), ("F", "farad", "1e-3", "g-1 m-2 s4 A2"),
    ("T", "tesla", "1e3", "g s-2 A-1"), ("Wb", "weber", "1e3", "g m2 s-2 A-1"),
    ("eV", "electronvolt", "1.602176634e-16", "g m2 s-2"), ("cal", "calorie", "4184", "g m2 s-2"),
    ("M", "", "1e3", "mol m-3"), ("bar", "", "1e8", "g m-1 s-2"), ("lm", "lumen", "1", "lm"),
    ("B", "byte", "1", "byte"), ("", "bit", "1", "bit"),
)  # fmt: skip
_OTHERS = (
    ("min mins minute", "60", "s"), ("h hr hrs hour", "3600", "s"), ("day", "86400", "s"),
    ("week wk", "604800", "s"), ("month mo", "1", "month"), ("year yr yrs", "12", "month"),
    ("inch in inches \"", "0.0254", "m"), ("foot ft feet '", "0.3048", "m"),
    ("yard yd", "0.9144", "m"),
    ("mile mi", "1609.344", "m"), ("pound lb lbs", "453.59237", "g"),
    ("ounce oz", "28.349523125", "g"), ("tonne", "1e6", "g"), ("acre", "4046.8564224", "m2"),
    ("hectare ha", "1e4", "m2"), ("gallon gal", "0.003785411784", "m3"), ("cc", "1e-6", "m3"),
    ("mph", "0.44704", "m s-1"), ("kmh kph kmph", "1e3/3600", "m s-1"),
    ("degree deg \u00b0", "1", "deg"), ("radian rad", "1", "rad"),
    ("\u00b0C degC celsius", "1", "degC"), ("\u00b0F degF fahrenheit", "1", "degF"),
    ("atm atmosphere", "101325000", "g m-1 s-2"),
    ("$ US$ USD dollar", "1", "USD"), ("cent \u00a2", "1e-2", "USD"),
    ("\u20ac EUR euro", "1", "EUR"),
    ("\u00a3 GBP", "1", "GBP"), ("\u00a5 JPY yen", "1", "JPY"),
    ("CNY RMB yuan \u5143", "1", "CNY"), ("\u20b9 INR Rs rupee", "1", "INR"),
    ("\u20a9 KRW won", "1", "KRW"), ("\u7c73", "1", "m"),
    ("\u5343\u7c73 \u516c\u91cc", "1e3", "m"),
    ("\u5398\u7c73", "1e-2", "m"),
    ("\u5343\u514b \u516c\u65a4", "1e3", "g"), ("\u5ea6", "1", "deg"),
)  # fmt: skip
_SECOND_MEANINGS = {
    "pound": "GBP", "C": "\u00b0C", "F": "\u00b0F", "\u00a5": "CNY",
    "\u00b0": "\u00b0C", "degree": "\u00b0C", "deg": "\u00b0C",
}  # fmt: skip
_NO_UNIT = re.compile(r"(?:sq(?:uare|\.)? |cu(?:bic|\.)? )?units?(?:\^?\{?[23]\}?)?", re.IGNORECASE)
_TERM = re.compile(r"([^\s\d^*/\u00b7{}()+.-]+)\.?(?:\s*\^\s*[{(]?\s*([+-]?\d)[)}]?|([+-]?\d))?")
_POWERS = (("square ", 2), ("sq. ", 2), ("sq ", 2), ("cubic ", 3), ("cu ", 3))


@dataclass(frozen=True)
class Unit:
    """A meaning of a unit."""

    size: Fraction
    """Its size in basic units."""
    kind: tuple[tuple[str, int], ...]
    """Its dimensions: (basic unit, power), sorted."""


def units_of(text: str) -> tuple[Unit, ...]:
    """The possible meanings of a text as a unit; empty if it is not a known unit."""
    return _units_of(text.strip())


def is_no_unit(text: str) -> bool:
    """Whether a text is the word "units" or the like, which names no unit."""
    return _NO_UNIT.fullmatch(text.strip()) is not None


@functools.lru_cache(1024)
def _units_of(text: str) -> tuple[Unit, ...]:
    if not text or len(text) > 60:
        return ()
    text = re.sub(r"^degrees? (?=[CF]$|celsius|fahrenheit)", "\u00b0", text, flags=re.IGNORECASE)
    text = re.sub(r"^\u00b0 ?(?=c|f)", "\u00b0", text, flags=re.IGNORECASE)
    text = re.sub(r"^\u00b0(celsius|fahrenheit)$", r"\1", text, flags=re.IGNORECASE)
    text = re.sub(r"\s+per\s+|\s+an?\s+(?=hour|second|minute|day)", "/", text)
    text = re.sub(r"\s+squared\b", "^2", re.sub(r"\s+cubed\b", "^3", text))
    whole = _meanings(text)
    if whole:
        return whole
    size, kind, sign, at = Fraction(1), {}, 1, 0
    while at < len(text):
        if text[at] in " *\u00b7./()-":
            sign = -1 if text[at] == "/" else sign
            at += 1
            continue
        power = next((p for name, p in _POWERS if text.startswith(name, at)), 1)
        at += next((len(name) for name, _ in _POWERS if text.startswith(name, at)), 0)
        match = _TERM.match(text, at)
        meanings = _meanings(match[1]) if match else ()
        if match is None or not meanings:
            return ()
        power *= sign * int(match[2] or match[3] or 1)
        size *= meanings[0].size ** power
        for base, exponent in meanings[0].kind:
            kind[base] = kind.get(base, 0) + exponent * power
        at = match.end()
    return (Unit(size, tuple(sorted((b, e) for b, e in kind.items() if e))),) if kind else ()


def _meanings(name: str) -> tuple[Unit, ...]:
    """The meanings of one unit name: in its own case or else in lower case, singular or plural."""
    for form in (name, name.casefold() if len(name) > 1 else name):
        for single in (form, form.removesuffix("s"), form.removesuffix("es")):
            if single in TABLE:
                second = _SECOND_MEANINGS.get(single)
                more = (TABLE["\u00b0F"],) if second == "\u00b0C" and single not in "C" else ()
                return (TABLE[single], *((TABLE[second],) if second else ()), *more)
    return ()


def _size(text: str) -> Fraction:
    top, _, bottom = text.partition("/")
    return Fraction(top) / Fraction(bottom or 1)


def _kind(text: str) -> tuple[tuple[str, int], ...]:
    parts = [re.fullmatch(r"([A-Za-z]+)(-?\d+)?", part) for part in text.split()]
    return tuple(sorted((p[1], int(p[2] or 1)) for p in parts if p))


def _table() -> dict[str, Unit]:
    table = {}
    for names, size, kind in _OTHERS:
        for name in names.split():
            table[name] = Unit(_size(size), _kind(kind))
    for symbol, names, size, kind in _METRIC:
        for prefix, factor in [("", "1"), *_PREFIXES.items()]:
            if symbol:
                table.setdefault(prefix + symbol, Unit(_size(size) * _size(factor), _kind(kind)))
        for prefix, factor in [("", "1"), *_LONG_PREFIXES.items()]:
            for name in names.split():
                unit = Unit(_size(size) * _size(factor), _kind(kind))
                table.setdefault(prefix + name, unit)
    table["ohm"] = table["\u03a9"]
    return table


TABLE = _table()
