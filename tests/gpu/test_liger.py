"""Liger's fused loss on a device against the LM head in slices."""

import pytest
import torch

from avar_fast.objectives import liger_nll, linear_log_probs

from .device import DEVICE, GPU_TIER, needs_gpu

pytestmark = [*GPU_TIER, needs_gpu]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_liger_equals_the_slices(dtype):
    """Both against float64; Liger's error may be twice that of the slices. Logits are float32 in
    any dtype: a rounding of one is a relative error of its probability by its size."""
    pytest.importorskip("liger_kernel")
    generator = torch.Generator().manual_seed(3)
    hidden = (1.5 + torch.randn(13, 24, generator=generator)).to(dtype)
    weight = torch.randn(301, 24, generator=generator).to(dtype)
    tokens = torch.randint(0, 301, (13,), generator=generator)
    logits = hidden.double() @ weight.double().T
    log_probs = torch.log_softmax(logits, -1)
    want = -log_probs.gather(1, tokens[:, None]).sum()
    hidden, weight = (x.to(DEVICE).requires_grad_() for x in (hidden, weight))
    losses = (
        -linear_log_probs(hidden, weight, tokens.to(DEVICE), budget_bytes=10**5)[0].sum(),
        liger_nll(hidden, weight, tokens.to(DEVICE)),
    )
    rounding = torch.finfo(dtype).eps * want.abs()
    errors = [(loss.cpu().double() - want).abs() for loss in losses]
    assert errors[1] <= 2 * errors[0] + rounding
    ours, ligers = (torch.autograd.grad(3.0 * loss, (hidden, weight)) for loss in losses)
    for a, b in zip(ours, ligers, strict=True):
        of_logits = torch.finfo(torch.float32).eps * logits.abs().max().item()
        relative = 4 * torch.finfo(dtype).eps + of_logits
        assert (a - b).abs().max() <= relative * a.abs().max()
