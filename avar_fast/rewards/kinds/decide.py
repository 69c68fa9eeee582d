"""Compares an answer with a reference, by the kind of the reference (table in docs/answers.md).

Everything except mathematics is compared directly, in time linear in the length of the texts. A
comparison returns True or False, or None if it needs computer algebra and ``algebra`` is None.
"""

import re
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache

from .dates import parse_clock, parse_date, same_date
from .equations import assigned
from .expressions import mathematical
from .letters import parse_choice, same_letters
from .lists import Listing, at_top, parse_list, parse_range, parse_ratio
from .numbers import decimal_comma, parse_number, too_large
from .quantities import parse_quantity, same_quantity, unit_behind
from .text import LONGEST, bare, squeezed, words
from .units import Unit

Algebra = Callable[[str, str], bool]
"""(given, reference), both plain texts -> whether they are mathematically equal."""
Verdict = bool | None
_RELATION = re.compile(r"[<>\u2264\u2265\u2208\u222a]|\\(?:[lg]eq?|cup|in)(?![a-z])")
_TRUTH = {"yes": "no", "no": "yes", "true": "false", "false": "true"}


def same(given: str, gold: str, algebra: Algebra | None = None) -> Verdict:
    """Whether an answer is the same as a reference; None if only computer algebra can tell.

    Args:
        given: raw text of the answer; an empty one is never right.
        gold: raw text of one reference; nothing equals an empty one.
        algebra: compares mathematics; with None the result may be None.
    """
    if not given.strip() or not gold.strip():
        return False
    if max(len(given), len(gold)) > LONGEST:
        return words(given) == words(gold) != ""
    return _at_once(given, gold) if algebra is None else _same(bare(given), bare(gold), algebra)


@lru_cache(4096)  # completions of a group repeat answers, and every rule compares them again
def _at_once(given: str, gold: str) -> Verdict:
    return _same(bare(given), bare(gold), None)


