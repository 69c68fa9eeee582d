"""The one forward both stages make: log-probabilities of the labels, logits nowhere else."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..data import IGNORE, Batch
from ..objectives import token_log_probs


def label_log_probs(
    model: Callable[..., Any],
    batch: Batch,
    temperature: float = 1.0,
    banned_ids: tuple[int, ...] = (),
) -> tuple[Tensor, Tensor]:
    """Log-probability of every label of a right-padded batch.

    Only the last K positions, from the one before the first label on, go through the LM head.

    Returns:
        log_probs: (B, K - 1) float32, 0 where there is no label.
        mask: (B, K - 1) bool, true at labels.
    """
    has_label = batch.labels != IGNORE
    first = int(has_label.any(dim=0).int().argmax())
    keep = batch.labels.shape[1] - max(first - 1, 0)
    logits = model(**batch.inputs, logits_to_keep=keep, use_cache=False).logits[:, :-1]
    mask = has_label[:, 1 - keep :]
    labels = batch.labels[:, 1 - keep :].clamp(min=0)
    log_probs = token_log_probs(logits, labels, temperature, banned_ids)
    return torch.where(mask, log_probs, 0.0), mask
