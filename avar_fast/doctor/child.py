"""The child process of ``trials``: tries each name of its command line and says how it went.

A line of JSON per name goes to standard output: [name, the error in one line or ""]. What imported
packages print is dropped.
"""

import importlib
import json
import os
import sys
import warnings
from typing import Any

from .trials import KERNEL

LENGTH = 100
LARGEST_ERROR = 1e-3
"""As a share of the largest value, in float32."""


def main() -> None:
    lines = os.fdopen(os.dup(1), "w")
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
    for name in sys.argv[1:]:
        print(json.dumps([name, _error_of(name)]), file=lines, flush=True)


def _error_of(name: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _run_backend(name.removeprefix(KERNEL)) if name.startswith(KERNEL) else _import(name)
    # A broken package raises anything, and some call sys.exit.
    except (Exception, SystemExit) as error:
        lines = str(error).strip().splitlines()
        return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
    return ""


def _import(name: str) -> None:
    """Imports a module, or a function named package.module:function."""
    module, _, attribute = name.partition(":")
    imported = importlib.import_module(module)
    if attribute and not callable(getattr(imported, attribute)):
        raise TypeError(f"{attribute} of {module} cannot be called")


def _run_backend(backend: str) -> None:
    """One small call, forward and backward, on the device that the backend is for."""
    import torch
    from avar_kernels import visual_attn_func

    on_gpu = torch.cuda.is_available() and backend in ("eager", "triton")
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, LENGTH, 2, 64, device="cuda" if on_gpu else "cpu").unbind(0)
    types = torch.arange(LENGTH, device=q.device, dtype=torch.int32)[None] // 40
    found, expected = (
        _results(visual_attn_func, q, k, v, types, name) for name in (backend, "eager")
    )
    for name, one, other in zip(("out", "mass", "dq", "dk", "dv"), found, expected, strict=True):
        error = ((one - other).abs().max() / other.abs().max()).item()
        if not error <= LARGEST_ERROR:
            raise ArithmeticError(f"{name} differs from that of the backend eager by {error:.0%}")


def _results(attention: Any, q: Any, k: Any, v: Any, types: Any, backend: str) -> list[Any]:
    """out and mass, and the gradients of q, k and v."""
    import torch

    inputs = [x.clone().requires_grad_() for x in (q, k, v)]
    result = attention(*inputs, types, causal=True, backend=backend)
    loss = result.out.square().sum() + result.mass.square().sum()
    return [result.out, result.mass, *torch.autograd.grad(loss, inputs)]


if __name__ == "__main__":
    main()
