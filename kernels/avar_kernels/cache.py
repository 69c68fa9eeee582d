"""Decoding: few queries of each sequence against its key-value cache. Inference only."""

from typing import Any, NoReturn

import torch
from torch import Tensor

from . import cpu, validation
from .backends import resolve_backend
from .key_plan import KeyPlan
from .op_arguments import NUM_ARGUMENTS, NUMBERS, TENSORS, flatten, restore
from .ops import implementation
from .packed_cache import as_packed
from .packed_validation import check_no_window
from .prefixes import PrefixPlan, plan_prefixes
from .registration import register_operator
from .types import AttnInputs, AttnOutput, CachePrefixes
from .value_checks import check_cache_values


def visual_attn_with_kvcache(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    key_types: Tensor | KeyPlan | None = None,
    cache_seqlens: Tensor | int | None = None,
    causal: bool = True,
    *,
    block_table: Tensor | None = None,
    prefix_k: Tensor | None = None,
    prefix_v: Tensor | None = None,
    prefix_key_types: Tensor | None = None,
    prefix_index: Tensor | PrefixPlan | None = None,
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

    Sequences that begin with the same keys, as completions of one prompt do, may hold these keys
    only once, as a prefix. A query then also sees all existing keys of its sequence's prefix.
    Sequences of one prefix read its keys together.

    Args:
        q: (B, n, H, D), the queries of the n newest tokens.
        k_cache: (B, capacity, Hkv, D); or with ``block_table`` pages (P, page size, Hkv, D).
        v_cache: (B, capacity, Hkv, Dv); or pages (P, page size, Hkv, Dv).
        key_types: (B, capacity) integers below ``num_types``, negative where the key does not
            exist. Types behind the end of a sequence are not read. None: all 0. The capacity of
            pages is the number of columns of ``block_table`` times the page size. Or the
            ``KeyPlan`` that ``plan_keys`` made of them: then no layer checks them again.
        cache_seqlens: (B,) integers, keys of each sequence including the new ones; one int for all;
            None: the cache is full.
        causal: as above; False: every query sees all keys of its sequence.
        block_table: (B, pages) int32, the pages of each sequence in order. Entries behind a
            sequence's last page are not read.
        prefix_k: (P, Lp, Hkv, D), the keys of P prefixes, in q's dtype; None: no prefixes.
        prefix_v: (P, Lp, Hkv, Dv).
        prefix_key_types: (P, Lp) integers, as ``key_types``; shorter prefixes are padded with a
            negative type. None: all 0.
        prefix_index: (B,) int32: the prefix of each sequence, -1 for none. Or the ``PrefixPlan``
            that ``plan_prefixes`` made of it and of the types: then no layer sorts it again, and
            ``prefix_key_types`` is None.
        num_types, type_bias, type_scale, softmax_scale, window_size, backend: as in
            ``visual_attn_func``. Windows may not be used with prefixes.

    Returns:
        AttnOutput(out, mass, lse): (B, n, H, Dv), (B, n, H, num_types), (B, H, n). No gradient.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: the named backend does not run here.
        NotImplementedError: on backward.

    Source: splitting the keys of few queries is Flash-Decoding's (Dao et al., 2023); the merge of
    partial softmaxes is that of online softmax (arXiv 2205.14135).
    """
    q, k_cache, v_cache, prefix_k, prefix_v = validation.autocast(
        q, k_cache, v_cache, prefix_k, prefix_v
    )
    validation.check_qkv(q, k_cache, v_cache, packed=False, paged=block_table is not None)
    params = validation.checked_params(q, num_types, softmax_scale, causal, window_size)
    capacity = k_cache.shape[1]
    if block_table is not None:
        validation.check_integers("block_table", block_table, (q.shape[0], None), q.device)
        capacity = block_table.shape[1] * k_cache.shape[1]
        block_table = block_table.to(torch.int32).contiguous()
    planned = isinstance(key_types, KeyPlan)
    if planned:
        key_types.check_fits(num_types, None)
        key_types = key_types.key_types
    if key_types is not None:
        validation.check_integers("key_types", key_types, (q.shape[0], capacity), q.device)
    if isinstance(cache_seqlens, int):
        cache_seqlens = torch.full((q.shape[0],), cache_seqlens, device=q.device)
    if cache_seqlens is not None:
        validation.check_integers("cache_seqlens", cache_seqlens, (q.shape[0],), q.device)
        cache_seqlens = cache_seqlens.to(torch.int32).contiguous()
    given = prefix_k, prefix_v, prefix_key_types, prefix_index
    prefixes = _prefixes(q, k_cache, v_cache, num_types, *given)
    if prefixes is not None:
        check_no_window(window_size)
    bias = validation.per_head_table("type_bias", type_bias, q, num_types)
    scale = validation.per_head_table("type_scale", type_scale, q, num_types)
    head_dim = max(q.shape[-1], v_cache.shape[-1])
    backend = resolve_backend(backend, q.device, q.dtype, head_dim)
    inputs = AttnInputs(q, k_cache, v_cache, key_types, bias, scale)
    shared = (None,) * len(CachePrefixes._fields) if prefixes is None else prefixes
    return AttnOutput(
        *_with_kvcache(
            *flatten(inputs, params), cache_seqlens, block_table, *shared, planned, backend
        )
    )


def _prefixes(
    q: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    num_types: int,
    prefix_k: Tensor | None,
    prefix_v: Tensor | None,
    prefix_key_types: Tensor | None,
    prefix_index: Tensor | PrefixPlan | None,
) -> CachePrefixes | None:
    """The checked and sorted prefixes of a call; None if it has none."""
    needed = {"prefix_k": prefix_k, "prefix_v": prefix_v, "prefix_index": prefix_index}
    missing = [name for name, x in needed.items() if x is None]
    if prefix_k is None or prefix_v is None or prefix_index is None:
        if len(missing) == len(needed) and prefix_key_types is None:
            return None
        raise ValueError(
            f"{', '.join(needed)} must be given together; {', '.join(missing)} is None. Pass all of"
            " them, or none for a cache without prefixes."
        )
    names = "prefix_k", "prefix_v"
    validation.check_qkv(q, prefix_k, prefix_v, packed=False, paged=True, names=names)
    for name, x, cache in (("prefix_k", prefix_k, k_cache), ("prefix_v", prefix_v, v_cache)):
        if x.shape[2:] != cache.shape[2:]:
            validation.refuse(
                name,
                f"of {tuple(cache.shape[2:])} heads and dimension, as {name[7:]}_cache",
                tuple(x.shape[2:]),
                "A prefix and its sequences belong to the same layer.",
            )
    if not isinstance(prefix_index, PrefixPlan):
        validation.check_integers("prefix_index", prefix_index, (q.shape[0],), q.device)
        count = len(prefix_k) if prefix_key_types is None else None
        plan = plan_prefixes(
            prefix_index, prefix_key_types, num_prefixes=count, num_types=num_types
        )
    elif prefix_key_types is None:
        plan = prefix_index
    else:
        raise ValueError(
            "prefix_key_types must be None with a PrefixPlan, which holds them; got a tensor."
        )
    if plan.num_types != num_types:
        raise ValueError(
            f"num_types must be {plan.num_types}, as in the plan of prefixes; got {num_types}. Make"
            " the plan with the same num_types."
        )
    validation.check_integers("prefix_index", plan.index, (q.shape[0],), q.device)
    if plan.key_types is not None:
        shape = tuple(prefix_k.shape[:2])
        validation.check_integers("prefix_key_types", plan.key_types, shape, q.device)
    elif plan.num_prefixes != len(prefix_k):
        validation.refuse(
            "prefix_k",
            f"of {plan.num_prefixes} prefixes, as in the plan",
            len(prefix_k),
            "Make the plan with num_prefixes=len(prefix_k).",
        )
    return CachePrefixes(prefix_k, prefix_v, plan.key_types, plan.index, plan.order, plan.offsets)


def _attend_to_cache(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs, params = restore(arguments)
    cache_seqlens, block_table, *shared, values_checked, backend = arguments[NUM_ARGUMENTS:]
    prefixes = None if shared[0] is None else CachePrefixes(*shared)
    k_cache, types = inputs.k, None if values_checked else inputs.key_types
    check_cache_values(k_cache, types, params.num_types, cache_seqlens, block_table)
    if backend == "triton":
        from .triton_backend.cache_launch import with_kvcache

        return with_kvcache(inputs, params, cache_seqlens, block_table, prefixes)
    if backend == "cpu" and block_table is None:
        return cpu.with_kvcache(inputs, params, cache_seqlens, prefixes)
    packed = as_packed(inputs, cache_seqlens, block_table, prefixes)
    out, mass, lse = implementation(backend).forward(packed, params)
    rows = inputs.q.shape[:2]
    return out.unflatten(0, rows), mass.unflatten(0, rows), _batches_first(lse.unflatten(1, rows))


def _batches_first(lse: Tensor) -> Tensor:
    """(H, B, n) -> a new contiguous (B, H, n)."""
    return lse.transpose(0, 1).contiguous()


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
    " Tensor? prefix_k, Tensor? prefix_v, Tensor? prefix_key_types, Tensor? prefix_of,"
    " Tensor? prefix_order, Tensor? prefix_offsets, bool values_checked, str backend)"
    " -> (Tensor, Tensor, Tensor)",
    _attend_to_cache,
    _fake,
    _no_backward,
)
