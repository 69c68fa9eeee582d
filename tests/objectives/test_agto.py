"""AGTO against the formula written over eager attention matrices: value, parts and gradient."""

import math

import pytest
import torch

from avar_fast.objectives import agto_loss

from .matrices import (
    NUM_HEADS,
    NUM_LAYERS,
    SYSTEM,
    TYPES,
    USER,
    VISUAL,
    key_mass,
    logits,
    masses,
    matrices,
    packed,
)

EPS = 1e-6


def terms_from_matrices(attention, samples):
    """Per sample (L_enh, L_sup), every average taken by hand."""
    out = []
    for b in samples:
        queries = USER[b].nonzero().flatten().tolist()
        enhance = suppress = 0.0
        for layer in range(NUM_LAYERS):
            for h in range(NUM_HEADS):
                means = {}
                for kind in (VISUAL, SYSTEM):
                    num_keys = int((TYPES[b] == kind).sum())
                    total = sum(key_mass(attention, layer, b, h, q, kind) for q in queries)
                    means[kind] = total / (len(queries) * num_keys)
                enhance = enhance - torch.log(means[VISUAL] + EPS) / (NUM_LAYERS * NUM_HEADS)
                suppress = suppress + torch.log(means[SYSTEM] + EPS) / (NUM_LAYERS * NUM_HEADS)
        out.append((enhance, suppress))
    return out


def test_value_parts_and_gradient():
    z = logits()
    terms = terms_from_matrices(matrices(z), [0, 1])  # sample 2 has no image
    want = sum(0.2 * e + 0.1 * s for e, s in terms) / 2
    (want_grad,) = torch.autograd.grad(want, z)

    z2 = logits()
    loss, parts = agto_loss(masses(matrices(z2)), USER, TYPES, alpha=0.2, beta=0.1)
    (got_grad,) = torch.autograd.grad(loss, z2)
    assert torch.allclose(loss, want, rtol=1e-12)
    assert torch.allclose(got_grad, want_grad, rtol=1e-9, atol=1e-12)
    assert math.isclose(parts.enhance.item(), sum(e.item() for e, _ in terms) / 2, rel_tol=1e-6)
    assert math.isclose(parts.suppress.item(), sum(s.item() for _, s in terms) / 2, rel_tol=1e-6)
    assert (int(parts.num_samples), int(parts.num_skipped)) == (2, 1)


def test_a_batch_without_images_gives_zero_loss_and_zero_gradient():
    z = logits()
    types = torch.where(TYPES == VISUAL, 0, TYPES)
    mass = masses(matrices(z))
    loss, parts = agto_loss(mass, USER, types)
    (grad,) = torch.autograd.grad(loss, z)
    assert loss == 0
    assert (grad == 0).all()
    assert (int(parts.num_samples), int(parts.num_skipped)) == (0, 3)


def test_a_given_divisor_makes_micro_batches_add_up():
    mass = masses(matrices(logits()))
    whole, _ = agto_loss(mass, USER, TYPES)
    halves = [
        agto_loss({i: m[s] for i, m in mass.items()}, USER[s], TYPES[s], num_samples=2)[0]
        for s in (slice(0, 1), slice(1, 3))
    ]
    assert torch.allclose(sum(halves), whole)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(eps=0.0), "eps must be positive"),
        (dict(query_mask=USER[:, :4]), "query_mask must be of shape"),
        (dict(key_types=TYPES[:2]), r"key_types must be \(B, Lk\)"),
    ],
)
def test_bad_input(change, words):
    arguments = dict(mass_by_layer=masses(matrices(logits())), query_mask=USER, key_types=TYPES)
    with pytest.raises(ValueError, match=words):
        agto_loss(**(arguments | change))


@pytest.mark.parametrize("num_ids", [None, 3])
def test_samples_packed_into_a_row_count_one_by_one(num_ids):
    z = logits()
    want, want_parts = agto_loss(masses(matrices(z)), USER, TYPES, alpha=0.2, beta=0.1)
    (want_grad,) = torch.autograd.grad(want, z)
    z2 = logits()
    row, ids = packed(masses(matrices(z2)))
    span = (USER.flatten()[None], TYPES.flatten()[None])
    got, parts = agto_loss(row, *span, alpha=0.2, beta=0.1, sample_ids=ids, num_ids=num_ids)
    (got_grad,) = torch.autograd.grad(got, z2)
    assert torch.allclose(got, want, rtol=1e-12)
    assert torch.allclose(got_grad, want_grad, rtol=1e-9, atol=1e-12)
    assert parts.num_samples == want_parts.num_samples == 2
    assert parts.num_skipped == want_parts.num_skipped == 1
    # As one sample the row has another mean: the ids are what keeps them apart.
    assert not torch.allclose(agto_loss(row, *span, alpha=0.2, beta=0.1)[0], want, rtol=1e-2)
    with pytest.raises(ValueError, match=r"sample_ids must be integers of shape \(1, 30\)"):
        agto_loss(row, *span, sample_ids=ids[:, :5])


