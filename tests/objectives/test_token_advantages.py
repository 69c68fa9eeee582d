"""Advantages of tokens against loops over their formula."""

import statistics

import pytest
import torch

from avar_fast.objectives import token_advantages

VALUES = [[1.0, 2.0], [4.0], None, [], [3.0, 3.0], [3.0], None, [3.0], None, None, [], None]


@pytest.mark.parametrize("scale", [True, False])
def test_each_token_is_compared_with_all_tokens_of_its_group(scale):
    values = [None if v is None else torch.tensor(v) for v in VALUES]
    got = token_advantages(values, 4, scale)
    mean, std = 7 / 3, statistics.stdev([1.0, 2.0, 4.0]) + 1e-6
    for own, row in zip(VALUES[:4], got[:4], strict=True):
        if own is None:
            assert row is None
        else:
            want = [(v - mean) / (std if scale else 1.0) for v in own]
            assert row.tolist() == pytest.approx(want, abs=1e-6)
    for own, row in zip(VALUES[4:], got[4:], strict=True):  # equal values, or none at all
        assert (row is None) == (own is None)
        assert row is None or not row.any()


def test_groups_must_be_whole():
    with pytest.raises(ValueError, match="a multiple of group_size responses; got 3 and 2"):
        token_advantages([None] * 3, 2)
