"""The vocabulary of the operation: key types and the tuple it returns."""

from enum import IntEnum
from typing import NamedTuple

from torch import Tensor

MAX_TYPES = 16  # the mass of sixteen types fills exactly one 16-column tensor-core tile


class KeyType(IntEnum):
    """What a key is. Users may add further types up to ``MAX_TYPES - 1`` (regions, boxes, sinks).

    Any negative type means that the key does not exist, so padding needs no mask tensor.
    """

    PAD = -1
    TEXT = 0
    VISUAL = 1
    SYSTEM = 2


class AttnOutput(NamedTuple):
    """Result of the attention operation; every field is differentiable.

    out:  (B, Lq, H, Dv), or packed (Tq, H, Dv), in q's dtype.
    mass: (B, Lq, H, num_types), or packed (Tq, H, num_types): attention mass per key type.
    lse:  (B, H, Lq), or packed (H, Tq): logsumexp of the logits, natural logarithm.

    mass and lse are float32 (float64 for float64 inputs).
    """

    out: Tensor
    mass: Tensor
    lse: Tensor


class PackedLengths(NamedTuple):
    """Boundaries of packed sequences: (N + 1,) int32 offsets and the longest lengths."""

    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    max_seqlen_q: int
    max_seqlen_k: int


class AttnParams(NamedTuple):
    """The non-tensor arguments every backend takes."""

    num_types: int
    softmax_scale: float
    causal: bool
    window: tuple[int, int]
