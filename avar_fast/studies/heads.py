"""Ranks heads by visual mass and by how much masking each one lowers the probability of the
reference answer.

The study reads the rows once for the masses, once for the unmasked answers, and once per head and
kind of mask.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..attention import intervene
from ..bootstrap import Bootstrap, Estimate, mean_over_queries
from ..data import IGNORE, Batch, Rows
from ..loading import Loaded
from ..models import family_of
from ..progress import progress
from .correlate import Coefficient, spearman
from .masses import QUANTITIES, MassSettings, RowMasses, collect, image_batches

MASKS = ("visual", "output")
"""Kinds of mask for one head. "visual" masks its visual keys for all queries, so that it looks
elsewhere. "output" sets its output to zero, so that it contributes nothing."""
PURPOSE = "the effect of masking heads"  # named in the error of a row without an answer
VISUAL_OFF = -1e4
"""Added to the logits of masked keys. It leaves a key no weight in any precision. A larger
magnitude would cost float32 logits their digits if a query sees only masked keys."""


@dataclass(frozen=True)
class HeadRanking:
    """The heads of one model on one data set."""

    layers: tuple[int, ...]
    """The text layers with attention, by their index in the model, as in ``RowMasses``."""
    visual_mass: Estimate
    """(layers, heads) means over the queries that were read."""
    log_prob: Estimate
    """Mean log-probability of a token of the reference answers without masks."""
    drops: dict[str, Estimate]
    """{mask: (layers, heads)} decrease of the log-probability in nats per token. It is negative if
    masking the head helps."""
    agreement: dict[str, Coefficient]
    """{mask: Spearman's coefficient of visual mass and drop over all heads}"""
    sizes: dict[str, Any]
    """``RowMasses.sizes``."""

    def order(self, table: Estimate) -> list[tuple[int, int]]:
        """(layer, head) of all heads, in falling order of a (layers, heads) table. Layers are named
        by their index in the model."""
        return [(self.layers[row], head) for row, head in descending(table.value)]

    def as_dict(self) -> dict[str, Any]:
        return {
            **self.sizes,
            "visual_mass": self.visual_mass.as_dict(),
            "log_prob": self.log_prob.as_dict(),
            "drops": {mask: drop.as_dict() for mask, drop in self.drops.items()},
            "agreement": {mask: vars(value) for mask, value in self.agreement.items()},
            "heads_by_visual_mass": self.order(self.visual_mass),
            "heads_by_drop": {mask: self.order(drop) for mask, drop in self.drops.items()},
        }


def rank_heads(
    loaded: Loaded,
    rows: Rows,
    settings: MassSettings,
    masks: Sequence[str] = MASKS,
    bootstrap: Bootstrap | None = None,
) -> HeadRanking:
    """Measures the visual mass of every head and the effect of masking it.

    Args:
        loaded: model with attention attached, on its device.
        rows: rows with answers. Rows without an image are left out.
        settings: settings of the visual mass. The masks apply to all queries in any case.
        masks: kinds of mask, from ``MASKS``.
        bootstrap: settings of the intervals, over rows; None for the default.

    Raises:
        RowError: as ``collect``, or a row has no answer.
    """
    bootstrap = bootstrap or Bootstrap()
    collected = collect(loaded, rows, settings, "masses", PURPOSE)
    visual = collected.by_head[..., QUANTITIES.index("visual")].numpy()
    mass = mean_over_queries(visual, collected.counts.numpy(), bootstrap)
    log_probs, drops = _drops(loaded, rows, settings, masks, collected)
    tokens, sums = log_probs.unbind(dim=1)
    estimates = {
        mask: mean_over_queries(drop.numpy(), tokens.numpy(), bootstrap)
        for mask, drop in drops.items()
    }
    agreement = {
        mask: spearman(mass.value.ravel(), drop.value.ravel(), bootstrap.confidence)
        for mask, drop in estimates.items()
    }
    log_prob = mean_over_queries(sums.numpy(), tokens.numpy(), bootstrap)
    return HeadRanking(collected.layers, mass, log_prob, estimates, agreement, collected.sizes())


@torch.no_grad()
def _drops(
    loaded: Loaded,
    rows: Rows,
    settings: MassSettings,
    masks: Sequence[str],
    collected: RowMasses,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Measures the answers with and without masks.

    Returns:
        (rows, 2) number of tokens and log-probability of each answer without masks, and {mask:
        (rows, layers, heads)} decrease of the log-probability; float64 on the CPU.
    """
    model = loaded.model
    layers, num_heads = collected.layers, collected.num_heads
    heads = [(layer, head) for layer in layers for head in range(num_heads)]
    plain: list[Tensor] = []
    drops: dict[str, list[Tensor]] = {mask: [] for mask in masks}
    num_batches = math.ceil(len(rows) / settings.batch_size)
    total = num_batches * len(masks) * len(heads)
    bar = progress(desc="masked heads", total=total, unit="forward")
    for batch in image_batches(loaded, rows, settings, True, PURPOSE, None):
        unmasked = _answer_log_probs(model, batch)
        plain.append(unmasked)
        for mask in masks:
            lost = []
            for layer, head in heads:
                with _masked(model, mask, layer, head):
                    lost.append((unmasked - _answer_log_probs(model, batch))[:, 1])
                bar.update()
            drops[mask].append(torch.stack(lost, dim=1).view(-1, len(layers), num_heads))
    bar.close()
    return torch.cat(plain), {mask: torch.cat(parts) for mask, parts in drops.items()}


def _masked(model: nn.Module, mask: str, layer: int, head: int) -> AbstractContextManager[None]:
    if mask == "visual":
        return intervene(model, visual_bias=VISUAL_OFF, layers=[layer], heads=[head])
    return zeroed_head(model, layer, head)


@contextmanager
def zeroed_head(model: nn.Module, layer: int, head: int) -> Iterator[None]:
    """Sets the output of one head to zero, before the output projection, for all forwards inside
    the context. The layer is named by its index in the model."""
    family = family_of(model)
    projection, num_heads = family.output_projections(model)[layer], family.num_heads(model)

    def zero(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
        by_head = args[0].unflatten(-1, (num_heads, -1)).clone()
        by_head[..., head, :] = 0
        return (by_head.flatten(-2),)

    hook = projection.register_forward_pre_hook(zero)
    try:
        yield
    finally:
        hook.remove()


def _answer_log_probs(model: nn.Module, batch: Batch) -> Tensor:
    """(B, 2) number of tokens of each row's answer, and the sum of their log-probabilities."""
    family = family_of(model)
    hidden = family.body(model)(**batch.inputs, use_cache=False).last_hidden_state
    sums = []
    for states, labels in zip(hidden, batch.labels, strict=True):
        target = labels[1:] != IGNORE
        # Row by row, because the logits of a whole batch take gigabytes: the vocabulary has 150k
        # tokens.
        logits = family.lm_head(model)(states[:-1][target]).float()
        chosen = logits.log_softmax(dim=-1).gather(1, labels[1:][target][:, None])
        sums.append(torch.stack([target.sum().double(), chosen.double().sum()]))
    return torch.stack(sums).cpu()


def descending(values: np.ndarray) -> list[tuple[int, int]]:
    """(row, head) places in a (layers, heads) table, the largest value first."""
    order = np.argsort(-values, axis=None, kind="stable")
    return [divmod(int(position), values.shape[1]) for position in order]
