"""The training forward of both stages.

The LM head runs only at positions that predict a label. It returns what the losses need instead of
logits, which would not fit in memory.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..attention import ATTN_NAME, SequenceSplit
from ..config import Recipe
from ..data import IGNORE, Batch, ResponseBatch
from ..models import family_of
from ..models.head import replaced_head
from ..objectives import liger_fits, liger_nll, linear_log_probs

CPU_HEAD_BYTES = 256 * 2**20
GPU_HEAD_SHARE = 32  # of the device's memory


@dataclass(frozen=True)
class HeadLimits:
    """Limits of the LM head's computation."""

    budget_bytes: int
    """Memory for the logits that exist at the same time, in bytes."""
    liger: bool = False
    """Use Liger's kernel for the loss of stage sft if it fits the budget."""

    @classmethod
    def of(cls, recipe: Recipe, device: torch.device) -> "HeadLimits":
        """The limits of a recipe on a device. The budget does not depend on the free memory, so
        that a repeated run is bitwise equal."""
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
    """Puts the model in eval mode (no dropout) within the context, then back in train mode."""
    model.eval()
    try:
        yield
    finally:
        model.train()


class ResponseScores(NamedTuple):
    """Scores of the response tokens of a batch: N responses, the longest of T tokens."""

    log_probs: Tensor
    """(N, T) float32, 0 at padding."""
    entropies: Tensor | None
    """(N, T) float32, entropy in nats of the distribution that each token is drawn from; 0 at
    padding. None if not asked for."""


def response_log_probs(
    model: nn.Module,
    responses: ResponseBatch,
    limits: HeadLimits,
    temperature: float = 1.0,
    banned_ids: tuple[int, ...] = (),
    *,
    with_entropy: bool = False,
    through: Callable[..., Any] | None = None,
) -> ResponseScores:
    """Computes the log-probability of every response token of a batch.

    Args:
        model: a model of a supported family; with attention "avar" if prompts are shared.
        responses: the batch, on the model's device.
        limits: limits of the LM head.
        temperature: temperature of the distribution that sampled the tokens.
        banned_ids: token ids with probability 0 in that distribution.
        with_entropy: also compute entropies.
        through: the engine that runs the model's forward; the model itself if None.

    Raises:
        ValueError: prompts are shared, and the model's attention would ignore it.
    """

    def compute(hidden: Tensor, weight: Tensor) -> Tensor:
        # The last token of a shared prompt is taken once per response. On a GPU the gradient of an
        # embedding is deterministic where rows are taken repeatedly; that of index_select is not.
        log_probs, entropies = linear_log_probs(
            nn.functional.embedding(responses.positions, hidden),
            weight,
            responses.tokens,
            temperature,
            banned_ids,
            budget_bytes=limits.budget_bytes,
            with_entropy=with_entropy,
        )
        return torch.stack([log_probs] if entropies is None else [log_probs, entropies])

    if "prefix_index" in responses.batch.inputs:
        _require_prefixes(model)
    values = _through_head(model, responses.batch, compute, through)
    log_probs = responses.by_response(values[0])
    return ResponseScores(log_probs, responses.by_response(values[1]) if with_entropy else None)


def _require_prefixes(model: nn.Module) -> None:
    name = family_of(model).text_attention_name(model)
    if name != ATTN_NAME:
        raise ValueError(
            f'shared prompts need attn_implementation "avar" in the text tower; got {name!r}, which'
            " would not let responses see their prompt. Load the model with it, or set"
            " grpo.shared_prompts=false."
        )


def label_nll(
    model: nn.Module,
    batch: Batch,
    limits: HeadLimits,
    *,
    through: Callable[..., Any] | None = None,
    sequence: SequenceSplit | None = None,
) -> Tensor:
    """Computes the summed negative log-likelihood of a batch's labels: a scalar with gradient.

    With ``sequence``, the sum covers the labels that this rank's part of the sequence predicts.
    """

    positions, labels = _labels_of(batch, sequence)

    def compute(hidden: Tensor, weight: Tensor) -> Tensor:
        rows, budget = hidden.index_select(0, positions), limits.budget_bytes
        if limits.liger and liger_fits(len(rows), weight, budget):
            return liger_nll(rows, weight, labels)
        return -linear_log_probs(rows, weight, labels, budget_bytes=budget)[0].sum()

    return _through_head(model, batch, compute, through)


def _labels_of(batch: Batch, sequence: SequenceSplit | None = None) -> tuple[Tensor, Tensor]:
    """Positions that predict a label, as indices into the flattened rows, and their labels.

    The host does not wait for the device if the collator has already found the positions.
    """
    if sequence is not None:
        # Shift before the split: the label of a part's last token is in the next part.
        next_labels = nn.functional.pad(batch.labels[:, 1:], (0, 1), value=IGNORE)
        own_labels = sequence.split(next_labels, 1, fill=IGNORE).flatten()
        positions = (own_labels != IGNORE).nonzero()[:, 0]
        return positions, own_labels.index_select(0, positions)
    if batch.label_positions is not None:
        positions = batch.label_positions
    else:
        predicts = nn.functional.pad(batch.labels[:, 1:] != IGNORE, (0, 1))
        positions = predicts.flatten().nonzero()[:, 0]
    return positions, batch.labels.flatten().index_select(0, positions + 1)


def _through_head(
    model: nn.Module,
    batch: Batch,
    compute: Callable[[Tensor, Tensor], Tensor],
    through: Callable[..., Any] | None,
) -> Tensor:
    """Runs the forward with ``compute(hidden states (B * L, D), head weight)`` in place of the LM
    head."""

    def head(hidden: Tensor, weight: Tensor) -> Tensor:
        return compute(hidden.flatten(0, 1), weight)

    with replaced_head(model, head):
        return (model if through is None else through)(**batch.inputs, use_cache=False).logits
