"""MathVision's answers: letters, numbers and LaTeX."""

import re
from collections.abc import Sequence

from ..benchmark import Equal
from ..prediction import Verdict
from .choice import bracketed, lone_letter
from .final import Final, short_answer

LONGEST = 1000  # characters of an answer that is read as mathematics
_DROPPED = re.compile(
    r"\\(?:left|right|textbf|text|mathbf|mbox|mathrm|,|!|;|\$|%|[()\[\]])|\*\*|`|\^\{?\\circ\}?|°"
    r"|[\s$%{}]|units"
)
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_LAST_LETTER = re.compile(r"(?: ([A-E])| \(([A-E])\))\.$")
_FIRST_LETTER = re.compile(r"\(?([A-E])\)?\n")


def mathvision_answer(final: Final) -> str | None:
    """What a completion answers: in tags; a letter by itself at the end or the beginning; in a box,
    announced, or a number behind its last "is"."""
    found = _LAST_LETTER.search(final.around[-8:]) or _FIRST_LETTER.match(final.around)
    if found:
        return next(letter for letter in found.groups() if letter)
    if not final.explicit:
        behind = final.text.rpartition("is ")[2].rstrip(".")
        if re.fullmatch(r"[+-]?\d[\d,]*(\.\d*)?", behind):
            return behind
    given = short_answer(final)
    if given is None:
        return None
    for sign in ("=", "\\approx"):
        given = given.rpartition(sign)[2]
    return given.strip() or None


def letter_of(given: str, letters: str) -> str | None:
    """The letter an answer is, of those there are; None where it names several."""
    text = plain(given).upper()
    if len(bracketed(text)) > 1:
        return None
    return lone_letter(given, letters) or lone_letter(text, letters)


def plain(text: str) -> str:
    """Without what LaTeX and units put around an answer; two texts that are the same then are
    equal."""
    fractions = text.lower().replace("dfrac", "frac").replace("tfrac", "frac")
    return _DROPPED.sub("", fractions).rstrip(".")


def same(given: str, wanted: str) -> bool:
    """Whether two answers are the same text but for what stands around them, or numbers that round
    to the same two decimals."""
    texts = [plain(given), plain(wanted)]
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
    """Verdicts, those that wait decided by ``equal``, all of them in one call.

    Args:
        compared: each verdict with the (answer, reference) that is left to compare as mathematics,
            None where it stands. One longer than any reference by far is not compared: wrong.
        equal: of a benchmark's run.
    """
    waiting = [pair if pair and len(pair[0]) <= LONGEST else None for _, pair in compared]
    equals = iter(equal([pair for pair in waiting if pair is not None]))
    return [
        v if pair is None else Verdict(v.parsed, next(equals))
        for (v, _), pair in zip(compared, waiting, strict=True)
    ]
