"""Compiled kernels on an emulated sm_89 against the float64 oracle."""

import pytest

from .chip_processes import assert_right
from .selection import requests_of


@pytest.mark.parametrize("case", requests_of("sm_89"))
def test_outputs_and_gradients_match_the_oracle(case_answers, case):
    assert_right(case_answers, case)
