"""What the reference is decides how an answer is compared with it: docs/answers.md has the table.

All but mathematics is decided in place, in time linear in the length of the texts. A comparison
gives True or False, or None where it needs computer algebra and none was handed to it.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from .dates import date, same_date, seconds
from .expressions import mathematical
from .letters import choice, same_letters
from .lists import Listing, at_top, listing, ratio, span
from .numbers import decimal_comma, number, too_large
from .quantities import quantity, same_quantity, unit_behind
from .text import LONGEST, bare, words

Algebra = Callable[[str, str], bool]
"""(given, reference), plain texts -> whether they are the same mathematics."""
Verdict = bool | None
_NAME = re.compile(
    r"\\?[A-Za-z]{1,8}(?:_\{?\w{1,4}\}?|')?(?:\([A-Za-z, ]{1,12}\))?"  # x, x_1, f(x), \theta
    r"|\\?[A-Za-z]+(?:[ ~]\\?[A-Za-z]+){1,4}(?: is)?"  # the area
)
_ARITHMETIC = re.compile(r"(?:[-+*/().\d\s\u00d7\u00b7\u00f7^{}\u221a]|\\(?:sqrt|frac))+")
_RELATION = re.compile(r"[<>\u2264\u2265\u2208\u222a]|\\(?:[lg]eq?|cup|in)(?![a-z])")
_TRUTH = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def same(given: str, gold: str, algebra: Algebra | None = None) -> Verdict:
    """Whether an answer is the reference's.

    Args:
        given: raw text; an empty one is never right.
        gold: raw text of one reference; an empty one is never matched.
        algebra: compares mathematics; None leaves it undecided.
    """
    if not given.strip() or not gold.strip():
        return False
    if max(len(given), len(gold)) > LONGEST:
        return words(given) == words(gold) != ""
    return _at_once(given, gold) if algebra is None else _same(bare(given), bare(gold), algebra)


@lru_cache(4096)  # completions of a group say the same, and every rule asks anew
def _at_once(given: str, gold: str) -> Verdict:
    return _same(bare(given), bare(gold), None)


def _same(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    if not given or not gold:
        return False
    if given == gold:
        return True
    kinds = (_letters, _times, _sizes, _lists, _mathematics)
    for compare in kinds[2:] if gold.isdecimal() else kinds:
        found = compare(given, gold, algebra)
        if found is not NotImplemented:
            return found
    return _words(given, gold)


def _letters(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """One letter, with the text of its option or without; several letters."""
    wanted = choice(gold)
    if wanted is None:
        found = same_letters(given, gold)
        return NotImplemented if found is None else found
    said = choice(given)
    if said is not None:
        return said.letter == wanted.letter
    if wanted.text:
        return _same(given, bare(wanted.text), algebra)
    decimal = gold == "e" and number(given) is not None
    if gold.islower() and "=" not in given and (decimal or mathematical(given)):
        return _by_algebra(given, gold, algebra)
    return False


def _times(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Dates and times of day."""
    day = date(gold)
    if day is not None:
        said = date(given)
        return same_date(said, day) if said else words(given) == words(gold)
    second = seconds(gold)
    return NotImplemented if second is None else seconds(given) == second


