"""VARS against the formula written over eager attention matrices."""

import math

import pytest
import torch

from avar_fast.objectives import total_reward, visual_reward

from .matrices import (
    NUM_HEADS,
    NUM_LAYERS,
    RESPONSE,
    SYSTEM,
    VISUAL,
    key_mass,
    logits,
    masses,
    matrices,
)

EPS = 1e-6


def reward_from_matrices(attention, sample, form):
    tokens = RESPONSE[sample].nonzero().flatten().tolist()
    total = 0.0
    for t in tokens:
        for layer in range(NUM_LAYERS):
            v, s = (
                sum(key_mass(attention, layer, sample, h, t, kind).item() for h in range(NUM_HEADS))
                for kind in (VISUAL, SYSTEM)
            )
            total += {
                "ratio": v / (s + EPS),
                "log_ratio": math.log((v + EPS) / (s + EPS)),
                "share": v / (v + s + EPS),
            }[form]
    return total / (len(tokens) * NUM_LAYERS)


@pytest.mark.parametrize("form", ["ratio", "log_ratio", "share"])
def test_correct_responses_get_the_mean_over_tokens_and_layers(form):
    attention = matrices(logits()).detach()
    correct = torch.tensor([True, True, False])
    got = visual_reward(masses(attention), RESPONSE, correct, form=form)
    assert got[2] == 0
    for sample in (0, 1):
        assert math.isclose(
            got[sample].item(), reward_from_matrices(attention, sample, form), rel_tol=1e-5
        )
    assert not got.requires_grad


def test_no_image_earns_nothing_and_clip_bounds():
    mass = masses(matrices(logits()))
    all_right = torch.ones(3, dtype=torch.bool)
    plain = visual_reward(mass, RESPONSE, all_right)
    assert plain[2] == 0
    assert plain.max() > 0.3
    assert visual_reward(mass, RESPONSE, all_right, clip=0.3).max() == pytest.approx(0.3)


def test_total_reward_is_the_weighted_sum_of_what_applies():
    values = {
        "accuracy": torch.tensor([1.0, 0.0, 1.0]),
        "visual": torch.tensor([2.0, 0.0, 0.5]),
        "format": torch.tensor([1.0, 1.0, float("nan")]),
    }
    weights = {"accuracy": 1.0, "visual": 0.3, "format": 0.1}
    assert total_reward(values, weights).tolist() == pytest.approx([1.7, 0.1, 1.15])


def test_some_layers_alone():
    mass = masses(matrices(logits()))
    all_right = torch.ones(3, dtype=torch.bool)
    each = [visual_reward({i: mass[i]}, RESPONSE, all_right) for i in range(NUM_LAYERS)]
    assert torch.allclose(torch.stack(each).mean(0), visual_reward(mass, RESPONSE, all_right))
    assert not torch.allclose(each[0], each[1])


def test_correct_sample_without_system_turn_is_refused_and_a_wrong_one_is_not():
    mass = masses(matrices(logits()))
    for layer in mass.values():
        layer.data[0, ..., SYSTEM] = 0.0
    visual_reward(mass, RESPONSE, torch.tensor([False, True, True]))
    with pytest.raises(ValueError, match="sample 0 has no SYSTEM keys"):
        visual_reward(mass, RESPONSE, torch.tensor([True, True, True]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(form="sum"), "form must be one of"),
        (dict(eps=0.0), "eps must be positive"),
        (dict(clip=-1.0), "clip must be positive"),
        (dict(correct=torch.ones(2)), r"correct must be of shape \(3,\)"),
        (dict(response_mask=RESPONSE[:2]), "response_mask must be of shape"),
    ],
)
def test_bad_input(change, words):
    arguments = dict(
        mass_by_layer=masses(matrices(logits())), response_mask=RESPONSE, correct=torch.ones(3)
    )
    with pytest.raises(ValueError, match=words):
        visual_reward(**(arguments | change))
