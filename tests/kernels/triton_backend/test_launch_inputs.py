"""Rows that start at whole 16 elements, and shares of a group's heads."""

import math

import pytest
import torch
from avar_kernels.triton_backend.launch import MOST_PROGRAMS_PER_MULTIPROCESSOR, head_shares
from avar_kernels.triton_backend.launch_inputs import aligned, trimmed

B, L, H = 2, 33, 3


def layouts(dim):
    """The same numbers, laid out in different ways."""
    x = torch.randn(B, L, H, dim)
    wide = torch.zeros(B, L, H, dim + 3)
    wide[..., 1:-2] = x
    gaps = torch.zeros(B, L, H, 2 * dim)
    gaps[..., ::2] = x
    return {
        "contiguous": x,
        "heads first": x.transpose(1, 2).contiguous().transpose(1, 2),
        "channels last": x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
        "last dimension not contiguous": x.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        "odd address": wide[..., 1:-2],
        "gaps": gaps[..., ::2],
        "packed": x.flatten(0, 1),
        "one row": x[:1, :1],
        "expanded": x[:, :1].expand(B, L, H, dim),
        "no rows": x[:, :0],
    }


@pytest.mark.parametrize("dim", [16, 17, 24, 32, 80, 100])
@pytest.mark.parametrize("layout", layouts(1))
def test_rows_are_aligned_and_hold_the_same(dim, layout):
    x = layouts(dim)[layout]
    padded = aligned(x)
    assert padded.shape[:-1] == x.shape[:-1]
    assert padded.shape[-1] == -(-dim // 16) * 16
    assert padded.stride(-1) == 1
    assert padded.data_ptr() % 16 == 0
    assert all(stride % 16 == 0 for stride in padded.stride()[:-1])
    assert torch.equal(trimmed(padded, dim), x)
    assert not padded[..., dim:].any()


def test_nothing_is_copied_without_need():
    x = torch.randn(B, L, H, 64)
    assert aligned(x) is x
    assert aligned(x[:, :9]).data_ptr() == x.data_ptr()
    assert trimmed(x, 64) is x


@pytest.mark.parametrize("group", [1, 2, 7, 16, 32])
@pytest.mark.parametrize("multiprocessors", [1, 4, 132, 304])
def test_shares_hold_every_head_and_do_not_flood_the_device(group, multiprocessors):
    for programs in (0, 1, 2, 8, 64, 100, 500, 2000):
        shares = head_shares(group, programs, multiprocessors)
        per_share = math.ceil(group / shares)
        assert 1 <= shares <= min(group, 15)
        assert per_share * (shares - 1) < group  # no share is empty
        most = MOST_PROGRAMS_PER_MULTIPROCESSOR * multiprocessors
        assert shares == 1 or shares * programs <= most


def test_few_keys_have_a_share_per_head_and_many_have_one():
    assert head_shares(7, 64, 132) == 7
    assert head_shares(7, 512, 132) == 1
