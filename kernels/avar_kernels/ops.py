"""``torch.library`` operators: fake kernels for torch.compile, autograd, and dispatch to a backend.

The eager backend is plain differentiable PyTorch and needs no operator; the fused backends share
one forward and one backward operator here.
"""

import torch
from torch import Tensor

from . import cpu, sdpa
from .types import AttnOutput, AttnParams, PackedLengths
from .value_checks import check_key_values, check_packed_values

_FUSED = {"cpu": cpu, "sdpa": sdpa}


def implementation(backend: str):
    """The module of a fused backend: its ``forward`` and ``backward``."""
    if backend == "triton":
        from . import triton_backend  # imports triton, which the CPU path does without

        return triton_backend
    return _FUSED[backend]


def _packed(
    cu_q: Tensor | None, cu_k: Tensor | None, max_q: int, max_k: int
) -> PackedLengths | None:
    return None if cu_q is None or cu_k is None else PackedLengths(cu_q, cu_k, max_q, max_k)


def _plan(backend: str, blocks: Tensor | None) -> dict[str, Tensor | None]:
    return {"blocks": blocks} if backend == "triton" else {}


@torch.library.custom_op("avar_kernels::visual_attn", mutates_args=())
def visual_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    cu_seqlens_q: Tensor | None,
    cu_seqlens_k: Tensor | None,
    blocks: Tensor | None,
    max_seqlen_q: int,
    max_seqlen_k: int,
    num_types: int,
    softmax_scale: float,
    causal: bool,
    window_left: int,
    window_right: int,
    values_checked: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, mass and lse of one call; shapes and dtypes were checked by ``api``, values here unless
    a plan has. ``blocks`` are the plan's, for the Triton kernels."""
    packed = _packed(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    if not values_checked:
        check_key_values(key_types, num_types)
        check_packed_values(packed, q.shape[0], k.shape[0])
    params = AttnParams(num_types, softmax_scale, causal, (window_left, window_right))
    out, mass, lse = implementation(backend).forward(
        q, k, v, key_types, type_bias, type_scale, params, packed, **_plan(backend, blocks)
    )
    return out, mass, lse


@visual_attn.register_fake
def _(q, k, v, key_types, type_bias, type_scale, cu_q, cu_k, blocks, max_q, max_k, num_types, *_):
    accumulate = torch.float64 if q.dtype == torch.float64 else torch.float32
    rows, heads = q.shape[:-2], q.shape[-2]
    out = q.new_empty(*rows, heads, v.shape[-1])
    mass = q.new_empty(*rows, heads, num_types, dtype=accumulate)
    lse = q.new_empty(*rows[:-1], heads, rows[-1], dtype=accumulate)
    return out, mass, lse


@torch.library.custom_op("avar_kernels::visual_attn_backward", mutates_args=())
def visual_attn_backward(
    grad_out: Tensor,
    grad_mass: Tensor,
    grad_lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    cu_seqlens_q: Tensor | None,
    cu_seqlens_k: Tensor | None,
    blocks: Tensor | None,
    out: Tensor,
    mass: Tensor,
    lse: Tensor,
    max_seqlen_q: int,
    max_seqlen_k: int,
    num_types: int,
    softmax_scale: float,
    causal: bool,
    window_left: int,
    window_right: int,
    values_checked: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, type_bias, type_scale; an empty tensor stands for an absent table."""
    packed = _packed(cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k)
    params = AttnParams(num_types, softmax_scale, causal, (window_left, window_right))
    dq, dk, dv, dbias, dscale = implementation(backend).backward(
        AttnOutput(grad_out, grad_mass, grad_lse),
        q,
        k,
        v,
        key_types,
        type_bias,
        type_scale,
        AttnOutput(out, mass, lse),
        params,
        packed,
        **_plan(backend, blocks),
    )
    dbias = lse.new_empty(0) if dbias is None else dbias
    dscale = lse.new_empty(0) if dscale is None else dscale
    return dq, dk, dv, dbias, dscale


@visual_attn_backward.register_fake
def _(grad_out, grad_mass, grad_lse, q, k, v, key_types, type_bias, type_scale, *_rest):
    accumulate = grad_lse.dtype

    def table(x: Tensor | None) -> Tensor:
        shape = (0,) if x is None else x.shape
        return q.new_empty(shape, dtype=accumulate)

    plain = [x.new_empty(x.shape) for x in (q, k, v)]
    return *plain, table(type_bias), table(type_scale)


def _setup_context(ctx, inputs, output) -> None:
    tensors, numbers = inputs[:9], inputs[9:]
    ctx.save_for_backward(*tensors, *output)
    ctx.numbers = numbers


def _backward(ctx, grad_out: Tensor, grad_mass: Tensor, grad_lse: Tensor):
    *inputs, out, mass, lse = ctx.saved_tensors
    dq, dk, dv, dbias, dscale = visual_attn_backward(
        grad_out, grad_mass, grad_lse, *inputs, out, mass, lse, *ctx.numbers
    )
    dbias = None if inputs[4] is None else dbias
    dscale = None if inputs[5] is None else dscale
    return dq, dk, dv, None, dbias, dscale, *([None] * 12)


def _no_double_backward(ctx, *grads):
    raise NotImplementedError(
        "the fused attention backends have no second derivative; use backend='eager', which has."
    )


visual_attn.register_autograd(_backward, setup_context=_setup_context)
visual_attn_backward.register_autograd(_no_double_backward)
