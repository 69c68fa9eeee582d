"""Finds the tokens of a batch that AGTO and VAS use, sample by sample."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from avar_kernels import KeyType
from torch import Tensor

from ..attention import SpecialTokens, key_types, query_mask, sees_image
from ..attention.masses import as_layers
from ..data import IGNORE, NO_SAMPLE, Batch
from ..vas.score import FORMS, unchecked_score

BY_LAYER = ("log_ratio", "share")
"""Forms of the score that the log also has layer by layer; the plain ratio explodes in some."""
VAS_EPS = 1e-6  # only for the log: keeps the plain ratio finite when the system mass is 0


class Spans(NamedTuple):
    """Token types and query masks of one batch: B rows, L tokens, N samples."""

    types: Tensor
    """(B, L) key types. Padding is PAD, and so is the blank image of a text-only batch."""
    queries: Tensor
    """(B, L) bool: tokens of the requested role that can attend to the image of their sample."""
    guided: Tensor
    """(N,) bool: samples with image keys, system keys and queries."""
    scored: Tensor
    """(B, L) bool: queries of the guided samples."""
    scored_positions: Tensor
    """(K,) int64: the scored queries as indices into the flattened rows."""

    def to(self, device: torch.device) -> "Spans":
        return Spans(*(x.to(device, non_blocking=True) for x in self))


def spans_of(batch: Batch, role: str, tokens: SpecialTokens) -> Spans:
    """The spans of a padded or packed batch. Call it before the batch goes to the device.

    Args:
        batch: the batch, on the CPU.
        role: whose tokens are queries. "user" and "prompt" are all user turns of a sample (each
            precedes a trained turn); "response" is the trained turns.
        tokens: special tokens of the tokenizer.
    """
    ids, sample_ids = batch.inputs["input_ids"], batch.sample_ids
    exists = sample_ids != NO_SAMPLE
    types = key_types(ids, exists, tokens=tokens)
    queries = query_mask(ids, exists, role=role, tokens=tokens)
    if role == "response":  # a conversation may have turns that are not trained
        queries &= batch.labels != IGNORE
    queries &= sees_image(types, sample_ids)

    def has_any(mask: Tensor) -> Tensor:
        return torch.bincount(sample_ids[mask], minlength=batch.num_samples) > 0

    guided = has_any(types == KeyType.VISUAL) & has_any(types == KeyType.SYSTEM) & has_any(queries)
    in_guided = exists & guided[sample_ids.clamp(min=0)]
    scored = queries & in_guided
    return Spans(types, queries, guided, scored, scored.flatten().nonzero()[:, 0])


@torch.no_grad()
def vas_sums(mass: dict[int, Tensor], spans: Spans) -> Tensor:
    """(3, layers) VAS in its three forms, each a sum over the scored queries, on the masses'
    device. Layers are in ascending order. The host does not wait for it, so values that are not
    finite are no errors here."""
    layers = as_layers(mass)
    count = len(spans.scored_positions)
    if not count:
        return layers[0].new_zeros(len(FORMS), len(layers))
    rows = [layer.flatten(0, 1).index_select(0, spans.scored_positions) for layer in layers]
    masses = torch.stack(rows)  # (layers, K, H, 3)
    visual, system = masses[..., KeyType.VISUAL], masses[..., KeyType.SYSTEM]
    scores = [unchecked_score(visual, system, VAS_EPS, form) for form in FORMS]
    return torch.stack([score.mean(dim=(1, 2)) * count for score in scores])


def vas_metrics(
    sums: Sequence[float], layers: Sequence[int], num_scored: float
) -> dict[str, float | dict[int, float]]:
    """The metrics of the log: ``vas_FORM``, and ``vas_FORM_by_layer`` as {layer: score}.

    Args:
        sums: the flattened values of `vas_sums`.
        layers: indices in the model of its layers, ascending.
        num_scored: number of the scored queries.
    """
    found: dict[str, float | dict[int, float]] = {}
    for number, form in enumerate(FORMS):
        of_form = sums[number * len(layers) : (number + 1) * len(layers)]
        by_layer = [value / num_scored for value in of_form]
        found[f"vas_{form}"] = sum(by_layer) / len(layers)
        if form in BY_LAYER:
            found[f"vas_{form}_by_layer"] = dict(zip(layers, by_layer, strict=True))
    return found
