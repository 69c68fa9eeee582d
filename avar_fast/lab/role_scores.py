"""The Visual Attention Score of each role's queries, from one forward over given targets."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..attention import Recording, record_attention, sees_image
from ..data import Encoder, Row, Sample, collate
from ..loading import Loaded
from ..vas import FORMS, visual_attention_score
from .world import DEFAULT_SYSTEM

VAS_EPS = 1e-6
ROLES = ("user", "response")


@torch.no_grad()
def record_rows(
    loaded: Loaded, rows: Sequence[Row]
) -> tuple[Encoder, list[Sample], Recording, dict[str, Tensor]]:
    """Reads rows with their targets, in one batch.

    Returns:
        The encoder, the encoded rows, their attention masses, and (B, L) bool queries of each role
        that see the image.
    """
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    samples = [encoder(row) for row in rows]
    batch = collate(samples, loaded.tokenizer.pad_token_id, encoder.tokens.visual)
    with record_attention(loaded.model) as recording:
        loaded.model(**batch.inputs, use_cache=False)
    assert recording.key_types is not None
    seeing = sees_image(recording.key_types)
    queries = {role: recording.queries(role) & seeing for role in ROLES}
    return encoder, samples, recording, queries


def vas_by_role(recording: Recording, queries: dict[str, Tensor]) -> dict[str, float]:
    """``vas_{role}_{form}``: the score in each of its forms, at the queries of each role."""
    return {
        f"vas_{role}_{form}": float(visual_attention_score(recording.mass, chosen, VAS_EPS, form))
        for role, chosen in queries.items()
        for form in FORMS
    }
