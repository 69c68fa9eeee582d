"""Reads answers for the rules: as text, as a letter, as a quantity, and to a number of decimals."""

from functools import partial

from .dates import parse_clock, parse_date
from .decide import Verdict, same
from .equations import assigned
from .expressions import mathematical, rounds_to
from .letters import parse_choice, parse_letters
from .lists import parse_list, parse_range, parse_ratio
from .numbers import parse_number
from .quantities import Quantity, parse_quantity, unit_behind
from .text import LONGEST, bare, squeezed, words


def same_text(given: str, gold: str) -> bool:
    """Whether two answers are the same as text, or as numbers in digits without units or LaTeX."""
    if same(given, gold) is not True:
        return False
    if words(given) == words(gold) or max(len(given), len(gold)) > LONGEST:
        return True
    texts = bare(given), bare(gold)
    plain = all(
        parse_number(text) and any(map(str.isdigit, text)) and "\\" not in text for text in texts
    )
    return plain or squeezed(texts[0]) == squeezed(texts[1])


def same_to_decimals(given: str, gold: str, decimals: int, algebra: bool) -> Verdict:
    """Like ``same``, but only math-verify compares numbers and mathematics, to ``decimals``
    decimals, as some benchmarks do. None if that is needed and ``algebra`` is false."""
    if same_text(given, gold):
        return True
    if not given.strip() or not gold.strip():
        return False
    if is_mathematics(gold):
        return rounds_to(given, gold, decimals) if algebra else None
    rounded = partial(rounds_to, decimals=decimals)
    return same(given, gold, rounded if algebra else None)


def is_mathematics(gold: str) -> bool:
    """Whether a reference is a number or mathematics, and not a list or text."""
    text = bare(gold) if len(gold) <= LONGEST else ""
    if not text or _is_text(text):
        return False
    return parse_quantity(text) is not None or mathematical(unit_behind(assigned(text)[1])[0])


def letter_of(text: str) -> str | None:
    """The capital letter of the only option that a text names; None if it names no or several
    options."""
    choice = parse_choice(bare(text)) if len(text) <= LONGEST else None
    return choice.letter if choice else None


def quantity_of(text: str) -> Quantity | None:
    """The quantity that a text is; None for any other text."""
    return parse_quantity(assigned(bare(text))[1]) if len(text) <= LONGEST else None


def _is_text(text: str) -> bool:
    """Whether a plain text is a letter, a date, a time, a ratio, a range or a list."""
    parsers = parse_choice, parse_letters, parse_date, parse_clock, parse_ratio, parse_range
    listed = parse_number(text) is None and parse_list(text)
    return any(parse(text) is not None for parse in parsers) or bool(listed)
