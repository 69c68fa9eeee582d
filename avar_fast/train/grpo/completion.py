"""Completions of stage grpo, one by one and in micro-batches."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ...data import Batch, Sample
from ...objectives import importance_weights
from ..run import Run


@dataclass
class Completion:
    """One completion of a prompt, with what the update needs; T tokens."""

    sample: Sample
    """The prompt with the completion as its target."""
    truncated: bool
    """The completion reached grpo.max_new_tokens before it ended."""
    sampling_log_probs: Tensor | None = None
    """(T,) log-probabilities from the sampling engine; None if the model itself sampled."""
    old_log_probs: Tensor = field(default_factory=lambda: torch.empty(0))
    """(T,) log-probabilities that the model computes with the weights that sampled."""
    ref_log_probs: Tensor | None = None
    """(T,) log-probabilities under the reference model; None without a KL term."""
    advantage: float = 0.0
    informative: bool = True
    """The rewards of its group differ. Other completions have no gradient, not even of the KL
    term."""


@dataclass
class MicroBatch:
    """Completions for one forward: B completions, L - 1 positions."""

    batch: Batch
    old_log_probs: Tensor
    """(B, L - 1) float32, 0 where there is no label."""
    ref_log_probs: Tensor | None
    """(B, L - 1) float32, 0 where there is no label; None without a KL term."""
    advantages: Tensor
    """(B,) float32."""
    weights: Tensor | None
    """(B, L - 1) importance weights; None if the model itself sampled."""
    bounded: Tensor | None
    """Scalar: share of the tokens or responses whose importance weight is bounded."""
    counted: Tensor
    """(B,) bool: false for completions that grpo.mask_truncated leaves out."""
    trained: Tensor
    """(B,) bool: counted, and in an informative group."""


def by_row(batch: Batch, values: Tensor) -> list[Tensor]:
    """Splits (B, L - 1) values into one tensor per row, with the values at labels only."""
    return [row[mask] for row, mask in zip(values, batch.label_mask, strict=True)]


def micro_batch(run: Run, completions: list[Completion]) -> MicroBatch:
    """Makes a micro-batch of completions that have log-probabilities and advantages, on the
    device."""
    grpo, device = run.recipe.grpo, run.engine.device
    batch = run.collate([c.sample for c in completions])
    old = _to_rows(batch, [c.old_log_probs for c in completions])
    ref = weights = bounded = None
    if completions[0].ref_log_probs is not None:
        ref = _to_rows(batch, [c.ref_log_probs for c in completions if c.ref_log_probs is not None])
    if completions[0].sampling_log_probs is not None:
        sampling = [c.sampling_log_probs for c in completions if c.sampling_log_probs is not None]
        weights, bounded = importance_weights(
            old,
            _to_rows(batch, sampling),
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
    """Puts one tensor per row into (B, L - 1) float32, 0 where there is no label."""
    mask = batch.label_mask
    rows = torch.zeros(mask.shape, device=mask.device)
    rows[mask] = torch.cat(values).to(rows.device)
    return rows
