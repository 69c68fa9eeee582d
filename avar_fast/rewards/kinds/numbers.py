"""Parses numbers as people write them, and compares them."""

import re
from dataclasses import dataclass, replace
from fractions import Fraction

GIVEN_DIGITS = 4  # fewest significant digits of an answer that rounds an exact number
GOLD_DIGITS = 3  # the same for a reference, which its author has rounded
_FLOAT = Fraction(1, 10**12)  # largest relative difference of equal decimals, as in 0.1 + 0.2
_LARGEST_EXPONENT = 400  # a number with a larger exponent is text and is never written out

_DIGITS = (
    r"(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?(?![\d,])"  # 1,234,567.8
    r"|[1-9]\d?(?:,\d{2})+,\d{3}(?:\.\d+)?(?![\d,])"  # 12,34,567
    r"|[1-9]\d{0,2}(?:(?:[ ]\d{3})+|(?:['_]\d{3})+)(?:[.,]\d+)?(?![\d.,' ]*\d)"  # 1 234 567,8
    r"|[1-9]\d{0,2}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d+)(?![\d.])"  # 1.234.567,8
    r"|\d+,\d+(?![\d.,])"  # 3,5
    r"|\d+\.\d*|\.\d+|\d+)"
)
_TENS = r"\s*[\u00d7\u00b7*xX]\s*10\s*(?:\^|\*\*)\s*[({]?\s*(?P<tens>[+-]?\s*\d+)\s*[)}]?"
_FRACTION = (
    rf"\\frac\s*(?:\{{\s*(?P<top>[+-]?{_DIGITS})\s*\}}|(?P<top1>\d))"
    rf"\s*(?:\{{\s*(?P<bottom>[+-]?{_DIGITS})\s*\}}|(?P<bottom1>\d))"
)
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?|(?:minus|negative) )\s*(?:"
    rf"(?P<whole>\d+)\s+(?:and\s+)?(?P<over>\d+)\s*/\s*(?P<under>\d+)(?![\d/.])"
    rf"|(?P<whole1>\d+)?\s*{_FRACTION}"
    rf"|10\s*(?:\^|\*\*)\s*[({{]?\s*(?P<power>[+-]?\s*\d+)\s*[)}}]?"
    rf"|(?P<digits>{_DIGITS})(?:[eE](?P<exponent>[+-]?\d+)(?![\w.])|{_TENS})?"
    rf"(?:\s*/\s*(?P<divisor>[+-]?{_DIGITS})(?![\d/.]))?"
    r")"
)
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s*\{?|\()(\d+)[})]?")
_BRACKETED = re.compile(r"\\?[(\[{]([^,;()\[\]{}]+?)\\?[)\]}]")
_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"
    " sixteen seventeen eighteen nineteen"
)
_TENS_NAMES = "twenty thirty forty fifty sixty seventy eighty ninety"
_NAMES = {name: i for i, name in enumerate(_ONES.split())} | {
    name: 10 * i for i, name in enumerate(_TENS_NAMES.split(), start=2)
}
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_NAMED = re.compile(r"(?:minus |negative )?[a-z][a-z -]*", re.IGNORECASE)


@dataclass(frozen=True)
class Number:
    """A number and its precision."""

    value: Fraction
    digits: int = 0
    """Significant digits of a decimal; 0 for an exact number (a whole number or a fraction)."""
    last: Fraction = Fraction(0)
    """Value of one unit in the last digit of a decimal."""

    def times(self, factor: Fraction) -> "Number":
        return replace(self, value=self.value * factor, last=self.last * abs(factor))


def parse_number(text: str) -> Number | None:
    """Parses a text that is a number as a whole; None for any other text."""
    repeating = _REPEATING.fullmatch(text.strip())
    if repeating:
        return _repeating_decimal(*repeating.groups())
    text = without_brackets(text)
    leading = parse_leading_number(text)
    if leading is not None and leading[1] == len(text):
        return leading[0]
    return _parse_words(text)


def _repeating_decimal(sign: str, whole: str, start: str, period: str) -> Number:
    nines = 10 ** len(period) - 1
    value = int(whole or 0) + Fraction(
        int(start or 0) * nines + int(period), nines * 10 ** len(start)
    )
    return Number(-value if sign == "-" else value)


def without_brackets(text: str) -> str:
    """Removes brackets around the whole text, but not those of a list: (1,200) is a point."""
    text = text.strip()
    while (match := _BRACKETED.fullmatch(text)) is not None:
        text = match[1].strip()
    return text


def parse_leading_number(text: str) -> tuple[Number, int] | None:
    """The number at the start of a text, and the index of its end; None if there is none."""
    match = _NUMBER.match(text)
    if match is None:
        return None
    number = _value(match)
    return None if number is None else (number, match.end())


def _value(match: re.Match[str]) -> Number | None:
    sign = Fraction(1 if match["sign"] in ("", "+") else -1)
    if match["whole"]:
        part = _over(Fraction(int(match["over"])), Fraction(int(match["under"])))
        return None if part is None else Number(sign * (int(match["whole"]) + part))
    if match["power"]:
        tens = _ten_to(match["power"])
        return None if tens is None else Number(sign * tens)
    if match["digits"] is None:
        top = _decimal(match["top"] or match["top1"])
        part = _over(top.value, _decimal(match["bottom"] or match["bottom1"]).value)
        if part is None or (match["whole1"] and part < 0):
            return None
        return Number(sign * (int(match["whole1"] or 0) + part))
    number = _decimal(match["digits"])
    exponent = match["exponent"] or match["tens"]
    if exponent:
        tens = _ten_to(exponent)
        if tens is None:
            return None
        number = number.times(tens)
        if not number.digits:  # 3 x 10^8 is as exact as 3
            number = Number(number.value)
    if match["divisor"]:
        part = _over(number.value, _decimal(match["divisor"]).value)
        return None if part is None else Number(sign * part)
    return number.times(sign)


