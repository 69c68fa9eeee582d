"""Bootstrap intervals against a plain loop and against the normal approximation."""

import json

import numpy as np
import pytest

from avar_fast.bootstrap import Bootstrap, mean_over_queries


def data(rows=60):
    rng = np.random.default_rng(5)
    counts = rng.integers(1, 9, size=rows).astype(float)
    return rng.normal(2.0, 1.0, size=(rows, 2, 3)) * counts[:, None, None], counts


def test_value_weighs_queries_alike_and_interval_is_that_of_a_plain_loop():
    sums, counts = data()
    got = mean_over_queries(sums, counts, Bootstrap(resamples=4000))
    np.testing.assert_allclose(got.value, sums.sum(0) / counts.sum())
    rng = np.random.default_rng(9)
    means = []
    for _ in range(4000):
        drawn = rng.integers(len(sums), size=len(sums))
        means.append(sums[drawn].sum(0) / counts[drawn].sum())
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    # sqrt(0.025 * 0.975 / 4000) over a normal density of 0.058: two such quantiles differ by 0.06
    # of the spread, and hardly ever by four times that.
    spread = np.std(means, axis=0)
    assert (np.abs(got.low - low) < 0.25 * spread).all()
    assert (np.abs(got.high - high) < 0.25 * spread).all()


def test_a_wider_confidence_gives_a_wider_interval_and_a_seed_its_own():
    sums, counts = data()
    narrow, wide, again, other = (
        mean_over_queries(sums, counts, Bootstrap(confidence, 500, seed))
        for confidence, seed in ((0.5, 0), (0.99, 0), (0.5, 0), (0.5, 1))
    )
    assert (wide.low < narrow.low).all()
    assert (wide.high > narrow.high).all()
    np.testing.assert_array_equal(narrow.low, again.low)
    assert (narrow.low != other.low).all()


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    covered = 0
    for trial in range(200):
        sums = rng.normal(1.0, 1.0, size=40)
        got = mean_over_queries(sums, np.ones(40), Bootstrap(0.9, 300, trial))
        covered += got.low <= 1.0 <= got.high
    assert 165 <= covered <= 195  # 180 expected, less a little for the percentile method


def test_counts_of_a_position_that_no_row_has_give_none_and_valid_json():
    sums, counts = np.ones((4, 2, 1)), np.array([[2.0, 0.0]] * 4)
    got = mean_over_queries(sums * counts[..., None], counts, Bootstrap(resamples=50))
    plain = got.as_dict()
    assert plain["value"] == [[1.0], [None]]
    assert plain["low"] == [[1.0], [None]]
    json.dumps(plain, allow_nan=False)


def test_one_row_has_no_interval():
    with pytest.raises(ValueError, match="needs at least two rows with an image; got 1"):
        mean_over_queries(np.ones((1, 2)), np.ones(1), Bootstrap())
