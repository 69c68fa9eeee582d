"""Verdicts on shifts that are known."""

import math

import numpy as np
import pytest
import torch

from avar_fast.bootstrap import Bootstrap, Estimate
from avar_fast.studies.compare import THRESHOLD, compare, verdict_of
from avar_fast.studies.masses import QUANTITIES, RowMasses

ROWS, HEADS = 30, 3
LAYERS = (3, 7)  # with gaps: the layers between are recurrent
LOG = QUANTITIES.index("log_ratio")
FAST = Bootstrap(resamples=200)


def collected(rise=0.0, noise=0.0, head=(3, 0), of_head=0.0, layers=LAYERS, seed=0):
    """Rows of random scores, with the log ratio of all heads raised by ``rise``, and that of the
    (layer, head) ``head`` by ``of_head`` more."""
    base = torch.Generator().manual_seed(1)
    counts = torch.randint(2, 9, (ROWS,), generator=base).double()
    means = torch.randn(
        ROWS, len(layers), HEADS, len(QUANTITIES), generator=base, dtype=torch.float64
    )
    own = torch.Generator().manual_seed(seed)
    means[..., LOG] += rise
    means[..., LOG] += noise * torch.randn(ROWS, 1, 1, generator=own, dtype=torch.float64)
    means[:, layers.index(head[0]), head[1], LOG] += of_head
    by_head = means * counts[:, None, None, None]
    rows = tuple(f"row {i}" for i in range(ROWS))
    return RowMasses(
        rows, 0, layers, counts, by_head, counts[:, None], by_head.mean(dim=2)[:, None],
        torch.tensor([[4, 9]] * ROWS),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("rise", "noise", "verdict"),
    [
        (0.5, 0.1, "looks more"),
        (0.0, 0.1, "lazy"),
        (-1.0, 0.1, "lazy"),
        (THRESHOLD, 0.5, "undecided"),
    ],
)
def test_the_verdict_follows_the_interval_of_the_paired_rise(rise, noise, verdict):
    found = compare(["base", "new"], [collected(), collected(rise, noise, seed=4)], bootstrap=FAST)
    (shift,) = found.shifts
    assert shift.verdict == verdict
    # Rows differ far more among themselves than the two models do: only pairing shows the rise.
    width = shift.overall.high[LOG] - shift.overall.low[LOG]
    assert width < 5 * noise / math.sqrt(ROWS)


def test_the_verdict_is_undecided_on_the_threshold_itself():
    def of(low, high):
        return Estimate(np.float64(0.1), np.float64(low), np.float64(high))

    assert verdict_of(of(0.1, 0.2), 0.1) == "undecided"
    assert verdict_of(of(0.0, 0.1), 0.1) == "undecided"
    assert verdict_of(of(0.11, 0.2), 0.1) == "looks more"
    assert verdict_of(of(0.0, 0.09), 0.1) == "lazy"


def test_a_constant_rise_is_found_to_the_digit_with_the_head_that_moved_most():
    other = collected(rise=0.25, head=(7, 2), of_head=-3.0)
    found = compare(["base", "new"], [collected(), other], num_moves=2, bootstrap=FAST)
    (shift,) = found.shifts
    rise = shift.overall[LOG]
    want = 0.25 - 3.0 / (len(LAYERS) * HEADS)
    assert [rise.value, rise.low, rise.high] == pytest.approx([want] * 3)
    first = shift.moved_most[0]
    assert (first.layer, first.head) == (7, 2)
    assert first.log_ratio.value == pytest.approx(-2.75)
    assert len(shift.moved_most) == 2
    by_layer = shift.by_layer.value[:, LOG]
    assert by_layer == pytest.approx([0.25, 0.25 - 1.0])


def test_several_checkpoints_are_each_compared_with_the_first():
    models = [collected(), collected(1.0), collected(-1.0)]
    found = compare(["a", "b", "c"], models, bootstrap=FAST)
    assert [s.name for s in found.shifts] == ["b", "c"]
    assert [s.verdict for s in found.shifts] == ["looks more", "lazy"]
    assert len(found.summaries) == 3


def test_bad_input():
    base = collected()
    with pytest.raises(ValueError, match="two or more checkpoints with names of their own.*got a"):
        compare(["a"], [base])
    with pytest.raises(ValueError, match="names of their own.*a, a"):
        compare(["a", "a"], [base, base])
    for layers, named in (((3, 7, 11), "3, 7, 11"), ((3, 5), "3, 5")):
        words = f"a has 3 heads in each of the layers 3, 7, and b has .* the layers {named}. Score"
        with pytest.raises(ValueError, match=words):
            compare(["a", "b"], [base, collected(layers=layers)])
    fewer = collected()
    fewer.counts[0] += 1
    with pytest.raises(ValueError, match="the same queries of the same rows; b reads"):
        compare(["a", "b"], [base, fewer])
