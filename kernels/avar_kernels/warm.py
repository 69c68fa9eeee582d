"""Compiles the Triton kernels of a training run ahead of it.

    python -m avar_kernels.warm --heads 28 --kv-heads 4 --head-dim 128
    python -m avar_kernels.warm --model path/to/Qwen2.5-VL-7B-Instruct

Triton compiles a kernel when it is first launched, and keeps it in its cache on disk. Without this,
every rank compiles the same kernels during its first step. Lengths and batch sizes do not matter:
no kernel is compiled for them. The program makes small calls of each kind that a run makes (dense,
packed and with shared prefixes, forward and backward, decoding), so it needs the GPU of the run.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from .api import visual_attn_func, visual_attn_varlen_func
from .backends import available_backends
from .cache import visual_attn_with_kvcache
from .decoding import MIN_DECODING_KEYS
from .key_plan import plan_keys
from .prefixes import plan_prefixes
from .received import attn_received
from .types import AttnOutput

LENGTH = 80
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def warm(
    heads: int,
    kv_heads: int,
    head_dim: int,
    *,
    dtype: torch.dtype = torch.bfloat16,
    num_types: int = 3,
    device: torch.device | str = "cuda",
) -> Iterator[tuple[str, float]]:
    """Makes every kind of call once; yields its name and the seconds that it took.

    Args:
        heads, kv_heads, head_dim: H, Hkv and D of the model's text layers.
        dtype: of q, k and v.
        num_types: number of key types.
        device: the GPU whose kernels are compiled.
    """
    calls = _calls(heads, kv_heads, head_dim, dtype, num_types, torch.device(device))
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        if torch.device(device).type == "cuda":
            torch.cuda.synchronize()
        yield name, time.perf_counter() - start


def _calls(
    heads: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    num_types: int,
    device: torch.device,
) -> dict[str, Callable[[], object]]:
    def tensors(length: int) -> list[torch.Tensor]:
        shapes = [(1, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
        return [torch.zeros(s, dtype=dtype, device=device, requires_grad=True) for s in shapes]

    def types(length: int) -> torch.Tensor:
        return torch.zeros(1, length, dtype=torch.int32, device=device)

    table = torch.zeros(heads, num_types, device=device)
    offsets = torch.tensor([0, LENGTH], dtype=torch.int32, device=device)
    lengths: dict[str, Any] = {
        "cu_seqlens_q": offsets, "cu_seqlens_k": offsets,
        "max_seqlen_q": LENGTH, "max_seqlen_k": LENGTH,
    }  # fmt: skip
    options: dict[str, Any] = {"num_types": num_types, "causal": True, "backend": "triton"}

    def gradients(result: AttnOutput, leaves: list[torch.Tensor]) -> None:
        loss = result.out.float().sum() + result.mass.sum() + result.lse.sum()
        torch.autograd.grad(loss, leaves)

    def dense() -> None:
        leaves, plan = tensors(LENGTH), plan_keys(types(LENGTH), num_types=num_types)
        q, k, v = leaves
        gradients(visual_attn_func(q, k, v, plan, **options), leaves)

    def packed() -> None:
        leaves = tensors(LENGTH)
        plan = plan_keys(types(LENGTH)[0], num_types=num_types, **lengths)
        q, k, v = (x[0] for x in leaves)
        result = visual_attn_varlen_func(q, k, v, **lengths, key_types=plan, **options)
        gradients(result, leaves)

    def prefixes() -> None:
        leaves = tensors(2 * LENGTH)
        q, k, v = (x[0] for x in leaves)
        starts = torch.tensor([0, LENGTH, 2 * LENGTH], dtype=torch.int32, device=device)
        index = torch.tensor([-1, 0], dtype=torch.int32, device=device)
        shared: dict[str, Any] = lengths | {
            "cu_seqlens_q": starts,
            "cu_seqlens_k": starts,
            "prefix_index": index,
        }
        plan = plan_keys(types(2 * LENGTH)[0], num_types=num_types, **shared)
        result = visual_attn_varlen_func(q, k, v, **shared, key_types=plan, **options)
        gradients(result, leaves)

    @torch.no_grad()
    def intervened() -> None:
        (q, k, v), plan = tensors(LENGTH), plan_keys(types(LENGTH), num_types=num_types)
        tables = {"type_bias": table, "type_scale": table}
        visual_attn_func(q, k, v, plan, **tables, **options)

    @torch.no_grad()
    def decoding() -> None:
        q, k, v = tensors(MIN_DECODING_KEYS)
        visual_attn_func(q[:, -1:], k, v, types(MIN_DECODING_KEYS), **options)
        visual_attn_with_kvcache(q[:, -1:], k, v, types(MIN_DECODING_KEYS), **options)

    @torch.no_grad()
    def decoding_prefixes() -> None:
        (q, k, v), own = tensors(MIN_DECODING_KEYS), plan_keys(types(LENGTH), num_types=num_types)
        index = torch.zeros(1, dtype=torch.int32, device=device)
        prefixes = plan_prefixes(index, types(MIN_DECODING_KEYS), num_types=num_types)
        visual_attn_with_kvcache(
            q[:, -1:], k[:, :LENGTH], v[:, :LENGTH], own, **options,
            prefix_k=k, prefix_v=v, prefix_index=prefixes,
        )  # fmt: skip

    @torch.no_grad()
    def columns() -> None:
        q, k, _ = tensors(LENGTH)
        lse, weight = torch.zeros(1, heads, LENGTH, device=device), q[..., 0, 0].float()
        attn_received(q, k, lse, weight, types(LENGTH), **options)

    return {
        "dense, forward and backward": dense,
        "packed, forward and backward": packed,
        "packed with shared prefixes, forward and backward": prefixes,
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
    """Compiles, and says how long each kind of call took."""
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
    for name, seconds in calls:
        total += seconds
        print(f"{name}: {seconds:.1f} s", flush=True)
    print(f"all: {total:.1f} s")


if __name__ == "__main__":
    main()
