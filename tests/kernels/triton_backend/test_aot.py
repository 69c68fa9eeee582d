"""Every kernel compiles for every chip, spills nothing and fits its shared memory; no GPU needed.

Compilation runs in two child processes, because this one may have imported triton with its
interpreter on. A kernel takes 1 to 5 seconds the first time; later it comes from triton's cache.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
MODELS = {
    "everything_128": ("bfloat16", 128, 128, EVERYTHING),
    "types_128": ("float16", 128, 128, TYPES_ONLY),
    "float32": ("float32", 128, 128, EVERYTHING),
}
MORE_MODELS = {
    "untyped_128": ("bfloat16", 128, 128, UNTYPED),
    "everything_64": ("bfloat16", 64, 64, EVERYTHING),
    "types_64": ("bfloat16", 64, 64, TYPES_ONLY),
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
# What types cost in the commonest case: these main loops stand beside those with types.
WITHOUT_TYPES = {
    f"sm90-untyped_causal-{kind}": {
        "arch": "sm90", "kind": kind, "dtype": "float16", "head_dim": 128, "value_dim": 128,
        **UNTYPED, "causal": True,
    }
    for kind in ("forward", "dq", "dkdv")
}  # fmt: skip
MATRIX |= WITHOUT_TYPES
LOOPS_COUNTED = (*WITHOUT_TYPES, *(f"sm90-types_128-{kind}" for kind in ("forward", "dq", "dkdv")))
MOST_EXTRA_INSTRUCTIONS = 0.03


@pytest.fixture(scope="module")
def resources(request):
    """{id: what the kernel uses}, for the selected ids only."""
    here = [item.callspec.params for item in request.session.items if item.path == request.path]
    names = [params["name"] for params in here if "name" in params]
    for kind in [params["kind"] for params in here if "kind" in params]:
        names += [f"sm90-untyped_causal-{kind}", f"sm90-types_128-{kind}"]
    names = list(dict.fromkeys(names))
    requests = {
        name: json.dumps(MATRIX[name] | {"count_loop": name in LOOPS_COUNTED}) for name in names
    }
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    children = [
        subprocess.Popen(
            [sys.executable, str(WORKER), "compile", *(requests[name] for name in names[half::2])],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for half in range(2)
    ]  # fmt: skip
    outputs = [child.communicate() for child in children]
    lines = [
        json.loads(line) for out, _ in outputs for line in out.splitlines() if line.startswith("{")
    ]
    by_request = {line.pop("request"): line for line in lines}
    found = {name: by_request.get(requests[name]) for name in names}
    return found | {"stderr": "".join(err[-2000:] for _, err in outputs)}


@pytest.mark.parametrize("name", MATRIX)
def test_compiles_without_spills_within_shared_memory(resources, name):
    used = resources[name]
    assert used is not None, f"the child process stopped before this kernel: {resources['stderr']}"
    assert "error" not in used, used["error"]
    assert used["spill_bytes"] == 0, used
    assert used["shared_bytes"] <= SHARED_LIMIT_BYTES[MATRIX[name]["arch"]], used


@pytest.mark.parametrize("kind", ["forward", "dq", "dkdv"])
def test_mass_costs_next_to_nothing_in_plain_blocks(resources, kind):
    untyped = resources[f"sm90-untyped_causal-{kind}"]
    typed = resources[f"sm90-types_128-{kind}"]
    assert untyped is not None, resources["stderr"]
    extra = typed["main_loop"] / untyped["main_loop"] - 1
    assert extra <= MOST_EXTRA_INSTRUCTIONS, (untyped, typed)
