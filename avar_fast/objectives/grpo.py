"""The GRPO family of policy losses.

With token log-probabilities p under the policy and o under the policy that sampled, ratio
r_t = exp(p_t - o_t), advantage A of the response, and clip bounds c_low, c_high:

    surrogate_t = min(r_t A, clip(r_t, 1 - c_low, 1 + c_high) A)

    grpo     mean over responses of the mean over tokens of -surrogate   (arXiv 2402.03300, eq. 3)
    dr_grpo  sum over tokens / (responses * max_tokens), A without std   (arXiv 2503.20783, sec. 3)
    dapo     mean over all tokens; DAPO's c_high > c_low is the caller's  (arXiv 2503.14476, eq. 8)
    gspo     r = exp(mean_t (p_t - o_t)) of the whole response           (arXiv 2507.18071, eq. 5-7;
             with an advantage per token its eq. 13-14, GSPO-token)
    cispo    mean over all tokens of -stopgrad(clip(r_t)) A p_t          (arXiv 2506.13585, eq. 4-5)

KL to a reference f, estimator k3: exp(f_t - p_t) - (f_t - p_t) - 1 (J. Schulman, "Approximating KL
Divergence").
"""

from typing import NamedTuple

import torch
from torch import Tensor

POLICY_LOSSES = ("grpo", "dr_grpo", "dapo", "gspo", "cispo")


class PolicyStats(NamedTuple):
    """Detached scalars of one loss call."""

    clip_fraction: Tensor
    """Share of tokens (responses for gspo) with an active clip bound."""
    ratio: Tensor
    """Mean importance ratio."""
    kl: Tensor
    """Mean k3 estimate of the KL divergence to the reference; 0 without a reference."""


def group_advantages(
    rewards: Tensor, group_size: int, scale_by_std: bool = True, eps: float = 1e-6
) -> Tensor:
    """(r - mean) / (std + eps) within each group of responses to one prompt.

    Args:
        rewards: (N,) numbers or bools, group after group.
        group_size: responses per prompt, at least 2; N must be a multiple.
        scale_by_std: False gives Dr. GRPO's unscaled advantage.
        eps: added to the (unbiased) standard deviation.

    Returns:
        (N,); a group of equal rewards gets exactly 0.

    Raises:
        ValueError: the group size is below 2, N is not a multiple, or a reward is not finite.
    """
    rewards = rewards if rewards.is_floating_point() else rewards.float()
    if group_size < 2 or rewards.dim() != 1 or rewards.numel() % group_size:
        raise ValueError(
            "rewards must be (N,) with N a multiple of group_size >= 2; got shape"
            f" {tuple(rewards.shape)} and group_size {group_size}."
        )
    if not torch.isfinite(rewards).all():
        bad = int((~torch.isfinite(rewards)).nonzero()[0])
        raise ValueError(
            f"rewards must be finite; response {bad} has {rewards[bad].item()}. Check the reward."
        )
    groups = rewards.reshape(-1, group_size)
    centered = groups - groups.mean(dim=1, keepdim=True)
    centered = torch.where(informative_groups(rewards, group_size)[:, None], centered, 0.0)
    if scale_by_std:
        centered = centered / (groups.std(dim=1, keepdim=True) + eps)
    return centered.reshape(-1)


