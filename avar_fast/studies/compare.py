"""Diagnoses lazy attention: how attention moved between checkpoints, paired over rows.

AVAR (arXiv 2603.03825) observes that a text-only cold start raises the Visual Attention Score of
the base model, while a multimodal cold start leaves it unchanged. It calls the latter lazy
attention.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bootstrap import Bootstrap, Estimate, mean_over_queries
from .masses import QUANTITIES, AttentionShape, RowMasses
from .score import VasSummary, by_quantity, summarize

THRESHOLD = math.log(1.15)
"""Default threshold of the rise of the mean log ratio: 15 % more visual mass per system mass. It is
a convention of this study. The paper's 15 to 20 % (lines 184 to 186) are about the attention of
published models to visual features, not about this ratio."""
LOG_RATIO = QUANTITIES.index("log_ratio")


@dataclass(frozen=True)
class Move:
    """The change of one head's mean log ratio."""

    layer: int
    """Index of the layer in the model."""
    head: int
    log_ratio: Estimate

    def as_dict(self) -> dict[str, Any]:
        return {"layer": self.layer, "head": self.head, "log_ratio": self.log_ratio.as_dict()}


@dataclass(frozen=True)
class Shift:
    """The changes from the base model to one checkpoint on the same rows."""

    name: str
    """Name of the checkpoint."""
    overall: Estimate
    """(quantities,)"""
    by_layer: Estimate
    """(layers, quantities)"""
    by_head: Estimate
    """(layers, heads, quantities)"""
    verdict: str
    """"looks more", "lazy" or "undecided"; see ``verdict_of``."""
    moved_most: tuple[Move, ...]
    """The heads whose mean log ratio moved most, in falling order."""

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "verdict": self.verdict,
            "overall": by_quantity(self.overall),
            "by_layer": by_quantity(self.by_layer),
            "by_head": by_quantity(self.by_head),
            "moved_most": [move.as_dict() for move in self.moved_most],
        }


@dataclass(frozen=True)
class VasComparison:
    """The comparison of checkpoints with the first of them, the base model."""

    names: tuple[str, ...]
    """Names of the checkpoints, the base model first."""
    layers: tuple[int, ...]
    """The text layers with attention, by their index in the model, as in ``RowMasses``."""
    summaries: tuple[VasSummary, ...]
    """One per checkpoint."""
    shifts: tuple[Shift, ...]
    """One per checkpoint after the first."""
    threshold: float
    """Threshold of the rise of the mean log ratio, natural logarithm."""
    bootstrap: Bootstrap


def verdict_of(log_ratio: Estimate, threshold: float) -> str:
    """Returns "looks more" if the interval of the rise lies above the threshold, "lazy" if it lies
    below, else "undecided"."""
    if log_ratio.low > threshold:
        return "looks more"
    return "lazy" if log_ratio.high < threshold else "undecided"


def compare(
    names: Sequence[str],
    collected: Sequence[RowMasses],
    threshold: float = THRESHOLD,
    bootstrap: Bootstrap | None = None,
    num_moves: int = 8,
) -> VasComparison:
    """Compares every checkpoint with the first, row by row.

    Args:
        names: names of the checkpoints, the base model first.
        collected: masses of each checkpoint on the same rows.
        threshold: threshold of the rise of the mean log ratio, natural logarithm.
        bootstrap: settings of the intervals; None for the default.
        num_moves: number of heads to list, those whose log ratio moved most.

    Raises:
        ValueError: there are fewer than two checkpoints, names repeat, or the checkpoints differ in
            layers, heads, rows, queries, or in the numbers of image or system tokens.
    """
    bootstrap = bootstrap or Bootstrap()
    require_names(names)
    base, *others = collected
    for name, other in zip(names[1:], others, strict=True):
        require_same_shape(names[0], base.shape, name, other.shape)
        if base.rows != other.rows or not base.counts.equal(other.counts):
            raise ValueError(
                f"checkpoints must read the same queries of the same rows; {name} reads"
                f" {int(other.counts.sum())} of {len(other.rows)} rows and {names[0]}"
                f" {int(base.counts.sum())} of {len(base.rows)}. Compare models of one tokenizer,"
                " chat template and image processor."
            )
        _require_same_keys(names[0], base, name, other)
    shifts = tuple(
        _shift(name, base, other, threshold, bootstrap, num_moves)
        for name, other in zip(names[1:], others, strict=True)
    )
    summaries = tuple(summarize(masses, bootstrap) for masses in collected)
    return VasComparison(tuple(names), base.layers, summaries, shifts, threshold, bootstrap)


def require_names(names: Sequence[str]) -> None:
    """Raises ValueError if there are fewer than two checkpoints or if names repeat."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError(
            "compare takes two or more checkpoints with names of their own, the base model first;"
            f" got {', '.join(names)}. Write NAME=PATH to name one."
        )


def require_same_shape(
    base: str, base_shape: AttentionShape, name: str, shape: AttentionShape
) -> None:
    """Raises ValueError if two models differ in their layers with attention or in their heads."""
    if base_shape != shape:
        raise ValueError(
            "checkpoints must have attention in the same layers, with equally many heads, to be"
            f" compared; {base} has {base_shape}, and {name} has {shape}. Score them one by one."
        )


def _require_same_keys(base_name: str, base: RowMasses, name: str, other: RowMasses) -> None:
    """Raises ValueError if two checkpoints see rows with other numbers of image or system tokens.
    A checkpoint keeps the pixel limits of its training; a base model has its own."""
    ours, theirs = base.num_keys.sum(0).tolist(), other.num_keys.sum(0).tolist()
    images, systems = (base.num_keys != other.num_keys).any(0).tolist()
    if images:
        raise ValueError(
            "checkpoints must see the same image tokens to be compared, as more of them have more"
            f" mass; {name} sees {theirs[0]} in {len(other.rows)} rows and {base_name} {ours[0]}."
            " Their image processors have other limits: set them for both with --min-pixels and"
            " --max-pixels."
        )
    if systems:
        raise ValueError(
            "checkpoints must read the same system turns to be compared; those of"
            f" {name} have {theirs[1]} tokens in {len(other.rows)} rows and those of {base_name}"
            f" {ours[1]}. Compare models of one tokenizer and chat template."
        )


def _shift(
    name: str,
    base: RowMasses,
    other: RowMasses,
    threshold: float,
    bootstrap: Bootstrap,
    num_moves: int,
) -> Shift:
    counts, moved = base.counts.numpy(), (other.by_head - base.by_head).numpy()

    def estimate(sums: np.ndarray) -> Estimate:
        return mean_over_queries(sums, counts, bootstrap)

    overall, by_head = estimate(moved.mean(axis=(1, 2))), estimate(moved)
    distance = np.abs(by_head.value[..., LOG_RATIO])
    order = np.argsort(-distance, axis=None, kind="stable")[:num_moves]
    places = [divmod(int(position), base.num_heads) for position in order]
    return Shift(
        name=name,
        overall=overall,
        by_layer=estimate(moved.mean(axis=2)),
        by_head=by_head,
        verdict=verdict_of(overall[LOG_RATIO], threshold),
        moved_most=tuple(
            Move(base.layers[row], head, by_head[row, head, LOG_RATIO]) for row, head in places
        ),
    )
