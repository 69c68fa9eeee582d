"""The built-in rewards: each judges one completion by itself."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from .answers import choice_of, extract_answer, has_format, is_correct, number_of


@dataclass(frozen=True)
class Rule:
    """A reward of one completion."""

    score: Callable[..., float | None]
    """(completion, reference answer) -> 0 or 1, or None where the rule does not apply to the
    reference."""
    needs_answer: bool = True
    can_hang: bool = False
    """Runs in a process that can be killed; the others are linear in the length of the text."""


def accuracy(completion: str, answer: str, decimals: int = 6) -> float:
    """Whether the answer is mathematically equal to the reference (math-verify), or equal as
    text.

    Read from the last <answer> tags, or else from the last ``\\boxed{}``. Numbers that are not
    exact are equal where they round to the same ``decimals``.
    """
    if is_correct(completion, answer):
        return 1.0
    given = extract_answer(completion)
    if given is None:
        if "\\boxed" not in completion:
            return 0.0
        given = completion[completion.rindex("\\boxed") :]
    from math_verify import parse, verify

    # Its own limit is signal.alarm, which long operations on big integers outlive.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    gold, guess = (_parse(parse, text) for text in (answer, given))
    return float(bool(gold) and bool(guess) and verify(gold, guess, decimals, timeout_seconds=None))


def _parse(parse: Callable[..., list], text: str) -> list:
    marked = text if "$" in text or "\\boxed" in text else f"${text}$"
    return parse(marked, parsing_timeout=None) or parse(text, parsing_timeout=None)


def exact(completion: str, answer: str) -> float:
    """Whether the text between <answer> tags equals the reference, as text or as a number."""
    return float(is_correct(completion, answer))


def multiple_choice(completion: str, answer: str) -> float | None:
    """Whether the letter between <answer> tags is the reference's, a letter of its own ("B",
    "(B)")."""
    wanted = choice_of(answer)
    if wanted is None:
        return None
    given = extract_answer(completion)
    return float(given is not None and choice_of(given) == wanted)


def numeric(completion: str, answer: str, tolerance: float = 0.01) -> float | None:
    """Whether the number between <answer> tags is within a share of the reference's; of 1 where
    that is 0."""
    wanted = number_of(answer)
    if wanted is None:
        return None
    given = extract_answer(completion)
    value = None if given is None else number_of(given)
    return float(value is not None and abs(value - wanted) <= tolerance * (abs(wanted) or 1.0))


def format_(completion: str, answer: str | None) -> float:
    """Whether the completion is <think>...</think><answer>...</answer>, thinking optional."""
    return float(has_format(completion))


RULES = {
    "accuracy": Rule(accuracy, can_hang=True),
    "exact": Rule(exact),
    "multiple_choice": Rule(multiple_choice),
    "numeric": Rule(numeric),
    "format": Rule(format_, needs_answer=False),
}
