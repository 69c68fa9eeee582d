"""Which tokens of a batch AGTO and VAS look at, sample by sample."""

from typing import NamedTuple

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import SpecialTokens, key_types, query_mask, sees_image
from ..data import NO_SAMPLE, Batch


class Spans(NamedTuple):
    """Of one batch."""

    types: Tensor
    """(B, L) key types; padding and the blank image of a batch of text are PAD."""
    queries: Tensor
    """(B, L) bool: tokens of the role asked for."""
    guided: Tensor
    """(N,) bool: samples with image keys, system keys and queries."""
    scored: Tensor
    """(B, L) bool: queries of these samples that see the image."""

    def to(self, device: torch.device) -> "Spans":
        return Spans(*(x.to(device, non_blocking=True) for x in self))


def spans_of(batch: Batch, role: str, tokens: SpecialTokens) -> Spans:
    """The spans of a batch of any layout, padded or packed; made before the batch goes to the
    device."""
    ids, sample_ids = batch.inputs["input_ids"], batch.sample_ids
    exists = sample_ids != NO_SAMPLE
    types = key_types(ids, exists, tokens=tokens)
    queries = query_mask(ids, exists, role=role, tokens=tokens)

    def having(mask: Tensor) -> Tensor:
        return torch.bincount(sample_ids[mask], minlength=batch.num_samples) > 0

    guided = having(types == KeyType.VISUAL) & having(types == KeyType.SYSTEM) & having(queries)
    in_guided = exists & guided[sample_ids.clamp(min=0)]
    scored = queries & in_guided & sees_image(types, sample_ids)
    return Spans(types, queries, guided, scored)
