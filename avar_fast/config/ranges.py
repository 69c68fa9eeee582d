"""Ranges of numbers in a recipe. ValueError names the key, the range and the value. Null (None) is
in every range."""

import math
from collections.abc import Mapping
from typing import Any

# Larger values overflow float32 sums (3.4e38); larger integers are not exact as floats.
LARGEST = 1e30
LARGEST_COUNT = 2**53
LARGEST_WEIGHT = 1e6  # of a loss term, a reward or a scale: far above what trains


def named_values(section: str, config: Any, *keys: str) -> dict[str, Any]:
    """{"section.key": value} of a section's settings, as the functions below take them."""
    return {f"{section}.{key}": getattr(config, key) for key in keys}


def require_positive(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is None:
            continue
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive and finite; got {value}.")
        _require_representable(name, value)


def require_not_negative(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is None:
            continue
        if not 0 <= value < math.inf:
            raise ValueError(f"{name} must be 0 or more and finite; got {value}.")
        _require_representable(name, value)


def require_below_one(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{name} must be in [0, 1); got {value}.")


def require_share(values: Mapping[str, float | None]) -> None:
    for name, value in values.items():
        if value is not None and not 0 < value <= 1:
            raise ValueError(f"{name} must be in (0, 1]; got {value}.")


def require_weights(values: Mapping[str, float | None]) -> None:
    """Weights may be negative: such an experiment is the user's to make."""
    for name, value in values.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{name} must be finite; got {value}.")
        require_within({name: (value, -LARGEST_WEIGHT, LARGEST_WEIGHT)})


def require_within(ranges: Mapping[str, tuple[float | None, float, float]]) -> None:
    """{name: (value, least, most)}"""
    for name, (value, least, most) in ranges.items():
        if value is not None and not least <= value <= most:
            raise ValueError(f"{name} must be between {least:g} and {most:g}; got {value}.")


def require_pixels(least: int | None, most: int | None) -> None:
    """The limits of an image, where both are given."""
    if least is not None and most is not None and least > most:
        raise ValueError(f"data.min_pixels must be at most data.max_pixels = {most}; got {least}.")


def _require_representable(name: str, value: float) -> None:
    most = LARGEST_COUNT if isinstance(value, int) else LARGEST
    if value > most:
        said = value if isinstance(value, float) or value < 10**60 else "more than 1e60"
        raise ValueError(f"{name} must be at most {most:g}; got {said}.")