def _decimal(text: str) -> Number:
    """The number of a text that ``_DIGITS`` matches, with an optional sign."""
    negative, text = text.startswith("-"), text.lstrip("+-")
    if text.count(".") > 1 or ("." in text and text.rfind(",") > text.rfind(".")):
        text = text.replace(".", "").replace(",", ".")  # 1.234,5
    elif "," in text and not grouped(text):
        text = text.replace(" ", "").replace("'", "").replace("_", "").replace(",", ".")
    text = re.sub(r"[, '_]", "", text)
    whole, _, decimals = text.partition(".")
    value = Fraction(int((whole + decimals) or "0"), 10 ** len(decimals))
    digits = len((whole + decimals).lstrip("0")) if decimals else 0
    last = Fraction(1, 10 ** len(decimals)) if decimals else Fraction(0)
    return Number(-value if negative else value, digits, last)


def grouped(text: str) -> bool:
    """Whether the commas of a number separate thousands (or lakhs and crores)."""
    return (
        re.fullmatch(r"[+-]?[1-9]\d{0,2}(?:(?:,\d{2})*|(?:,\d{3})*),\d{3}(?:\.\d+)?", text)
        is not None
    )


def decimal_comma(text: str) -> bool:
    """Whether a text has the form "3,5", which may also be a list of two numbers."""
    return re.fullmatch(r"[+-]?\d+,\d+", text) is not None and not grouped(text)


def _ten_to(exponent: str) -> Fraction | None:
    exponent = exponent.replace(" ", "")
    if len(exponent) > 5 or abs(int(exponent)) > _LARGEST_EXPONENT:
        return None
    return Fraction(10) ** int(exponent)


def too_large(text: str) -> bool:
    """Whether a text has a number or power that is too large to be written out."""
    exponents = re.findall(
        r"(?<=\d)[eE][+-]?(\d+)|\b10\s*(?:\^|\*\*)\s*[({]?\s*[+-]?\s*(\d+)(?!\d)", text
    )
    return any(len(e) > 5 or int(e) > _LARGEST_EXPONENT for pair in exponents for e in pair if e)


def _over(top: Fraction, bottom: Fraction) -> Fraction | None:
    return top / bottom if bottom else None


def same_number(given: Number, gold: Number) -> bool:
    """Whether two numbers are equal, or one is the other after rounding or truncation.

    The shorter number needs at least four significant digits if both are decimals, or if the answer
    is a decimal for a fraction without a finite decimal form. A reference that is a decimal for
    such a fraction needs three.
    """
    if given.value == gold.value:
        return True
    if given.digits and gold.digits:
        if abs(given.value - gold.value) <= _FLOAT * abs(gold.value):
            return True
        short, long = sorted((given, gold), key=lambda x: x.last, reverse=True)
        return short.last > long.last and stands_for(short, long.value, GIVEN_DIGITS)
    both_end = all(terminates(x.value.denominator) for x in (given, gold))
    return not both_end and rounds_to_other(given, gold)


def rounds_to_other(given: Number, gold: Number) -> bool:
    """Whether one is a decimal and the other rounds to it, as after a unit conversion."""
    if given.digits and not gold.digits:
        return stands_for(given, gold.value, GIVEN_DIGITS)
    return bool(gold.digits) and stands_for(gold, given.value, GOLD_DIGITS)


def stands_for(decimal: Number, value: Fraction, digits: int) -> bool:
    """Whether a decimal with at least ``digits`` significant digits is a rounded or truncated
    value."""
    truncated = 0 <= abs(value) - abs(decimal.value) < decimal.last and value * decimal.value > 0
    rounded = abs(decimal.value - value) * 2 <= decimal.last
    return decimal.digits >= digits and (truncated or rounded)


def terminates(denominator: int) -> bool:
    """Whether a reduced fraction with this denominator has a finite decimal form."""
    for prime in (2, 5):
        while denominator % prime == 0:
            denominator //= prime
    return denominator == 1


def _parse_words(text: str) -> Number | None:
    """The number of "forty-two", "minus one hundred and five" or "three million"."""
    if len(text) > 100 or not _NAMED.fullmatch(text):
        return None
    names = text.casefold().replace("-", " ").split()
    sign = -1 if names[0] in ("minus", "negative") else 1
    total = part = 0
    last = ""
    for name in names[sign == -1 :]:
        if name in _NAMES and _may_follow(name, last):
            part += _NAMES[name]
        elif name == "hundred" and 0 < part < 10:
            part *= 100
        elif name in _SCALES and part:
            total, part = total + part * _SCALES[name], 0
        elif not (name == "and" and last in ("hundred", *_SCALES)):
            return None
        last = name
    return None if last in ("", "and") else Number(Fraction(sign * (total + part)))


def _may_follow(name: str, last: str) -> bool:
    """Whether a number word may follow another: "twenty one" is a number, "one two" is not."""
    if last in ("", "and", "hundred", *_SCALES):
        return True
    return last in _TENS_NAMES.split() and 0 < _NAMES[name] < 10
