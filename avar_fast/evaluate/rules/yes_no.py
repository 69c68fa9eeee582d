"""Yes or no."""

import re

from .final import Final

_WORD = re.compile(r"[a-z]+")


def yes_or_no(final: Final) -> str | None:
    """ "yes" or "no": the first word, or the only one of the two that occurs; else None."""
    words = _WORD.findall(final.text.lower())
    if words and words[0] in ("yes", "no"):
        return words[0]
    said = {"yes", "no"} & set(words)
    return said.pop() if len(said) == 1 else None
