"""The calls that ``avar_kernels.warm`` makes: one of each kind that a model makes.

Sequences differ from one another, and have runs of types that are longer than two key blocks, so
that the loops over plain blocks, over blocks with masks and over ragged ends all run.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .api import visual_attn_func, visual_attn_varlen_func
from .cache import visual_attn_with_kvcache
from .decoding import MIN_DECODING_KEYS
from .key_plan import plan_keys
from .prefixes import plan_prefixes
from .received import attn_received
from .types import AttnOutput, KeyType

LENGTH = 640
LONGEST_KEY_BLOCK = 128

Call = Callable[[str, torch.dtype], dict[str, Tensor]]
"""A call by backend and dtype: its results and gradients by name."""


def make_calls(
    heads: int, kv_heads: int, head_dim: int, num_types: int, device: torch.device
) -> dict[str, Call]:
    """{name: call}."""

    def tensors(length: int, batch: int, dtype: torch.dtype) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        shapes = [(batch, length, n, head_dim) for n in (heads, kv_heads, kv_heads)]
        drawn = [torch.randn(s, generator=generator).to(torch.bfloat16) for s in shapes]
        return [x.to(device, dtype).requires_grad_() for x in drawn]

    def types(length: int, batch: int = 1) -> Tensor:
        """System turn, image, text, and keys that do not exist; a little longer from row to row."""
        rows = torch.full((batch, length), min(KeyType.SYSTEM, num_types - 1), dtype=torch.int32)
        for number, row in enumerate(rows):
            begin, end = length // 10 + number % 7, 7 * length // 10 + number % 5
            row[begin:end], row[end:] = min(KeyType.VISUAL, num_types - 1), KeyType.TEXT
            row[length - 3 :] = KeyType.PAD
        return rows.to(device)

    def lengths_of(batch: int) -> dict[str, Any]:
        """Packed sequences of unequal lengths."""
        lengths = torch.tensor([LENGTH - 37 * (number % 3) for number in range(batch)])
        starts = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
        starts = starts.to(device, torch.int32)
        return {
            "cu_seqlens_q": starts, "cu_seqlens_k": starts,
            "max_seqlen_q": LENGTH, "max_seqlen_k": LENGTH,
        }  # fmt: skip

    options: dict[str, Any] = {"num_types": num_types, "causal": True}
    of_types: dict[str, Any] = {"num_types": num_types}

    def with_gradients(result: AttnOutput, **leaves: Tensor) -> dict[str, Tensor]:
        seen = torch.where(torch.isfinite(result.lse), result.lse, 0.0)
        weights = torch.linspace(-1, 1, num_types, device=device)
        loss = result.out.float().square().sum() + (result.mass * weights).sum() + seen.sum()
        grads = torch.autograd.grad(loss, list(leaves.values()))
        named = {f"d{name}": grad for name, grad in zip(leaves, grads, strict=True)}
        return result._asdict() | named

    def dense(batch: int) -> Call:
        def call(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
            q, k, v = tensors(LENGTH, batch, dtype)
            plan = plan_keys(types(LENGTH, batch), **of_types)
            result = visual_attn_func(q, k, v, plan, **options, backend=backend)
            return with_gradients(result, q=q, k=k, v=v)

        return call

    def packed(batch: int, shared: bool) -> Call:
        def call(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
            arguments: dict[str, Any] = lengths_of(batch) | of_types
            if shared:  # every second sequence sees the keys of the one before it
                index = torch.full((batch,), -1, dtype=torch.int32, device=device)
                index[1::2] = torch.arange(0, batch - 1, 2, dtype=torch.int32, device=device)
                arguments["prefix_index"] = index
            tokens = int(arguments["cu_seqlens_q"][-1])
            leaves = tensors(LENGTH, batch, dtype)
            q, k, v = (x.detach().flatten(0, 1)[:tokens].requires_grad_() for x in leaves)
            plan = plan_keys(types(LENGTH, batch).flatten()[:tokens], **arguments)
            result = visual_attn_varlen_func(
                q, k, v, **arguments, key_types=plan, causal=True, backend=backend
            )
            return with_gradients(result, q=q, k=k, v=v)

        return call

    def intervened(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
        tables = torch.linspace(0.5, 1.5, 2 * heads * num_types, device=device)
        bias, scale = tables.view(2, heads, num_types).unbind()
        bias, scale = bias.clone().requires_grad_(), scale.clone().requires_grad_()
        q, k, v = tensors(LENGTH, 1, dtype)
        plan = plan_keys(types(LENGTH), **of_types)
        result = visual_attn_func(
            q, k, v, plan, type_bias=bias, type_scale=scale, **options, backend=backend
        )
        return with_gradients(result, q=q, k=k, v=v, type_bias=bias, type_scale=scale)

    @torch.no_grad()
    def decoding(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
        q, k, v = tensors(MIN_DECODING_KEYS, 2, dtype)
        here = types(MIN_DECODING_KEYS, 2)
        once = visual_attn_func(q[:, -1:], k, v, here, **options, backend=backend)
        lengths = torch.tensor([MIN_DECODING_KEYS, MIN_DECODING_KEYS // 2], dtype=torch.int32)
        some = visual_attn_with_kvcache(
            q[:, -1:], k, v, here, lengths.to(device), **options, backend=backend
        )
        part = {f"{name} of a part": value for name, value in some._asdict().items()}
        return once._asdict() | part

    @torch.no_grad()
    def decoding_prefixes(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
        q, k, v = tensors(MIN_DECODING_KEYS, 3, dtype)
        own = plan_keys(types(LENGTH, 3), **of_types)
        index = torch.tensor([1, 0, 1], dtype=torch.int32, device=device)
        shared = plan_prefixes(index, types(MIN_DECODING_KEYS, 2), **of_types)
        return visual_attn_with_kvcache(
            q[:, -1:], k[:, :LENGTH], v[:, :LENGTH], own, **options, backend=backend,
            prefix_k=k[:2], prefix_v=v[:2], prefix_index=shared,
        )._asdict()  # fmt: skip

    @torch.no_grad()
    def columns(backend: str, dtype: torch.dtype) -> dict[str, Tensor]:
        q, k, _ = tensors(LENGTH, 1, dtype)
        lse = torch.full((1, heads, LENGTH), 5.0, device=device)
        weight = q[..., 0].float().abs()
        arguments = (q, k, lse, weight, types(LENGTH))
        return {"received": attn_received(*arguments, **options, backend=backend)}

    many = _rows_without_shares(kv_heads, device)
    return {
        "dense, forward and backward": dense(1),
        "dense, many rows": dense(many),
        "packed, forward and backward": packed(2, shared=False),
        "packed, many rows": packed(many, shared=False),
        "packed with shared prefixes, forward and backward": packed(4, shared=True),
        "packed with shared prefixes, many rows": packed(many, shared=True),
        "bias and scale, forward and backward": intervened,
        "decoding": decoding,
        "decoding with shared prefixes": decoding_prefixes,
        "column sums": columns,
    }


def _rows_without_shares(kv_heads: int, device: torch.device) -> int:
    """So many sequences that the kernel for dk and dv does not share out the heads of a group."""
    from .triton_backend import launch

    most = launch.MOST_PROGRAMS_PER_MULTIPROCESSOR * launch.multiprocessors(device)
    tokens = (most // 2 + 1) * LONGEST_KEY_BLOCK // kv_heads
    return max(2, -(-tokens // (LENGTH - 74)))