def test_queries_before_the_image_do_not_count():
    """They see none of it: the header of the user's turn, the system turn."""
    everyone = USER | (TYPES == SYSTEM)
    mass = masses(matrices(logits()))
    want, _ = agto_loss(mass, USER, TYPES)
    got, parts = agto_loss(mass, everyone, TYPES)
    assert torch.equal(got, want)
    assert int(parts.num_samples) == 2
    before, parts = agto_loss(mass, TYPES == SYSTEM, TYPES)
    assert before == 0
    assert int(parts.num_skipped) == 3
    row, ids = packed(mass)
    spans = (everyone.flatten()[None], TYPES.flatten()[None])
    in_one_row, _ = agto_loss(row, *spans, sample_ids=ids)
    assert torch.allclose(in_one_row, want)


def test_the_papers_formula_has_eps_in_one_logarithm():
    mass = masses(matrices(logits()))
    released, with_both = agto_loss(mass, USER, TYPES, eps=0.05)
    paper, with_one = agto_loss(mass, USER, TYPES, eps=0.05, eps_in="suppress")
    tiny, without = agto_loss(mass, USER, TYPES, eps=1e-30)
    assert torch.equal(with_one.suppress, with_both.suppress)
    assert torch.allclose(with_one.enhance, without.enhance)
    assert with_both.enhance < with_one.enhance - 0.1
    assert released < paper
    assert tiny < paper  # the suppressing term falls with eps


def test_key_types_may_stand_for_image_and_system_turn():
    """With the columns exchanged, the same loss; a pull towards text is the same by name."""
    mass = masses(matrices(logits()))
    want, _ = agto_loss(mass, USER, TYPES, alpha=0.2, beta=0.1)
    wider = {i: torch.nn.functional.pad(m, (0, 2))[..., [0, 3, 4, 1, 2]] for i, m in mass.items()}
    types = torch.where(TYPES == VISUAL, 3, torch.where(TYPES == SYSTEM, 4, TYPES))
    got, _ = agto_loss(wider, USER, types, alpha=0.2, beta=0.1, visual=3, system=4)
    assert torch.allclose(got, want)
    with pytest.raises(ValueError, match="visual must be a key type of the masses, 0 to 2; got 3"):
        agto_loss(mass, USER, TYPES, visual=3)
    with pytest.raises(ValueError, match="eps_in must be one of both, suppress; got 'enhance'"):
        agto_loss(mass, USER, TYPES, eps_in="enhance")


@pytest.mark.parametrize("in_one_row", [False, True])
def test_gradients_are_finite_where_a_sample_does_not_count(in_one_row):
    """A logarithm of 0 that is not used must leave no trace."""
    z = logits()
    mass = masses(matrices(z))
    spans, options = (USER, TYPES), {}
    if in_one_row:
        mass, ids = packed(mass)
        spans, options = (USER.flatten()[None], TYPES.flatten()[None]), {"sample_ids": ids}
    loss, parts = agto_loss(mass, *spans, eps_in="suppress", **options)
    (grad,) = torch.autograd.grad(loss, z)
    assert int(parts.num_skipped) == 1
    assert torch.isfinite(grad).all()
    assert grad.abs().max() > 0


def test_samples_may_be_in_pieces():
    """Prompts first, then replies: a sample's tokens need not lie together."""
    mass = masses(matrices(logits()))
    row, ids = packed(mass)
    order = torch.cat(
        [torch.arange(0, 5), torch.arange(10, 15), torch.arange(5, 10), torch.arange(15, 30)]
    )
    spans = (USER.flatten()[None, order], TYPES.flatten()[None, order])
    moved = {i: m[:, order] for i, m in row.items()}
    got, parts = agto_loss(moved, *spans, sample_ids=ids[:, order])
    want, _ = agto_loss(mass, USER, TYPES)
    assert int(parts.num_samples) == 2
    assert torch.allclose(got, want)
