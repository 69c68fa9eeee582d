"""Computes means over queries with bootstrap intervals over rows. Rows are independent; the queries
of one row are not."""

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Bootstrap:
    """Settings of bootstrap intervals; the same seed gives the same intervals."""

    confidence: float = 0.95
    resamples: int = 2000
    seed: int = 0


@dataclass(frozen=True)
class Estimate:
    """A mean and its interval, arrays of the same shape."""

    value: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __getitem__(self, index: Any) -> "Estimate":
        return Estimate(self.value[index], self.low[index], self.high[index])

    def __format__(self, spec: str) -> str:
        """A single value and its interval, each formatted with ``spec``."""
        return f"{self.value:{spec}} [{self.low:{spec}}, {self.high:{spec}}]"

    def as_dict(self) -> dict[str, Any]:
        """The estimate for JSON. A value is None if it is undefined, because the rows or one of
        their resamples have no such queries."""
        return {
            name: _plain(x)
            for name, x in (("value", self.value), ("low", self.low), ("high", self.high))
        }


def _plain(values: np.ndarray) -> Any:
    """Nested lists of floats, with None for values that are not finite."""
    plain = values.astype(object)
    return np.where(np.isfinite(values), plain, np.array(None)).tolist()


def mean_over_queries(sums: np.ndarray, counts: np.ndarray, bootstrap: Bootstrap) -> Estimate:
    """Mean over all queries of all rows, with a percentile interval over resampled rows.

    Args:
        sums: (rows, ...) sums over the queries of each row. Differences of two models' sums give a
            paired interval.
        counts: (rows, ...) numbers of queries of each row, broadcast against ``sums`` from the
            left.
        bootstrap: settings of the interval.

    Returns:
        Estimate of shape sums.shape[1:].

    Raises:
        ValueError: there are fewer than two rows.
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
        """Means of resamples: (..., rows) indices -> (cells, ...). The weight of a row is how often
        it was drawn."""
        flat = drawn.reshape(-1, drawn.shape[-1]).astype(int)
        weights = np.stack([np.bincount(rows, minlength=len(sums)) for rows in flat])
        with np.errstate(invalid="ignore"):  # 0 / 0 where no drawn row has such a query
            values = (weights @ sums) / (weights @ counts)
        return values.T.reshape(-1, *drawn.shape[:-1])

    drawn = np.arange(len(sums))
    with warnings.catch_warnings():
        # Cells that are undefined in a resample have no interval; the warning names other causes.
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
