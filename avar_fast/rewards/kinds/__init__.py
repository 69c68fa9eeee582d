"""Compares answers: numbers, letters, dates, lists, mathematics and words."""

from .decide import Algebra, Verdict, same
from .expressions import equal, rounds_to
from .numbers import Number
from .quantities import Quantity, same_quantity
from .readings import letter_of, quantity_of, same_text, same_to_decimals

__all__ = [
    "Algebra",
    "Number",
    "Quantity",
    "Verdict",
    "equal",
    "letter_of",
    "quantity_of",
    "rounds_to",
    "same",
    "same_quantity",
    "same_text",
    "same_to_decimals",
]
