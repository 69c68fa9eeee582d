"""Letters of options."""

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
_LAST_MARKED = "H"  # an initial beyond it begins a name: I. Newton, J. Bach


@dataclass(frozen=True)
class Choice:
    letter: str
    """A capital."""
    text: str = ""
    """What stands behind it: "12 cm" of "B) 12 cm"."""


def choice_of(text: str) -> str | None:
    """The letter of a multiple-choice answer: "B", "(b)", "B. 12 cm", "Option B", "The answer is
    B"; None for anything else."""
    found = _CHOICE.fullmatch(text.strip())
    return found[1].upper() if found else None


def choice(text: str) -> Choice | None:
    """The option that a plain text names, and no other beside it."""
    found = _ALONE.fullmatch(text)
    if found:
        return Choice(found[1].upper())
    found = _MARKED.fullmatch(text)
    if found is None:
        return None
    letter = (found[1] or found[2] or found[3]).upper()
    behind = found["text"].strip()
    if letter > _LAST_MARKED or _OTHERS.search(behind):
        return None
    return Choice(letter, behind)


def several(text: str) -> tuple[str, ...] | None:
    """The letters of "A, C", "(A) and (C)", "A C"."""
    if len(text) > 60 or not _SEVERAL.fullmatch(text):
        return None
    return tuple(re.findall(r"\b[A-Ja-j]\b", text.upper()))


def compact(text: str) -> tuple[str, ...] | None:
    """The letters of "AC", which may be a word."""
    return tuple(text) if _COMPACT.fullmatch(text) and len(set(text)) == len(text) else None


def same_letters(given: str, gold: str) -> bool | None:
    """Several letters: a set where the reference has them in the order of the alphabet, else a
    sequence. None where the reference holds none, or is a word that the given repeats as one."""
    wanted, said = several(gold), several(given)
    if wanted is None:
        wanted = compact(gold)
        if wanted is None or said is None:
            return None
    said = said or compact(given.upper())
    if said is None:
        return False
    return said == wanted or (list(wanted) == sorted(wanted) and sorted(said) == list(wanted))