def informative_groups(rewards: Tensor, group_size: int) -> Tensor:
    """(N / group_size,) bool: groups whose rewards differ; the other groups have no gradient."""
    groups = rewards.reshape(-1, group_size)
    return (groups != groups[:, :1]).any(dim=1)


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    form: str = "grpo",
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_log_probs: Tensor | None = None,
    kl_coef: float = 0.0,
    max_tokens: int | None = None,
    normalizer: Tensor | float | None = None,
    weights: Tensor | None = None,
) -> tuple[Tensor, PolicyStats]:
    """The policy loss of a batch of responses.

    Args:
        log_probs: (N, T) log-probabilities of the response tokens, with gradient.
        old_log_probs: (N, T) under the policy that sampled; no gradient.
        advantages: (N,), or (N, T) if the tokens of a response have their own advantages.
        mask: (N, T), true for response tokens.
        form: one of ``POLICY_LOSSES``.
        clip_low, clip_high: bounds of the ratio; DAPO uses 0.2 and 0.28, GSPO about 3e-4 and 4e-4;
            cispo clips its weight with them.
        ref_log_probs: (N, T) of the reference policy, needed if kl_coef > 0.
        kl_coef: weight of the KL term; 0, the default here and in AVAR, leaves it out.
        max_tokens: dr_grpo's constant divisor, the longest response that sampling allows.
        normalizer: divisor of the sum, in tokens (dapo, cispo) or responses (other forms). By
            default the count of this batch; a trainer passes the count over all ranks and
            micro-batches.
        weights: (N, T) or (N, 1) from ``importance_weights``, if another engine sampled. They scale
            the surrogate, not the KL term.

    Returns:
        loss (scalar) and PolicyStats.

    Raises:
        ValueError: the form is unknown, shapes do not fit, clip bounds are out of range, or
            max_tokens or the reference is missing.
    """
    _check(
        log_probs,
        old_log_probs,
        advantages,
        mask,
        form,
        ref_log_probs,
        kl_coef,
        max_tokens,
        weights,
    )
    _check_clip(clip_low, clip_high)
    mask = mask.bool()
    tokens_per_response = mask.sum(1).clamp(min=1)
    # Masked positions may have any value, so they are set to zero before the exponential.
    log_ratio = torch.where(mask, log_probs - old_log_probs.detach(), 0.0)
    advantage = advantages.detach()
    advantage = advantage[:, None] if advantage.dim() == 1 else torch.where(mask, advantage, 0.0)

    if form == "gspo":
        mean_ratio = log_ratio.sum(1, keepdim=True) / tokens_per_response[:, None]
        if advantages.dim() == 2:  # the mean ratio's value, with each token's own gradient
            mean_ratio = mean_ratio.detach() + log_ratio - log_ratio.detach()
        ratio = torch.exp(mean_ratio)  # (N, 1), or (N, T)
    else:
        ratio = torch.exp(log_ratio)
    clipped = ratio.clamp(1.0 - clip_low, 1.0 + clip_high)
    if form == "cispo":
        per_token = -clipped.detach() * advantage * torch.where(mask, log_probs, 0.0)
        active = ratio != clipped
    else:
        per_token = -torch.minimum(ratio * advantage, clipped * advantage)
        active = clipped * advantage < ratio * advantage

    if weights is not None:
        per_token = per_token * torch.where(mask, weights.detach(), 0.0)
    kl_tokens = torch.zeros_like(log_probs)
    if ref_log_probs is not None:
        gap = torch.where(mask, ref_log_probs.detach() - log_probs, 0.0)
        kl_tokens = torch.exp(gap) - gap - 1.0
    num_tokens = mask.sum().clamp(min=1)
    dr_divisor = float(max_tokens or 1)  # _check requires max_tokens for dr_grpo

    def reduce(values: Tensor) -> Tensor:
        """Averages (N, T) per-token values to a scalar, as the form requires."""
        values = torch.where(mask, values, 0.0)
        if form in ("dapo", "cispo"):
            return values.sum() / (num_tokens if normalizer is None else normalizer)
        per_response = values.sum(1) / (dr_divisor if form == "dr_grpo" else tokens_per_response)
        return per_response.sum() / (len(values) if normalizer is None else normalizer)

    loss = reduce(per_token.expand_as(mask))
    if kl_coef > 0.0:
        loss = loss + kl_coef * reduce(kl_tokens)
    in_mask = mask if ratio.shape == mask.shape else mask.any(dim=1, keepdim=True)
    stats = PolicyStats(
        clip_fraction=(active & in_mask).sum() / in_mask.sum().clamp(min=1),
        ratio=torch.where(in_mask, ratio.detach(), 0.0).sum() / in_mask.sum().clamp(min=1),
        kl=torch.where(mask, kl_tokens.detach(), 0.0).sum() / num_tokens,
    )
    return loss, stats


def _check(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    form: str,
    ref_log_probs: Tensor | None,
    kl_coef: float,
    max_tokens: int | None,
    weights: Tensor | None,
) -> None:
    if form not in POLICY_LOSSES:
        raise ValueError(f"form must be one of {', '.join(POLICY_LOSSES)}; got {form!r}.")
    for name, x in (
        ("old_log_probs", old_log_probs),
        ("mask", mask),
        ("ref_log_probs", ref_log_probs),
    ):
        if x is not None and x.shape != log_probs.shape:
            raise ValueError(
                f"{name} must be of shape {tuple(log_probs.shape)}, as log_probs; got"
                f" {tuple(x.shape)}."
            )
    shape = tuple(log_probs.shape)
    if advantages.shape not in (shape[:1], shape):
        raise ValueError(
            f"advantages must be of shape {shape[:1]} or {shape}; got {tuple(advantages.shape)}."
        )
    if weights is not None and weights.shape not in ((shape[0], 1), shape):
        raise ValueError(
            f"weights must be of shape {shape} or {(shape[0], 1)}; got {tuple(weights.shape)}."
        )
    if form == "dr_grpo" and not max_tokens:
        raise ValueError("max_tokens must be given for dr_grpo, its constant divisor; got None.")
    if kl_coef < 0.0 or (kl_coef > 0.0 and ref_log_probs is None):
        raise ValueError(f"kl_coef must be 0, or positive with ref_log_probs given; got {kl_coef}.")


def _check_clip(clip_low: float, clip_high: float) -> None:
    if not 0.0 <= clip_low <= 1.0 or not clip_high >= 0.0:
        raise ValueError(
            f"clip_low must be in [0, 1] and clip_high at least 0; got {clip_low} and {clip_high}."
        )
