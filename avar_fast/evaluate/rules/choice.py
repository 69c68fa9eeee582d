"""Letters of multiple choice."""

import math
import re

from ...rewards.answers import choice_of
from .final import Final, announced, short_answer
from .number import lone_number

_PUNCTUATION = ",.!?;:'"
_LATEX = re.compile(r"\\(?:boxed|fbox|text|textbf|textit|mathbf|mathrm|mbox)(?![a-z])|\\[()\[\]]")
_AROUND = " \n\t\"'`*_$[]{},.!?;:\u201c\u201d\u3002\uff1a"
_BULLETS = " -#>="
_SEVERAL = re.compile(r"\(?[A-Z]\W{0,3}(?:or|and|&|/)\W{0,3}[A-Z]\b", re.IGNORECASE)
_LEADING = re.compile(r"\(?([A-Z])(?![\w'])(?!\W{0,3}(?:or|and|&|/|,)\W{0,3}[A-Z]\b)")
_BRACKETED = re.compile(r"\(([A-Z])\)")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{\s*(\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_FEW = 5  # words up to which MMMU's rule looks for no option's text


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


def mmmu_letter(final: Final, options: tuple[str, ...], pro: bool = False) -> str | None:
    """The letter by MMMU's rule, without its random choice where nothing is found: there, a letter
    that is all there is, or that is announced.

    Args:
        final: of the completion. In tags, few words are a letter, an option or nothing; where a box
            holds something else, all that stands around it is read.
        options: in the order of their letters.
        pro: MMMU-Pro's form of the rule.
    """
    letters = "".join(chr(ord("A") + i) for i in range(len(options)))
    stated = stated_letter(final, letters)
    if final.explicit:
        same = [x for x, option in zip(letters, options, strict=True) if _same(final.text, option)]
        if stated or len(same) == 1:
            return stated or same[0]
        if final.around:
            return mmmu_letter(Final(final.around, explicit=False), options, pro)
        if len(final.text.split()) <= _FEW:
            return None
    return _mmmu_letter(final.text, letters, options, pro) or stated


def _same(given: str, option: str) -> bool:
    return bare(given).casefold() == bare(option).casefold()


def _mmmu_letter(response: str, letters: str, options: tuple[str, ...], pro: bool) -> str | None:
    """Letters in brackets, else letters by themselves, else (in more than five words) the text of
    an option; of several the one mentioned last.

    MMMU-Pro looks first for a single letter behind the last "Answer:", and takes letters at the end
    of a word or in front of a full stop too.
    """
    if pro and "Answer:" in response:
        behind = response[response.rindex("Answer:") + len("Answer:") :].strip()
        found = [letter for letter in letters if letter in behind]
        if len(found) == 1:
            return found[0]
    for mark in _PUNCTUATION:
        response = response.strip(mark)
    response = f" {response} "
    forms = ("({})", "{} ", "{}.") if pro else ("({})", " {} ")
    for form in forms:
        found = [letter for letter in letters if form.format(letter) in response]
        if found:
            if len(found) == 1:
                return found[0]
            shown = form if form == "({})" else " {} "
            return max(found, key=lambda letter: response.rfind(shown.format(letter)))
    if len(response.split()) > _FEW:
        lower = response.lower()
        named = {
            letter: lower.rfind(text.lower())
            for letter, text in zip(letters, options, strict=True)
            if text.lower() in lower
        }
        if named:
            return max(named, key=lambda letter: named[letter])
    return None


_MMSTAR = re.compile(r"(?:option |the answer is )?\(?([a-z])(?![a-z0-9'])")


def mmstar_letter(final: Final, letters: str = "ABCD") -> str | None:
    """The letter a completion begins with, as MMStar's rule has it: "B", "(B)", "Option B", "The
    answer is B"; where it finds none, a letter that is all there is, or that is announced.

    A word that begins with the letter does not count, as it does there. In tags, few words are a
    letter or nothing; where a box holds something else, all that stands around it is read.
    """
    stated = stated_letter(final, letters)
    if final.explicit and not stated and final.around:
        return mmstar_letter(Final(final.around, explicit=False), letters)
    if final.explicit and (stated or len(final.text.split()) <= _FEW):
        return stated
    found = _MMSTAR.match(final.text.lower().strip().replace("\n", " "))
    first = found[1].upper() if found else ""
    return first if first and first in letters else stated


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
