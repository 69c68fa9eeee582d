"""Means over queries with bootstrap intervals over rows: the queries of one row are not independent
of one another, rows are."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn; the same seed gives the same intervals."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, each of the same shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __getitem__(self, index: Any) -> "Estimate":
        return Estimate(self.value[index], self.low[index], self.high[index])

    def __format__(self, spec: str) -> str:
        """A single value and its interval, each number by ``spec``."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def as_dict(self) -> dict[str, Any]:
        """For JSON; None where a value is not defined, for want of such queries in the
        rows or in one of their resamples."""
        return {
            name: _plain(x)
            for name, x in (("value", self.value), ("low", self.low), ("high", self.high))
        }


def _plain(values: np.ndarray) -> Any:
    """Nested lists of floats, None for those that are not finite."""
    plain = values.astype(object)
    return np.where(np.isfinite(values), plain, np.array(None)).tolist()


def mean_over_queries(sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Mean over all queries of all rows, with a percentile interval over resampled rows.

    Args:
        sums: (rows, ...) over the queries of each row. Differences of two models' sums give a
            paired interval.
        counts: (rows, ...) queries of each row, broadcast against ``sums`` from the left.
        bootstrap: how.

    Returns:
        Estimate of shape sums.shape[1:].

    Raises:
        ValueError: fewer than two rows.
    """
    if len(sums) < 2:
        raise ValueError(
            f"an interval over rows needs at least two rows with an image; got {len(sums)}."
            " Give more rows or raise --limit."
        )
    shape = sums.shape[1:]
    counts = counts.reshape(*counts.shape, *[1] * (sums.ndim - counts.ndim))
    counts = np.broadcast_to(counts, sums.shape).reshape(len(sums), -1)
    sums = sums.reshape(len(sums), -1)

    def mean(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        """(..., rows) indices -> (cells, ...): how often a row was drawn is its weight."""
        flat = drawn.reshape(-1, drawn.shape[-1]).astype(int)
        weights = np.stack([np.bincount(one, minlength=len(sums)) for one in flat])
        with np.errstate(invalid="ignore"):  # 0 / 0 where no drawn row has such a query
            values = (weights @ sums) / (weights @ counts)
        return values.T.reshape(-1, *drawn.shape[:-1])

    drawn = np.arange(len(sums))
    with warnings.catch_warnings():
        # What is not defined in some resample has no interval; the warning speaks of other causes.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        interval = stats.bootstrap(
            (drawn,),
            mean,
            n_resamples=bootstrap.resamples,
            batch=256,
            confidence_level=bootstrap.confidence,
            method="percentile",
            rng=np.random.default_rng(bootstrap.seed),
        ).confidence_interval
    return Estimate(
        mean(drawn).reshape(shape), interval.low.reshape(shape), interval.high.reshape(shape)
    )
