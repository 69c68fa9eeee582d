"""What rules ask of answers beside whether one is right: as text, as a letter, as a quantity."""

from functools import partial

from .dates import date, seconds
from .decide import Verdict, assigned, same, squeezed
from .expressions import mathematical, rounds_to
from .letters import choice, several
from .lists import listing, ratio, span
from .numbers import number
from .quantities import Quantity, quantity, unit_behind
from .text import LONGEST, bare, words


def same_text(given: str, gold: str) -> bool:
    """Whether they are the same as text, or as numbers in digits, without units or LaTeX."""
    if same(given, gold) is not True:
        return False
    if words(given) == words(gold) or max(len(given), len(gold)) > LONGEST:
        return True
    texts = bare(given), bare(gold)
    plain = all(number(text) and any(map(str.isdigit, text)) and "\\" not in text for text in texts)
    return plain or squeezed(texts[0]) == squeezed(texts[1])


def same_to_decimals(given: str, gold: str, decimals: int, algebra: bool) -> Verdict:
    """``same`` as a benchmark may have it: numbers and mathematics by math-verify alone, to so many
    decimals."""
    if same_text(given, gold):
        return True
    if not given.strip() or not gold.strip():
        return False
    if is_mathematics(gold):
        return rounds_to(given, gold, decimals) if algebra else None
    rounded = partial(rounds_to, decimals=decimals)
    return same(given, gold, rounded if algebra else None)


def is_mathematics(gold: str) -> bool:
    """Whether a reference is a number or mathematics, and no list or text."""
    text = bare(gold) if len(gold) <= LONGEST else ""
    if not text or _is_text(text):
        return False
    return quantity(text) is not None or mathematical(unit_behind(assigned(text)[1])[0])


def letter_of(text: str) -> str | None:
    """The capital of the option that a text names, and no other beside it."""
    found = choice(bare(text)) if len(text) <= LONGEST else None
    return found.letter if found else None


def quantity_of(text: str) -> Quantity | None:
    """The number that a text is, and its unit."""
    return quantity(assigned(bare(text))[1]) if len(text) <= LONGEST else None


def _is_text(text: str) -> bool:
    """Whether a plain text is a letter, a date, a time, a ratio, a range or a list."""
    kinds = choice, several, date, seconds, ratio, span
    listed = number(text) is None and listing(text)
    return any(read(text) is not None for read in kinds) or bool(listed)
