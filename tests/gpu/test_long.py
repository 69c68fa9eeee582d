"""The kernels on long inputs, against float64 on the same device.

Types come in long runs, as in prompts with images, so that the loops over plain blocks run for many
steps with loads in flight; short inputs hardly enter them.
"""

from itertools import pairwise

import pytest
import torch
from avar_kernels import plan_keys, visual_attn_func, visual_attn_varlen_func

from ..kernels.attention_oracle import finite_loss
from .device import BACKEND, DEVICE, GPU_TIER, LENGTHS

pytestmark = GPU_TIER
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 128
GRADIENTS = ("dq", "dk", "dv", "dtype_bias", "dtype_scale")


def types_in_runs(length):
    """(1, length): a system turn, text, an image over half of the keys, text, some padding."""
    types = torch.zeros(1, length, dtype=torch.int32)
    types[:, : length // 16] = 2
    types[:, length // 8 : length // 8 + length // 2] = 1
    types[:, -length // 50 :] = -1
    return types


def tensors(length, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(1, length, HEADS, HEAD_DIM, generator=generator)
    k, v = (torch.randn(1, length, KV_HEADS, HEAD_DIM, generator=generator) for _ in range(2))
    bias = torch.randn(HEADS, 3, generator=generator)
    scale = torch.rand(HEADS, 3, generator=generator) + 0.5
    return [x.to(DEVICE, dtype) for x in (q, k, v)], [x.to(DEVICE) for x in (bias, scale)]


def assert_agree(got, want, dtype, names):
    """Within four roundings to ``dtype`` of the largest entry; see ``test_kernels``. mass and lse
    are float32, but for weights of general blocks, which are rounded to float16 for the mass."""
    for name, a, b in zip(names, got, want, strict=True):
        assert torch.equal(a.isneginf(), b.isneginf()), name
        a, b = (torch.nan_to_num(x.double(), nan=torch.nan, neginf=0.0) for x in (a, b))
        kind = torch.float16 if name in ("mass", "lse") else dtype
        bound = 4 * torch.finfo(kind).eps * max(1.0, b.abs().max().item())
        assert (a - b).abs().max().item() <= bound, name


def outputs_and_gradients(qkv, tables, types, backend, **options):
    leaves = [x.detach().clone().requires_grad_() for x in (*qkv, *tables)]
    if tables:
        options |= {"type_bias": leaves[3], "type_scale": leaves[4]}
    outputs = visual_attn_func(*leaves[:3], types, causal=True, backend=backend, **options)
    finite_loss(tuple(x.cpu() for x in outputs), seed=1).backward()
    return [x.detach() for x in outputs] + [leaf.grad for leaf in leaves]


@pytest.mark.parametrize("with_tables", [False, True], ids=["types", "tables"])
@pytest.mark.parametrize("arrangement", ["runs", "shuffled", "untyped"])
@pytest.mark.parametrize("length", LENGTHS)
def test_forward_and_backward(length, arrangement, with_tables):
    if arrangement == "untyped" and with_tables:
        pytest.skip("tables need types")
    qkv, tables = tensors(length)
    tables = tables if with_tables else []
    types = types_in_runs(length).to(DEVICE)
    if arrangement == "shuffled":
        types = types[:, torch.randperm(length, generator=torch.Generator().manual_seed(0))]
    if arrangement == "untyped":
        types = None
    planned = types if types is None else plan_keys(types)
    got = outputs_and_gradients(qkv, tables, planned, BACKEND)
    double = [x.double() for x in qkv], [x.double() for x in tables]
    want = outputs_and_gradients(*double, types, "eager")
    names = ("out", "mass", "lse", *GRADIENTS[: len(qkv) + len(tables)])
    assert_agree(got, want, torch.bfloat16, names)


@pytest.mark.parametrize("length", LENGTHS)
def test_packed_rows(length):
    """Ragged sequences, an empty one, and rows behind the last: each equals its dense call, up to a
    rounding, since packed and dense kernels are compiled separately."""
    (q, k, v), _ = tensors(length)
    types = types_in_runs(length)[0].to(DEVICE)
    bounds = [0, length // 3, length // 3, length // 3 + 77, length - 5]
    offsets = torch.tensor(bounds, dtype=torch.int32, device=DEVICE)
    leaves = [x[0].clone().requires_grad_() for x in (q, k, v)]
    longest = max(b - a for a, b in pairwise(bounds))
    lengths = (offsets, offsets, longest, longest)
    plan = plan_keys(types, **dict(zip(PACKED_NAMES, lengths, strict=True)))
    packed = visual_attn_varlen_func(*leaves, *lengths, plan, causal=True, backend=BACKEND)
    (packed.out.float().sum() + packed.mass[..., 1].sum()).backward()
    for a, b in pairwise(bounds):
        if a == b:
            continue
        alone = [x[:, a:b].clone().requires_grad_() for x in (q, k, v)]
        dense = visual_attn_func(*alone, types[None, a:b], causal=True, backend=BACKEND)
        (dense.out.float().sum() + dense.mass[..., 1].sum()).backward()
        pairs = [(packed.out[a:b], dense.out[0]), (packed.mass[a:b], dense.mass[0])]
        pairs += [(x.grad[a:b], one.grad[0]) for x, one in zip(leaves, alone, strict=True)]
        for got, want in pairs:
            bound = torch.finfo(torch.bfloat16).eps * want.abs().max()
            assert (got - want).abs().max() <= bound
    assert not packed.out[bounds[-1] :].any()


PACKED_NAMES = ("cu_seqlens_q", "cu_seqlens_k", "max_seqlen_q", "max_seqlen_k")
