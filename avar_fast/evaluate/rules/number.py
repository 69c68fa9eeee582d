"""Reads numbers and lists, with units around them, for MathVista."""

import ast
import math
import re

from ...rewards.answers import number_of

_NO_NUMBER = re.compile(
    r"\W{0,3}not\b"  # an answer that is ruled out
    r"|.*(?:\d,(?!\d{3}(?!\d))\d"  # a decimal comma, or numbers without a space between them
    r"|sqrt|\\pi"
    r"|[\u221a\u03c0\u00bc-\u00be\u2150-\u215e])",  # a root, pi, fractions in one character
    re.IGNORECASE | re.DOTALL,
)
_LONGEST = 1000


def lone_number(text: str) -> float | None:
    """The only number in a text, or after its last "=". A percent sign counts as a unit. None if
    there is no number, if there are several, or if it is part of an expression."""
    ending = text.rpartition("=")[2][:_LONGEST].replace("\u2212", "-")  # the typographic minus
    if _NO_NUMBER.match(ending):
        return None
    value = number_of(ending.replace("\\%", "").replace("%", ""))
    return value if value is not None and math.isfinite(value) else None


def whole(text: str) -> str | None:
    """Reads a whole number and returns it as text. Decimals are cut off."""
    value = lone_number(text)
    return None if value is None else str(int(value))


def rounded(text: str, decimals: int) -> str | None:
    """Reads a number and returns it as text, rounded to ``decimals``."""
    value = lone_number(text)
    return None if value is None else str(round(value, decimals))


def listed(text: str) -> str | None:
    """Reads a list and returns it as Python writes it."""
    if len(text) > _LONGEST:
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return str(list(value)) if isinstance(value, list | tuple) else None
