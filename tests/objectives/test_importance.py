"""Weights for what another engine sampled, and DAPO's length penalty, against loops."""

import math

import pytest
import torch

from avar_fast.objectives import importance_weights, overlong_penalty

LENGTHS, CAP, FLOOR = [3, 1, 2, 0], 2.0, 0.5


def problem():
    generator = torch.Generator().manual_seed(0)
    trainer = -torch.rand(4, 3, generator=generator, dtype=torch.float64)
    engine = trainer + 0.9 * torch.randn(4, 3, generator=generator, dtype=torch.float64)
    mask = torch.arange(3)[None] < torch.tensor(LENGTHS)[:, None]
    trainer[~mask], engine[~mask] = float("nan"), float("inf")
    return trainer, engine, mask


def weight_by_hand(gap, mode):
    weight = math.exp(gap)
    if mode == "truncate":
        return min(max(weight, FLOOR), CAP)
    return weight if FLOOR <= weight <= CAP else 0.0


@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence"])
def test_weights(level, mode):
    trainer, engine, mask = problem()
    got, bounded = importance_weights(trainer, engine, mask, level, mode, CAP, FLOOR)
    outside = count = 0
    for i, length in enumerate(LENGTHS):
        gaps = [(trainer[i, t] - engine[i, t]).item() for t in range(length)]
        parts = [sum(gaps)] if level == "sequence" and length else gaps
        for t, gap in enumerate(parts):
            assert got[i, t].item() == pytest.approx(weight_by_hand(gap, mode), rel=1e-12)
            outside += not FLOOR <= math.exp(gap) <= CAP
            count += 1
    assert 0 < outside < count, "the case shows nothing"
    assert bounded.item() == pytest.approx(outside / count)
    assert got.shape == ((4, 1) if level == "sequence" else (4, 3))
    assert torch.isfinite(got).all()


def test_the_same_engine_and_missing_log_probabilities_weigh_one():
    trainer, engine, mask = problem()
    for sampled in (trainer, torch.full_like(engine, float("nan"))):
        for level in ("token", "sequence"):
            weights, bounded = importance_weights(trainer, sampled, mask, level)
            assert (weights == 1).all()
            assert bounded == 0


def test_the_expectation_is_corrected():
    """Sampled by s and weighted by pi / s, a mean is that under pi."""
    generator = torch.Generator().manual_seed(0)
    pi, s = (torch.softmax(torch.randn(5, generator=generator), 0).double() for _ in range(2))
    drawn = torch.multinomial(s.float(), 200_000, replacement=True, generator=generator)
    value = torch.arange(5.0, dtype=torch.float64)
    weights, _ = importance_weights(
        pi.log()[drawn][:, None], s.log()[drawn][:, None], torch.ones(len(drawn), 1), cap=1e9
    )
    want = (pi * value).sum().item()
    assert (weights[:, 0] * value[drawn]).mean().item() == pytest.approx(want, rel=0.03)
    assert value[drawn].mean().item() != pytest.approx(want, rel=0.03)


def test_overlong_penalty():
    lengths = torch.tensor([0, 60, 61, 80, 99, 100])
    assert overlong_penalty(lengths, 100, 40).tolist() == pytest.approx(
        [0, 0, -1 / 40, -20 / 40, -39 / 40, -1]
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(level="word"), "level must be one of token, sequence"),
        (dict(mode="drop"), "mode must be one of truncate, mask"),
        (dict(cap=0.5), "cap at least 1"),
        (dict(floor=1.5), r"floor must be in \[0, 1\]"),
        (dict(mask=torch.ones(4, 2)), "must have one shape"),
    ],
)
def test_bad_input(change, words):
    trainer, engine, mask = problem()
    arguments = dict(log_probs=trainer, sampling_log_probs=engine, mask=mask)
    with pytest.raises(ValueError, match=words):
        importance_weights(**(arguments | change))


@pytest.mark.parametrize("buffer", [0, 101])
def test_bad_buffer(buffer):
    with pytest.raises(ValueError, match="buffer must be between 1 and max_tokens = 100"):
        overlong_penalty(torch.tensor([1]), 100, buffer)
