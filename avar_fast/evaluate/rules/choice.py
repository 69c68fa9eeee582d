"""Letters of multiple choice."""

import math
import re

from ...rewards.answers import choice_of
from .final import Final, announced, short_answer
from .number import lone_number

_LATEX = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathbf|mathrm|mbox)(?![a-z])|\\[()\[\]]")
_AROUND = " \n\t\"'`*_$[]{},.!?;:\u201c\u201d\u3002\uff1a"
_BULLETS = " -#>="
_SEVERAL = re.compile(r"\(?[A-Z]\W{0,3}(?:or|and|&|/)\W{0,3}[A-Z]\b", re.IGNORECASE)
_LEADING = re.compile(r"\(?([A-Z])(?![\w'])(?!\W{0,3}(?:or|and|&|/|,)\W{0,3}[A-Z]\b)")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")


def bare(text: str) -> str:
    """Without LaTeX, Markdown, quotes and punctuation around it."""
    return _LATEX.sub("", text).strip(_AROUND)


def lone_letter(text: str, letters: str) -> str | None:
    """The letter that a text is, whatever stands around it: "**B**", "\\text{(B)}", "B. 12 cm".

    None where it is none of the letters or several.
    """
    if not letters:
        return None
    text = bare(text).lstrip(_BULLETS).replace("\uff08", "(").replace("\uff09", ")")
    letter = choice_of(text)
    if letter is None or letter not in letters or _SEVERAL.match(text):
        return None
    return letter if len(bracketed(text)) <= 1 else None


def bracketed(text: str) -> set[str]:
    """The letters that stand in brackets."""
    return set(_BRACKETED.findall(text.upper()))


def stated_letter(final: Final, letters: str) -> str | None:
    """The letter where it is all there is, or the first thing behind "the answer is"."""
    given = short_answer(final)
    if given is None:
        return None
    letter = lone_letter(given, letters)
    if letter is None and not final.explicit and announced(final.text):
        found = _LEADING.match(bare(given))
        letter = found[1] if found and found[1] in letters else None
    return letter


def meant_option(given: str, options: tuple[str, ...]) -> str | None:
    """The option that an answer means by its text.

    Of a number the only one with the same ("3.0" for "3mm", "4/5" for "\\frac{4}{5}") and never one
    with another; else the nearest.
    """
    value = lone_number(given)
    if value is not None:
        numbers = [lone_number(_FRACTION.sub(r"\1/\2", option)) for option in options]
        pairs = list(zip(options, numbers, strict=True))
        same = [o for o, x in pairs if x is not None and math.isclose(x, value, rel_tol=1e-3)]
        if len(same) == 1:
            return same[0]
        options = tuple(option for option, number in pairs if number is None)
    return nearest_option(given, options) or nearest_option(bare(given), options)


def nearest_option(given: str, options: tuple[str, ...]) -> str | None:
    """The option with the least edit distance, by MathVista's rule; None where that is more than
    half of the longer text or two are as near."""
    if len(given) > 200 or not options:
        return None
    distances = sorted((edit_distance(given, option), option) for option in set(options))
    distance, option = distances[0]
    if 2 * distance > max(len(given), len(option)):
        return None
    return None if len(distances) > 1 and distances[1][0] == distance else option


def edit_distance(a: str, b: str) -> int:
    """Levenshtein's."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
