"""What every shipped Triton kernel uses on every chip, compiled ahead of time without a GPU.

    python -m bench.aot [--arch sm90 ...] [--dtype bfloat16 ...] [--head-dim 128 ...]

For each set of optional inputs it prints
    what the kernel uses: registers, spilled bytes, shared memory;
    one step of its main loop: instructions, matrix instructions, and groups of loads in flight;
    cycles of that step on a multiprocessor's matrix units ("tensor"), schedulers ("issue") and
        special-function units ("special"), from the chip's data sheet;
    the bound on TFLOP/s that follows, if the units overlap perfectly and if products and other
        instructions take turns.
After dq and dkdv follows the backward of both together, and after each chip an estimate of what a
device may reach (``bench/bounds.py`` says how). None of this is measured.

It exits with 1 if a kernel spills or exceeds the chip's memory, or if a main loop waits for its own
loads although its tile has three stages of the load pipeline or more. The whole table takes half an
hour on one core; one chip, dtype and head dimension takes a minute.
"""

import argparse
import sys
from collections.abc import Iterable

from avar_kernels.triton_backend import tiles
from avar_kernels.triton_backend.aot import (
    SHARED_LIMIT_BYTES,
    TARGETS,
    TENSOR_MEMORY_LIMIT_COLUMNS,
    Resources,
    compile_kernel,
    make_variant,
)

from .bounds import CHIPS, USEFUL_PRODUCTS, StepCost, estimate, step_cost, tflops

INPUTS = {
    "untyped": {"types": False, "bias": False, "scale": False, "causal": True},
    "types": {"bias": False, "scale": False, "causal": True},
    "types, packed": {"bias": False, "scale": False, "causal": True, "packed": True},
    "types, prefixes": {
        "bias": False,
        "scale": False,
        "causal": True,
        "packed": True,
        "prefix": True,
    },
    "types, bias": {"scale": False, "causal": True},
    "types, bias, scale, packed": {"causal": True, "packed": True},
    "all, 16 types": {"causal": True, "packed": True, "window": True, "num_types": 16},
}
KINDS = tuple(kind for kind in tiles.KINDS if kind != "stats")
STAGES_TO_PREFETCH = 3


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", choices=TARGETS, default=list(TARGETS))
    dtypes = ("bfloat16", "float16", "float32")
    parser.add_argument("--dtype", nargs="+", choices=dtypes, default=["bfloat16", "float32"])
    parser.add_argument("--head-dim", nargs="+", type=int, default=[64, 128, 256])
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS)
    options = parser.parse_args()
    faults = []
    for arch in options.arch:
        for dtype in options.dtype:
            for dim in options.head_dim:
                print(f"\n{arch} ({CHIPS[arch].name}), {dtype}, D = {dim}", flush=True)
                faults += _table(arch, dtype, dim, options.kind)
    if faults:
        sys.exit("\n".join(["", *faults]))


def _table(arch: str, dtype: str, dim: int, kinds: Iterable[str]) -> list[str]:
    """Prints the kernels of one chip, dtype and head dimension; returns what is wrong."""
    print(
        f"{'kernel':9}{'inputs':27}{'tile':>15}{'regs':>5}{'spill':>6}{'shared':>8}"
        f"{'loop':>6}{'loads':>6}{'tensor':>8}{'issue':>7}{'special':>8}"
        f"{'overlap':>9}{'in turns':>9}  matrix instructions"
    )
    faults: list[str] = []
    costs: dict[tuple[str, str], StepCost] = {}
    for kind in kinds:
        for name, inputs in INPUTS.items():
            variant = make_variant(arch, dtype, dim, dim, **inputs)
            used, tile = compile_kernel(kind, variant, dtype), variant.tile(kind)
            shape = f"{tile.block_m}x{tile.block_n} w{tile.num_warps} s{tile.num_stages}"
            line = f"{kind:9}{name:27}{shape:>15}{used.registers:5}{used.spill_bytes:6}"
            line += f"{used.shared_bytes:8}"
            if used.main_loop is not None and dtype != "float32":
                costs[kind, name] = step_cost(used.main_loop, tile, CHIPS[arch])
                line += _loop_columns(used, costs[kind, name], kind, dim, arch)
            print(line, flush=True)
            if wrong := _wrong(arch, tile, used):
                faults.append(f"{arch} {dtype} {dim} {kind}, {name}: {wrong}")
    for name in INPUTS:
        _print_estimates(costs, name, dim, arch)
    return faults


def _loop_columns(used: Resources, cost: StepCost, kind: str, dim: int, arch: str) -> str:
    loop = used.main_loop
    assert loop is not None
    columns = f"{loop.instructions:6}{loop.loads_in_flight:6}"
    columns += f"{cost.tensor:8.0f}{cost.issue:7.0f}{cost.special:8.0f}"
    products = {"forward": 2, "dq": 3, "dkdv": 4, "received": 1}.get(kind)
    if products is None:  # reading the cache bounds decoding, not its loop
        columns += " " * 18
    else:
        bounds = (tflops(c, products, dim, CHIPS[arch]) for c in (cost.overlapped, cost.in_turns))
        columns += "".join(f"{bound:9.0f}" for bound in bounds)
    return columns + "  " + ", ".join(f"{n} of {shape}" for shape, n in loop.products.items())


def _print_estimates(
    costs: dict[tuple[str, str], StepCost], name: str, dim: int, arch: str
) -> None:
    """The forward alone, and dq and dkdv as one backward."""
    for mode, kinds in (("forward", ("forward",)), ("backward", ("dq", "dkdv"))):
        if all((kind, name) in costs for kind in kinds):
            cycles = sum(costs[kind, name].in_turns for kind in kinds)
            low, high = estimate(cycles, USEFUL_PRODUCTS[mode], dim, CHIPS[arch])
            share = "" if arch == "sm90" else " (with the share that an H100 reaches)"
            print(f"estimate, not measured: {mode:8} {name:27} {low} to {high} TFLOP/s{share}")


def _wrong(arch: str, tile: tiles.Tile, used: Resources) -> str:
    """What a shipped kernel must not do; empty if it does not."""
    if used.spill_bytes:
        return f"{used.spill_bytes} bytes spilled"
    if used.shared_bytes > SHARED_LIMIT_BYTES[arch]:
        return (
            f"{used.shared_bytes} bytes of shared memory, the chip has {SHARED_LIMIT_BYTES[arch]}"
        )
    if used.tensor_memory_columns > TENSOR_MEMORY_LIMIT_COLUMNS:
        return f"{used.tensor_memory_columns} columns of tensor memory, the chip has 512"
    loop = used.main_loop
    if loop is not None and not loop.loads_in_flight and tile.num_stages >= STAGES_TO_PREFETCH:
        return "the main loop waits for its own loads"
    return ""


if __name__ == "__main__":
    main()
