"""The one forward both stages make: the LM head sees the positions with a label behind them, and
gives what the losses need of them in place of logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attention import SequenceSplit
from ..config import Recipe
from ..data import IGNORE, Batch
from ..models.head import replaced_head
from ..objectives import liger_fits, liger_nll, linear_log_probs

CPU_HEAD_BYTES = 256 * 2**20
GPU_HEAD_SHARE = 32  # of the device's memory


@dataclass(frozen=True)
class HeadLimits:
    """How the LM head may compute."""

    budget_bytes: int
    """Memory of logits that exist at once."""
    liger: bool = False
    """Use Liger's kernel for the loss of stage sft where it fits the budget."""

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> "HeadLimits":
        """A recipe's; a constant of the device, so that a run repeats to the bit."""
        gib, on_gpu = recipe.model.head_memory_gib, device.type == "cuda"
        if gib is not None:
            budget = int(gib * 2**30)
        elif on_gpu:
            budget = torch.cuda.get_device_properties(device).total_memory // GPU_HEAD_SHARE
        else:
            budget = CPU_HEAD_BYTES
        return cls(budget, recipe.model.liger and on_gpu)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model without dropout, as it also samples."""
    model.eval()
    try:
        yield
    finally:
        model.train()


class LabelScores(NamedTuple):
    """Of a batch's labels; position (b, l) is that of the token that predicts label (b, l + 1)."""

    log_probs: Tensor
    """(B, L - 1) float32, 0 where there is no label."""
    mask: Tensor
    """(B, L - 1) bool, true at labels."""
    entropies: Tensor | None
    """(B, L - 1) float32, nats of the distributions the labels are from; 0 where there is none."""


def label_log_probs(
    model: nn.Module,
    batch: Batch,
    limits: HeadLimits,
    temperature: float = 1.0,
    banned_ids: tuple[int, ...] = (),
    *,
    with_entropy: bool = False,
    through: Callable[..., Any] | None = None,
) -> LabelScores:
    """Log-probability of every label of a right-padded or packed batch.

    Args:
        model: of a supported family.
        temperature, banned_ids: of the distribution that sampled the labels.
        through: what runs the model's forward, an engine; the model itself unless given.
    """

    def compute(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        log_probs, entropies = linear_log_probs(
            hidden,
            weight,
            labels,
            temperature,
            banned_ids,
            budget_bytes=limits.budget_bytes,
            with_entropy=with_entropy,
        )
        return torch.stack([log_probs] if entropies is None else [log_probs, entropies])

    where, labels = _labels_of(batch)
    values = _through_head(model, batch, where, labels, compute, through)
    rows = values.new_zeros(len(values), batch.labels.numel())
    rows = rows.index_copy(1, where, values).view(-1, *batch.labels.shape)[..., :-1]
    return LabelScores(rows[0], batch.label_mask, rows[1] if with_entropy else None)


def label_nll(
    model: nn.Module,
    batch: Batch,
    limits: HeadLimits,
    *,
    through: Callable[..., Any] | None = None,
    sequence: SequenceSplit | None = None,
) -> Tensor:
    """Negative log-likelihood of all labels of a batch, summed; scalar with gradient. With a split
    sequence, of the labels that this rank's stretch predicts."""

    def compute(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        if limits.liger and liger_fits(len(hidden), weight, limits.budget_bytes):
            return liger_nll(hidden, weight, labels)
        budget = limits.budget_bytes
        return -linear_log_probs(hidden, weight, labels, budget_bytes=budget)[0].sum()

    return _through_head(model, batch, *_labels_of(batch, sequence), compute, through)


def _labels_of(batch: Batch, sequence: SequenceSplit | None = None) -> tuple[Tensor, Tensor]:
    """Positions behind which a label stands, rows laid end to end, and these labels; without
    waiting for the device where the collator found the positions."""
    if sequence is not None:
        # Shifted before the split: the label of a stretch's last token stands in the next one.
        following = nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        mine = sequence.split(following, 1, fill=IGNORE).flatten()
        where = (mine != IGNORE).nonzero()[:, 0]
        return where, mine.index_select(0, where)
    if batch.label_positions is not None:
        where = batch.label_positions
    else:
        behind = nn.functional.pad(batch.labels[:, 1:] != IGNORE, (0, 1))
        where = behind.flatten().nonzero()[:, 0]
    return where, batch.labels.flatten().index_select(0, where + 1)


def _through_head(
    model: nn.Module,
    batch: Batch,
    where: Tensor,
    labels: Tensor,
    compute: Callable[[Tensor, Tensor, Tensor], Tensor],
    through: Callable[..., Any] | None,
) -> Tensor:
    """``compute(hidden states, head weight, labels)`` of the given positions."""

    def head(hidden: Tensor, weight: Tensor) -> Tensor:
        return compute(hidden.flatten(0, 1).index_select(0, where), weight, labels)

    with replaced_head(model, head):
        return (model if through is None else through)(**batch.inputs, use_cache=False).logits
