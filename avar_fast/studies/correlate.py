"""Correlates score and accuracy over models or checkpoints: Pearson and Spearman coefficients with
intervals and p-values."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
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
    and Wright (2000), (1 + rho^2 / 2) / (n - 3)."""

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
    elif 1 - abs(rho) < 1e-9:  # Fisher's transformation is infinite at +-1
        low = high = rho
    else:
        spread = math.sqrt((1 + rho**2 / 2) / (n - 3))
        half_width = float(stats.norm.ppf((1 + confidence) / 2)) * spread
        low, high = math.tanh(math.atanh(rho) - half_width), math.tanh(math.atanh(rho) + half_width)
    return Coefficient(rho, low, high, float(result.pvalue))
