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
    """Log-probability of every label of a right-padded or packed batch.

    Of a padded batch only the last positions, from the one before the first label on, go through
    the LM head; of a packed one only those behind which a label stands.

    Returns:
        log_probs: (B, K) float32, 0 where there is no label.
        mask: (B, K) bool, true at labels.
    """
    if batch.label_positions is not None:
        where = batch.label_positions
        logits = model(**batch.inputs, logits_to_keep=where, use_cache=False).logits
        labels = batch.labels[:, where + 1]
        log_probs = token_log_probs(logits, labels, temperature, banned_ids)
        return log_probs, torch.ones_like(labels, dtype=torch.bool)
    has_label = batch.labels != IGNORE
    first = int(has_label.any(dim=0).int().argmax())
    keep = batch.labels.shape[1] - max(first - 1, 0)
    logits = model(**batch.inputs, logits_to_keep=keep, use_cache=False).logits[:, :-1]
    mask = has_label[:, 1 - keep :]
    labels = batch.labels[:, 1 - keep :].clamp(min=0)
    log_probs = token_log_probs(logits, labels, temperature, banned_ids)
    return torch.where(mask, log_probs, 0.0), mask
