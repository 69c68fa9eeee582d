"""Portable GPU backend in Triton: forward and deterministic backward of typed attention.

It runs on NVIDIA chips from compute capability 8.0, and on AMD chips of the MI200 and MI300
families. On CPU it runs in Triton's interpreter, in float32 and float16 only, if
``TRITON_INTERPRET=1`` was set before triton was imported.

inputs: float16, bfloat16, float32; any strides. A tensor whose last dimension is not contiguous, or
    whose rows do not start at whole 16 elements, is copied; other head dimensions than multiples of
    16 are padded to one, in the forward and again in the backward.
heads: MHA, GQA of any group size, MQA.
head dims: 1 to 256, odd ones too, and D != Dv. Tiles are padded to the next power of two, which
    costs time.
types: up to 16; negative means that the key does not exist and its content is never used.
float32: exact products, or TF32 if ``torch.backends.cuda.matmul.fp32_precision`` is "tf32", as for
    ``torch.matmul``.
determinism: results are always bitwise reproducible; there are no atomics.

Importing this package does not import triton; the first call does.
"""

from ..types import AttnGrads, AttnInputs, AttnOutput, AttnParams

__all__ = ["backward", "forward"]


def forward(inputs: AttnInputs, params: AttnParams) -> AttnOutput:
    """out, mass and lse of a dense or packed call; arguments already validated.

    Without ``inputs.blocks`` every launch sorts the key blocks.
    """
    from . import cache_launch, launch
    from .launch_inputs import LaunchInputs

    if cache_launch.is_decode(inputs):
        return AttnOutput(*cache_launch.with_kvcache(inputs, params, None, None))
    return launch.forward(LaunchInputs(inputs, params))


def backward(
    grads: AttnOutput, inputs: AttnInputs, outputs: AttnOutput, params: AttnParams
) -> AttnGrads:
    """Gradients of the inputs from those of the outputs."""
    from . import launch
    from .launch_inputs import LaunchInputs

    return launch.backward(LaunchInputs(inputs, params), grads, outputs)