def _sizes(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Numbers, quantities, ratios and ranges."""
    for read in (span, ratio):
        parts = read(gold)
        if parts is not None:
            return _parts(given, gold, parts)
    name, value = assigned(gold)
    wanted = quantity(value)
    if wanted is None:
        return NotImplemented
    other, said = assigned(given)
    if name and other and not name & other:
        return False
    found = quantity(said)
    if found is not None and same_quantity(found, wanted):
        return True
    if decimal_comma(value):
        return _lists(given, value, algebra) is True
    parts = ratio(said) if seconds(said) is None else None
    if parts is not None and wanted.plain:
        return _as_fraction(parts) == wanted.number.value
    if found is not None or too_large(said) or span(said) or date(said):
        return False
    expression, units = unit_behind(said)
    if units and wanted.units and not {u.kind for u in units} & {u.kind for u in wanted.units}:
        return False
    if units and wanted.units and units[0].size != wanted.units[0].size:
        return False
    if not mathematical(expression) or len(at_top(expression, "=")) > 1:
        return False
    return _by_algebra(expression, _digits_of(value), algebra)


def _digits_of(text: str) -> str:
    """The number of a quantity, for algebra: a decimal with the digits it has, or a fraction."""
    found = quantity(text)
    assert found is not None
    value = found.number.value / 100 if found.percent else found.number.value
    places = len(str(found.number.last.denominator)) - 1
    if not found.percent and found.number.digits and 10**places == found.number.last.denominator:
        digits = str(abs(int(value * 10**places))).zfill(places + 1)
        at = len(digits) - places
        return f"{'-' if value < 0 else ''}{digits[:at]}.{digits[at:]}"
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _parts(given: str, gold: str, parts: Sequence[str]) -> bool:
    """Of a ratio, whose proportion counts, or a range, whose ends do. "3 to 5" is either."""
    is_ratio = ratio(gold) is not None
    said = span(given) or (ratio(given) if seconds(given) is None else None)
    if said is None:
        value = number(given)
        return is_ratio and value is not None and _as_fraction(parts) == value.value
    if len(said) != len(parts) or (is_ratio and "-" in given):
        return False
    if is_ratio and ratio(given):
        one, other = ([x.value for x in map(number, some) if x] for some in (said, parts))
        same = all(a * other[0] == b * one[0] for a, b in zip(one, other, strict=True))
        return same and bool(one[0]) == bool(other[0])
    pairs = zip(map(quantity, said), map(quantity, parts), strict=True)
    return all(a and b and same_quantity(a, b) for a, b in pairs)


def _as_fraction(parts: Sequence[str]) -> Fraction | None:
    """The value of a ratio of two; None of any other."""
    numbers = [x.value for x in map(number, parts) if x]
    return numbers[0] / numbers[1] if len(numbers) == len(parts) == 2 and numbers[1] else None


def _lists(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    wanted = listing(gold)
    if wanted is None:
        return NotImplemented
    if not wanted.brackets and not _is_list_of(wanted):
        return NotImplemented
    said = listing(given) or listing(assigned(given)[1])
    if said is None:
        said = Listing((given,)) if len(wanted.items) == 1 else None
    if said is None or not _may_be(said, wanted):
        if wanted.brackets and _RELATION.search(given):
            return _by_algebra(given, gold, algebra)
        return words(given) == words(gold) and not re.search(r"[\d()\[\]{}]", gold)
    if wanted.ordered:
        return _all(_same(a, b, algebra) for a, b in zip(said.items, wanted.items, strict=True))
    return _as_sets(said.items, wanted.items, algebra)


def _is_list_of(wanted: Listing) -> bool:
    """Whether a bare list is one of numbers or of short names; a sentence with commas is none."""
    return all(len(item.split()) <= 4 for item in wanted.items)


def _may_be(said: Listing, wanted: Listing) -> bool:
    """By their length, their names and the brackets around them."""
    if len(said.items) != len(wanted.items) or (
        said.name and wanted.name and said.name != wanted.name
    ):
        return False
    if not said.brackets or said.brackets == wanted.brackets:
        return said.brackets == wanted.brackets or wanted.brackets in ("", "()", "[]", "{}")
    if not wanted.brackets:
        return said.brackets in ("()", "[]", "{}")
    if "{}" in (said.brackets, wanted.brackets):
        return False
    return len(said.items) > 2 and {said.brackets, wanted.brackets} == {"()", "[]"}


def _as_sets(said: Sequence[str], wanted: Sequence[str], algebra: Algebra | None) -> Verdict:
    """Each item of one is an item of the other, whatever their order."""
    left, undecided = list(said), False
    for item in wanted:
        found = [_same(other, item, algebra) for other in left]
        if True in found:
            left.pop(found.index(True))
        elif None in found:
            undecided = True
        else:
            return False
    return None if undecided else True


def _mathematics(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    name, value = assigned(gold)
    other, said = assigned(given)
    expression, units = unit_behind(value)
    if not mathematical(expression):
        return NotImplemented
    if name and other and not name & other:
        return False
    if "=" in given and "=" in gold and (given == said or gold == value):  # no value of a name
        return _by_algebra(given, gold, algebra) if mathematical(given) else False
    expression_said, units_said = unit_behind(said)
    if units and units_said and not {u.kind for u in units} & {u.kind for u in units_said}:
        return False
    if units and units_said and units[0].size != units_said[0].size:
        return False
    found = quantity(said)
    if found is not None and not found.things:
        return _by_algebra(_digits_of(said), expression, algebra)
    if squeezed(expression_said) == squeezed(expression):
        return True
    interval = _RELATION.search(expression) is not None and listing(said) is not None
    if too_large(said) or not (mathematical(expression_said) or interval):
        return words(given) == words(gold) if not mathematical(said) else False
    return _by_algebra(expression_said, expression, algebra)


def squeezed(text: str) -> str:
    """Without spaces, but for those between two digits."""
    return re.sub(r"(?<!\d) | (?!\d)", "", text)


def _by_algebra(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    if too_large(given) or too_large(gold):
        return False
    return None if algebra is None else algebra(given, gold)


def assigned(text: str) -> tuple[frozenset[str], str]:
    """The names and the value of "x = 5" or "30 + 30 = 60"; no name and the text of any other."""
    parts = at_top(re.sub(r"\u2248|\\approx(?![a-z])", "=", text), "=")
    if len(parts) == 1 or not parts[-1]:
        return frozenset(), text
    names = set()
    for part in parts[:-1]:
        if _NAME.fullmatch(part):
            names |= {part} if len(part) <= 2 else set()
        elif not _ARITHMETIC.fullmatch(part):
            return frozenset(), text
    return frozenset(names), parts[-1]


def _words(given: str, gold: str) -> bool:
    wanted, said = words(gold), words(given)
    if wanted and said == wanted:
        return True
    opposite = _TRUTH.get(wanted)
    if opposite is None:
        return not wanted and given == gold
    first = re.match(r"\W*(\w+)\W*(?:[,.;:\n]|\s-)", given)
    return bool(first) and first[1].casefold() == wanted and opposite not in said.split()


def _all(verdicts: object) -> Verdict:
    """False where one is False, else None where one is None."""
    found = list(verdicts)  # pyright: ignore[reportArgumentType]
    return False if False in found else None if None in found else True
