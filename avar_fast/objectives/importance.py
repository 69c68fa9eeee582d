"""Importance weights for completions that another engine sampled.

An inference engine's log-probabilities s_t of its samples differ from the trainer's o_t with the
same weights, because of kernels and precision. The gradient is an expectation over the engine's
samples, so each token's loss is weighted by w = pi_trainer / pi_sampler, within bounds:

    token      w_t = exp(o_t - s_t)
    sequence   w   = exp(sum_t (o_t - s_t)), one for all tokens of a response
    truncate   min(w, cap), not below floor
    mask       w where floor <= w <= cap, else 0: the token or response is left out

(F. Yao et al., "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training", 2025;
masking: "icepop" and TRL's sequence_mask.)
"""

from typing import NamedTuple

import torch
from torch import Tensor

IMPORTANCE_LEVELS = ("token", "sequence")
IMPORTANCE_MODES = ("truncate", "mask")


class ImportanceWeights(NamedTuple):
    """Importance weights, and how many of them are bounded."""

    weights: Tensor
    """(N, T) for tokens, (N, 1) for sequences; no gradient."""
    bounded: Tensor
    """Scalar: share of the tokens or responses to which a bound applied."""


@torch.no_grad()
def importance_weights(
    log_probs: Tensor,
    sampling_log_probs: Tensor,
    mask: Tensor,
    level: str = "sequence",
    mode: str = "mask",
    cap: float = 3.0,
    floor: float = 0.0,
) -> ImportanceWeights:
    """Computes the loss weights of completions that another engine sampled.

    Args:
        log_probs: (N, T) under the trainer's copy of the sampling policy.
        sampling_log_probs: (N, T) from the engine; NaN where it gave none, which counts as no
            difference.
        mask: (N, T), true for response tokens.
        level: "token" or "sequence".
        mode: "truncate" or "mask".
        cap, floor: bounds of a weight.

    Raises:
        ValueError: the level or mode is unknown, shapes do not fit, or a bound is out of range.
    """
    if level not in IMPORTANCE_LEVELS:
        raise ValueError(f"level must be one of {', '.join(IMPORTANCE_LEVELS)}; got {level!r}.")
    if mode not in IMPORTANCE_MODES:
        raise ValueError(f"mode must be one of {', '.join(IMPORTANCE_MODES)}; got {mode!r}.")
    if not 0.0 <= floor <= 1.0 <= cap:
        raise ValueError(f"floor must be in [0, 1] and cap at least 1; got {floor} and {cap}.")
    if not log_probs.shape == sampling_log_probs.shape == mask.shape:
        raise ValueError(
            "log_probs, sampling_log_probs and mask must have one shape (N, T); got"
            f" {tuple(log_probs.shape)}, {tuple(sampling_log_probs.shape)}, {tuple(mask.shape)}."
        )
    mask = mask.bool()
    gap = torch.where(mask, log_probs - sampling_log_probs, 0.0)
    gap = torch.nan_to_num(gap, nan=0.0)
    if level == "sequence":
        gap, mask = gap.sum(dim=1, keepdim=True), mask.any(dim=1, keepdim=True)
    weights = torch.exp(gap)
    outside = ((weights > cap) | (weights < floor)) & mask
    bound = weights.clamp(floor, cap) if mode == "truncate" else torch.zeros_like(weights)
    share = outside.sum() / mask.sum().clamp(min=1)
    return ImportanceWeights(torch.where(outside, bound, weights), share)
