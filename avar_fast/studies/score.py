"""The score of one model over a data set: overall, per layer, per head, per token position."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..bootstrap import Bootstrap, Estimate, mean_over_queries
from .masses import QUANTITIES, RowMasses


@dataclass(frozen=True)
class VasSummary:
    """Estimates of every quantity in ``QUANTITIES``, the last dimension of each."""

    overall: Estimate
    """(quantities,) mean over layers, heads and queries: in form "ratio" the paper's VAS."""
    by_layer: Estimate
    """(layers, quantities)"""
    by_head: Estimate
    """(layers, heads, quantities)"""
    by_position: Estimate
    """(positions, quantities), mean over layers and heads."""

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
    """An estimate whose last dimension is the quantities, for JSON."""
    return {name: estimate[..., i].as_dict() for i, name in enumerate(QUANTITIES)}


def summarize(collected: RowMasses, bootstrap: Bootstrap) -> VasSummary:
    """Means over all queries of all rows, with intervals over rows.

    Raises:
        ValueError: fewer than two rows.
    """
    counts, by_head = collected.counts.numpy(), collected.by_head.numpy()
    # (rows, positions, quantities)
    by_position = collected.by_position.mean(dim=2).numpy()

    def estimate(sums: np.ndarray, counts: np.ndarray = counts) -> Estimate:
        return mean_over_queries(sums, counts, bootstrap)

    return VasSummary(
        overall=estimate(by_head.mean(axis=(1, 2))),
        by_layer=estimate(by_head.mean(axis=2)),
        by_head=estimate(by_head),
        by_position=estimate(by_position, collected.position_counts.numpy()),
    )
