"""The built-in reward rules. Each scores one completion by itself; ``kinds`` compares answers."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from .answers import (
    Reference,
    extract_answer,
    given_answer,
    has_format,
    is_correct,
    number_of,
    references,
)
from .kinds import (
    Number,
    Quantity,
    Verdict,
    equal,
    letter_of,
    quantity_of,
    same,
    same_quantity,
    same_to_decimals,
)


@dataclass(frozen=True)
class Rule:
    """A rule that rewards one completion."""

    score: Callable[..., float | None]
    """(completion, reference or references) -> 0 or 1; None if the rule does not apply to the
    reference."""
    needs_answer: bool = True
    """The rule needs a reference."""
    at_once: Callable[..., float | None] | None = None
    """Set for a rule that can hang, whose ``score`` therefore runs in a process that can be killed.
    ``at_once`` cannot hang, and returns None if only ``score`` can decide. Rules without it take
    time linear in the length of the text."""
    whole_reply: bool = False
    """The rule scores the whole reply, with the start that the prompt has written."""

    @property
    def can_hang(self) -> bool:
        """Whether ``score`` may take unlimited time."""
        return self.at_once is not None


def accuracy(completion: str, answer: Reference, decimals: int | None = None) -> float:
    """1 if the answer equals a reference, else 0. The kind of the reference decides how they are
    compared (docs/answers.md); math-verify and sympy compare mathematics.

    The answer is between the last <answer> tags, or else in the last ``\\boxed{}``. With
    ``decimals``, math-verify compares numbers and mathematics to this many decimals.
    """
    return float(_right(completion, answer, decimals, algebra=True) is True)


def accuracy_at_once(
    completion: str, answer: Reference, decimals: int | None = None
) -> float | None:
    """``accuracy`` if it needs no computer algebra, else None."""
    verdict = _right(completion, answer, decimals, algebra=False)
    return None if verdict is None else float(verdict)


def _right(completion: str, answer: Reference, decimals: int | None, algebra: bool) -> Verdict:
    given = given_answer(completion)
    if given is None:
        return False
    undecided = False
    for gold in references(answer):
        if decimals is None:
            verdict = same(given, gold, equal if algebra else None)
        else:
            verdict = same_to_decimals(given, gold, decimals, algebra)
        if verdict:
            return True
        undecided |= verdict is None
    return None if undecided else False


def exact(completion: str, answer: Reference) -> float:
    """1 if the text between <answer> tags equals a reference, as text or as a number, else 0."""
    return float(is_correct(completion, answer))


def multiple_choice(completion: str, answer: Reference) -> float | None:
    """1 if the option letter between <answer> tags ("B", "(B)") is a reference's, else 0; None if
    no reference is a letter."""
    letters = [letter for letter in map(letter_of, references(answer)) if letter]
    if not letters:
        return None
    given = extract_answer(completion)
    return float(bool(given) and letter_of(given) in letters)


def numeric(completion: str, answer: Reference, tolerance: float = 0.01) -> float | None:
    """1 if the number between <answer> tags is close to a reference, else 0; None if no reference
    is a number. Units are compared as in ``accuracy``.

    Args:
        completion: the text of the completion.
        answer: the reference or references.
        tolerance: largest relative error; absolute if the reference is 0.
    """
    golds = [quantity for quantity in map(_quantity, references(answer)) if quantity]
    if not golds:
        return None
    text = extract_answer(completion)
    given = _quantity(text) if text else None
    if given is None:
        return 0.0
    largest_error = Fraction(tolerance)

    def near(number: Number, gold: Number) -> bool:
        return abs(number.value - gold.value) <= largest_error * (abs(gold.value) or 1)

    return float(any(same_quantity(given, gold, near) for gold in golds))


def _quantity(text: str) -> Quantity | None:
    """The quantity that a text is, or else the only number in it."""
    quantity = quantity_of(text)
    if quantity is not None:
        return quantity
    value = number_of(text)
    if value is None or not math.isfinite(value):
        return None
    return Quantity(Number(Fraction(value)))


def format_(completion: str, answer: Reference | None) -> float:
    """1 if the reply is <think>...</think><answer>...</answer>, else 0; <think> is optional."""
    return float(has_format(completion))


RULES = {
    "accuracy": Rule(accuracy, at_once=accuracy_at_once),
    "exact": Rule(exact),
    "multiple_choice": Rule(multiple_choice),
    "numeric": Rule(numeric),
    "format": Rule(format_, needs_answer=False, whole_reply=True),
}
