"""How a call passes through ``torch.library``, whose operators take flat lists of arguments.

The schemas share ``TENSORS`` and ``NUMBERS``; each operator adds arguments of its own.
"""

from collections.abc import Sequence
from typing import Any

from .types import AttnInputs, AttnParams, PackedLengths

TENSORS = (
    "Tensor q, Tensor k, Tensor v, Tensor? key_types, Tensor? type_bias, Tensor? type_scale,"
    " Tensor? cu_seqlens_q, Tensor? cu_seqlens_k, Tensor? blocks, Tensor? prefix_index"
)
NUMBERS = (
    "SymInt max_seqlen_q, SymInt max_seqlen_k, SymInt num_types, float softmax_scale, bool causal,"
    " SymInt window_left, SymInt window_right"
)
NUM_TENSORS = 10
NUM_ARGUMENTS = 17


def flatten(inputs: AttnInputs, params: AttnParams) -> tuple[Any, ...]:
    """The arguments of ``TENSORS``, then those of ``NUMBERS``."""
    cu_q, cu_k, max_q, max_k, prefix_index = inputs.packed or (None, None, 0, 0, None)
    tensors = (*inputs[:6], cu_q, cu_k, inputs.blocks, prefix_index)
    numbers = (params.num_types, params.softmax_scale, params.causal, *params.window)
    return *tensors, max_q, max_k, *numbers


def restore(arguments: Sequence[Any]) -> tuple[AttnInputs, AttnParams]:
    """What ``flatten`` was given; further arguments at the end are ignored."""
    q, k, v, key_types, type_bias, type_scale = arguments[:6]
    cu_q, cu_k, blocks, prefix_index = arguments[6:NUM_TENSORS]
    max_q, max_k, num_types, softmax_scale, causal, left, right = arguments[
        NUM_TENSORS:NUM_ARGUMENTS
    ]
    packed = None if cu_q is None else PackedLengths(cu_q, cu_k, max_q, max_k, prefix_index)
    inputs = AttnInputs(q, k, v, key_types, type_bias, type_scale, packed, blocks)
    return inputs, AttnParams(num_types, softmax_scale, causal, (left, right))
