"""Weights of AGTO over a run, against values by hand."""

import pytest

from avar_fast.objectives import scheduled_weight


def values(num_steps, *arguments, **options):
    return [scheduled_weight(step, num_steps, *arguments, **options) for step in range(num_steps)]


def test_constant_unless_told_otherwise():
    assert values(4, 0.15) == [0.15] * 4


def test_warm_up_is_linear_and_ends_at_the_weight():
    assert values(10, 0.6, warmup=0.3) == pytest.approx([0.15, 0.3, 0.45] + [0.6] * 7)


def test_linear_decay_ends_on_the_last_step():
    assert values(5, 0.4, 0.0) == pytest.approx([0.4, 0.3, 0.2, 0.1, 0.0])


def test_decay_over_a_fraction_holds_its_end_and_may_rise():
    got = values(10, 0.1, 0.5, warmup=0.2, decay_fraction=0.5)
    assert got == pytest.approx([0.1 / 3, 0.2 / 3, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5])


def test_cosine_decay_is_flat_at_both_ends():
    got = values(5, 1.0, 0.0, decay="cosine")
    half = 0.5**0.5
    assert got == pytest.approx([1.0, (1 + half) / 2, 0.5, (1 - half) / 2, 0.0])


def test_the_shortest_runs_and_decays():
    assert values(1, 0.3, 0.1) == [0.3]
    assert values(3, 0.3, 0.1, decay_fraction=0.1) == pytest.approx([0.3, 0.1, 0.1])
