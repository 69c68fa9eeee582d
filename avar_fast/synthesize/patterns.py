"""What the gates look for in texts unless a recipe says otherwise, and what they can look for."""

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
# \u2019 is the apostrophe of most models.
REFUSALS = (
    r"^\W*(?:i(?:['\u2019]m| am) (?:very |so )?)?(?:sorry|unable|not able|afraid)\b",
    r"^\W*i (?:can(?:no|['\u2019])t|can not|will not|won['\u2019]t)"
    r" (?:help|assist|provide|comply|answer|describe|do that)\b",
    r"^\W*as an ai\b",
)


def check_patterns(name: str, patterns: Sequence[str]) -> None:
    """
    Raises:
        ValueError: one that is no regular expression, or matches where nothing is; the message
            names ``name``.
    """
    for pattern in patterns:
        try:
            matches_nothing = re.search(pattern, "") is not None
        except re.error as error:
            raise ValueError(
                f"{name} must hold regular expressions; {pattern!r} is none: {error}."
            ) from None
        if matches_nothing:
            raise ValueError(f"{name} must hold patterns of some text; {pattern!r} matches none.")


@lru_cache(maxsize=1)
def scripts() -> set[str]:
    """First words of the names of all letters."""
    letters = filter(str.isalpha, map(chr, range(sys.maxunicode + 1)))
    names = {unicodedata.name(letter, "") for letter in letters} - {""}
    return {re.split("[ -]", name)[0] for name in names}
