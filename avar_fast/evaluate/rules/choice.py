"""Letters of multiple choice."""

import re

from ...rewards.answers import choice_of
from .final import Final

_PUNCTUATION = ",.!?;:'"


def mmmu_letter(final: Final, options: tuple[str, ...], pro: bool = False) -> str | None:
    """The letter by MMMU's rule, without its random choice where nothing is found.

    Letters in brackets, else letters by themselves, else (in more than five words) the text of an
    option; of several the one mentioned last.

    Args:
        final: of the completion.
        options: in the order of their letters.
        pro: MMMU-Pro's form of the rule: a single letter behind the last "Answer:" comes first, and
            letters at the end of a word or in front of a full stop count too.
    """
    letters = [chr(ord("A") + i) for i in range(len(options))]
    if final.explicit and (choice_of(final.text) or "") in letters:
        return choice_of(final.text)
    response = final.text
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
    if len(response.split()) > 5:
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


def mmstar_letter(final: Final) -> str | None:
    """The letter a completion begins with, as MMStar's rule has it: "B", "(B)", "Option B", "The
    answer is B". A word that begins with the letter does not count, as it does there."""
    if final.explicit and choice_of(final.text):
        return choice_of(final.text)
    found = _MMSTAR.match(final.text.lower().strip().replace("\n", " "))
    return found[1].upper() if found else None


def nearest_option(given: str, options: tuple[str, ...]) -> str | None:
    """The option with the least edit distance, by MathVista's rule; None where that is more than
    half of the longer text or two are as near."""
    if len(given) > 200:
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
