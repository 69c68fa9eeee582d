"""The most important kernels compile for every other chip, spill nothing and fit its shared memory;
no GPU needed."""

import pytest

from .aot_matrix import MATRIX, assert_fits, compiled
from .children import selected


@pytest.fixture(scope="module")
def resources(request):
    """{name: what the kernel uses}, for the selected tests only."""
    return compiled(selected(request, "name"))


@pytest.mark.parametrize("name", [name for name in MATRIX if not name.startswith("sm90-")])
def test_compiles_without_spills_within_shared_memory(resources, name):
    assert_fits(resources, name)
