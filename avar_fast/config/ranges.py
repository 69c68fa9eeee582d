"""Ranges of numbers in a recipe; ValueError names the key and what it holds."""

import math
from collections.abc import Mapping


def require_positive(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}.")


def require_not_negative(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more and finite; got {value}.")
