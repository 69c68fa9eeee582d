"""Column sums of attention: how much every key receives, without the matrix. Not differentiable."""

from collections.abc import Iterator
from typing import Any, NoReturn

import torch
from torch import Tensor

from . import validation
from .backends import resolve_backend
from .op_arguments import NUM_ARGUMENTS, NUMBERS, TENSORS, flatten, restore
from .packed_validation import check_packed, packed_or_none
from .reference import visible_keys
from .registration import register_operator
from .types import AttnInputs, AttnParams
from .value_checks import check_key_values, check_packed_values

CHUNK_ELEMENTS = 1 << 22  # attention weights alive at a time in the chunked form


def attn_received(
    q: Tensor,
    k: Tensor,
    lse: Tensor,
    query_weight: Tensor,
    key_types: Tensor | None = None,
    *,
    cu_seqlens_q: Tensor | None = None,
    cu_seqlens_k: Tensor | None = None,
    max_seqlen_q: int | None = None,
    max_seqlen_k: int | None = None,
    num_types: int = 3,
    type_bias: Tensor | None = None,
    type_scale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    backend: str | None = None,
) -> Tensor:
    """How much attention every key receives, summed over queries with weights.

        received_jh = sum_i w_ih P_ij,   P_ij = exp(z_ij - lse_ih)

    Call it with the arguments of the forward call that gave ``lse``; the mean over queries
    (w = 1 / Lq) drawn over an image shows where a model looks.

    Args:
        q: (B, Lq, H, D), or packed (Tq, H, D).
        k: (B, Lk, Hkv, D), or packed (Tk, Hkv, D).
        lse: (B, H, Lq), or packed (H, Tq), from ``visual_attn_func``.
        query_weight: (B, Lq) or (B, Lq, H), or packed (Tq,) or (Tq, H); floating.
        key_types: (B, Lk), or packed (Tk,), as in the forward call; keys that do not exist receive
            0.
        cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k: all four for packed sequences.
        num_types, type_bias, type_scale, softmax_scale, causal, window_size, backend: as in the
            forward call. "eager", "sdpa" and "cpu" share one form that keeps a bounded number of
            weights alive.

    Returns:
        (B, Lk, H), or packed (Tk, H), float32 (float64 for float64 inputs). No gradient.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: the named backend does not run here.
        NotImplementedError: on backward.
    """
    lengths = (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    packed = packed_or_none(*lengths)
    q, k = validation.autocast(q, k)
    validation.check_qkv(q, k, k, packed=packed is not None)
    if packed is not None:
        check_packed(packed, q.device)
    params = validation.checked_params(q, num_types, softmax_scale, causal, window_size)
    if key_types is not None:
        validation.check_types(key_types)
        validation.check_types_fit(key_types, k)
    heads, rows = q.shape[-2], q.shape[:-2]
    validation.check_floats("lse", lse, (*rows[:-1], heads, rows[-1]), q.device)
    if isinstance(query_weight, Tensor) and query_weight.dim() == len(rows):
        query_weight = query_weight[..., None].expand(*query_weight.shape, heads)
    validation.check_floats("query_weight", query_weight, (*rows, heads), q.device)
    bias = validation.per_head_table("type_bias", type_bias, q, num_types)
    scale = validation.per_head_table("type_scale", type_scale, q, num_types)
    backend = resolve_backend(backend, q.device, q.dtype, q.shape[-1])
    inputs = AttnInputs(q, k, k, key_types, bias, scale, packed)  # the sums need no values
    return _received(*flatten(inputs, params), lse, query_weight, backend)


def _column_sums(*arguments: Any) -> Tensor:
    inputs, params = restore(arguments)
    lse, query_weight, backend = arguments[NUM_ARGUMENTS:]
    q, k = inputs.q, inputs.k
    check_key_values(inputs.key_types, params.num_types)
    check_packed_values(inputs.packed, q.shape[0], k.shape[0])
    if backend == "triton":
        from .triton_backend.cache_launch import received

        return received(inputs, params, lse, query_weight)
    accumulate = torch.float64 if q.dtype == torch.float64 else torch.float32
    result = q.new_zeros(*k.shape[:-2], q.shape[-2], dtype=accumulate)
    for rows, keys, lse_rows in _sequences(inputs):
        types = None if inputs.key_types is None else inputs.key_types[keys]
        one = inputs._replace(q=q[rows], k=k[keys], key_types=types)
        result[keys] = _one_sequence(one, params, lse[lse_rows], query_weight[rows], accumulate)
    return result


def _sequences(inputs: AttnInputs) -> Iterator[tuple[Any, Any, Any]]:
    """Indices of each sequence: of its rows, its keys, and its rows in lse (heads come first)."""
    if inputs.packed is None:
        yield from ((b, b, b) for b in range(len(inputs.q)))
        return
    for rows, keys, _ in inputs.packed.sequences():
        yield rows, keys, (slice(None), rows)


def _one_sequence(
    inputs: AttnInputs, params: AttnParams, lse: Tensor, weight: Tensor, dtype: torch.dtype
) -> Tensor:
    """(Lk, H) column sums of q (Lq, H, D) on k (Lk, Hkv, D), a stretch of queries at a time."""
    q, k, _, types, type_bias, type_scale, *_ = inputs
    (num_rows, heads, _), (num_keys, kv_heads, _) = q.shape, k.shape
    exists = (
        torch.ones(num_keys, dtype=torch.bool, device=k.device) if types is None else types >= 0
    )
    channel = (
        exists.new_zeros(num_keys, dtype=torch.long) if types is None else types.long().clamp(min=0)
    )
    keys = k.to(dtype).masked_fill(~exists[:, None, None], 0.0).permute(1, 2, 0)  # (Hkv, D, Lk)
    keys = keys.repeat_interleave(heads // kv_heads, dim=0)
    total = q.new_zeros(heads, num_keys, dtype=dtype)
    position = torch.arange(num_rows, device=q.device) + (num_keys - num_rows)
    step = max(1, CHUNK_ELEMENTS // max(1, heads * num_keys))
    for start in range(0, num_rows, step):
        rows = slice(start, start + step)
        logits = params.softmax_scale * (q[rows].to(dtype).transpose(0, 1) @ keys)  # (H, rows, Lk)
        if type_scale is not None:
            logits = logits * type_scale.to(dtype)[:, None, channel]
        if type_bias is not None:
            logits = logits + type_bias.to(dtype)[:, None, channel]
        row_lse = lse[:, rows, None].to(dtype)
        visible = visible_keys(position[rows], num_keys, params.causal, params.window) & exists
        seen = visible & ~torch.isneginf(row_lse)
        attention = torch.exp(torch.where(seen, logits - row_lse, float("-inf")))
        total += (attention * weight[rows].to(dtype).t()[..., None]).sum(dim=1)
    return total.t()


def _fake(*arguments: Any) -> Tensor:
    q, k = arguments[:2]
    accumulate = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(*k.shape[:-2], q.shape[-2], dtype=accumulate)


def _no_backward(*unused: Any) -> NoReturn:
    raise NotImplementedError(
        "attn_received has no gradient; use the mass of visual_attn_func, which has."
    )


_received = register_operator(
    f"attn_received({TENSORS}, {NUMBERS}, Tensor lse, Tensor query_weight, str backend) -> Tensor",
    _column_sums,
    _fake,
    _no_backward,
)
