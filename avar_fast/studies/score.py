"""Summarizes the score of one model over a data set: overall, per layer, per head and per token
position."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bootstrap import Bootstrap, Estimate, mean_over_queries
from .masses import QUANTITIES, RowMasses


@dataclass(frozen=True)
class VasSummary:
    """Estimates of all ``QUANTITIES``, which are the last dimension of each estimate."""

    layers: tuple[int, ...]
    """The text layers with attention, by their index in the model, as in ``RowMasses``."""
    overall: Estimate
    """(quantities,) means over layers, heads and queries. The form "ratio" is the paper's VAS."""
    by_layer: Estimate
    """(layers, quantities)"""
    by_head: Estimate
    """(layers, heads, quantities)"""
    by_position: Estimate
    """(positions, quantities) means over layers and heads."""

    def as_dict(self) -> dict[str, Any]:
        """{part: {quantity: {value, low, high}}}"""
        parts = {
            "overall": self.overall,
            "by_layer": self.by_layer,
            "by_head": self.by_head,
            "by_position": self.by_position,
        }
        return {part: by_quantity(estimate) for part, estimate in parts.items()}


def by_quantity(estimate: Estimate) -> dict[str, Any]:
    """{quantity: {value, low, high}} of an estimate whose last dimension is ``QUANTITIES``."""
    return {name: estimate[..., i].as_dict() for i, name in enumerate(QUANTITIES)}


def summarize(collected: RowMasses, bootstrap: Bootstrap) -> VasSummary:
    """Estimates means over all queries of all rows. The intervals resample rows.

    Raises:
        ValueError: there are fewer than two rows.
    """
    counts, by_head = collected.counts.numpy(), collected.by_head.numpy()
    # (rows, positions, quantities)
    by_position = collected.by_position.mean(dim=2).numpy()

    def estimate(sums: np.ndarray, counts: np.ndarray = counts) -> Estimate:
        return mean_over_queries(sums, counts, bootstrap)

    return VasSummary(
        layers=collected.layers,
        overall=estimate(by_head.mean(axis=(1, 2))),
        by_layer=estimate(by_head.mean(axis=2)),
        by_head=estimate(by_head),
        by_position=estimate(by_position, collected.position_counts.numpy()),
    )
