"""Compiles the Triton kernels of a training run ahead of it, and checks them.

    python -m avar_kernels.warm --heads 28 --kv-heads 4 --head-dim 128
    python -m avar_kernels.warm --model path/to/Qwen2.5-VL-7B-Instruct

Triton compiles a kernel when it is first launched, and keeps it in its cache on disk. Without this,
every rank compiles the same kernels during its first step. Lengths and batch sizes do not matter:
no kernel is compiled for them. The program makes small calls of each kind that a run makes (dense,
packed and with shared prefixes, forward and backward, decoding), so it needs the GPU of the run.

Each call's results are compared with the specification (backend "eager", float32). A compiler may
get a kernel wrong on one chip and version without any error, as one has (docs/gpu.md).
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from .backends import available_backends
from .warm_calls import make_calls

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
ROUNDINGS = 8  # that a row may be off, of its own size and half of a usual row's
# float32 products may be TF32. Masses and lse are float32 in any dtype; general blocks round the
# weights of masses to float16.
FLOAT32_UNIT, MASS_ERROR = 1e-3, 4e-3


class WrongKernelError(RuntimeError):
    """A compiled kernel does not compute what the specification says."""


class Warmed(NamedTuple):
    """One kind of call, made once."""

    name: str
    seconds: float
    checked: bool
    """False if there was no memory for the specification, or no check was asked for."""


def warm(
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    num_types: int = 3,
    device: torch.device | str = "cuda",
    check: bool = True,
) -> Iterator[Warmed]:
    """Makes every kind of call once, and compares its results with the specification.

    Args:
        heads, kv_heads, head_dim: H, Hkv and D of the model's text layers.
        dtype: of q, k and v.
        num_types: number of key types.
        device: the GPU whose kernels are compiled.
        check: compare the results.

    Raises:
        WrongKernelError: a result is wrong; Triton's compiler has a fault on this GPU.
    """
    calls = make_calls(heads, kv_heads, head_dim, num_types, torch.device(device))
    for name, call in calls.items():
        start = time.perf_counter()
        results = call("triton", dtype)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        seconds, checked = time.perf_counter() - start, check
        if check:
            try:
                wanted = call("eager", torch.float32)
            except torch.OutOfMemoryError:
                checked = False
            else:
                compare(name, results, wanted, dtype)
        yield Warmed(name, seconds, checked)


def compare(
    call: str, results: dict[str, Tensor], wanted: dict[str, Tensor], dtype: torch.dtype
) -> None:
    """Raises WrongKernelError if a result is not the wanted one, rounded."""
    unit = FLOAT32_UNIT if dtype == torch.float32 else torch.finfo(dtype).eps
    for name, got in results.items():
        want, got = wanted[name].float(), got.float()
        if name.startswith(("mass", "lse")):
            same = torch.where(want.isinf(), got == want, (got - want).abs() <= MASS_ERROR)
        else:
            width = want.shape[-1]
            sizes = want.reshape(-1, width).norm(dim=1)
            errors = (got - want).reshape(-1, width).norm(dim=1)
            usual = sizes.square().mean().sqrt()
            same = errors <= ROUNDINGS * unit * (sizes + usual / 2)  # not so for NaN
        if not same.all():
            raise WrongKernelError(
                f"{call}: {name} is wrong in {int((~same).sum())} of {same.numel()} places. A"
                " kernel was compiled wrongly for this GPU. Use another version of Triton"
                " (docs/versions.md), or backend='eager', and report it with the versions of torch,"
                " Triton and the driver."
            )


def shape_of_model(folder: Path) -> dict[str, int]:
    """heads, kv_heads and head_dim from a model's ``config.json``."""
    config = json.loads((folder / "config.json").read_text())
    text = config.get("text_config", config)
    heads = text["num_attention_heads"]
    return {
        "heads": heads,
        "kv_heads": text.get("num_key_value_heads") or heads,
        "head_dim": text.get("head_dim") or text["hidden_size"] // heads,
    }


def main() -> None:
    """Compiles and checks, and says how long each kind of call took."""
    parser = argparse.ArgumentParser(
        prog="python -m avar_kernels.warm",
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--model", type=Path, help="folder with the model's config.json")
    parser.add_argument("--heads", type=int, help="query heads of a text layer")
    parser.add_argument("--kv-heads", type=int)
    parser.add_argument("--head-dim", type=int)
    parser.add_argument("--dtype", choices=DTYPES, default="bfloat16")
    parser.add_argument("--num-types", type=int, default=3, help="number of key types")
    options = parser.parse_args()
    shape = {"heads": options.heads, "kv_heads": options.kv_heads, "head_dim": options.head_dim}
    if options.model is not None:
        if any(value is not None for value in shape.values()):
            parser.error("give either --model, or --heads, --kv-heads and --head-dim")
        shape = shape_of_model(options.model)
    if any(value is None for value in shape.values()):
        parser.error("give --model, or --heads, --kv-heads and --head-dim")
    status = available_backends()["triton"]
    if not status or not torch.cuda.is_available():
        parser.exit(1, f"no kernels can be compiled here: {status.reason or 'no GPU'}\n")
    total = 0.0
    calls = warm(
        shape["heads"], shape["kv_heads"], shape["head_dim"],
        dtype=DTYPES[options.dtype], num_types=options.num_types,
    )  # fmt: skip
    try:
        for name, seconds, checked in calls:
            total += seconds
            verdict = "right" if checked else "not checked: too little memory for the specification"
            print(f"{name}: {seconds:.1f} s, {verdict}", flush=True)
    except WrongKernelError as error:
        parser.exit(1, f"{error}\n")
    print(f"all: {total:.1f} s")


if __name__ == "__main__":
    main()
