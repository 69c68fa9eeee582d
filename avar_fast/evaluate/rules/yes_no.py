"""Yes or no."""

import re

from .final import Final

_SAID = re.compile(r"(?<![a-z0-9])(yes|no)(?![a-z0-9])(?:[ \t]+([a-z]+))?")
_CLAUSE = frozenset({
    "a", "according", "after", "all", "although", "an", "and", "any", "as", "at", "because", "both",
    "but", "by", "each", "for", "from", "given", "he", "here", "i", "if", "in", "is", "it", "its",
    "neither", "no", "nor", "not", "of", "on", "only", "or", "since", "so", "some", "that", "the",
    "their", "there", "these", "they", "this", "those", "though", "to", "two", "we", "what", "when",
    "where", "which", "while", "with", "yes", "you",
})  # fmt: skip
_BOTH = re.compile(
    r"\W*(?:yes\W{0,3}(?:and|or|/)\W{0,3}no|no\W{0,3}(?:and|or|/)\W{0,3}yes)(?!\s*[a-z])"
)


def yes_or_no(final: Final) -> str | None:
    """ "yes" or "no": the first word, or the only one of the two that occurs; else None.

    The "no" of "no image" and "no idea", with a word behind it that begins no clause, is none.
    """
    text = final.text.lower()
    said = []
    for found in _SAID.finditer(text):
        word, behind = found.groups()
        denied = re.search(r"\bnot\s$", text[max(found.start() - 5, 0) : found.start()])
        if not denied and (word == "yes" or behind is None or behind in _CLAUSE):
            said.append((found.start(), word))
    if not said or _BOTH.match(text):
        return None
    first_word = re.search(r"[a-z]", text)
    if first_word is not None and said[0][0] == first_word.start():
        return said[0][1]
    return said[0][1] if len({word for _, word in said}) == 1 else None
