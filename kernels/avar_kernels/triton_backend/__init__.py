"""Portable GPU backend in Triton: forward and deterministic backward of typed attention.

Runs on NVIDIA chips from compute capability 8.0 and on AMD chips of the MI200 and MI300 families;
on CPU in Triton's interpreter if ``TRITON_INTERPRET=1`` was set before triton was imported (float32
and float16 only).

=============  ====================================================================================
inputs         float16, bfloat16, float32; any strides (a last dimension that is not contiguous is
copied) heads          MHA, GQA of any group size, MQA head dims      1 .. 256, also odd, D != Dv;
tiles are padded to the next power of two, which costs time types          up to 16; negative means
that the key does not exist and its content is never used float32        exact products, or TF32 if
``torch.backends.cuda.matmul.fp32_precision`` is "tf32": the same
               switch, with the same default, as ``torch.matmul``
determinism    always bitwise: no atomics anywhere
=============  ====================================================================================

Importing this package does not import triton; the first call does.
"""

from torch import Tensor

__all__ = ["backward", "forward"]

Packed = tuple[Tensor, Tensor, int, int]


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    *,
    softmax_scale: float,
    causal: bool,
    window: tuple[int, int],
    num_types: int,
    packed: Packed | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attention with typed keys; arguments are validated by the caller.

    Args:
        q: (B, Lq, H, D), or (Tq, H, D) if packed.
        k: (B, Lk, Hkv, D), or (Tk, Hkv, D).
        v: (B, Lk, Hkv, Dv), or (Tk, Hkv, Dv).
        key_types: (B, Lk) or (Tk,) integers below num_types, negative where a key does not exist;
            None: all 0.
        type_bias: (H, num_types) float32 summand of the logits, or None.
        type_scale: (H, num_types) float32 factor of the logits, or None.
        softmax_scale: positive factor of q . k.
        causal: aligned bottom-right, key j is visible to query i iff j <= i + Lk - Lq.
        window: (left, right) as in flash-attn, -1 for unlimited.
        num_types: 1 .. 16.
        packed: (cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k), offsets int32 on q's
            device.

    Returns:
        out (B, Lq, H, Dv) in q's dtype, mass (B, Lq, H, num_types) and lse (B, H, Lq) in float32;
        packed: (Tq, H, Dv), (Tq, H, num_types), (H, Tq), where rows after the last sequence are 0,
        0 and -inf.
    """
    from .call import Call
    from .launch import forward

    call = Call(
        q, k, v, key_types, type_bias, type_scale,
        softmax_scale=softmax_scale, causal=causal, window=window, num_types=num_types,
        packed=packed,
    )  # fmt: skip
    return forward(call)


def backward(
    dout: Tensor,
    dmass: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    out: Tensor,
    mass: Tensor,
    lse: Tensor,
    *,
    softmax_scale: float,
    causal: bool,
    window: tuple[int, int],
    num_types: int,
    packed: Packed | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients for cotangents of out, mass and lse at once; further arguments as in ``forward``.

    Returns:
        dq, dk, dv in the inputs' dtype, and float32 (H, num_types) gradients of type_bias and
        type_scale, None where the table is None. Keys that do not exist and rows that see no key
        get zeros.
    """
    from .call import Call
    from .launch import backward

    call = Call(
        q, k, v, key_types, type_bias, type_scale,
        softmax_scale=softmax_scale, causal=causal, window=window, num_types=num_types,
        packed=packed,
    )  # fmt: skip
    return backward(call, dout, dmass, dlse, out, mass, lse)
