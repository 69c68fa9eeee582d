"""The GRPO family against loops over responses and tokens, values and gradients."""

import math

import pytest
import torch

from avar_fast.objectives import POLICY_LOSSES, group_advantages, informative_groups, policy_loss

LENGTHS, LOW, HIGH, MAX = [4, 1, 3, 0], 0.2, 0.28, 6


def problem():
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(4, 4, generator=generator, dtype=torch.float64)
    old = log_probs + 0.9 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    ref = log_probs + 0.3 * torch.randn(4, 4, generator=generator, dtype=torch.float64)
    mask = torch.arange(4)[None] < torch.tensor(LENGTHS)[:, None]
    for x in (log_probs, old, ref):
        x[~mask] = float("nan")  # what lies behind a response must not matter
    advantages = torch.tensor([1.2, -0.7, 0.4, -1.0], dtype=torch.float64)
    return log_probs.requires_grad_(), old, ref, advantages, mask


def loss_by_hand(form, log_probs, old, ref, advantages, kl_coef, weights=None):
    """From the papers' equations, token by token; advantages and weights may be per token."""
    per_token = advantages.dim() == 2
    total, num_tokens = 0.0, sum(LENGTHS)
    for i, length in enumerate(LENGTHS):
        terms = []
        mean_gap = sum(log_probs[i, t] - old[i, t] for t in range(length)) / max(length, 1)
        for t in range(length):
            ratio = torch.exp(mean_gap if form == "gspo" else log_probs[i, t] - old[i, t])
            if form == "gspo" and per_token:  # GSPO-token: sg[s_i] pi_t / sg[pi_t]
                ratio = ratio.detach() * torch.exp(log_probs[i, t] - log_probs[i, t].detach())
            advantage = advantages[i, t] if per_token else advantages[i]
            bounded = torch.clamp(ratio, 1 - LOW, 1 + HIGH)
            if form == "cispo":
                term = -bounded.detach() * advantage * log_probs[i, t]
            else:
                term = -min(ratio * advantage, bounded * advantage)
            if weights is not None:
                term = term * weights[i, t]
            gap = ref[i, t] - log_probs[i, t]
            terms.append(term + kl_coef * (torch.exp(gap) - gap - 1))
        if form in ("dapo", "cispo"):
            total = total + sum(terms) / num_tokens
        elif form == "dr_grpo":
            total = total + sum(terms) / (MAX * len(LENGTHS))
        elif length:
            total = total + sum(terms) / (length * len(LENGTHS))
    return total


@pytest.mark.parametrize("kl_coef", [0.0, 0.05])
@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_value_and_gradient(form, kl_coef):
    log_probs, old, ref, advantages, mask = problem()
    want = loss_by_hand(form, log_probs, old, ref, advantages, kl_coef)
    (want_grad,) = torch.autograd.grad(want, log_probs)
    got, stats = policy_loss(
        log_probs,
        old,
        advantages,
        mask,
        form,
        LOW,
        HIGH,
        ref_log_probs=ref,
        kl_coef=kl_coef,
        max_tokens=MAX,
    )
    (got_grad,) = torch.autograd.grad(got, log_probs)
    assert torch.allclose(got, want, rtol=1e-12)
    assert torch.allclose(got_grad[mask], torch.nan_to_num(want_grad)[mask], rtol=1e-10)
    assert (got_grad[~mask] == 0).all()
    assert 0 < stats.clip_fraction < 1
    assert stats.kl > 0


@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_advantages_and_weights_per_token(form):
    log_probs, old, ref, _, mask = problem()
    generator = torch.Generator().manual_seed(2)
    advantages = torch.randn(4, 4, generator=generator, dtype=torch.float64)
    weights = torch.rand(4, 4, generator=generator, dtype=torch.float64)
    advantages[~mask] = weights[~mask] = float("nan")
    want = loss_by_hand(form, log_probs, old, ref, advantages, 0.05, weights)
    (want_grad,) = torch.autograd.grad(want, log_probs)
    got, stats = policy_loss(
        log_probs, old, advantages, mask, form, LOW, HIGH,
        ref_log_probs=ref, kl_coef=0.05, max_tokens=MAX, weights=weights,
    )  # fmt: skip
    (got_grad,) = torch.autograd.grad(got, log_probs)
    assert torch.allclose(got, want, rtol=1e-12)
    assert torch.allclose(got_grad[mask], torch.nan_to_num(want_grad)[mask], rtol=1e-10)
    assert (got_grad[~mask] == 0).all()
    assert 0 < stats.clip_fraction < 1


