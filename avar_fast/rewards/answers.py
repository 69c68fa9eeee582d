"""Checking an answer and the format it came in: rules, no judge."""

import re
from fractions import Fraction

_ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
_FORMAT = re.compile(
    r"\s*(<think>(?:(?!</?think>|</?answer>).)*</think>\s*)?<answer>(?:(?!</?think>|</?answer>).)*</answer>\s*",
    re.DOTALL,
)


def extract_answer(text: str) -> str | None:
    """The text between the last <answer> tags, stripped; None where there is none."""
    found = _ANSWER.findall(text)
    return found[-1].strip() if found else None


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
    numbers = [_number(x) for x in (given, wanted)]
    return None not in numbers and numbers[0] == numbers[1]


def _normal(text: str) -> str:
    return text.strip().rstrip(".").casefold()


def _number(text: str) -> Fraction | None:
    if len(text) > 40 or re.fullmatch(r"[+-]?[\d,]+(\.\d+)?(\s*/\s*\d+)?", text) is None:
        return None
    top, _, bottom = text.replace(",", "").replace(" ", "").partition("/")
    denominator = Fraction(bottom or 1)
    return Fraction(top) / denominator if denominator else None
