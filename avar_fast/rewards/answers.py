"""What a completion answers and the format it came in: rules on text alone, linear in its
length."""

import re
from collections.abc import Sequence

from .kinds import letter_of, same_text
from .kinds.letters import choice_of

Reference = str | Sequence[str]
"""What is right: one answer, or several of which any is."""
_FORMAT = re.compile(
    r"\s*(<think>(?:(?!</?think>|</?answer>).)*</think>\s*)?<answer>(?:(?!</?think>|</?answer>).)*</answer>\s*",
    re.DOTALL,
)
_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_LONE_NUMBER = re.compile(rf"({_NUMBER}(?:[eE][+-]?\d{{1,3}})?)(?:\s*/\s*({_NUMBER}))?\s*(%?)")


def extract_answer(text: str) -> str | None:
    """The text between the last whole pair of <answer> tags, stripped; None where there is none."""
    answer, at = None, 0
    while True:  # not a pattern: from each open tag it would look ahead to the end of the text
        start = text.find("<answer>", at)
        end = text.find("</answer>", start)
        if start < 0 or end < 0:
            return answer
        answer = text[start + len("<answer>") : end].strip()
        at = end


def last_boxed(text: str) -> str | None:
    """What stands in the last ``\\boxed{}``, braces inside it counted; None where there is no whole
    one."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth, begin = 1, start + len("\\boxed{")
    for at in range(begin, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if depth == 0:
            return text[begin:at].strip()
    return None


def given_answer(text: str) -> str | None:
    """What a completion answers: between its last <answer> tags, or else in its last box; None
    where it does not, or answers with nothing."""
    answer = extract_answer(text)
    return (last_boxed(text) if answer is None else answer) or None


def has_format(text: str) -> bool:
    """Whether the whole text is one <answer>, with at most one <think> before it."""
    return _FORMAT.fullmatch(text) is not None


def references(answer: Reference | None) -> tuple[str, ...]:
    """The answers that are right, one or several."""
    if answer is None:
        return ()
    return (answer,) if isinstance(answer, str) else tuple(answer)


def is_correct(text: str, answer: Reference) -> bool:
    """Whether the answer between the tags is a reference, as text or as a number in digits.

    Text is compared without case, outer space, Markdown and a final period; numbers exactly
    ("0.5" = "1/2"). An empty answer is never right.
    """
    given = extract_answer(text)
    return bool(given) and any(same_text(given, wanted) for wanted in references(answer))


def number_of(text: str) -> float | None:
    """The one number a text is or, with a unit around it, holds ("1,200", "3/4", "2.5e3", "50 %",
    "x = 12 cm"); None where it has none or several."""
    found = list(_LONE_NUMBER.finditer(text[:200]))
    if len(found) != 1:
        return None
    top, bottom, percent = found[0].groups()
    value = float(top.replace(",", ""))
    if bottom is not None:
        divisor = float(bottom.replace(",", ""))
        if divisor == 0:
            return None
        value /= divisor
    return value / 100 if percent else value


__all__ = ["Reference", "choice_of", "extract_answer", "given_answer", "has_format", "is_correct",
           "last_boxed", "letter_of", "number_of", "references"]  # fmt: skip
