"""The arithmetic of bounds from a compiled loop, on a loop counted by hand."""

from collections import Counter

import pytest
from avar_kernels.triton_backend.main_loop import MainLoop, Product
from avar_kernels.triton_backend.tiles import Tile

from bench.bounds import CHIPS, LOAD_CYCLES, estimate, step_cost, tflops

TILE = Tile(128, 64, 8, 3)
# 128 rows, 64 keys, D = 128 by two groups of four warps: q k^T as eight products per group, whose
# operands both lie in shared memory; P v as four, whose left operand lies in registers.
SCORES, VALUES = Product(64, 64, 16, warps=4), Product(64, 128, 16, left_in_registers=True, warps=4)
LOOP = MainLoop(
    instructions=360, spilled=0, special=34, products=Counter({SCORES: 8, VALUES: 4}),
    loads_in_flight=2,
)  # fmt: skip


def test_cycles_of_a_step():
    cost = step_cost(LOOP, TILE, CHIPS["sm90"])
    # Two products of 2 * 128 * 64 * 128 FLOPs at 4096 a cycle. 64x64x16 reads 4096 bytes in its 32
    # cycles, which is all that shared memory gives.
    assert cost.tensor == 2 * (2 * 128 * 64 * 128) / 4096 == 1024
    assert cost.issue == 360 * 8 / 4
    assert cost.special == 34 * 32 * 8 / 16
    assert cost.pairs == 128 * 64
    assert cost.overlapped * cost.pairs == 1024
    assert cost.in_turns * cost.pairs == 1024 + 720


def test_small_products_are_bound_by_shared_memory():
    small = Product(64, 32, 16, warps=4)
    loop = MainLoop(100, 0, 0, Counter({small: 8}), loads_in_flight=1)
    # 16 cycles each at full rate, but 2 * 16 * (64 + 32) bytes at 128 a cycle are 24.
    assert step_cost(loop, TILE, CHIPS["sm90"]).tensor == 2 * 8 * 24


def test_a_step_without_loads_in_flight_waits_for_them():
    waiting = MainLoop(360, 0, 34, Counter({SCORES: 8, VALUES: 4}), loads_in_flight=0)
    costs = [step_cost(loop, TILE, CHIPS["sm90"]) for loop in (waiting, LOOP)]
    assert (costs[0].in_turns - costs[1].in_turns) * costs[0].pairs == pytest.approx(LOAD_CYCLES)


def test_full_tensor_cores_give_the_data_sheets_peak():
    cost = step_cost(LOOP, TILE, CHIPS["sm90"])
    assert tflops(cost.overlapped, 2, 128, CHIPS["sm90"]) == pytest.approx(989, rel=2e-3)
    low, high = estimate(cost.in_turns, 2, 128, CHIPS["sm90"])
    assert (low, high) == (400, 490)


@pytest.mark.parametrize(("arch", "peak"), [("sm80", 312), ("sm89", 366), ("sm100", 2255),
                                            ("gfx942", 1307)])  # fmt: skip
def test_peaks_of_the_data_sheets(arch, peak):
    chip = CHIPS[arch]
    found = chip.flops_per_cycle * chip.multiprocessors * chip.clock_ghz / 1e3
    assert found == pytest.approx(peak, rel=1e-2)
