"""The built-in rewards: each judges one completion by itself; ``kinds`` decides what is right."""

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
    """A reward of one completion."""

    score: Callable[..., float | None]
    """(completion, reference or references) -> 0 or 1, or None where the rule does not apply to the
    reference."""
    needs_answer: bool = True
    at_once: Callable[..., float | None] | None = None
    """Of a rule that can hang, which then runs in a process that can be killed: what it gives
    without that risk, None where it cannot. The other rules are linear in the length of the
    text."""
    whole_reply: bool = False
    """Judges what the prompt has opened with the completion."""

    @property
    def can_hang(self) -> bool:
        return self.at_once is not None


def accuracy(completion: str, answer: Reference, decimals: int | None = None) -> float:
    """Whether the answer is a reference, by what kind of answer that is (docs/answers.md);
    mathematics by math-verify and sympy.

    Read from the last <answer> tags, or else from the last ``\\boxed{}``. With ``decimals``,
    numbers and mathematics are right where math-verify finds them equal to so many decimals.
    """
    return float(_right(completion, answer, decimals, algebra=True) is True)


def accuracy_at_once(
    completion: str, answer: Reference, decimals: int | None = None
) -> float | None:
    """``accuracy`` where it needs no computer algebra; None where it does."""
    verdict = _right(completion, answer, decimals, algebra=False)
    return None if verdict is None else float(verdict)


def _right(completion: str, answer: Reference, decimals: int | None, algebra: bool) -> Verdict:
    given = given_answer(completion)
    if given is None:
        return False
    undecided = False
    for wanted in references(answer):
        if decimals is None:
            found = same(given, wanted, equal if algebra else None)
        else:
            found = same_to_decimals(given, wanted, decimals, algebra)
        if found:
            return True
        undecided |= found is None
    return None if undecided else False


def exact(completion: str, answer: Reference) -> float:
    """Whether the text between <answer> tags is a reference, as text or as a number."""
    return float(is_correct(completion, answer))


def multiple_choice(completion: str, answer: Reference) -> float | None:
    """Whether the letter between <answer> tags is a reference's, a letter of its own ("B",
    "(B)")."""
    wanted = [letter for letter in map(letter_of, references(answer)) if letter]
    if not wanted:
        return None
    given = extract_answer(completion)
    return float(bool(given) and letter_of(given) in wanted)


def numeric(completion: str, answer: Reference, tolerance: float = 0.01) -> float | None:
    """Whether the number between <answer> tags is within a share of a reference's; of 1 where
    that is 0. Units are those of accuracy."""
    wanted = [found for found in map(_quantity, references(answer)) if found]
    if not wanted:
        return None
    given = extract_answer(completion)
    found = _quantity(given) if given else None
    if found is None:
        return 0.0
    share = Fraction(tolerance)

    def near(one: Number, other: Number) -> bool:
        return abs(one.value - other.value) <= share * (abs(other.value) or 1)

    return float(any(same_quantity(found, other, near) for other in wanted))


def _quantity(text: str) -> Quantity | None:
    """The quantity that a text is, or else the one number that it holds."""
    found = quantity_of(text)
    if found is not None:
        return found
    value = number_of(text)
    if value is None or not math.isfinite(value):
        return None
    return Quantity(Number(Fraction(value)))


def format_(completion: str, answer: Reference | None) -> float:
    """Whether the reply is <think>...</think><answer>...</answer>, thinking optional."""
    return float(has_format(completion))


RULES = {
    "accuracy": Rule(accuracy, at_once=accuracy_at_once),
    "exact": Rule(exact),
    "multiple_choice": Rule(multiple_choice),
    "numeric": Rule(numeric),
    "format": Rule(format_, needs_answer=False, whole_reply=True),
}
