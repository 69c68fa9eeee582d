"""The operation under autocast, under torch.compile, and on a device that is not the current."""

import pytest
import torch
from avar_kernels import (
    attn_received,
    plan_keys,
    visual_attn_func,
    visual_attn_with_kvcache,
)

from .device import BACKEND, DEVICE, GPU_TIER, LENGTHS, ON_GPU

pytestmark = GPU_TIER


def inputs(device, dtype, length=LENGTHS[0]):
    torch.manual_seed(0)
    q = torch.randn(1, length, 4, 64)
    k, v = (torch.randn(1, length, 2, 64) for _ in range(2))
    types = torch.zeros(1, length, dtype=torch.int32)
    types[:, 30 : length // 2] = 1
    return [x.to(device, dtype).requires_grad_() for x in (q, k, v)], types.to(device)


def loss_of(result):
    return result.out.float().square().sum() + result.mass[..., 1].sum() + result.lse.sum()


def step(qkv, types):
    return loss_of(visual_attn_func(*qkv, types, causal=True, backend=BACKEND))


def test_autocast_computes_in_its_dtype():
    qkv, types = inputs(DEVICE, torch.float32)
    with torch.autocast(DEVICE, torch.bfloat16):
        result = visual_attn_func(*qkv, plan_keys(types), causal=True, backend=BACKEND)
    grads = torch.autograd.grad(loss_of(result), qkv)
    assert result.out.dtype == torch.bfloat16
    assert result.mass.dtype == result.lse.dtype == torch.float32
    narrow, _ = inputs(DEVICE, torch.bfloat16)
    want = torch.autograd.grad(step(narrow, types), narrow)
    for got, expected in zip(grads, want, strict=True):
        assert got.dtype == torch.float32
        assert torch.equal(got.bfloat16(), expected)


def test_compiled_without_a_graph_break():
    qkv, types = inputs(DEVICE, torch.bfloat16)
    # "aot_eager" traces forward and backward, and needs no C++ compiler for the rest.
    compiled = torch.compile(step, fullgraph=True, backend="inductor" if ON_GPU else "aot_eager")
    got = torch.autograd.grad(compiled(qkv, types), qkv)
    want = torch.autograd.grad(step(qkv, types), qkv)
    for a, b in zip(got, want, strict=True):
        bound = 4 * torch.finfo(torch.bfloat16).eps * b.abs().max()
        assert (a - b).abs().max() <= bound
        assert b.abs().max() > 0.1


@pytest.mark.skipif(
    not (ON_GPU and torch.cuda.device_count() > 1), reason="needs a second CUDA device"
)
def test_tensors_on_a_device_that_is_not_the_current_one():
    torch.cuda.set_device(0)
    results = []
    for device in ("cuda:0", "cuda:1"):
        qkv, types = inputs(device, torch.bfloat16)
        plan = plan_keys(types)
        result = visual_attn_func(*qkv, plan, causal=True)
        grads = torch.autograd.grad(loss_of(result), qkv)
        q, k, v = (x.detach() for x in qkv)
        decoded = visual_attn_with_kvcache(q[:, -1:], k, v, types)
        columns = attn_received(q, k, result.lse.detach(), torch.ones(q.shape[:2]).to(q), types)
        results.append([*result, *grads, *decoded, columns])
    for first, second in zip(*results, strict=True):
        assert second.device == torch.device("cuda:1")
        assert torch.equal(first.cpu(), second.cpu())
