"""Checking an answer and the format it came in: rules on text alone, linear in its length."""

import re
from fractions import Fraction

_FORMAT = re.compile(
    r"\s*(<think>(?:(?!</?think>|</?answer>).)*</think>\s*)?<answer>(?:(?!</?think>|</?answer>).)*</answer>\s*",
    re.DOTALL,
)
_NUMBER = r"[+-]?(?:\d[\d,]*(?:\.\d*)?|\.\d+)"
_LONE_NUMBER = re.compile(rf"({_NUMBER}(?:[eE][+-]?\d{{1,3}})?)(?:\s*/\s*({_NUMBER}))?\s*(%?)")
_CHOICE = re.compile(r"(?:the\s+)?(?:answer|option|choice)?\s*(?:is\b)?\s*:?\s*\(?([A-Z])\)?"
                     r"(?:\s*[.:)]\s*.*)?", re.DOTALL | re.IGNORECASE)  # fmt: skip


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


def has_format(text: str) -> bool:
    """Whether the whole text is one <answer>, with at most one <think> before it."""
    return _FORMAT.fullmatch(text) is not None


def is_correct(text: str, answer: str) -> bool:
    """Whether the extracted answer equals the reference, as text or as a number.

    Text is compared without case, outer space and a final period; numbers exactly ("0.5" = "1/2").
    """
    given = extract_answer(text)
    if given is None:
        return False
    given, wanted = (_normal(x) for x in (given, answer))
    if given == wanted:
        return True
    numbers = [_fraction(x) for x in (given, wanted)]
    return None not in numbers and numbers[0] == numbers[1]


def choice_of(text: str) -> str | None:
    """The letter of a multiple-choice answer: "B", "(b)", "B. 12 cm", "Option B", "The answer is
    B"; None for anything else."""
    found = _CHOICE.fullmatch(text.strip())
    return found[1].upper() if found else None


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


def _normal(text: str) -> str:
    return text.strip().rstrip(".").casefold()


def _fraction(text: str) -> Fraction | None:
    if len(text) > 40 or re.fullmatch(r"[+-]?[\d,]+(\.\d+)?(\s*/\s*\d+)?", text) is None:
        return None
    top, _, bottom = text.replace(",", "").replace(" ", "").partition("/")
    denominator = Fraction(bottom or 1)
    return Fraction(top) / denominator if denominator else None
