"""Correlates score and accuracy over models or checkpoints: Pearson and Spearman coefficients with
intervals and p-values."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import permutations
from typing import Any

import numpy as np
from scipy import stats

from ..vas.score import FORMS
from .points import Point

PAPER = {
    "source": "AVAR, arXiv 2603.03825",
    "form": "ratio",
    "pearson": 0.9616,
    "p": 9.0e-6,
    "n": 10,
    "note": "their models and benchmarks; n follows from r and p of a two-sided t test",
}

EXACT = 8  # points up to which all orders are counted: 8! are 40,320


@dataclass(frozen=True)
class Coefficient:
    """A correlation coefficient with its interval."""

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    p: float
    """Two-sided p-value of the hypothesis that there is no correlation."""


@dataclass(frozen=True)
class Correlation:
    """The correlation of one form of the score with accuracy."""

    form: str
    pearson: Coefficient
    """Pearson's coefficient. The interval uses Fisher's transformation."""
    spearman: Coefficient
    """Spearman's coefficient. The interval uses Fisher's transformation with the variance of Bonett
    and Wright (2000), (1 + rho^2 / 2) / (n - 3). A perfect order, where that transformation is
    infinite, has the lower end of an order with two neighbors swapped. The p-value is exact for few
    points, as few points can be in perfect order by chance."""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def correlate(points: Sequence[Point], confidence: float = 0.95) -> list[Correlation]:
    """Correlates accuracy with each form of the score.

    The p-values assume independent points. Checkpoints of one run are not independent; their
    p-values only describe the data.

    Raises:
        ValueError: there are fewer than three points, or all accuracies or scores are the same.
    """
    require_three(len(points))
    accuracy = np.array([point.accuracy for point in points])
    correlations = []
    for form in FORMS:
        scores = np.array([point.vas[form] for point in points])
        for name, values in (("accuracy", accuracy), (f"the {form}", scores)):
            if not np.isfinite(values).all() or np.ptp(values) == 0:
                raise ValueError(
                    f"{name} must be finite and differ between points; got"
                    f" {', '.join(f'{x:.4g}' for x in values[:6])}. Take other models or more rows."
                )
        correlations.append(
            Correlation(
                form,
                _pearson(scores, accuracy, confidence),
                spearman(scores, accuracy, confidence),
            )
        )
    return correlations


def require_three(num_points: int) -> None:
    """Raises ValueError for fewer than three points, the least that a correlation needs."""
    if num_points < 3:
        raise ValueError(
            f"a correlation needs at least 3 points, models or checkpoints; got {num_points}."
            " Evaluate more, such as the checkpoints along a run (train.save_every)."
        )


def _pearson(x: np.ndarray, y: np.ndarray, confidence: float) -> Coefficient:
    result: Any = stats.pearsonr(x, y)
    interval = result.confidence_interval(confidence)
    return Coefficient(
        float(result.statistic), float(interval.low), float(interval.high), float(result.pvalue)
    )


def spearman(x: np.ndarray, y: np.ndarray, confidence: float) -> Coefficient:
    """Spearman's rank correlation, with its interval, of two arrays (n,) with n >= 3."""
    result: Any = stats.spearmanr(x, y)
    rho, n = float(result.statistic), len(x)
    if n == 3:  # no degree of freedom is left
        low, high = -1.0, 1.0
    elif 1 - abs(rho) < 1e-9:
        swapped = 1 - 12 / (n * (n**2 - 1))
        low, high = _fisher(swapped, n, confidence)[0], 1.0
        low, high = (low, high) if rho > 0 else (-high, -low)
    else:
        low, high = _fisher(rho, n, confidence)
    return Coefficient(rho, low, high, _chance(x, y, float(result.pvalue)))


def _fisher(rho: float, n: int, confidence: float) -> tuple[float, float]:
    """The ends of the interval of a rank correlation between -1 and 1."""
    spread = math.sqrt((1 + rho**2 / 2) / (n - 3))
    half_width = float(stats.norm.ppf((1 + confidence) / 2)) * spread
    return math.tanh(math.atanh(rho) - half_width), math.tanh(math.atanh(rho) + half_width)


def _chance(x: np.ndarray, y: np.ndarray, approximate: float) -> float:
    """The two-sided p-value of a rank correlation: the share of orders of ``y`` that agree with
    ``x``, or disagree, as much. Many points have the approximate one, which is 0 in a perfect
    order; two orders of all are perfect."""
    if len(x) > EXACT:
        return max(approximate, 2 / math.factorial(len(x)))
    ranks = [stats.rankdata(values) for values in (x, y)]
    first, second = (rank - rank.mean() for rank in ranks)
    orders = np.array(list(permutations(range(len(x)))))
    return float((np.abs(second[orders] @ first) > abs(second @ first) - 1e-9).mean())
