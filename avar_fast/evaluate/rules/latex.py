"""Finds and compares MathVision's answers: letters, numbers and LaTeX."""

import re
from collections.abc import Sequence

from ..benchmark import Equal
from ..prediction import Verdict
from .choice import bracketed, lone_letter
from .final import Final, short_answer

LONGEST = 1000  # longer answers, in characters, are not compared as mathematics
_DROPPED = re.compile(
    r"\\(?:left|right|textbf|text|mathbf|mbox|mathrm|,|!|;|\$|%|[()\[\]])|\*\*|`|\^\{?\\circ\}?|°"
    r"|[\s$%{}]|units"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LAST_LETTER = re.compile(r"(?: ([A-E])| \(([A-E])\))\.$")
_FIRST_LETTER = re.compile(r"\(?([A-E])\)?\n")


def mathvision_answer(final: Final) -> str | None:
    """The answer of a completion: in tags, a letter alone at the end or the beginning, in a box,
    announced, or a number after the last "is". None if there is none of these."""
    letter = _LAST_LETTER.search(final.around[-8:]) or _FIRST_LETTER.match(final.around)
    if letter:
        return next(group for group in letter.groups() if group)
    if not final.explicit:
        ending = final.text.rpartition("is ")[2].rstrip(".")
        if re.fullmatch(r"[+-]?\d[\d,]*(\.\d*)?", ending):
            return ending
    answer = short_answer(final)
    if answer is None:
        return None
    for sign in ("=", "\\approx"):
        answer = answer.rpartition(sign)[2]
    return answer.strip() or None


def letter_of(answer: str, letters: str) -> str | None:
    """The letter that an answer consists of; None if it is none of the letters or names several."""
    text = plain(answer).upper()
    if len(bracketed(text)) > 1:
        return None
    return lone_letter(answer, letters) or lone_letter(text, letters)


def plain(text: str) -> str:
    """The text without LaTeX markup, units, white space and dollar or percent signs. Two answers
    whose plain texts are the same are equal."""
    fractions = text.lower().replace("dfrac", "frac").replace("tfrac", "frac")
    return _DROPPED.sub("", fractions).rstrip(".")


def same(answer: str, reference: str) -> bool:
    """Whether two answers have the same plain text, or are numbers that are equal after rounding to
    two decimals."""
    texts = [plain(answer), plain(reference)]
    if texts[0] == texts[1]:
        return True
    try:
        numbers = [round(float(_THOUSANDS.sub("", text)), 2) for text in texts]
    except (ValueError, OverflowError):
        return False
    return numbers[0] == numbers[1]


def settled(
    compared: Sequence[tuple[Verdict, tuple[str, str] | None]], equal: Equal
) -> list[Verdict]:
    """Completes verdicts that need a mathematical comparison. All pairs are compared in one call.

    Args:
        compared: each verdict with the pair (answer, reference) that remains to be compared, or
            with None if the verdict is final. An answer much longer than any reference is not
            compared and is wrong.
        equal: compares the pairs.
    """
    waiting = [pair if pair and len(pair[0]) <= LONGEST else None for _, pair in compared]
    equals = iter(equal([pair for pair in waiting if pair is not None]))
    return [
        v if pair is None else Verdict(v.parsed, next(equals))
        for (v, _), pair in zip(compared, waiting, strict=True)
    ]
