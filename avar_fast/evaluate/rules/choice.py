"""Finds the letter or the option that a multiple-choice answer names."""

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
    """The text without LaTeX commands and without Markdown, quotes and punctuation around it."""
    return _LATEX.sub("", text).strip(_AROUND)


def lone_letter(text: str, letters: str) -> str | None:
    """The letter that a text consists of, apart from markup or the option's text: "**B**",
    "\\text{(B)}", "B. 12 cm".

    None if the text is none of the letters or names several.
    """
    if not letters:
        return None
    text = bare(text).lstrip(_BULLETS).replace("\uff08", "(").replace("\uff09", ")")
    letter = choice_of(text)
    if letter is None or letter not in letters or _SEVERAL.match(text):
        return None
    return letter if len(bracketed(text)) <= 1 else None


def bracketed(text: str) -> set[str]:
    """The letters that appear in brackets."""
    return set(_BRACKETED.findall(text.upper()))


def stated_letter(final: Final, letters: str) -> str | None:
    """A letter that stands alone or directly after "the answer is"; None if there is no such
    letter."""
    answer = short_answer(final)
    if answer is None:
        return None
    letter = lone_letter(answer, letters)
    if letter is None and not final.explicit and announced(final.text):
        leading = _LEADING.match(bare(answer))
        letter = leading[1] if leading and leading[1] in letters else None
    return letter


def meant_option(answer: str, options: tuple[str, ...]) -> str | None:
    """The option whose text an answer means; None if no option fits.

    A numeric answer means the only option with the same number ("3.0" for "3mm", "4/5" for
    "\\frac{4}{5}"), and never an option with another number. Otherwise the nearest text counts.
    """
    value = lone_number(answer)
    if value is not None:
        numbers = [lone_number(_FRACTION.sub(r"\1/\2", option)) for option in options]
        pairs = list(zip(options, numbers, strict=True))
        same = [o for o, x in pairs if x is not None and math.isclose(x, value, rel_tol=1e-3)]
        if len(same) == 1:
            return same[0]
        options = tuple(option for option, number in pairs if number is None)
    return nearest_option(answer, options) or nearest_option(bare(answer), options)


def nearest_option(answer: str, options: tuple[str, ...]) -> str | None:
    """The option with the smallest edit distance, by MathVista's rule. None if the distance is more
    than half the length of the longer text, or if two options are equally near."""
    if len(answer) > 200 or not options:
        return None
    distances = sorted((edit_distance(answer, option), option) for option in set(options))
    distance, option = distances[0]
    if 2 * distance > max(len(answer), len(option)):
        return None
    return None if len(distances) > 1 and distances[1][0] == distance else option


def edit_distance(a: str, b: str) -> int:
    """The Levenshtein distance of two texts."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, start=1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
