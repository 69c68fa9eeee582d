"""Numbers with units around them, as MathVista asks for."""

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
    """The one number of a text, or behind its last "="; a percent sign is a unit. None where there
    is none or several, or where it is part of an expression."""
    behind = text.rpartition("=")[2][:_LONGEST].replace("\u2212", "-")  # the typographic minus
    if _NO_NUMBER.match(behind):
        return None
    value = number_of(behind.replace("\\%", "").replace("%", ""))
    return value if value is not None and math.isfinite(value) else None


def whole(text: str) -> str | None:
    """A whole number as text; decimals are cut off."""
    value = lone_number(text)
    return None if value is None else str(int(value))


def rounded(text: str, decimals: int) -> str | None:
    """A number rounded to so many decimals, as text."""
    value = lone_number(text)
    return None if value is None else str(round(value, decimals))


def listed(text: str) -> str | None:
    """A list, written as Python writes it."""
    if len(text) > _LONGEST:
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return str(list(value)) if isinstance(value, list | tuple) else None
