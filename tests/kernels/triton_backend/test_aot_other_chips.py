"""The most important kernels compile for every other chip, spill nothing, fit its memories, and
their main loops keep loads in flight; no GPU needed."""

import pytest

from .aot_matrix import MATRIX, assert_fits, compiled
from .children import selected


@pytest.fixture(scope="module")
def resources(request):
    """{name: what the kernel uses}, for the selected tests only."""
    return compiled(selected(request, "name"))


@pytest.mark.parametrize("name", [name for name in MATRIX if not name.startswith("sm90-")])
def test_compiles_without_spills_and_prefetches(resources, name):
    assert_fits(resources, name)
