"""How fast a compiled main loop can be on a chip: arithmetic on its instructions, no measurement.

Per step of the loop, a multiprocessor needs
    tensor   cycles of its matrix units. On sm_90, operands in shared memory may take longer to read
             (128 bytes a cycle) than to multiply.
    issue    cycles in which its four schedulers issue an instruction each.
    special  cycles of its special-function units (16 results a cycle).
If all three overlap perfectly, a step takes the largest of them. The kernels overlap little: the
warps of a group wait for their product before they take the softmax. A better guess is
tensor + issue. Where no load is in flight, a step also waits for its own loads.

``estimate`` multiplies that guess by what Triton's own tutorial kernel reaches of it. Without mass,
for D = 128 and 8k to 16k tokens on an H100, that kernel is published with 392 TFLOP/s
(arXiv 2407.08608, figure 5, non-causal) and 487 (facebookexperimental/triton#205). Its loop is the
forward loop without types here, for which tensor + issue gives 580.
"""

from dataclasses import dataclass

from avar_kernels.triton_backend.main_loop import MainLoop, Product
from avar_kernels.triton_backend.tiles import Tile

REACHED = (0.68, 0.84)  # of tensor + issue: 392 / 580 and 487 / 580
LOAD_CYCLES = 600  # to fetch the tiles of a step from the L2 cache when nothing else is done
SHARED_BYTES_PER_CYCLE = 128
SPECIAL_PER_CYCLE = 16


@dataclass(frozen=True)
class Chip:
    """Figures of a data sheet; ``flops_per_cycle`` is dense bfloat16 per multiprocessor."""

    name: str
    multiprocessors: int
    clock_ghz: float
    flops_per_cycle: int
    lanes: int = 32
    issue_cycles: float = 1.0
    """Cycles for which an instruction holds its scheduler."""


CHIPS = {
    "sm80": Chip("A100", 108, 1.41, 2048),
    "sm89": Chip("L40S", 142, 2.52, 1024),
    "sm90": Chip("H100 SXM", 132, 1.83, 4096),
    "sm100": Chip("B200", 148, 1.86, 8192),
    "gfx942": Chip("MI300X", 304, 2.10, 2048, lanes=64, issue_cycles=4.0),
}
# Products counted as useful work, each 2 * rows * keys * head dimension. dq and dkdv together do 7,
# of which 5 count, as everywhere in the literature.
USEFUL_PRODUCTS = {"forward": 2, "backward": 5}


@dataclass(frozen=True)
class StepCost:
    """Cycles that one step of a main loop takes from each unit of a multiprocessor."""

    tensor: float
    issue: float
    special: float
    exposed: float
    pairs: int
    """Pairs of a query and a key in a step."""

    @property
    def overlapped(self) -> float:
        """Cycles per pair if the units work at the same time."""
        return max(self.tensor, self.issue, self.special) / self.pairs

    @property
    def in_turns(self) -> float:
        """Cycles per pair if products and other instructions take turns."""
        return (self.tensor + self.issue + self.exposed) / self.pairs


def step_cost(loop: MainLoop, tile: Tile, chip: Chip) -> StepCost:
    """The cost of one step of a 2-byte kernel's main loop."""
    warps = tile.num_warps
    return StepCost(
        tensor=sum(n * _product_cycles(p, warps, chip) for p, n in loop.products.items()),
        issue=loop.instructions * warps / 4 * chip.issue_cycles,
        special=loop.special * chip.lanes * warps / SPECIAL_PER_CYCLE,
        exposed=0 if loop.loads_in_flight else LOAD_CYCLES,
        pairs=tile.block_m * tile.block_n,
    )


def _product_cycles(product: Product, warps: int, chip: Chip) -> float:
    issued = warps / product.warps if product.warps else 1
    size = product.rows * product.columns * product.depth
    cycles = 2 * size / chip.flops_per_cycle
    if product.warps == 4:  # wgmma reads its right operand, often both, from shared memory
        rows = 0 if product.left_in_registers else product.rows
        bytes_read = 2 * product.depth * (rows + product.columns)
        cycles = max(cycles, bytes_read / SHARED_BYTES_PER_CYCLE)
    return issued * cycles


def tflops(cycles_per_pair: float, products: int, head_dim: int, chip: Chip) -> float:
    """TFLOP/s of ``products`` useful products in so many cycles per (query, key) pair."""
    per_cycle = 2 * products * head_dim / cycles_per_pair
    return per_cycle * chip.multiprocessors * chip.clock_ghz / 1e3


def estimate(cycles_per_pair: float, products: int, head_dim: int, chip: Chip) -> tuple[int, int]:
    """What a device may reach, in TFLOP/s, for long sequences; see the module docstring."""
    in_turns = tflops(cycles_per_pair, products, head_dim, chip)
    low, high = (round(in_turns * share, -1) for share in REACHED)
    return int(low), int(high)
