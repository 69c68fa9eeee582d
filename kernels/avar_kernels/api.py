"""The public attention functions: they check their arguments, then call a backend."""

from torch import Tensor

from . import packed_validation, reference, validation
from .backends import resolve_backend
from .key_plan import KeyPlan
from .op_arguments import flatten
from .ops import visual_attn
from .types import AttnInputs, AttnOutput, AttnParams, PackedLengths
from .value_checks import check_key_values, check_packed_values


def visual_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | KeyPlan | None = None,
    *,
    num_types: int = 3,
    type_bias: Tensor | None = None,
    type_scale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
    backend: str | None = None,
) -> AttnOutput:
    """Attention whose keys carry a type, with the attention mass per type as a by-product.

    For query i and key j of type t_j in head h:

        z_ij = softmax_scale * (q_i . k_j) * type_scale[h, t_j] + type_bias[h, t_j]
        P_ij = softmax of z_ij over visible keys with t_j >= 0
        out_i = sum_j P_ij v_j,  mass_i[c] = sum_j P_ij [t_j = c],  lse_i = logsumexp_j z_ij

    A row that sees no key gives out = 0, mass = 0, lse = -inf and zero gradients.

    Args:
        q: (B, Lq, H, D), float32, float16, bfloat16 or float64, any strides. Under autocast q, k
            and v are brought to its dtype.
        k: (B, Lk, Hkv, D), q's dtype and device; H must be a multiple of Hkv.
        v: (B, Lk, Hkv, Dv).
        key_types: (B, Lk) integers below ``num_types``; a negative one means that the key does not
            exist. None: all 0. Or the ``KeyPlan`` that ``plan_keys`` made of the types: then no
            layer checks and sorts them again.
        num_types: number of types, 1 to 16.
        type_bias: (num_types,) or (H, num_types), added to the logits; differentiable.
        type_scale: the same shapes, multiplies the logits before the bias; differentiable.
        softmax_scale: positive; D ** -0.5 by default.
        causal: query i sees key j only if j <= i + Lk - Lq (bottom-right, as flash-attn >= 2.1).
        window_size: (left, right) keys a query sees around its own position, -1 for unlimited.
        deterministic: asks for bitwise reproducible gradients, which every backend here gives
            anyway.
        backend: "eager" | "sdpa" | "cpu" | "triton"; None takes the best that runs here.
            A named backend never falls back to another.

    Returns:
        AttnOutput(out, mass, lse): (B, Lq, H, Dv) in q's dtype, (B, Lq, H, num_types) and (B, H,
        Lq) in float32 (float64 for float64 inputs). All three are differentiable together with
        respect to q, k, v, type_bias and type_scale.

    Raises:
        TypeError, ValueError: an argument of the wrong type, dtype, shape, device or range.
        RuntimeError: the named backend does not run here.

    Source: the mass is the inner sum of the Visual Attention Score (AVAR, ICLR 2026, arXiv
    2603.03825); the online softmax is FlashAttention's (arXiv 2205.14135).
    """
    q, k, v = validation.autocast(q, k, v)
    validation.check_qkv(q, k, v, packed=False)
    params = validation.checked_params(q, num_types, softmax_scale, causal, window_size)
    return _attention(q, k, v, key_types, type_bias, type_scale, None, params, backend)


