"""The vocabulary of the operation: key types, and the structures that a call is made of."""

from collections.abc import Iterator
from enum import IntEnum
from itertools import pairwise
from typing import NamedTuple

import torch
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
    prefix_index: Tensor | None = None
    """(N,) int32: the sequence whose keys each sequence also sees, -1 for none. None: no sequence
    has a prefix."""

    def sequences(self) -> Iterator["Sequence"]:
        """The sequences one by one; reads the offsets from the device."""
        starts_q, starts_k = self.cu_seqlens_q.tolist(), self.cu_seqlens_k.tolist()
        rows = [slice(*ends) for ends in pairwise(starts_q)]
        keys = [slice(*ends) for ends in pairwise(starts_k)]
        prefixes = [-1] * len(rows) if self.prefix_index is None else self.prefix_index.tolist()
        for own_rows, own_keys, prefix in zip(rows, keys, prefixes, strict=True):
            yield Sequence(own_rows, own_keys, slice(0, 0) if prefix < 0 else keys[prefix])


class Sequence(NamedTuple):
    """One sequence of a packed call."""

    rows: slice
    """Its rows of q."""
    keys: slice
    """Its rows of k and v."""
    prefix: slice
    """The rows of k and v that its prefix has; empty if it has none."""

    @property
    def num_prefix_keys(self) -> int:
        return self.prefix.stop - self.prefix.start


class AttnInputs(NamedTuple):
    """The tensors of one call, dense or packed."""

    q: Tensor
    """(B, Lq, H, D), or packed (Tq, H, D)."""
    k: Tensor
    """(B, Lk, Hkv, D), or packed (Tk, Hkv, D)."""
    v: Tensor
    """(B, Lk, Hkv, Dv), or packed (Tk, Hkv, Dv)."""
    key_types: Tensor | None
    """(B, Lk), or packed (Tk,), integers; None: all keys are of type 0."""
    type_bias: Tensor | None
    """(H, num_types), added to the logits."""
    type_scale: Tensor | None
    """(H, num_types), factor of the logits."""
    packed: PackedLengths | None = None
    """None for a dense call."""
    blocks: Tensor | None = None
    """The key blocks that a ``KeyPlan`` has sorted; only the Triton kernels read them."""

    def sequence(self, one: Sequence) -> "AttnInputs":
        """One sequence of a packed call as a dense batch of one, its prefix's keys in front."""

        def keys_of(x: Tensor) -> Tensor:
            own = x[None, one.keys]
            return torch.cat([x[None, one.prefix], own], dim=1) if one.num_prefix_keys else own

        types = None if self.key_types is None else keys_of(self.key_types)
        tables = (self.type_bias, self.type_scale)
        return AttnInputs(self.q[None, one.rows], keys_of(self.k), keys_of(self.v), types, *tables)


class CachePrefixes(NamedTuple):
    """Keys that the sequences of a cache share: P prefixes of Lp keys, B sequences."""

    k: Tensor
    """(P, Lp, Hkv, D)."""
    v: Tensor
    """(P, Lp, Hkv, Dv)."""
    key_types: Tensor | None
    """(P, Lp) integers; None: all 0."""
    index: Tensor
    """(B,) int32: the prefix of each sequence, -1 for none."""
    order: Tensor
    """(B,) int32: the sequences, sorted by prefix."""
    offsets: Tensor
    """(P + 1,) int32: the sequences of prefix p are ``order[offsets[p] : offsets[p + 1]]``."""


class AttnParams(NamedTuple):
    """The numbers of one call."""

    num_types: int
    softmax_scale: float
    causal: bool
    window: tuple[int, int]
    """(left, right), -1 for unlimited."""


class AttnGrads(NamedTuple):
    """Gradients of the differentiable inputs; None for a table that the call does not have."""

    q: Tensor
    k: Tensor
    v: Tensor
    type_bias: Tensor | None
    type_scale: Tensor | None
