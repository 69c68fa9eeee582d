"""Every kernel compiles for sm90, spills nothing, fits its shared memory, and its main loop keeps
loads in flight; no GPU needed."""

import pytest

from .aot_matrix import MATRIX, TRITON, assert_fits, compiled
from .children import selected

MOST_EXTRA_INSTRUCTIONS = 0.05 if TRITON >= (3, 8) else 0.03


@pytest.fixture(scope="module")
def resources(request):
    """{name: what the kernel uses}, for the selected tests only."""
    names = selected(request, "name")
    for kind in selected(request, "kind"):
        names += [f"sm90-untyped_causal-{kind}", f"sm90-types_128-{kind}"]
    return compiled(list(dict.fromkeys(names)))


@pytest.mark.parametrize("name", [name for name in MATRIX if name.startswith("sm90-")])
def test_compiles_without_spills_and_prefetches(resources, name):
    assert_fits(resources, name)


@pytest.mark.parametrize("kind", ["forward", "dq", "dkdv"])
def test_mass_costs_next_to_nothing_in_plain_blocks(resources, kind):
    untyped = resources[f"sm90-untyped_causal-{kind}"]
    typed = resources[f"sm90-types_128-{kind}"]
    assert untyped is not None, resources["stderr"]
    extra = typed["instructions"] / untyped["instructions"] - 1
    assert extra <= MOST_EXTRA_INSTRUCTIONS, (untyped, typed)