@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_one_advantage_for_all_tokens_is_that_of_the_response(form):
    log_probs, old, _, advantages, mask = problem()
    losses = [
        policy_loss(log_probs, old, a, mask, form, LOW, HIGH, max_tokens=MAX)[0]
        for a in (advantages, advantages[:, None].expand(4, 4))
    ]
    grads = [torch.autograd.grad(loss, log_probs)[0] for loss in losses]
    assert torch.allclose(*losses)
    assert torch.allclose(*grads)


@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_on_policy_gradient_is_the_policy_gradient(form):
    """With old == new the ratio is 1 and every form's gradient is -A times its own weight per
    token."""
    log_probs, _, _, advantages, mask = problem()
    loss, stats = policy_loss(log_probs, log_probs.detach(), advantages, mask, form, max_tokens=MAX)
    (grad,) = torch.autograd.grad(loss, log_probs)
    assert stats.ratio == pytest.approx(1.0)
    assert stats.clip_fraction == 0
    for i, length in enumerate(LENGTHS):
        weight = {"dapo": 1 / 8, "cispo": 1 / 8, "dr_grpo": 1 / (MAX * 4)}.get(
            form, 1 / (4 * max(length, 1))
        )
        assert torch.allclose(
            grad[i, :length], -advantages[i] * torch.full((length,), weight, dtype=torch.float64)
        )


@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_a_given_normalizer_makes_micro_batches_add_up(form):
    log_probs, old, _, advantages, mask = problem()
    whole, _ = policy_loss(log_probs, old, advantages, mask, form, max_tokens=MAX)
    count = 8 if form in ("dapo", "cispo") else 4
    parts = [
        policy_loss(
            log_probs[s], old[s], advantages[s], mask[s], form, max_tokens=MAX, normalizer=count
        )[0]
        for s in (slice(0, 1), slice(1, 4))
    ]
    assert torch.allclose(sum(parts), whole)


def test_advantages_are_normalized_within_groups():
    rewards = torch.tensor([1.0, 0.0, 0.0, 2.0, 2.0, 2.0])
    got = group_advantages(rewards, 3)
    mean, std = 1 / 3, math.sqrt(((2 / 3) ** 2 + 2 * (1 / 3) ** 2) / 2)
    assert got[:3].tolist() == pytest.approx([(r - mean) / (std + 1e-6) for r in (1, 0, 0)])
    assert got[3:].tolist() == [0.0, 0.0, 0.0]
    assert informative_groups(rewards, 3).tolist() == [True, False]
    plain = group_advantages(rewards, 3, scale_by_std=False)
    assert plain[:3].tolist() == pytest.approx([2 / 3, -1 / 3, -1 / 3])


def test_whole_number_and_bool_rewards_are_numbers_too():
    want = group_advantages(torch.tensor([1.0, 0.0, 0.0]), 3)
    assert torch.equal(group_advantages(torch.tensor([1, 0, 0]), 3), want)
    assert torch.equal(group_advantages(torch.tensor([True, False, False]), 3), want)


def test_equal_rewards_that_do_not_sum_exactly_still_give_zero():
    """0.1 thrice has a mean that is not 0.1; the difference over eps would be an advantage from
    nothing."""
    assert (group_advantages(torch.full((6,), 0.1), 3, eps=1e-12) == 0).all()


def test_bad_input():
    log_probs, old, ref, advantages, mask = problem()
    for arguments, words in (
        (dict(form="ppo"), "form must be one of"),
        (dict(form="dr_grpo"), "max_tokens must be given"),
        (dict(clip_low=-0.1), r"clip_low must be in \[0, 1\].*got -0.1"),
        (dict(clip_high=-0.1), "clip_high at least 0"),
        (dict(kl_coef=0.1), "kl_coef must be 0, or positive with ref_log_probs"),
        (dict(ref_log_probs=ref[:2]), "ref_log_probs must be of shape"),
        (dict(weights=torch.ones(4)), r"weights must be of shape \(4, 4\) or \(4, 1\); got \(4,\)"),
    ):
        with pytest.raises(ValueError, match=words):
            policy_loss(log_probs, old, advantages, mask, **arguments)
    with pytest.raises(ValueError, match="advantages must be of shape"):
        policy_loss(log_probs, old, advantages[:2], mask)
    with pytest.raises(ValueError, match="group_size"):
        group_advantages(torch.zeros(5), 2)
    with pytest.raises(ValueError, match="response 1 has nan"):
        group_advantages(torch.tensor([0.0, float("nan")]), 2)
