"""What a finished model of the walk study scores."""

import statistics

from ..attention import intervene
from ..data import Rows
from ..loading import Loaded
from .role_scores import record_rows, vas_by_role
from .steps import score_steps

HIDDEN = -1e4  # bias of the logits of visual keys that leaves them no attention
VAS_ROWS = 100


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
    some = [uniform[i] for i in range(min(VAS_ROWS, len(uniform)))]
    _, _, recording, queries = record_rows(loaded, some)
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
        **vas_by_role(recording, queries),
    }
