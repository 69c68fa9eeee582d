"""Portable GPU backend in Triton: forward and deterministic backward of typed attention.

Runs on NVIDIA chips from compute capability 8.0 and on AMD chips of the MI200 and MI300 families;
on CPU in Triton's interpreter if ``TRITON_INTERPRET=1`` was set before triton was imported (float32
and float16 only).

inputs: float16, bfloat16, float32; any strides (a last dimension that is not contiguous is copied).
heads: MHA, GQA of any group size, MQA.
head dims: 1 to 256, odd ones too, D != Dv; tiles are padded to the next power of two, which costs
    time.
types: up to 16; negative means that the key does not exist and its content is never used.
float32: exact products, or TF32 if ``torch.backends.cuda.matmul.fp32_precision`` is "tf32", the
    same switch, with the same default, as ``torch.matmul``'s.
determinism: always bitwise; no atomics anywhere.

Importing this package does not import triton; the first call does.
"""

from torch import Tensor

from ..types import AttnOutput, AttnParams, PackedLengths

__all__ = ["backward", "forward"]


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    params: AttnParams,
    packed: PackedLengths | None = None,
    blocks: Tensor | None = None,
) -> AttnOutput:
    """Dense (B, L, H, D) or, with ``packed``, (T, H, D) attention; arguments already validated.

    ``blocks`` is what ``plan.make_plan`` made of key_types; without it every launch sorts them.
    """
    from . import cache_launch
    from .call import Call
    from .launch import forward

    if packed is None and cache_launch.is_decode(q, k):
        tables = (type_bias, type_scale)
        return AttnOutput(
            *cache_launch.with_kvcache(q, k, v, key_types, *tables, None, None, params)
        )
    call = Call(q, k, v, key_types, type_bias, type_scale, params, packed, blocks)
    return AttnOutput(*forward(call))


def backward(
    cotangents: AttnOutput,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    key_types: Tensor | None,
    type_bias: Tensor | None,
    type_scale: Tensor | None,
    result: AttnOutput,
    params: AttnParams,
    packed: PackedLengths | None = None,
    blocks: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """Gradients of q, k, v, type_bias and type_scale (the last two None where not given)."""
    from .call import Call
    from .launch import backward

    call = Call(q, k, v, key_types, type_bias, type_scale, params, packed, blocks)
    return backward(call, *cotangents, *result)
