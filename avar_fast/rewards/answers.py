"""Finds the answer in a completion and checks its format; text only, in linear time."""

import re
from collections.abc import Sequence

from .kinds import letter_of, same_text
from .kinds.letters import choice_of

Reference = str | Sequence[str]
"""The right answer, or several answers that are all right."""
_FORMAT = re.compile(
    r"\s*(<think>(?:(?!</?think>|</?answer>).)*</think>\s*)?<answer>(?:(?!</?think>|</?answer>).)*</answer>\s*",
    re.DOTALL,
)
_NUMBER = r"[+-]?(?:\d{1,3}(?:,\d{3})+(?![\d,])(?:\.\d*)?|\d+(?:\.\d*)?|\.\d+)"
_LONE_NUMBER = re.compile(rf"({_NUMBER}(?:[eE][+-]?\d{{1,3}})?)(?:\s*/\s*({_NUMBER}))?\s*(%?)")


def extract_answer(text: str) -> str | None:
    """The stripped text between the last complete pair of <answer> tags; None without a pair."""
    answer, at = None, 0
    while True:  # a regular expression would scan to the end of the text from every open tag
        start = text.find("<answer>", at)
        end = text.find("</answer>", start)
        if start < 0 or end < 0:
            return answer
        answer = text[start + len("<answer>") : end].strip()
        at = end


def last_boxed(text: str) -> str | None:
    """The content of the last ``\\boxed{}``, which may contain braces; None if the last box is not
    closed or there is none."""
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
    """The answer of a completion: the text between its last <answer> tags, or else in its last box;
    None if there is no answer or it is empty."""
    answer = extract_answer(text)
    return (last_boxed(text) if answer is None else answer) or None


def has_format(text: str) -> bool:
    """Whether the whole text is one <answer> element, with at most one <think> element before."""
    return _FORMAT.fullmatch(text) is not None


def references(answer: Reference | None) -> tuple[str, ...]:
    """All right answers of a reference, as a tuple."""
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
    """The only number in a text ("1,200", "3/4", "2.5e3", "50 %", "x = 12 cm"); None if there are
    no or several numbers."""
    matches = list(_LONE_NUMBER.finditer(text[:200]))
    if len(matches) != 1:
        return None
    top, bottom, percent = matches[0].groups()
    value = float(top.replace(",", ""))
    if bottom is not None:
        divisor = float(bottom.replace(",", ""))
        if divisor == 0:
            return None
        value /= divisor
    return value / 100 if percent else value


__all__ = ["Reference", "choice_of", "extract_answer", "given_answer", "has_format", "is_correct",
           "last_boxed", "letter_of", "number_of", "references"]  # fmt: skip
