"""Ranges of numbers in a recipe; ValueError names the key and what it holds."""

import math
from collections.abc import Mapping

# Beyond, sums in float32 leave its range (3.4e38), and whole numbers a float's exactness.
LARGEST = 1e30
LARGEST_COUNT = 2**53


def require_positive(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}.")
        _require_representable(name, value)


def require_not_negative(values: Mapping[str, float]) -> None:
    for name, value in values.items():
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more and finite; got {value}.")
        _require_representable(name, value)


def require_within(ranges: Mapping[str, tuple[float | None, float, float]]) -> None:
    """{name: (value, least, most)}; null is in every range."""
    for name, (value, least, most) in ranges.items():
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} must be between {least:g} and {most:g}; got {value}.")


def _require_representable(name: str, value: float) -> None:
    most = LARGEST_COUNT if isinstance(value, int) else LARGEST
    if value > most:
        said = value if isinstance(value, float) or value < 10**60 else "more than 1e60"
        raise ValueError(f"{name} must be at most {most:g}; got {said}.")


def require_pixels(least: int | None, most: int | None) -> None:
    """The limits of an image, where both are given."""
    if least is not None and most is not None and least > most:
        raise ValueError(f"data.min_pixels must be at most data.max_pixels = {most}; got {least}.")
