"""Public functions: arguments are checked here, then handed to a backend."""

from torch import Tensor

from . import reference, validation
from .backends import resolve_backend
from .ops import visual_attn
from .plan import KeyPlan
from .types import AttnOutput, AttnParams, PackedLengths
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
        key_types: (B, Lk) integers below ``num_types``; negative: the key does not exist. None: all
            0. Or what ``plan_keys`` made of them, which spares every layer the checks and the sort.
        num_types: number of types, 1 to 16.
        type_bias: (num_types,) or (H, num_types), added to the logits; differentiable.
        type_scale: the same shapes, multiplies the logits before the bias; differentiable.
        softmax_scale: positive; D ** -0.5 by default.
        causal: query i sees key j only if j <= i + Lk - Lq (bottom-right, as flash-attn >= 2.1).
        window_size: (left, right) keys a query sees around its own position, -1 for unlimited.
        deterministic: ask for bitwise reproducible gradients; every backend here always is.
        backend: "eager" | "sdpa" | "cpu" | "triton" | "hopper"; None takes the best that runs here.
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
    return _attention(
        q,
        k,
        v,
        key_types,
        num_types,
        type_bias,
        type_scale,
        softmax_scale,
        causal,
        window_size,
        backend,
        None,
    )


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
    num_types: int = 3,
    type_bias: Tensor | None = None,
    type_scale: Tensor | None = None,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    deterministic: bool = False,
    backend: str | None = None,
) -> AttnOutput:
    """``visual_attn_func`` on sequences laid end to end; no sequence sees another.

    Args:
        q: (Tq, H, D).
        k: (Tk, Hkv, D).
        v: (Tk, Hkv, Dv).
        cu_seqlens_q: (N + 1,) int32 on q's device: sequence n is rows cu_seqlens_q[n] to
            cu_seqlens_q[n + 1]. Starts at 0, never decreases (equal: an empty sequence), ends at or
            before Tq; rows behind its end belong to no sequence and give out = 0, mass = 0, lse =
            -inf.
        cu_seqlens_k: the same for the keys.
        max_seqlen_q: length of the longest query sequence.
        max_seqlen_k: length of the longest key sequence.
        key_types: (Tk,) integers, as in ``visual_attn_func``; so are the remaining arguments.

    Returns:
        AttnOutput(out, mass, lse): (Tq, H, Dv), (Tq, H, num_types) and (H, Tq).

    Raises:
        As ``visual_attn_func``; also ValueError for offsets that do not start at 0, decrease, leave
        the tokens or lie further apart than max_seqlen.
    """
    q, k, v = validation.autocast(q, k, v)
    validation.check_qkv(q, k, v, packed=True)
    packed = PackedLengths(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    validation.check_packed(packed, q.device)
    return _attention(
        q,
        k,
        v,
        key_types,
        num_types,
        type_bias,
        type_scale,
        softmax_scale,
        causal,
        window_size,
        backend,
        packed,
    )


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | KeyPlan | None,
    num_types: int,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    softmax_scale: float | None,
    causal: bool,
    window_size: tuple[int, int],
    backend: str | None,
    packed: PackedLengths | None,
) -> AttnOutput:
    validation.check_num_types(num_types)
    plan = key_types if isinstance(key_types, KeyPlan) else None
    types = key_types.key_types if isinstance(key_types, KeyPlan) else key_types
    if plan is not None:
        _check_plan(plan, num_types, packed)
    if types is not None:
        validation.check_types(types)
        validation.check_types_fit(types, k)
    bias = validation.per_head_table("type_bias", type_bias, q, num_types)
    scale = validation.per_head_table("type_scale", type_scale, q, num_types)
    window = validation.check_window(window_size)
    validation.check_flag("causal", causal)
    softmax_scale = validation.softmax_scale_or_default(softmax_scale, q.shape[-1])
    backend = resolve_backend(backend, q.device, q.dtype, max(q.shape[-1], v.shape[-1]))
    if backend == "eager":
        if plan is None:
            check_key_values(types, num_types)
            check_packed_values(packed, q.shape[0], k.shape[0])
        params = AttnParams(num_types, softmax_scale, causal, window)
        return reference.attention(q, k, v, types, bias, scale, params, packed)
    cu_q, cu_k, max_q, max_k = packed or (None, None, 0, 0)
    return AttnOutput(
        *visual_attn(
            q,
            k,
            v,
            types,
            bias,
            scale,
            cu_q,
            cu_k,
            None if plan is None else plan.blocks,
            max_q,
            max_k,
            num_types,
            softmax_scale,
            causal,
            *window,
            plan is not None,
            backend,
        )
    )


def _check_plan(plan: KeyPlan, num_types: int, packed: PackedLengths | None) -> None:
    """Raises unless the plan was made for this call's types and offsets."""
    if plan.num_types != num_types:
        raise ValueError(
            f"num_types must be {plan.num_types}, as in the plan; got {num_types}. Make the plan"
            " with the same num_types."
        )
    same = packed is plan.packed is None or (
        packed is not None
        and plan.packed is not None
        and packed.cu_seqlens_q is plan.packed.cu_seqlens_q
        and packed.cu_seqlens_k is plan.packed.cu_seqlens_k
        and packed[2:] == plan.packed[2:]
    )
    if not same:
        raise ValueError(
            "key_types must be a plan made with this call's cu_seqlens and max_seqlen; it was made"
            " with others. Call plan_keys with the same tensors."
        )


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
        NotImplementedError: for dropout_p, softcap, alibi_slopes or return_attn_probs, which are
        declared
            so that a caller who passes them hears of it.
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
