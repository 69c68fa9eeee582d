"""What every shipped Triton kernel uses on every chip, compiled ahead of time without a GPU.

    python -m bench.aot [--arch sm90 ...] [--dtype bfloat16 ...] [--head-dim 128 ...]

For each set of optional inputs it prints registers, spilled bytes, shared memory (with the chip's
limit), the length of the main loop, and what mass adds to that loop. It exits with 1 on a spill or
too much shared memory. The whole table takes about half an hour on one core; one chip, dtype and
head dimension takes a minute.
"""

import argparse
import sys

from avar_kernels.triton_backend.aot import (
    SHARED_LIMIT_BYTES,
    TARGETS,
    Resources,
    compile_kernel,
    make_variant,
)
from avar_kernels.triton_backend.tiles import KINDS

ALL = {"causal": True, "packed": True, "window": True, "num_types": 16}
INPUTS = {
    "untyped": {"types": False, "bias": False, "scale": False, "causal": True},
    "types": {"bias": False, "scale": False, "causal": True},
    "types, bias": {"scale": False, "causal": True},
    "types, bias, scale, packed": {"causal": True, "packed": True},
    "all, 16 types, packed, window": ALL,
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", nargs="+", choices=TARGETS, default=list(TARGETS))
    dtypes = ("bfloat16", "float16", "float32")
    parser.add_argument("--dtype", nargs="+", choices=dtypes, default=["bfloat16", "float32"])
    parser.add_argument("--head-dim", nargs="+", type=int, default=[64, 128, 256])
    options = parser.parse_args()
    bad = 0
    print(f"{'chip':7}{'dtype':9}{'D':>4} {'kernel':9}{'inputs':30}{'tile':>17}", end="")
    print(f"{'regs':>6}{'spill':>7}{'shared':>9}{'limit':>9}{'loop':>6}{'extra':>8}")
    for arch in options.arch:
        for dtype in options.dtype:
            for dim in options.head_dim:
                for kind in (kind for kind in KINDS if kind != "stats"):
                    bad += _rows(arch, dtype, dim, kind)
    if bad:
        sys.exit(f"{bad} kernels spill or exceed the chip's shared memory")


def _rows(arch: str, dtype: str, dim: int, kind: str) -> int:
    """Prints one kernel with all sets of inputs; returns how many are bad."""
    bad, untyped_loop = 0, None
    for name, inputs in INPUTS.items():
        variant = make_variant(arch, dtype, dim, dim, **inputs)
        used = compile_kernel(kind, variant, dtype)
        untyped_loop = used.main_loop if name == "untyped" else untyped_loop
        tile = variant.tile(kind)
        shape = f"{tile.block_m}x{tile.block_n} w{tile.num_warps} s{tile.num_stages}"
        extra = "" if not (untyped_loop and used.main_loop) else _percent(used, untyped_loop)
        print(
            f"{arch:7}{dtype:9}{dim:4} {kind:9}{name:30}{shape:>17}{used.registers:6}"
            f"{used.spill_bytes:7}{used.shared_bytes:9}{SHARED_LIMIT_BYTES[arch]:9}"
            f"{used.main_loop or '':>6}{extra:>8}",
            flush=True,
        )
        bad += used.spill_bytes > 0 or used.shared_bytes > SHARED_LIMIT_BYTES[arch]
    return bad


def _percent(used: Resources, untyped_loop: int) -> str:
    assert used.main_loop is not None
    return f"{100 * (used.main_loop / untyped_loop - 1):+.1f}%"


if __name__ == "__main__":
    main()
