"""The schedule of AGTO's weights: warm-up, then constant or a decay to another value."""

import math
from typing import Literal

from ..config.agto import AgtoConfig


def scheduled_weights(agto: AgtoConfig, step: int, num_steps: int) -> tuple[float, float]:
    """AGTO's alpha and beta at a step of a run, counted from 0, as its section of a recipe has
    them."""
    options = {
        "warmup": agto.warmup, "decay": agto.decay, "decay_fraction": agto.decay_fraction,
    }  # fmt: skip
    return (
        scheduled_weight(step, num_steps, agto.alpha, agto.alpha_end, **options),
        scheduled_weight(step, num_steps, agto.beta, agto.beta_end, **options),
    )


def scheduled_weight(
    step: int,
    num_steps: int,
    weight: float,
    end: float | None = None,
    *,
    warmup: float = 0.0,
    decay: Literal["linear", "cosine"] = "linear",
    decay_fraction: float | None = None,
) -> float:
    """The weight at a step: it rises linearly from 0 to ``weight`` in the warm-up, then moves to
    ``end`` within ``decay_fraction`` of the run, and stays there.

    It depends only on its arguments, so a resumed run continues with the same values.

    Args:
        step: number of the step, counted from 0.
        num_steps: steps of the whole run.
        weight: value at the first step after the warm-up.
        end: value at the last step of the decay, above or below ``weight``; None keeps ``weight``.
        warmup: length of the warm-up, as a fraction of ``num_steps``.
        decay: shape of the decay.
        decay_fraction: length of the decay, as a fraction of ``num_steps``; None decays to the end
            of the run.
    """
    warmup_steps = round(warmup * num_steps)
    if step < warmup_steps:
        return weight * (step + 1) / (warmup_steps + 1)
    if end is None:
        return weight
    whole = num_steps - warmup_steps if decay_fraction is None else decay_fraction * num_steps
    progress = min((step - warmup_steps) / max(round(whole) - 1, 1), 1.0)
    share = progress if decay == "linear" else 0.5 * (1.0 - math.cos(math.pi * progress))
    return weight + (end - weight) * share
