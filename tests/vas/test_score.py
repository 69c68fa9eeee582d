"""The three forms of the Visual Attention Score against sums over eager matrices."""

import math

import pytest
import torch

from avar_fast.vas import score_table, visual_attention_score
from tests.objectives.matrices import (
    NUM_HEADS,
    NUM_LAYERS,
    SYSTEM,
    TEXT,
    TYPES,
    USER,
    VISUAL,
    key_mass,
    logits,
    masses,
    matrices,
    packed,
)


def score_from_matrices(attention, query_mask, form):
    scores = []
    for layer in range(NUM_LAYERS):
        for head in range(NUM_HEADS):
            for sample, query in query_mask.nonzero().tolist():
                v = key_mass(attention, layer, sample, head, query, VISUAL)
                s = key_mass(attention, layer, sample, head, query, SYSTEM)
                scores.append({"ratio": v / s, "share": v / (v + s)}.get(form))
                if form == "log_ratio":
                    scores[-1] = torch.log(v) - torch.log(s)
    return sum(scores) / len(scores)


@pytest.mark.parametrize("form", ["ratio", "log_ratio", "share"])
def test_value_and_gradient(form):
    with_image = USER.clone()
    with_image[2] = False
    z = logits()
    want = score_from_matrices(matrices(z), with_image, form)
    (want_grad,) = torch.autograd.grad(want, z)
    z2 = logits()
    got = visual_attention_score(masses(matrices(z2)), with_image, form=form)
    (got_grad,) = torch.autograd.grad(got, z2)
    assert torch.allclose(got, want, rtol=1e-12)
    assert torch.allclose(got_grad, want_grad, rtol=1e-9, atol=1e-12)


def test_share_counts_a_sample_without_image_as_zero():
    only_last = USER.clone()
    only_last[:2] = False
    assert visual_attention_score(masses(matrices(logits())), only_last, form="share") == 0.0


def test_table_averages_to_the_score():
    with_image = USER.clone()
    with_image[2] = False
    mass = masses(matrices(logits()))
    table = score_table(mass, with_image)
    assert table.shape == (NUM_LAYERS, NUM_HEADS)
    assert math.isclose(
        table.mean().item(), visual_attention_score(mass, with_image).item(), rel_tol=1e-12
    )


def test_a_batch_without_system_turn_is_refused_by_sample():
    mass = masses(matrices(logits()))
    for layer in mass.values():
        layer.data[1, ..., SYSTEM] = 0.0
    with pytest.raises(
        ValueError,
        match="must have a system turn.*sample 1 has no SYSTEM keys.*Add a system message",
    ):
        visual_attention_score(mass, USER)


def test_system_mass_that_has_vanished_is_not_a_missing_turn():
    """A well-cured model may give its system turn nothing; that must not stop a run."""
    mass = {i: m.detach() for i, m in masses(matrices(logits())).items()}
    for layer in mass.values():
        layer[1, ..., SYSTEM] = 0.0
    types = TYPES.clone()
    got = visual_attention_score(mass, USER, 1e-6, key_types=types)
    assert got > 1e3
    types[1, 3] = TEXT
    with pytest.raises(ValueError, match="sample 1 has no SYSTEM keys. Add"):
        visual_attention_score(mass, USER, 1e-6, key_types=types)


def test_nan_mass_is_called_by_its_name():
    mass = {i: m.detach() for i, m in masses(matrices(logits())).items()}
    mass[1][0, 5] = float("nan")
    with pytest.raises(ValueError, match="mass must not be NaN"):
        visual_attention_score(mass, USER)


@pytest.mark.parametrize(
    ("mask", "options", "words"),
    [
        (USER[:, :5], {}, "query_mask must be of shape"),
        (torch.zeros_like(USER), {}, "query_mask must select at least one query"),
        (USER, dict(form="mean"), "form must be one of ratio, log_ratio, share; got 'mean'"),
        (USER, dict(form="log_ratio"), "must be finite.*eps"),
    ],
)
def test_bad_input(mask, options, words):
    with pytest.raises(ValueError, match=words):
        visual_attention_score(masses(matrices(logits())), mask, **options)


def test_masses_of_the_wrong_shape_are_refused():
    with pytest.raises(ValueError, match=r"mass must be \(B, L, H, C >= 3\)"):
        visual_attention_score({0: torch.zeros(3, 10, 2, 2)}, USER)
    with pytest.raises(ValueError, match="at least one layer"):
        visual_attention_score({}, USER)


def test_packed_samples_are_checked_one_by_one_for_a_system_turn():
    z = logits().detach()
    with_image = USER.clone()
    with_image[2] = False
    want = visual_attention_score(masses(matrices(z)), with_image, form="share")
    row, ids = packed(masses(matrices(z)))
    span = with_image.flatten()[None]
    types = TYPES.flatten()[None].clone()
    got = visual_attention_score(row, span, form="share", key_types=types, sample_ids=ids)
    assert torch.allclose(got, want, rtol=1e-12)
    types[0, 10:20] = TEXT  # sample 1 loses its system turn; the others' must not hide that
    with pytest.raises(ValueError, match="sample 1 has no SYSTEM keys"):
        visual_attention_score(row, span, form="share", key_types=types, sample_ids=ids)
