"""The specification's gradients by finite differences; a million keys; strides beyond 32 bits;
activation checkpointing."""

import sys

import pytest
import torch
from avar_kernels import available_backends, visual_attn_func, visual_attn_with_kvcache
from torch.utils.checkpoint import checkpoint

FUSED = [name for name in ("sdpa", "cpu") if available_backends()[name]]


def test_the_specification_has_the_gradients_of_its_values():
    """First and second derivatives of out, mass and lse against finite differences."""
    generator = torch.Generator().manual_seed(0)

    def leaf(*shape):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        return x.requires_grad_()

    leaves = (leaf(1, 3, 4, 3), leaf(1, 4, 2, 3), leaf(1, 4, 2, 2), leaf(4, 3), leaf(4, 3))
    types = torch.tensor([[2, 1, -1, 0]])

    def outputs(q, k, v, bias, scale):
        options = dict(type_bias=bias, type_scale=scale, causal=True, backend="eager")
        result = visual_attn_func(q, k, v, types, **options)
        return tuple(torch.where(torch.isfinite(x), x, 0.0) for x in result)

    assert torch.autograd.gradcheck(outputs, leaves)
    assert torch.autograd.gradgradcheck(outputs, leaves)


@pytest.mark.parametrize("backend", FUSED)
def test_decoding_on_a_million_keys(backend):
    """Sums of 2^20 weights: float32 rounds each block's sum once and merges a few thousand of
    them, so the masses stay within 1e-5 of float64."""
    keys = 1 << 20
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 1, 2, 8, generator=generator)
    k, v = (torch.randn(1, keys, 1, 8, generator=generator) for _ in range(2))
    types = torch.zeros(1, keys, dtype=torch.int32)
    types[:, 100:700_001], types[:, :16] = 1, 2
    got = visual_attn_with_kvcache(q, k, v, types, keys - 5, backend=backend)
    logits = torch.einsum("bqhd,bkgd->bhqk", q.double(), k[:, : keys - 5].double()) * 8**-0.5
    weights = torch.softmax(logits, dim=-1)
    kinds = torch.nn.functional.one_hot(types[0, : keys - 5].long(), 3).double()
    assert (got.mass - (weights @ kinds).transpose(1, 2)).abs().max() < 1e-5
    want = (weights @ v[:, None, : keys - 5, 0].double()).transpose(1, 2)
    assert (got.out - want).abs().max() < 1e-5
    assert (got.lse - torch.logsumexp(logits, -1)).abs().max() < 1e-4


@pytest.mark.skipif(sys.platform != "linux", reason="relies on memory that is mapped when touched")
@pytest.mark.parametrize("backend", ["eager", *FUSED])
def test_strides_beyond_two_to_the_31_elements(backend):
    """Tokens 2^30 elements apart: the third lies where a 32-bit offset has wrapped."""
    step, tokens, width = 1 << 30, 3, 8
    storage = torch.empty(tokens * step, dtype=torch.bfloat16)  # only what is written takes memory
    far = storage.as_strided((1, tokens, 1, width), (tokens * step, step, width, 1))
    near = torch.randn(1, tokens, 1, width, generator=torch.Generator().manual_seed(0))
    far.copy_(near)
    types = torch.tensor([[0, 1, 2]])
    got = visual_attn_func(far, far, far, types, causal=True, backend=backend)
    near = near.to(torch.bfloat16)
    want = visual_attn_func(near, near, near, types, causal=True, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_activation_checkpointing_gives_the_same_gradients():
    q, k, v = (torch.randn(1, 21, h, 8, requires_grad=True) for h in (4, 2, 2))
    types = torch.arange(21)[None] % 3

    def loss(q, k, v):
        out, mass, lse = visual_attn_func(q, k, v, types, causal=True)
        return out.square().sum() + mass[..., 1].log1p().sum() + lse.sum()

    plain = torch.autograd.grad(loss(q, k, v), (q, k, v))
    replayed = torch.autograd.grad(checkpoint(loss, q, k, v, use_reentrant=False), (q, k, v))
    assert all(torch.equal(a, b) for a, b in zip(plain, replayed, strict=True))
