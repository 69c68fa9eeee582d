"""The score of a training step by layer, as the log has it."""

import math

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.train.spans import VAS_EPS, Spans, vas_metrics, vas_sums

LAYERS = (1, 3, 6)


@pytest.fixture
def masses():
    """{layer: (2, 5, 4, 3)}, in another order than that of the layers."""
    generator = torch.Generator().manual_seed(0)
    return {
        layer: torch.rand(2, 5, 4, 3, generator=generator).softmax(dim=-1)
        for layer in reversed(LAYERS)
    }


def spans(scored):
    nothing = torch.zeros(0)
    return Spans(nothing, nothing, nothing, scored, scored.flatten().nonzero()[:, 0])


def test_the_score_of_each_layer_is_the_mean_over_its_heads_and_queries(masses):
    queries = [(0, 1), (0, 4), (1, 2)]
    scored = torch.zeros(2, 5, dtype=torch.bool)
    for row, place in queries:
        scored[row, place] = True
    sums = vas_sums(masses, spans(scored))
    assert sums.shape == (3, 3)
    found = vas_metrics(sums.flatten().tolist(), LAYERS, len(queries))
    want = {"ratio": {}, "log_ratio": {}, "share": {}}
    for layer in LAYERS:
        pairs = [
            (float(head[KeyType.VISUAL]), float(head[KeyType.SYSTEM]))
            for row, place in queries
            for head in masses[layer][row, place].double()
        ]
        of_layer = {
            "ratio": [v / (s + VAS_EPS) for v, s in pairs],
            "log_ratio": [math.log((v + VAS_EPS) / (s + VAS_EPS)) for v, s in pairs],
            "share": [v / (v + s + VAS_EPS) for v, s in pairs],
        }
        for form, values in of_layer.items():
            want[form][layer] = sum(values) / len(values)
    for form, by_layer in want.items():
        assert found[f"vas_{form}"] == pytest.approx(sum(by_layer.values()) / 3, abs=1e-6)
    assert found["vas_share_by_layer"] == pytest.approx(want["share"], abs=1e-6)
    assert found["vas_log_ratio_by_layer"] == pytest.approx(want["log_ratio"], abs=1e-6)
    assert "vas_ratio_by_layer" not in found


def test_sums_of_batches_without_queries_add_nothing(masses):
    nothing = vas_sums(masses, spans(torch.zeros(2, 5, dtype=torch.bool)))
    assert torch.equal(nothing, torch.zeros(3, 3))
