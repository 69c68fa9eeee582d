"""Completions of stage grpo one by one, as they are scored and chosen, and in micro-batches."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...data import Batch, Sample
from ...objectives import importance_weights
from ..run import Run


@dataclass
class Completion:
    """What the policy said once, and what the update needs of it."""

    sample: Sample
    """Its target is the completion."""
    truncated: bool
    """It reached grpo.max_new_tokens before it ended."""
    sampling_log_probs: Tensor | None = None
    """(T,) as the engine that sampled gave them; None where that was the model itself."""
    old_log_probs: Tensor = field(default_factory=lambda: torch.empty(0))
    """(T,) under the weights that sampled."""
    ref_log_probs: Tensor | None = None
    advantage: float = 0.0
    informative: bool = True
    """Its group's rewards differ; the others carry no gradient, not of the KL term either."""


@dataclass
class MicroBatch:
    """Completions as one forward takes them; B completions, L - 1 positions."""

    batch: Batch
    old_log_probs: Tensor
    ref_log_probs: Tensor | None
    advantages: Tensor
    """(B,)"""
    weights: Tensor | None
    """Of importance, where another engine sampled."""
    bounded: Tensor | None
    """Scalar: the share of its tokens or responses whose weight a bound applies to."""
    counted: Tensor
    """(B,) bool; false for completions that grpo.mask_truncated leaves out."""
    trained: Tensor
    """(B,) bool: counted, and of an informative group."""


def by_row(batch: Batch, values: Tensor) -> list[Tensor]:
    """(B, L - 1) values at labels -> one tensor per row."""
    return [row[mask] for row, mask in zip(values, batch.label_mask, strict=True)]


def micro_batch(run: Run, completions: list[Completion]) -> MicroBatch:
    """Completions of a step, scored and with their advantages, on the device."""
    grpo, device = run.recipe.grpo, run.engine.device
    batch = run.collate([c.sample for c in completions])
    old = _to_rows(batch, [c.old_log_probs for c in completions])
    ref = weights = bounded = None
    if completions[0].ref_log_probs is not None:
        ref = _to_rows(batch, [c.ref_log_probs for c in completions if c.ref_log_probs is not None])
    if completions[0].sampling_log_probs is not None:
        given = [c.sampling_log_probs for c in completions if c.sampling_log_probs is not None]
        weights, bounded = importance_weights(
            old,
            _to_rows(batch, given),
            batch.label_mask,
            grpo.importance_level,
            grpo.importance_mode,
            grpo.importance_cap,
            grpo.importance_floor,
        )
    advantages = torch.tensor([c.advantage for c in completions], device=device)
    counted = torch.tensor(
        [not (c.truncated and grpo.mask_truncated) for c in completions], device=device
    )
    informative = torch.tensor([c.informative for c in completions], device=device)
    trained = counted & informative
    return MicroBatch(batch, old, ref, advantages, weights, bounded, counted, trained)


def _to_rows(batch: Batch, values: list[Tensor]) -> Tensor:
    """One tensor per row -> (B, L - 1), 0 where there is no label."""
    mask = batch.label_mask
    rows = torch.zeros(mask.shape, device=mask.device)
    rows[mask] = torch.cat(values).to(rows.device)
    return rows
