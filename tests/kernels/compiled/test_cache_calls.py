"""Decoding, column sums and plans of keys, compiled, on emulated chips, against eager."""

import pytest

from .chip_processes import assert_agrees
from .selection import CHIPS

DTYPES = ("bfloat16", "float16", "float32")
PROGRAMS = {
    # Weights and out are rounded to the dtype: four relative roundings of the sum of absolute
    # terms, which for mass is mass itself. Logits and sums are float32.
    "decode": """
import torch
from avar_kernels import visual_attn_with_kvcache
q = normal(2, 3, 14, 128)
k, v = normal(2, 1100, 2, 128), normal(2, 1100, 2, 128)
lengths = torch.tensor([1100, 360], dtype=torch.int32)
table = torch.randperm(40)[:36].reshape(2, 18).int()
pages = [normal(40, 64, 2, 128) for _ in range(2)]
bias = torch.randn(14, 3)
for caches, keys, options in (
    ((k, v), 1100, {}),
    ((k, v), 1100, dict(type_bias=bias, window_size=(500, -1))),
    (pages, 18 * 64, dict(type_bias=bias, block_table=table)),
):
    for types in (torch.randint(-1, 3, (2, keys), dtype=torch.int32), None):
        if types is None and options:
            options.pop("type_bias", None)
        call = lambda *x, **more: visual_attn_with_kvcache(
            *x, types, lengths, num_types=3, **options, **more)
        got = call(q, *caches, backend="triton")
        wide = [x.double() for x in (q, *caches)]
        want = call(*wide, backend="eager")
        sizes = call(*wide[:2], wide[2].abs(), backend="eager")
        assert torch.allclose(got.lse.double(), want.lse, rtol=1e-6, atol=1e-5)
        for a, b, size in zip(got[:2], want[:2], sizes[:2], strict=True):
            assert ((a.double() - b).abs() <= 4 * ROUNDOFF * size + 1e-6).all()
print("agree")
""",
    "received": """
import torch
from avar_kernels import attn_received, visual_attn_func
for rows, keys, heads, kv_heads, dim, options in (
    (3, 1100, 14, 2, 128, dict(causal=True)),
    (133, 200, 4, 2, 40, dict(window_size=(90, 5), type_bias=torch.randn(4, 3))),
):
    q, k = normal(2, rows, heads, dim), normal(2, keys, kv_heads, dim)
    types = torch.randint(-1, 3, (2, keys), dtype=torch.int32)
    k[types < 0] = float("nan")
    wide = [x.double() for x in (q, k)]
    lse = visual_attn_func(*wide, wide[1], types, backend="eager", **options).lse
    for weight in (torch.rand(2, rows), torch.rand(2, rows, heads)):
        got = attn_received(q, k, lse.float(), weight, types, backend="triton", **options)
        want = attn_received(*wide, lse, weight, types, backend="eager", **options)
        assert torch.allclose(got.double(), want, rtol=1e-4, atol=1e-6), (got - want).abs().max()
print("agree")
""",
    # With a plan of the keys the results are bit by bit those without.
    "plan": """
import torch
from avar_kernels import plan_keys, visual_attn_func, visual_attn_varlen_func
types = torch.arange(300).reshape(1, 300) // 90 % 3
types[:, :20] = -1
q, k, v = normal(1, 300, 2, 64), normal(1, 300, 1, 64), normal(1, 300, 1, 64)
q.requires_grad_()
def run(keys):
    result = visual_attn_func(q, k, v, keys, causal=True, backend="triton")
    lse = torch.where(torch.isfinite(result.lse), result.lse, 0.0)
    loss = result.out.square().sum() + result.mass[..., 1].sum() + lse.sum()
    return *result, *torch.autograd.grad(loss, q)
plan = plan_keys(types)
assert plan.blocks is not None
for a, b in zip(run(types), run(plan), strict=True):
    assert torch.equal(a, b)
cu = torch.tensor([0, 130, 130, 300], dtype=torch.int32)
def run_packed(keys):
    return visual_attn_varlen_func(
        q[0], k[0], v[0], cu, cu, 170, 170, keys, causal=True, backend="triton")
plan = plan_keys(types[0], cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=170, max_seqlen_k=170)
for a, b in zip(run_packed(types[0]), run_packed(plan), strict=True):
    assert torch.equal(a, b)
print("agree")
""",
}
# Of the runs of ``make test``.
SUBSET = (("decode", "sm_80", "bfloat16"), ("received", "sm_90", "float16"),
          ("plan", "sm_90", "bfloat16"))  # fmt: skip
CALLS = [
    pytest.param(
        program, chip, dtype,
        marks=[] if (program, chip, dtype) in SUBSET else [pytest.mark.compiled],
    )
    for program in PROGRAMS
    for chip in CHIPS
    for dtype in DTYPES
]  # fmt: skip


@pytest.mark.parametrize(("program", "chip", "dtype"), CALLS)
def test_agrees_with_eager(program, chip, dtype):
    roundoff = {"bfloat16": 2**-8, "float16": 2**-11, "float32": 2**-22}[dtype]
    setting = f"""
import torch
from tests.kernels.compiled.chip import emulate
emulate({chip!r})
torch.set_num_threads(1)
torch.manual_seed(0)
ROUNDOFF = {roundoff}
def normal(*shape):
    return torch.randn(shape).to(torch.{dtype})
"""
    assert_agrees(setting + PROGRAMS[program])