def _same(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    if not given or not gold:
        return False
    if given == gold:
        return True
    kinds = (_letters, _times, _sizes, _lists, _mathematics)
    for compare in kinds[2:] if gold.isdecimal() else kinds:
        verdict = compare(given, gold, algebra)
        if verdict is not NotImplemented:
            return verdict
    return _words(given, gold)


def _letters(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Compares option letters: one letter, with or without its option's text, or several."""
    gold_choice = parse_choice(gold)
    if gold_choice is None:
        verdict = same_letters(given, gold)
        return NotImplemented if verdict is None else verdict
    given_choice = parse_choice(given)
    if given_choice is not None:
        return given_choice.letter == gold_choice.letter
    if gold_choice.text:
        return _same(given, bare(gold_choice.text), algebra)
    decimal = gold == "e" and parse_number(given) is not None
    if gold.islower() and "=" not in given and (decimal or mathematical(given)):
        return _by_algebra(given, gold, algebra)
    return False


def _times(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Compares dates and times of day."""
    gold_date = parse_date(gold)
    if gold_date is not None:
        given_date = parse_date(given)
        return same_date(given_date, gold_date) if given_date else words(given) == words(gold)
    gold_seconds = parse_clock(gold)
    return NotImplemented if gold_seconds is None else parse_clock(given) == gold_seconds


def _sizes(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Compares numbers, quantities, ratios and ranges."""
    for parse in (parse_range, parse_ratio):
        parts = parse(gold)
        if parts is not None:
            return _parts(given, gold, parts)
    gold_names, gold_value = assigned(gold)
    gold_quantity = parse_quantity(gold_value)
    if gold_quantity is None:
        return NotImplemented
    given_names, given_value = assigned(given)
    if gold_names and given_names and not gold_names & given_names:
        return False
    given_quantity = parse_quantity(given_value)
    if given_quantity is not None and same_quantity(given_quantity, gold_quantity):
        return True
    if decimal_comma(gold_value):
        return _lists(given, gold_value, algebra) is True
    parts = parse_ratio(given_value) if parse_clock(given_value) is None else None
    if parts is not None and gold_quantity.plain:
        return _as_fraction(parts) == gold_quantity.number.value
    if given_quantity is not None or too_large(given_value):
        return False
    if parse_range(given_value) or parse_date(given_value):
        return False
    expression, units = unit_behind(given_value)
    if _units_differ(units, gold_quantity.units):
        return False
    if not mathematical(expression) or len(at_top(expression, "=")) > 1:
        return False
    return _by_algebra(expression, _digits_of(gold_value), algebra)


def _units_differ(given: tuple[Unit, ...], gold: tuple[Unit, ...]) -> bool:
    """Whether both have units, and the units are of other kinds or sizes."""
    if not given or not gold:
        return False
    kinds = {unit.kind for unit in given} & {unit.kind for unit in gold}
    return not kinds or given[0].size != gold[0].size


def _digits_of(text: str) -> str:
    """The number of a quantity, as text for algebra: a decimal with its digits, or a fraction."""
    quantity = parse_quantity(text)
    assert quantity is not None
    number = quantity.number
    value = number.value / 100 if quantity.percent else number.value
    places = len(str(number.last.denominator)) - 1
    if not quantity.percent and number.digits and 10**places == number.last.denominator:
        digits = str(abs(int(value * 10**places))).zfill(places + 1)
        at = len(digits) - places
        return f"{'-' if value < 0 else ''}{digits[:at]}.{digits[at:]}"
    return f"\\frac{{{value.numerator}}}{{{value.denominator}}}"


def _parts(given: str, gold: str, parts: Sequence[str]) -> bool:
    """Compares a ratio by its proportion, or a range by its ends. "3 to 5" may be either."""
    is_ratio = parse_ratio(gold) is not None
    given_parts = parse_range(given) or (parse_ratio(given) if parse_clock(given) is None else None)
    if given_parts is None:
        value = parse_number(given)
        return is_ratio and value is not None and _as_fraction(parts) == value.value
    if len(given_parts) != len(parts) or (is_ratio and "-" in given):
        return False
    if is_ratio and parse_ratio(given):
        a = [number.value for number in map(parse_number, given_parts) if number]
        b = [number.value for number in map(parse_number, parts) if number]
        same = all(x * b[0] == y * a[0] for x, y in zip(a, b, strict=True))
        return same and bool(a[0]) == bool(b[0])
    pairs = zip(map(parse_quantity, given_parts), map(parse_quantity, parts), strict=True)
    return all(x and y and same_quantity(x, y) for x, y in pairs)


def _as_fraction(parts: Sequence[str]) -> Fraction | None:
    """The value of a ratio of two numbers; None for any other ratio."""
    numbers = [number.value for number in map(parse_number, parts) if number]
    return numbers[0] / numbers[1] if len(numbers) == len(parts) == 2 and numbers[1] else None


def _lists(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Compares lists, points, sets and intervals."""
    gold_list = parse_list(gold)
    if gold_list is None:
        return NotImplemented
    if not gold_list.brackets and not _has_short_items(gold_list):
        return NotImplemented
    given_list = parse_list(given) or parse_list(assigned(given)[1])
    if given_list is None and len(gold_list.items) == 1:
        given_list = Listing((given,))
    if given_list is None or not _same_shape(given_list, gold_list):
        if gold_list.brackets and _RELATION.search(given):
            return _by_algebra(given, gold, algebra)
        return words(given) == words(gold) and not re.search(r"[\d()\[\]{}]", gold)
    if gold_list.ordered:
        pairs = zip(given_list.items, gold_list.items, strict=True)
        return _all(_same(item, gold_item, algebra) for item, gold_item in pairs)
    return _as_sets(given_list.items, gold_list.items, algebra)


def _has_short_items(listing: Listing) -> bool:
    """Whether a list without brackets has only short items; else it is a sentence with commas."""
    return all(len(item.split()) <= 4 for item in listing.items)


def _same_shape(given: Listing, gold: Listing) -> bool:
    """Whether two lists may be the same, by their lengths, names and brackets."""
    if len(given.items) != len(gold.items) or (
        given.name and gold.name and given.name != gold.name
    ):
        return False
    if not given.brackets or given.brackets == gold.brackets:
        return given.brackets == gold.brackets or gold.brackets in ("", "()", "[]", "{}")
    if not gold.brackets:
        return given.brackets in ("()", "[]", "{}")
    if "{}" in (given.brackets, gold.brackets):
        return False
    return len(given.items) > 2 and {given.brackets, gold.brackets} == {"()", "[]"}


def _as_sets(given: Sequence[str], gold: Sequence[str], algebra: Algebra | None) -> Verdict:
    """Whether the items of both are the same in any order."""
    left, undecided = list(given), False
    for gold_item in gold:
        verdicts = [_same(item, gold_item, algebra) for item in left]
        if True in verdicts:
            left.pop(verdicts.index(True))
        elif None in verdicts:
            undecided = True
        else:
            return False
    return None if undecided else True


def _mathematics(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    """Compares mathematical expressions and equations."""
    gold_names, gold_value = assigned(gold)
    given_names, given_value = assigned(given)
    gold_expression, gold_units = unit_behind(gold_value)
    if not mathematical(gold_expression):
        return NotImplemented
    if gold_names and given_names and not gold_names & given_names:
        return False
    are_equations = "=" in given and "=" in gold
    if are_equations and (given == given_value or gold == gold_value):  # not "name = value"
        return _by_algebra(given, gold, algebra) if mathematical(given) else False
    given_expression, given_units = unit_behind(given_value)
    if _units_differ(given_units, gold_units):
        return False
    quantity = parse_quantity(given_value)
    if quantity is not None and not quantity.things:
        return _by_algebra(_digits_of(given_value), gold_expression, algebra)
    if squeezed(given_expression) == squeezed(gold_expression):
        return True
    is_interval = _RELATION.search(gold_expression) and parse_list(given_value) is not None
    if too_large(given_value) or not (mathematical(given_expression) or is_interval):
        return words(given) == words(gold) if not mathematical(given_value) else False
    return _by_algebra(given_expression, gold_expression, algebra)


def _by_algebra(given: str, gold: str, algebra: Algebra | None) -> Verdict:
    if too_large(given) or too_large(gold):
        return False
    return None if algebra is None else algebra(given, gold)


def _words(given: str, gold: str) -> bool:
    """Compares words; "Yes, ..." equals "yes" unless it also says "no"."""
    gold_words, given_words = words(gold), words(given)
    if gold_words and given_words == gold_words:
        return True
    opposite = _TRUTH.get(gold_words)
    if opposite is None:
        return not gold_words and given == gold
    first = re.match(r"\W*(\w+)\W*(?:[,.;:\n]|\s-)", given)
    return bool(first) and first[1].casefold() == gold_words and opposite not in given_words.split()


def _all(verdicts: object) -> Verdict:
    """False if any verdict is False, else None if any is None, else True."""
    values = list(verdicts)  # pyright: ignore[reportArgumentType]
    return False if False in values else None if None in values else True
