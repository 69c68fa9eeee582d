"""What a finished model of the walk study scores."""

import statistics

import torch

from ..attention import intervene, record_attention, sees_image
from ..data import Encoder, Rows, collate
from ..loading import Loaded
from ..vas import FORMS, visual_attention_score
from .steps import score_steps
from .world import DEFAULT_SYSTEM

HIDDEN = -1e4  # bias of the logits of visual keys that leaves them no attention
VAS_ROWS = 100
VAS_EPS = 1e-6
VAS_ROLES = ("user", "response")


def score_model(loaded: Loaded, uniform: Rows, prior: Rows) -> dict[str, float]:
    """Scores a model with attention attached; teacher-forced, on held-out handwriting.

    Args:
        loaded: the model.
        uniform: walks whose digits are uniform.
        prior: walks with the language prior of the cold start.
    """
    seeing, seeing_prior = score_steps(loaded, uniform), score_steps(loaded, prior)
    with intervene(loaded.model, visual_bias=HIDDEN):
        blind, blind_prior = score_steps(loaded, uniform), score_steps(loaded, prior)
    return {
        "late_accuracy": seeing.late_accuracy,
        "first_accuracy": seeing.first_accuracy,
        "follows_rule": seeing.late_rule,
        "margin": statistics.mean(seeing.margin),
        "visual_mass": seeing.visual_mass,
        "blind_accuracy": blind.late_accuracy,
        "reliance": seeing.late_accuracy - blind.late_accuracy,
        "prior_accuracy": seeing_prior.late_accuracy,
        "prior_blind_accuracy": blind_prior.late_accuracy,
        "prior_reliance": seeing_prior.late_accuracy - blind_prior.late_accuracy,
        **{f"accuracy_{step}": value for step, value in enumerate(seeing.accuracy)},
        **{
            f"visual_mass_layer_{layer}": statistics.mean(heads)
            for layer, heads in enumerate(seeing.visual_by_head)
        },
        **_vas(loaded, uniform),
    }


@torch.no_grad()
def _vas(loaded: Loaded, rows: Rows) -> dict[str, float]:
    """The score in each of its forms, at the user's tokens as in the paper and at the response's;
    of those that see the image."""
    encoder = Encoder(loaded.tokenizer, loaded.image_processor, DEFAULT_SYSTEM)
    samples = [encoder(rows[i]) for i in range(min(VAS_ROWS, len(rows)))]
    batch = collate(samples, loaded.tokenizer.pad_token_id, encoder.tokens.visual)
    with record_attention(loaded.model) as recording:
        loaded.model(**batch.inputs, use_cache=False)
    assert recording.key_types is not None
    seeing = sees_image(recording.key_types)
    scores = {}
    for role in VAS_ROLES:
        queries = recording.queries(role) & seeing
        for form in FORMS:
            score = visual_attention_score(recording.mass, queries, VAS_EPS, form)
            scores[f"vas_{role}_{form}"] = float(score)
    return scores
