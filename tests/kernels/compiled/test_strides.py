"""Offsets beyond 2^31 elements in compiled kernels, on emulated chips."""

import pytest

from ..triton_backend.children import selected
from .chip_processes import answers, assert_right
from .selection import CHIPS, in_subset
from .strides import FAR_STRIDES


@pytest.fixture(scope="module")
def stride_answers(request):
    """{request: what is wrong}, for the selected ones only."""
    return answers("strides", selected(request, "call"))


@pytest.mark.parametrize(
    "call",
    [
        in_subset(f"{chip}:bfloat16:{which}", (chip, which) == ("sm_90", "rows"))
        for chip in CHIPS
        for which in FAR_STRIDES
    ],
)
def test_tensors_that_lie_far_apart(stride_answers, call):
    assert_right(stride_answers, call)
