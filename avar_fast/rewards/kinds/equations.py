"""Splits an equation such as "x = 5" into its names and its value."""

import re

from .lists import at_top

_NAME = re.compile(
    r"\\?[A-Za-z]{1,8}(?:_\{?\w{1,4}\}?|')?(?:\([A-Za-z, ]{1,12}\))?"  # x, x_1, f(x), \theta
    r"|\\?[A-Za-z]+(?:[ ~]\\?[A-Za-z]+){1,4}(?: is)?"  # the area
)
_ARITHMETIC = re.compile(r"(?:[-+*/().\d\s\u00d7\u00b7\u00f7^{}\u221a]|\\(?:sqrt|frac))+")


def assigned(text: str) -> tuple[frozenset[str], str]:
    """The names and the value of "x = 5" or "30 + 30 = 60"; for any other text, no name and the
    text itself."""
    parts = at_top(re.sub(r"\u2248|\\approx(?![a-z])", "=", text), "=")
    if len(parts) == 1 or not parts[-1]:
        return frozenset(), text
    names = set()
    for part in parts[:-1]:
        if _NAME.fullmatch(part):
            names |= {part} if len(part) <= 2 else set()
        elif not _ARITHMETIC.fullmatch(part):
            return frozenset(), text
    return frozenset(names), parts[-1]
