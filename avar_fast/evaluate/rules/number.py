"""Numbers with units around them, as MathVista asks for."""

import ast

from ...rewards.answers import number_of


def lone_number(text: str) -> float | None:
    """The one number of a text, or behind its last "="; a percent sign is a unit. None where there
    is none or several."""
    behind = text.rpartition("=")[2]
    return number_of(behind.replace("\\%", "").replace("%", ""))


def whole(text: str) -> str | None:
    """A whole number as text; decimals are cut off."""
    value = lone_number(text)
    return None if value is None or abs(value) > 1e300 else str(int(value))


def rounded(text: str, decimals: int) -> str | None:
    """A number rounded to so many decimals, as text."""
    value = lone_number(text)
    return None if value is None else str(round(value, decimals))


def listed(text: str) -> str | None:
    """A list, written as Python writes it."""
    if len(text) > 1000:
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return str(list(value)) if isinstance(value, list | tuple) else None
