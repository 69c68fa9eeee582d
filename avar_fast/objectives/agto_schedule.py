"""AGTO's weights over a run: warm-up, then constant or falling to (or rising to) another value."""

import math
from typing import Literal


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
    """The weight at a step: linear from 0 to ``weight`` over the warm-up, then to ``end`` over
    ``decay_fraction`` of the run, and ``end`` from there on.

    A function of its arguments alone, so a resumed run goes on with the same values.

    Args:
        step: counted from 0.
        num_steps: of the whole run.
        weight: reached by the first step after the warm-up.
        end: reached by the last step of the decay; None keeps ``weight``.
        warmup, decay_fraction: fractions of ``num_steps``; None decays to the end of the run.
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
