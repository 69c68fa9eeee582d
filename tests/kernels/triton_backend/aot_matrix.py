"""The kernels that are compiled for chips, and how a child process compiles them.

Compilation runs in a child process, because pytest's own may have imported triton with its
interpreter on. A kernel takes 1 to 5 seconds the first time; later it comes from triton's cache.
"""

import dataclasses
import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from avar_kernels.triton_backend.tiles import tile_for

TRITON = tuple(int(part) for part in version("triton").split(".")[:2])
WORKER = Path(__file__).with_name("worker.py")
SHARED_LIMIT_BYTES = {
    "sm80": 163 * 1024,
    "sm89": 99 * 1024,
    "sm90": 227 * 1024,
    "sm100": 227 * 1024,
    "gfx942": 64 * 1024,
}

# (dtype, head_dim, value_dim, options). Optional inputs cost registers; causality and packing cost
# few.
EVERYTHING = {"causal": True, "packed": True}
TYPES_ONLY = {"bias": False, "scale": False, "causal": True}
UNTYPED = {"types": False, "bias": False, "scale": False}
PREFIX = {"packed": True, "prefix": True, "causal": True}
TENSOR_MEMORY_LIMIT_COLUMNS = 512
MODELS = {
    "everything_128": ("bfloat16", 128, 128, EVERYTHING),
    "types_128": ("float16", 128, 128, TYPES_ONLY),
    "float32": ("float32", 128, 128, EVERYTHING),
    "prefix_types_128": ("bfloat16", 128, 128, TYPES_ONLY | PREFIX),
}
MORE_MODELS = {
    "untyped_128": ("bfloat16", 128, 128, UNTYPED),
    "everything_64": ("bfloat16", 64, 64, EVERYTHING),
    "types_packed_128": ("bfloat16", 128, 128, TYPES_ONLY | {"packed": True}),
    "types_64": ("bfloat16", 64, 64, TYPES_ONLY),
    "prefix_everything_128": ("bfloat16", 128, 128, PREFIX),
    "prefix_untyped_128": ("float16", 128, 128, UNTYPED | PREFIX),
    "prefix_types_64": ("bfloat16", 64, 64, TYPES_ONLY | PREFIX),
    "prefix_types_80": ("bfloat16", 80, 80, TYPES_ONLY | PREFIX),
    "prefix_float32": ("float32", 128, 128, PREFIX),
    "types_80": ("bfloat16", 80, 80, TYPES_ONLY),
    "everything_256": ("float16", 256, 256, EVERYTHING | {"num_types": 16, "window": True}),
}
# One chip gets all models, the others only the most important ones.
MATRIX = {
    f"{arch}-{name}-{kind}": {
        "arch": arch, "kind": kind, "dtype": dtype, "head_dim": dim, "value_dim": value_dim,
        **options,
    }
    for arch in SHARED_LIMIT_BYTES
    for name, (dtype, dim, value_dim, options) in (MODELS | MORE_MODELS).items()
    if name in MODELS or arch == "sm90"
    for kind in ("forward", "dq", "dkdv")
}  # fmt: skip
MATRIX |= {
    f"sm90-{kind}": {
        "arch": "sm90", "kind": kind, "dtype": "bfloat16", "head_dim": 128, "value_dim": 128,
    }
    for kind in ("stats", "sort")
}  # fmt: skip
MATRIX |= {
    f"{arch}-types_128-{kind}": {
        "arch": arch, "kind": kind, "dtype": "bfloat16", "head_dim": 128, "value_dim": 128,
        **TYPES_ONLY,
    }
    for arch in SHARED_LIMIT_BYTES
    for kind in ("decode", "received")
}  # fmt: skip
# dk and dv of shares, on the chips that have them.
MATRIX |= {
    f"{arch}-{name}-shares-dkdv": MATRIX[f"{arch}-{name}-dkdv"] | {"shares": True}
    for arch in ("sm80", "sm90", "sm100")
    for name in MODELS
}
# What types cost in the commonest case: these main loops, with the tiles of calls with types, stand
# beside those with types.
WITHOUT_TYPES = {
    f"sm90-untyped_causal-{kind}": {
        "arch": "sm90", "kind": kind, "dtype": "float16", "head_dim": 128, "value_dim": 128,
        **UNTYPED, "causal": True,
        "tile": dataclasses.astuple(tile_for(kind, "sm90", 2, 128, 128, "typed")),
    }
    for kind in ("forward", "dq", "dkdv")
}  # fmt: skip
MATRIX |= WITHOUT_TYPES


def compiled(names: list[str]) -> dict:
    """{name: what the kernel uses, None if the child process stopped before}, and its "stderr"."""
    requests = {name: json.dumps(MATRIX[name]) for name in names}
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, str(WORKER), "compile", *requests.values()],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    by_request = {line.pop("request"): line for line in lines}
    found = {name: by_request.get(requests[name]) for name in names}
    return found | {"stderr": done.stderr[-2000:]}


def assert_fits(resources: dict, name: str) -> None:
    """A kernel of the matrix spills nothing, fits its chip's memories, prefetches, and multiplies
    what it should."""
    used = resources[name]
    assert used is not None, f"the child process stopped before this kernel: {resources['stderr']}"
    assert "error" not in used, used["error"]
    assert used["spill_bytes"] <= _most_spilled_bytes(name), used
    assert used["shared_bytes"] <= SHARED_LIMIT_BYTES[MATRIX[name]["arch"]], used
    assert not used["wrong_products"], used
    assert used["tensor_memory_columns"] <= TENSOR_MEMORY_LIMIT_COLUMNS, used
    if prefetches(name):
        assert used["loads_in_flight"], f"every step of the main loop waits for its loads: {used}"


SPILLED_BYTES = {
    "sm80-float32-dq": 8,  # with every tile tried; outside of all loops
    "sm80-everything_128-shares-dkdv": 272,  # the number of shares takes registers
    "sm90-prefix_float32-dq": 60,  # with five tiles; one load in a general block
}
if TRITON >= (3, 8):  # the tiles were chosen with 3.6 and 3.7
    SPILLED_BYTES |= {"sm89-everything_128-dkdv": 8, "gfx942-everything_128-dq": 92}
# These tiles were the fastest on an H100 although they spill: most of it lies outside of all loops.
SPILLED_WHERE_TIMED = {"forward": 192, "dq": 64, "dkdv": 2048}


def _most_spilled_bytes(name: str) -> int:
    kernel = MATRIX[name]
    timed = kernel["arch"] == "sm90" and kernel["dtype"] != "float32"
    return SPILLED_WHERE_TIMED.get(kernel["kind"], 0) if timed else SPILLED_BYTES.get(name, 0)


# Three stages of the pipeline need more registers than the chip has.
NO_ROOM_TO_PREFETCH = ("sm80-everything_128-dkdv", "sm80-everything_128-shares-dkdv")


def prefetches(name: str) -> bool:
    """Whether the kernel's tile leaves room for loads that are on their way during a step.

    Not on AMD: there loads pass through registers, and the tiles leave none.
    """
    kernel = MATRIX[name]
    half = kernel["dtype"] != "float32" and kernel["arch"] != "gfx942"
    main = kernel["head_dim"] <= 128 and kernel["kind"] in ("forward", "dq", "dkdv")
    return half and main and name not in NO_ROOM_TO_PREFETCH