def visual_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    key_types: Tensor | KeyPlan | None = None,
    *,
    prefix_index: Tensor | None = None,
    num_types: int = 3,
    type_bias: Tensor | None = None,
    type_scale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
    backend: str | None = None,
) -> AttnOutput:
    """``visual_attn_func`` on sequences laid end to end. A sequence sees its own keys and those of
    its prefix, if it has one.

    Completions of one prompt need the prompt's keys only once: the prompt is one sequence, and the
    prefix of each completion's sequence. A query sees all existing keys of the prefix, then the
    keys of its own sequence as if there were no prefix; softmax, mass and lse are over both. For
    sequences with at least as many keys as queries, out, mass, lse and all gradients are those of
    ``visual_attn_func`` on [keys of the prefix, own keys]. The gradient of a prefix's keys is the
    sum over its own queries and those of all sequences that name it, in a fixed order.

    Args:
        q: (Tq, H, D).
        k: (Tk, Hkv, D).
        v: (Tk, Hkv, Dv).
        cu_seqlens_q: (N + 1,) int32 on q's device: sequence n is rows cu_seqlens_q[n] to
            cu_seqlens_q[n + 1]. It starts at 0, never decreases (two equal offsets are an empty
            sequence) and ends at or before Tq. Rows behind its end belong to no sequence and give
            out = 0, mass = 0, lse = -inf.
        cu_seqlens_k: the same for the keys.
        max_seqlen_q: length of the longest query sequence.
        max_seqlen_k: length of the longest key sequence.
        key_types: (Tk,) integers, as in ``visual_attn_func``; so are the remaining arguments.
        prefix_index: (N,) int32 on q's device: the number of the sequence that is the prefix of
            sequence n, or -1 if n has none. A prefix has no prefix itself. None: no sequence has
            one. It may not be used with a window.

    Returns:
        AttnOutput(out, mass, lse): (Tq, H, Dv), (Tq, H, num_types) and (H, Tq).

    Raises:
        As ``visual_attn_func``; also ValueError for offsets that do not start at 0, that decrease,
        end behind the tokens, or lie further apart than max_seqlen, and for a prefix that is out of
        range, has a prefix itself, or comes with a window.
    """
    q, k, v = validation.autocast(q, k, v)
    validation.check_qkv(q, k, v, packed=True)
    packed = PackedLengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, prefix_index)
    packed_validation.check_packed(packed, q.device)
    if prefix_index is not None:
        packed_validation.check_no_window(window_size)
    params = validation.checked_params(q, num_types, softmax_scale, causal, window_size)
    return _attention(q, k, v, key_types, type_bias, type_scale, packed, params, backend)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | KeyPlan | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    packed: PackedLengths | None,
    params: AttnParams,
    backend: str | None,
) -> AttnOutput:
    planned = isinstance(key_types, KeyPlan)
    if planned:
        key_types.check_fits(params.num_types, packed)
    types = key_types.key_types if planned else key_types
    if types is not None:
        validation.check_types(types)
        validation.check_types_fit(types, k)
    bias = validation.per_head_table("type_bias", type_bias, q, params.num_types)
    scale = validation.per_head_table("type_scale", type_scale, q, params.num_types)
    blocks = key_types.blocks if planned else None
    inputs = AttnInputs(q, k, v, types, bias, scale, packed, blocks)
    backend = resolve_backend(backend, q.device, q.dtype, max(q.shape[-1], v.shape[-1]))
    if backend != "eager":
        return AttnOutput(*visual_attn(*flatten(inputs, params), planned, backend))
    if not planned:
        check_key_values(types, params.num_types)
        check_packed_values(packed, q.shape[0], k.shape[0])
    return reference.forward(inputs, params)


def flash_attn_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> Tensor:
    """flash-attn 2's ``flash_attn_func``: (B, Lq, H, Dv) attention output, no types.

    Raises:
        NotImplementedError: for dropout_p, softcap, alibi_slopes or return_attn_probs. They are
            declared so that a caller who passes them gets this error.
    """
    _refuse_unsupported(dropout_p, softcap, alibi_slopes, return_attn_probs)
    return visual_attn_func(
        q,
        k,
        v,
        num_types=1,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        deterministic=deterministic,
    ).out


def flash_attn_varlen_func(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
    block_table: Tensor | None = None,
) -> Tensor:
    """flash-attn 2's ``flash_attn_varlen_func``: (Tq, H, Dv) attention output, no types.

    Raises:
        NotImplementedError: as ``flash_attn_func``, and for block_table.
    """
    _refuse_unsupported(dropout_p, softcap, alibi_slopes, return_attn_probs)
    if block_table is not None:
        raise NotImplementedError(
            "block_table (paged keys) is not supported; pass contiguous k and v."
        )
    return visual_attn_varlen_func(
        q,
        k,
        v,
        cu_seqlens_q,
        cu_seqlens_k,
        max_seqlen_q,
        max_seqlen_k,
        num_types=1,
        softmax_scale=softmax_scale,
        causal=causal,
        window_size=window_size,
        deterministic=deterministic,
    ).out


def _refuse_unsupported(
    dropout_p: float, softcap: float, alibi_slopes: Tensor | None, return_attn_probs: bool
) -> None:
    asked = {
        "dropout_p": dropout_p != 0.0,
        "softcap": softcap != 0.0,
        "alibi_slopes": alibi_slopes is not None,
        "return_attn_probs": return_attn_probs,
    }
    for name, given in asked.items():
        if given:
            raise NotImplementedError(
                f"{name} is not supported by avar_kernels; leave it at its default."
            )
