"""The losses against TRL's own ``GRPOTrainer._compute_loss`` on the same tensors, where TRL is
installed; tests/objectives/test_grpo.py holds the oracle that needs nothing."""

from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from avar_fast.objectives import POLICY_LOSSES, group_advantages, importance_weights, policy_loss

trainer = pytest.importorskip("trl.trainer.grpo_trainer")
LENGTHS, LOW, HIGH, MAX, NUM_ITEMS = [5, 1, 3, 4], 0.2, 0.28, 9, 13


def problem():
    generator = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(4, 5, generator=generator, dtype=torch.float64)
    old, ref, sampled = (
        log_probs + scale * torch.randn(4, 5, generator=generator, dtype=torch.float64)
        for scale in (0.9, 0.3, 0.5)
    )
    mask = torch.arange(5)[None] < torch.tensor(LENGTHS)[:, None]
    advantages = torch.tensor([1.2, -0.7, 0.4, -1.0], dtype=torch.float64)
    return log_probs.requires_grad_(), old, ref, sampled, advantages, mask


def trl_loss(form, log_probs, old, ref, advantages, mask, beta, weights):
    """TRL's method on an object that has what it reads."""
    accelerator = SimpleNamespace(
        num_processes=1, gather=lambda x: x, reduce=lambda x, reduction: x
    )
    entropies = torch.zeros_like(log_probs)
    self = SimpleNamespace(
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_probs, entropies, None),
        aux_loss_enabled=False, top_entropy_quantile=1.0, off_policy_mask_threshold=None,
        importance_sampling_level="sequence" if form == "gspo" else "token",
        loss_type="grpo" if form == "gspo" else form,
        beta=beta, epsilon_low=LOW, epsilon_high=1 + HIGH if form == "cispo" else HIGH,
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        use_vllm=weights is not None, vllm_importance_sampling_correction=True,
        max_completion_length=MAX, current_gradient_accumulation_steps=1, num_items=NUM_ITEMS,
        model=SimpleNamespace(training=True), accelerator=accelerator,
        _entropy_bonus_enabled=False, _metrics=defaultdict(lambda: defaultdict(list)),
    )  # fmt: skip
    ids = torch.ones(4, 5, dtype=torch.int64)
    inputs = {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids,
        "completion_mask": mask.long(), "advantages": advantages, "old_per_token_logps": old,
        "ref_per_token_logps": ref, "num_items_in_batch": torch.tensor(float(NUM_ITEMS)),
        "importance_sampling_ratio": weights,
    }  # fmt: skip
    return trainer.GRPOTrainer._compute_loss(self, None, inputs)


@pytest.mark.parametrize("corrected", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("form", POLICY_LOSSES)
def test_value_and_gradient_are_trls(form, beta, corrected):
    log_probs, old, ref, sampled, advantages, mask = problem()
    weights = None
    if corrected:
        weights, _ = importance_weights(old, sampled, mask, "token", "truncate", cap=2.0)
    want = trl_loss(form, log_probs, old, ref, advantages, mask, beta, weights)
    (want_grad,) = torch.autograd.grad(want, log_probs)
    got, _ = policy_loss(
        log_probs, old, advantages, mask, form,
        1.0 if form == "cispo" else LOW,  # TRL's has no lower bound
        HIGH, ref_log_probs=ref, kl_coef=beta, max_tokens=MAX, weights=weights,
        normalizer=NUM_ITEMS if form in ("dapo", "cispo") else None,
    )  # fmt: skip
    (got_grad,) = torch.autograd.grad(got, log_probs)
    assert torch.allclose(got, want, rtol=1e-12)
    assert torch.allclose(got_grad, want_grad, rtol=1e-10, atol=1e-15)


def test_advantages_are_trls_but_for_eps():
    rewards = torch.tensor([1.0, 0.0, 0.5, 0.0, 2.0, 2.0, 2.0, 2.0], dtype=torch.float64)
    groups = rewards.view(-1, 4)
    std = trainer.nanstd(groups, dim=1)[:, None]
    want = (groups - groups.mean(1, keepdim=True)) / (std + 1e-4)
    assert torch.allclose(group_advantages(rewards, 4, eps=1e-4), want.flatten())
