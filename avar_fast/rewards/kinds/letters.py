"""Letters of multiple-choice options."""

import re
from dataclasses import dataclass

_CHOICE = re.compile(r"(?:the\s+)?(?:answer|option|choice)?\s*(?:is\b)?\s*:?\s*\(?([A-Z])\)?"
                     r"(?:\s*[.:)]\s*(.*))?", re.DOTALL | re.IGNORECASE)  # fmt: skip
_MARKED = re.compile(
    r"(?:the\s+)?(?:option|choice|answer)?\s*:?\s*"
    r"(?:[(\[{]([A-Za-z])[)\]}][.:]?|([A-Za-z])\)|([A-Z])\s?[.:](?![A-Za-z]))\s*(?P<text>\S.*)",
    re.DOTALL | re.IGNORECASE,
)
_ALONE = re.compile(
    r"(?:the\s+)?(?:option|choice)?\s*(?:is\b)?\s*[(\[{]?\s*([A-Za-z])\s*[)\]}]?\s*[.:]?",
    re.IGNORECASE,
)
_OTHERS = re.compile(r"\([A-Z]\)|\b[A-Z]\)|\b[A-Z][.:]\s|^(?:or|and|&|/)\s*\(?[A-Z]\b")
_SEVERAL = re.compile(
    r"\(?[A-Ja-j]\)?(?:(?:\s*(?:[,;/&]|\band\b)\s*)+\(?[A-Ja-j]\)?|\s+\(?[A-J]\)?)+"
)
_COMPACT = re.compile(r"[A-J]{2,8}")
_LAST_MARKED = "H"  # a later initial begins a name: I. Newton, J. Bach


@dataclass(frozen=True)
class Choice:
    """An option of a multiple-choice question."""

    letter: str
    """The capital letter."""
    text: str = ""
    """The option's text: "12 cm" in "B) 12 cm"."""


def choice_of(text: str) -> str | None:
    """The letter of a multiple-choice answer: "B", "(b)", "B. 12 cm", "Option B", "The answer is
    B"; None for anything else."""
    match = _CHOICE.fullmatch(text.strip())
    return match[1].upper() if match else None


def parse_choice(text: str) -> Choice | None:
    """Parses a plain text that names exactly one option; None for any other text."""
    match = _ALONE.fullmatch(text)
    if match:
        return Choice(match[1].upper())
    match = _MARKED.fullmatch(text)
    if match is None:
        return None
    letter = (match[1] or match[2] or match[3]).upper()
    option = match["text"].strip()
    if letter > _LAST_MARKED or _OTHERS.search(option):
        return None
    return Choice(letter, option)


def parse_letters(text: str) -> tuple[str, ...] | None:
    """The letters of "A, C", "(A) and (C)" or "A C"; None for any other text."""
    if len(text) > 60 or not _SEVERAL.fullmatch(text):
        return None
    return tuple(re.findall(r"\b[A-Ja-j]\b", text.upper()))


def parse_compact_letters(text: str) -> tuple[str, ...] | None:
    """The letters of "AC", which may also be a word; None for any other text."""
    return tuple(text) if _COMPACT.fullmatch(text) and len(set(text)) == len(text) else None


def same_letters(given: str, gold: str) -> bool | None:
    """Compares several letters: as a set if the reference is in alphabetical order, else as a
    sequence. None if the reference has no letters, or may be a word and the answer is no list of
    letters."""
    letters, given_letters = parse_letters(gold), parse_letters(given)
    if letters is None:
        letters = parse_compact_letters(gold)
        if letters is None or given_letters is None:
            return None
    given_letters = given_letters or parse_compact_letters(given.upper())
    if given_letters is None:
        return False
    if list(letters) == sorted(letters):
        return sorted(given_letters) == list(letters)
    return given_letters == letters
