"""Which tokens of a batch AGTO and VAS look at, sample by sample."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import SpecialTokens, key_types, query_mask, sees_image
from ..data import IGNORE, NO_SAMPLE, Batch
from ..vas import FORMS, visual_attention_score

VAS_EPS = 1e-6  # only in the log: keeps the plain ratio finite where system mass has vanished


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
    device.

    "user" and "prompt" are all user turns of a sample, each of which precedes a trained turn;
    "response" is the turns that are trained.
    """
    ids, sample_ids = batch.inputs["input_ids"], batch.sample_ids
    exists = sample_ids != NO_SAMPLE
    types = key_types(ids, exists, tokens=tokens)
    queries = query_mask(ids, exists, role=role, tokens=tokens)
    if role == "response":  # of a conversation, the turns that are trained
        queries &= batch.labels != IGNORE

    def having(mask: Tensor) -> Tensor:
        return torch.bincount(sample_ids[mask], minlength=batch.num_samples) > 0

    guided = having(types == KeyType.VISUAL) & having(types == KeyType.SYSTEM) & having(queries)
    in_guided = exists & guided[sample_ids.clamp(min=0)]
    scored = queries & in_guided & sees_image(types, sample_ids)
    return Spans(types, queries, guided, scored)


@torch.no_grad()
def vas_sums(mass: dict[int, Tensor], spans: Spans) -> Sequence[Tensor | float]:
    """VAS in its three forms, summed over the queries that have one."""
    count = spans.scored.sum()
    if not count:
        return [0.0] * len(FORMS)
    return [
        visual_attention_score(mass, spans.scored, VAS_EPS, form, spans.types) * count
        for form in FORMS
    ]
