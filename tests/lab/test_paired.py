"""Statistics over paired runs."""

import math

import pytest

from avar_fast.lab.paired import paired_difference, share_of_gap


def test_a_paired_difference_is_that_of_a_t_table():
    """Differences .1, .2, .3, .4: mean .25, deviation .12910; t of 3 degrees of freedom 3.1824."""
    difference = paired_difference([0.6, 0.9, 0.7, 1.0], [0.5, 0.7, 0.4, 0.6])
    assert difference.mean == pytest.approx(0.25)
    assert difference.half_width == pytest.approx(3.1824 * 0.12910 / 2, abs=1e-4)
    assert f"{difference:+.3f}" == "+0.250 [+0.045, +0.455]"


def test_pairs_that_move_together_have_a_narrow_interval():
    bases = [0.1, 0.5, 0.9]
    assert paired_difference([x + 0.05 for x in bases], bases).half_width == pytest.approx(0)


@pytest.mark.parametrize("reference", [[0.5], [0.5, 0.6, 0.7]])
def test_values_without_partners_are_refused(reference):
    with pytest.raises(ValueError, match=r"paired, two or more of each; got \d and \d"):
        paired_difference([0.5] if len(reference) == 1 else [0.5, 0.6], reference)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_no_difference(value):
    """NaN is neither above nor below zero, and is no "no difference shown"."""
    with pytest.raises(ValueError, match="must be finite.*Leave out"):
        paired_difference([0.5, value], [0.4, 0.5])
    with pytest.raises(ValueError, match="must be finite"):
        paired_difference([0.4, 0.5], [0.5, value])


def test_the_share_of_the_gap_is_from_the_means():
    assert share_of_gap([0.5, 0.7], [0.4, 0.6], [0.8, 1.0]) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="must differ in their means"):
        share_of_gap([0.5], [0.4], [0.4])
