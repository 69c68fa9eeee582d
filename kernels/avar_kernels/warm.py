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
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .api import visual_attn_func, visual_attn_varlen_func
from .backends import available_backends
from .cache import visual_attn_with_kvcache
from .decoding import MIN_DECODING_KEYS
from .key_plan import plan_keys
from .prefixes import plan_prefixes
from .received import attn_received
from .types import AttnOutput, KeyType

LENGTH = 160
# So many keys that the kernel for dk and dv does not share out the heads of a group.
MANY_KEYS = 1 << 17
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
ROUNDINGS = 8  # of the largest entry of a result, that it may be off

Call = Callable[[str, torch.dtype], list[Tensor]]
"""A call by backend and dtype: its results and gradients."""


def warm(
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    num_types: int = 3,
    device: torch.device | str = "cuda",
    check: bool = True,
) -> Iterator[tuple[str, float]]:
    """Makes every kind of call once; yields its name and the seconds that it took.

    Args:
        heads, kv_heads, head_dim: H, Hkv and D of the model's text layers.
        dtype: of q, k and v.
        num_types: number of key types.
        device: the GPU whose kernels are compiled.
        check: compare the results with the specification.

    Raises:
        RuntimeError: a result is wrong; Triton's compiler has a fault on this GPU.
    """
    calls = _calls(heads, kv_heads, head_dim, num_types, torch.device(device))
    for name, call in calls.items():
        start = time.perf_counter()
        results = call("triton", dtype)
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        yield name, time.perf_counter() - start
        if check:
            _compare(name, results, call("eager", torch.float32), dtype)


def _compare(name: str, results: list[Tensor], wanted: list[Tensor], dtype: torch.dtype) -> None:
    # float32 products may be TF32, and sums of a few hundred terms take another order.
    unit = max(torch.finfo(dtype).eps, 1e-3 if dtype == torch.float32 else 0.0)
    for number, (got, want) in enumerate(zip(results, wanted, strict=True)):
        finite = torch.isfinite(want)
        size = want[finite].abs().max().item() if finite.any() else 0.0
        error = (got.float() - want)[finite].abs().max().item() if finite.any() else 0.0
        if not error <= ROUNDINGS * unit * max(size, 1.0):  # NaN is wrong too
            raise RuntimeError(
                f"{name}: result {number} is off by {error:.3g}, its largest entry is {size:.3g}."
                " A kernel was compiled wrongly for this GPU. Use another version of Triton"
                " (docs/versions.md), or backend='eager', and report it with the versions of"
                " torch, Triton and the driver."
            )


