"""The default patterns that the gates look for in texts, and checks of a recipe's patterns."""

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

ANCHORS = (
    r"\blook(?:ing|s)?\b[^.?!]{0,40}?\b(?:again|back|closely|closer|carefully|at)\b",
    r"\b(?:check|re-?check|examin|inspect|revisit|return|zoom)\w*\b[^.?!]{0,60}?"
    r"\b(?:image|picture|figure|diagram|graph|chart|photo)\b",
    r"\b(?:i|we|you) (?:can )?see\b",
    r"\bin the (?:image|picture|figure|diagram|graph|chart|photo)\b",
)
DESCRIPTION_WORDS = (
    r"\b(?:the|this|that|your|given|provided|structured|image|visual|scene|written|textual)"
    r"\s+(?:\w+\s+)?descriptions?\b",
    r"\bdescriptions? (?:says?|states?|mentions?|shows?|gives?|lists?|indicates?|notes?)\b",
    r"\bas (?:\w+ )?described\b",
)
# Most models write \u2019 as the apostrophe.
REFUSALS = (
    r"^\W*(?:i(?:['\u2019]m| am) (?:very |so )?)?(?:sorry|unable|not able|afraid)\b",
    r"^\W*i (?:can(?:no|['\u2019])t|can not|will not|won['\u2019]t)"
    r" (?:help|assist|provide|comply|answer|describe|do that)\b",
    r"^\W*as an ai\b",
)


def check_patterns(name: str, patterns: Sequence[str]) -> None:
    """Checks the regular expressions of the setting ``name``.

    Raises:
        ValueError: a pattern is not a regular expression, or matches the empty text.
    """
    for pattern in patterns:
        try:
            matches_empty = re.search(pattern, "") is not None
        except re.error as error:
            raise ValueError(
                f"{name} must hold regular expressions; {pattern!r} is none: {error}."
            ) from None
        if matches_empty:
            raise ValueError(f"{name} must hold patterns of some text; {pattern!r} matches none.")


@lru_cache(maxsize=1)
def scripts() -> set[str]:
    """Names of all scripts: the first words of the Unicode names of letters."""
    letters = filter(str.isalpha, map(chr, range(sys.maxunicode + 1)))
    names = {unicodedata.name(letter, "") for letter in letters} - {""}
    return {re.split("[ -]", name)[0] for name in names}
