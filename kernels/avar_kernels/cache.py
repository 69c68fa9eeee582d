"""Decoding: few queries of each sequence against its key-value cache. Inference only."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from . import validation
from .backends import resolve_backend
from .op_arguments import NUM_ARGUMENTS, NUMBERS, TENSORS, flatten, restore
from .ops import implementation
from .registration import register_operator
from .types import AttnInputs, AttnOutput
from .value_checks import check_cache_values


def visual_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    key_types: Tensor | None = None,
    cache_seqlens: Tensor | int | None = None,
    causal: bool = True,
    *,
    block_table: Tensor | None = None,
    num_types: int = 3,
    type_bias: Tensor | None = None,
    type_scale: Tensor | None = None,
    softmax_scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    backend: str | None = None,
) -> AttnOutput:
    """``visual_attn_func`` for generation: the cache is longer than what it holds, sequence by
    sequence.

    The new keys are in the cache already: query i of n stands at position
    ``cache_seqlens[b] - n + i`` of sequence b and, if causal, sees the keys up to there.

    Args:
        q: (B, n, H, D), the queries of the n newest tokens.
        k_cache: (B, capacity, Hkv, D); or with ``block_table`` pages (P, page size, Hkv, D).
        v_cache: (B, capacity, Hkv, Dv); or pages (P, page size, Hkv, Dv).
        key_types: (B, capacity) integers below ``num_types``, negative where the key does not
            exist. Types behind the end of a sequence are not read. None: all 0. The capacity of
            pages is the number of columns of ``block_table`` times the page size.
        cache_seqlens: (B,) integers, keys of each sequence including the new ones; one int for all;
            None: the cache is full.
        causal: as above; False: every query sees all keys of its sequence.
        block_table: (B, pages) int32, the pages of each sequence in order. Entries behind a
            sequence's last page are not read.
        num_types, type_bias, type_scale, softmax_scale, window_size, backend: as in
            ``visual_attn_func``.

    Returns:
        AttnOutput(out, mass, lse): (B, n, H, Dv), (B, n, H, num_types), (B, H, n). No gradient.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: the named backend does not run here.
        NotImplementedError: on backward.

    Source: splitting the keys of few queries is Flash-Decoding's (Dao et al., 2023); the merge of
    partial softmaxes is that of online softmax (arXiv 2205.14135).
    """
    q, k_cache, v_cache = validation.autocast(q, k_cache, v_cache)
    validation.check_qkv(q, k_cache, v_cache, packed=False, paged=block_table is not None)
    params = validation.checked_params(q, num_types, softmax_scale, causal, window_size)
    capacity = k_cache.shape[1]
    if block_table is not None:
        validation.check_integers("block_table", block_table, (q.shape[0], None), q.device)
        capacity = block_table.shape[1] * k_cache.shape[1]
        block_table = block_table.to(torch.int32).contiguous()
    if key_types is not None:
        validation.check_integers("key_types", key_types, (q.shape[0], capacity), q.device)
    if isinstance(cache_seqlens, int):
        cache_seqlens = torch.full((q.shape[0],), cache_seqlens, device=q.device)
    if cache_seqlens is not None:
        validation.check_integers("cache_seqlens", cache_seqlens, (q.shape[0],), q.device)
        cache_seqlens = cache_seqlens.to(torch.int32).contiguous()
    bias = validation.per_head_table("type_bias", type_bias, q, num_types)
    scale = validation.per_head_table("type_scale", type_scale, q, num_types)
    head_dim = max(q.shape[-1], v_cache.shape[-1])
    backend = resolve_backend(backend, q.device, q.dtype, head_dim)
    inputs = AttnInputs(q, k_cache, v_cache, key_types, bias, scale)
    return AttnOutput(*_with_kvcache(*flatten(inputs, params), cache_seqlens, block_table, backend))


def _attend_to_cache(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, params = restore(arguments)
    cache_seqlens, block_table, backend = arguments[NUM_ARGUMENTS:]
    q, k_cache, v_cache, key_types, *_ = inputs
    check_cache_values(k_cache, key_types, params.num_types, cache_seqlens, block_table)
    if backend == "triton":
        from .triton_backend.cache_launch import with_kvcache

        return with_kvcache(inputs, params, cache_seqlens, block_table)
    attend = implementation(backend).forward
    if cache_seqlens is None and block_table is None:
        out, mass, lse = attend(inputs, params)
        return out, mass, lse
    parts = []
    for b in range(q.shape[0]):
        k, v = _keys_of(k_cache, block_table, b), _keys_of(v_cache, block_table, b)
        length = k.shape[1] if cache_seqlens is None else int(cache_seqlens[b])
        types = None if key_types is None else key_types[b : b + 1, :length]
        one = inputs._replace(q=q[b : b + 1], k=k[:, :length], v=v[:, :length], key_types=types)
        parts.append(attend(one, params))
    out, mass, lse = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    return out, mass, lse


def _keys_of(cache: Tensor, block_table: Tensor | None, index: int) -> Tensor:
    """(1, capacity, Hkv, D) of one sequence; pages that are not in use may be any."""
    if block_table is None:
        return cache[index : index + 1]
    pages = block_table[index].long().clamp(0, cache.shape[0] - 1)
    return cache[pages].flatten(0, 1)[None]


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, params = restore(arguments)
    q = inputs.q
    accumulate = torch.float64 if q.dtype == torch.float64 else torch.float32
    batch, rows, heads, _ = q.shape
    out = q.new_empty(batch, rows, heads, inputs.v.shape[-1])
    mass = q.new_empty(batch, rows, heads, params.num_types, dtype=accumulate)
    return out, mass, q.new_empty(batch, heads, rows, dtype=accumulate)


def _no_backward(*unused: Any) -> NoReturn:
    raise NotImplementedError(
        "visual_attn_with_kvcache is for inference and has no gradient; use visual_attn_func."
    )


_with_kvcache = register_operator(
    f"visual_attn_with_kvcache({TENSORS}, {NUMBERS}, Tensor? cache_seqlens, Tensor? block_table,"
    " str backend) -> (Tensor, Tensor, Tensor)",
    _attend_to_cache,
    _fake,
    _no_backward,
)
