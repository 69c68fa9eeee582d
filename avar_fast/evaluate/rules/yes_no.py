"""Finds "yes" or "no" in an answer."""

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
    """Returns "yes" or "no" if the text begins with it or if it is the only one that occurs; else
    None.

    A "no" directly before another word counts only if that word can begin a clause. The "no" of
    "no image" and "no idea" does not count.
    """
    text = final.text.lower()
    mentions = []
    for match in _SAID.finditer(text):
        word, next_word = match.groups()
        denied = re.search(r"\bnot\s$", text[max(match.start() - 5, 0) : match.start()])
        if not denied and (word == "yes" or next_word is None or next_word in _CLAUSE):
            mentions.append((match.start(), word))
    if not mentions or _BOTH.match(text):
        return None
    first_word = re.search(r"[a-z]", text)
    if first_word is not None and mentions[0][0] == first_word.start():
        return mentions[0][1]
    return mentions[0][1] if len({word for _, word in mentions}) == 1 else None
