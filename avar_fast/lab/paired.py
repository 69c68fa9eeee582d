"""Statistics over runs that are paired: each value of an arm has one of the reference arm, from the
same base model, data and order."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE = 0.95
MANY = (
    "No interval is corrected for the number of comparisons: where nothing differs, about one in"
    " twenty does not hold zero. `No difference shown` does not say that there is none."
)
"""For a page with many intervals."""


@dataclass(frozen=True)
class PairedDifference:
    """A mean of paired differences and its t interval."""

    mean: float
    half_width: float
    """Half the width of the interval."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.mean + self.half_width

    @property
    def verdict(self) -> str:
        """What the interval says of a measure that should be high."""
        if self.low > 0:
            return "better"
        return "worse" if self.high < 0 else "no difference shown"

    def __format__(self, spec: str) -> str:
        """Mean and interval, each formatted with ``spec``."""
        return f"{self.mean:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"


def paired_difference(values: Sequence[float], reference: Sequence[float]) -> PairedDifference:
    """The mean of ``values - reference`` with its 95 % t interval.

    Raises:
        ValueError: there are fewer than two pairs, the numbers of values differ, or a value is not
            finite.
    """
    if len(values) != len(reference) or len(values) < 2:
        raise ValueError(
            "values and reference must be paired, two or more of each; got"
            f" {len(values)} and {len(reference)}. Run more seeds."
        )
    if not all(map(math.isfinite, (*values, *reference))):
        raise ValueError(
            f"values and reference must be finite; got {[*values]} and {[*reference]}. Leave out"
            " the pairs without a value."
        )
    differences = [value - other for value, other in zip(values, reference, strict=True)]
    count = len(differences)
    quantile = float(stats.t.ppf(0.5 + CONFIDENCE / 2, count - 1))
    half_width = quantile * statistics.stdev(differences) / count**0.5
    return PairedDifference(statistics.mean(differences), half_width)


def share_of_gap(
    values: Sequence[float], reference: Sequence[float], ceiling: Sequence[float]
) -> float:
    """How much of the gap from the reference to the ceiling an arm closes: 0 for the reference, 1
    for the ceiling, from the means.

    Raises:
        ValueError: there is no gap.
    """
    gap = statistics.mean(ceiling) - statistics.mean(reference)
    if gap == 0:
        raise ValueError("ceiling and reference must differ in their means; both are the same.")
    return (statistics.mean(values) - statistics.mean(reference)) / gap