def _calls(
    heads: int, kv_heads: int, head_dim: int, num_types: int, device: torch.device
) -> dict[str, Call]:
    def tensors(length: int, batch: int, dtype: torch.dtype) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = [(1, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
        drawn = [torch.randn(s, generator=generator).to(torch.bfloat16) for s in shapes]
        repeated = [x.to(device, dtype).repeat(batch, 1, 1, 1) for x in drawn]
        return [x.requires_grad_() for x in repeated]

    def types(length: int, batch: int = 1) -> Tensor:
        """Runs of some types, and keys that do not exist."""
        row = torch.full((batch, length), min(KeyType.SYSTEM, num_types - 1), dtype=torch.int32)
        row[:, length // 10 : length // 10 + length // 2] = min(KeyType.VISUAL, num_types - 1)
        row[:, -length // 4 :], row[:, -3:] = KeyType.TEXT, KeyType.PAD
        return row.to(device)

    def offsets(length: int, batch: int) -> dict[str, Any]:
        starts = torch.arange(batch + 1, dtype=torch.int32, device=device) * length
        return {
            "cu_seqlens_q": starts, "cu_seqlens_k": starts,
            "max_seqlen_q": length, "max_seqlen_k": length,
        }  # fmt: skip

    options: dict[str, Any] = {"num_types": num_types, "causal": True}
    of_types: dict[str, Any] = {"num_types": num_types}
    table = torch.linspace(0.5, 1.5, heads * num_types).view(heads, num_types).to(device)

    def with_gradients(result: AttnOutput, leaves: list[Tensor]) -> list[Tensor]:
        seen = torch.where(torch.isfinite(result.lse), result.lse, 0.0)
        weights = torch.linspace(-1, 1, num_types, device=device)
        loss = result.out.float().square().sum() + (result.mass * weights).sum() + seen.sum()
        return [*result, *torch.autograd.grad(loss, leaves)]

    def dense(batch: int) -> Call:
        def call(backend: str, dtype: torch.dtype) -> list[Tensor]:
            q, k, v = leaves = tensors(LENGTH, batch, dtype)
            plan = plan_keys(types(LENGTH, batch), **of_types)
            result = visual_attn_func(q, k, v, plan, **options, backend=backend)
            return with_gradients(result, leaves)

        return call

    def packed(batch: int) -> Call:
        def call(backend: str, dtype: torch.dtype) -> list[Tensor]:
            leaves, lengths = tensors(LENGTH, batch, dtype), offsets(LENGTH, batch) | of_types
            plan = plan_keys(types(LENGTH, batch).flatten(), **lengths)
            q, k, v = (x.flatten(0, 1) for x in leaves)
            result = visual_attn_varlen_func(
                q, k, v, **lengths, key_types=plan, causal=True, backend=backend
            )
            return with_gradients(result, leaves)

        return call

    def prefixes(batch: int) -> Call:
        def call(backend: str, dtype: torch.dtype) -> list[Tensor]:
            leaves = tensors(LENGTH, batch, dtype)
            index = torch.full((batch,), -1, dtype=torch.int32, device=device)
            index[1::2] = torch.arange(0, batch - 1, 2, dtype=torch.int32, device=device)
            shared: dict[str, Any] = {"prefix_index": index} | offsets(LENGTH, batch) | of_types
            plan = plan_keys(types(LENGTH, batch).flatten(), **shared)
            q, k, v = (x.flatten(0, 1) for x in leaves)
            result = visual_attn_varlen_func(
                q, k, v, **shared, key_types=plan, causal=True, backend=backend
            )
            return with_gradients(result, leaves)

        return call

    @torch.no_grad()
    def intervened(backend: str, dtype: torch.dtype) -> list[Tensor]:
        plan = plan_keys(types(LENGTH), **of_types)
        tables = {"type_bias": table, "type_scale": table}
        q, k, v = tensors(LENGTH, 1, dtype)
        return [*visual_attn_func(q, k, v, plan, **tables, **options, backend=backend)]

    @torch.no_grad()
    def decoding(backend: str, dtype: torch.dtype) -> list[Tensor]:
        q, k, v = tensors(MIN_DECODING_KEYS, 1, dtype)
        here = types(MIN_DECODING_KEYS)
        once = visual_attn_func(q[:, -1:], k, v, here, **options, backend=backend)
        again = visual_attn_with_kvcache(q[:, -1:], k, v, here, **options, backend=backend)
        return [*once, *again]

    @torch.no_grad()
    def decoding_prefixes(backend: str, dtype: torch.dtype) -> list[Tensor]:
        q, k, v = tensors(MIN_DECODING_KEYS, 1, dtype)
        own = plan_keys(types(LENGTH), **of_types)
        index = torch.zeros(1, dtype=torch.int32, device=device)
        shared = plan_prefixes(index, types(MIN_DECODING_KEYS), **of_types)
        return [
            *visual_attn_with_kvcache(
                q[:, -1:], k[:, :LENGTH], v[:, :LENGTH], own, **options, backend=backend,
                prefix_k=k, prefix_v=v, prefix_index=shared,
            )
        ]  # fmt: skip

    @torch.no_grad()
    def columns(backend: str, dtype: torch.dtype) -> list[Tensor]:
        q, k, _ = tensors(LENGTH, 1, dtype)
        lse = torch.full((1, heads, LENGTH), 5.0, device=device)
        weight = q[..., 0].float()
        return [attn_received(q, k, lse, weight, types(LENGTH), **options, backend=backend)]

    many = max(2, MANY_KEYS // kv_heads // LENGTH)
    return {
        "dense, forward and backward": dense(1),
        "dense, many rows": dense(many),
        "packed, forward and backward": packed(1),
        "packed, many rows": packed(many),
        "packed with shared prefixes, forward and backward": prefixes(2),
        "packed with shared prefixes, many rows": prefixes(many),
        "forward with bias and scale": intervened,
        "decoding": decoding,
        "decoding with shared prefixes": decoding_prefixes,
        "column sums": columns,
    }


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
        for name, seconds in calls:
            total += seconds
            print(f"{name}: {seconds:.1f} s", flush=True)
    except RuntimeError as error:
        parser.exit(1, f"{error}\n")
    print(f"all: {total:.1f} s, all results right")


if __name__ == "__main__":
    main()
