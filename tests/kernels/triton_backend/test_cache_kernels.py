"""Decoding and column sums of the Triton kernels against eager, in Triton's interpreter."""

import pytest

from .children import assert_agrees

PROGRAMS = {
    "decode": """
import torch
from avar_kernels import visual_attn_func, visual_attn_with_kvcache
from avar_kernels.triton_backend.cache_launch import split_keys
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
LENGTHS = torch.tensor([540, 70, 0, 2])
def normal(*shape):
    return torch.randn(shape, generator=generator)
assert split_keys(544, 2, 32, 4) == (4, 160)  # several stretches are merged below
for heads, kv_heads, queries, dim, value_dim, dtype, options in (
    (14, 2, 1, 16, 16, torch.float32, {}),
    (4, 2, 3, 40, 24, torch.float32, dict(window_size=(300, -1))),
    (2, 1, 40, 16, 16, torch.float32, {}),
    (4, 2, 2, 32, 32, torch.float16, dict(causal=False)),
    (2, 2, 3, 16, 16, torch.float32, dict(untyped=True)),
):
    untyped = options.pop("untyped", False)
    q = normal(4, queries, heads, dim).to(dtype)
    k, v = normal(4, 544, kv_heads, dim).to(dtype), normal(4, 544, kv_heads, value_dim).to(dtype)
    for b, n in enumerate(LENGTHS):
        k[b, n:] = v[b, n:] = float("nan")
    types = torch.randint(-1, 5, (4, 544), generator=generator)
    k[types < 0] = v[types < 0] = float("nan")
    table = torch.randperm(68, generator=generator).reshape(4, 17).int()
    pages = [torch.empty(68, 32, *x.shape[2:], dtype=dtype) for x in (k, v)]
    for page, x in zip(pages, (k, v)):
        page[table.flatten().long()] = x.reshape(68, 32, *x.shape[2:])
    if untyped:
        k, v = (torch.nan_to_num(x) for x in (k, v))
        options |= dict(num_types=3)
        types = None
        pages = [torch.nan_to_num(x) for x in pages]
    else:
        options |= dict(num_types=5, type_bias=normal(heads, 5), type_scale=normal(heads, 5))
    want = visual_attn_with_kvcache(q, k, v, types, LENGTHS, backend="eager", **options)
    caches_and_tables = [(pages, dict(block_table=table))]
    if untyped or heads == 14:
        caches_and_tables.append(((k, v), {}))
    for caches, extra in caches_and_tables:
        got = visual_attn_with_kvcache(
            q, *caches, types, LENGTHS, backend="triton", **extra, **options)
        for name, a, b in zip(("out", "mass", "lse"), got, want):
            assert a.dtype == b.dtype and a.shape == b.shape, name
            assert torch.equal(a.isinf(), b.isinf()), name
            error = torch.where(b.isinf(), 0.0, a.float() - b.float()).abs().max()
            # P is rounded to float16 for its products: 2^-11 of values of order 1.
            bound = 2e-5 if dtype == torch.float32 else 4e-3
            assert error < bound, (name, error, heads, dtype)
again = visual_attn_with_kvcache(q, *caches, types, LENGTHS, backend="triton", **extra, **options)
assert all(torch.equal(a, b) for a, b in zip(got, again))
q, k, v = normal(2, 4, 4, 16), normal(2, 1100, 2, 16), normal(2, 1100, 2, 16)
types = torch.randint(-1, 3, (2, 1100), generator=generator)
q.requires_grad_()
got, want = (
    visual_attn_func(q, k, v, types, causal=True, backend=name) for name in ("triton", "eager")
)
for a, b in zip(got, want):  # few queries on many keys take the decode kernel too
    assert torch.allclose(a, b, atol=2e-5)
got, want = (
    torch.autograd.grad(x.out.sum() + x.mass[..., 1].sum(), q)[0] for x in (got, want)
)
assert torch.allclose(got, want, atol=2e-5)
empty = visual_attn_with_kvcache(q.detach()[:, :0], k, v, backend="triton")
assert empty.out.shape == (2, 0, 4, 16)
print("agree")
""",
    "prefixes": """
import sys
sys.path.insert(0, "../../..")
import torch
from avar_kernels import visual_attn_with_kvcache
from tests.kernels.cache_prefix_calls import LENGTHS, check, expected, make
torch.set_num_threads(1)
for queries, causal in ((1, True), (3, True), (3, False)):
    tensors, shared, options = make(torch.float32, queries)
    want = expected(tensors, shared, options, causal)
    got = visual_attn_with_kvcache(
        *tensors, torch.tensor(LENGTHS), causal, **shared, **options, backend="triton")
    check(got, want, 2e-5)

# Long prefixes, several stretches and row blocks, pages for the own keys, no types there.
generator = torch.Generator().manual_seed(0)
def normal(*shape):
    return torch.randn(shape, generator=generator)
index = torch.tensor([1, 0, 0, -1, 0, 1, 0, 0, 0], dtype=torch.int32)
batch = len(index)
table = torch.randperm(3 * batch, generator=generator).reshape(batch, 3).int()
lengths = torch.randint(0, 96, (batch,), generator=generator)
types = torch.randint(-1, 3, (2, 600), generator=generator)
types[:, 40:300], types[1, 400:] = 1, -1
for prefix_types, dtype in ((types, torch.float32), (None, torch.float16)):
    q = normal(batch, 2, 14, 40).to(dtype)
    k, v = normal(2, 600, 2, 40).to(dtype), normal(2, 600, 2, 24).to(dtype)
    pages = [normal(3 * batch, 32, 2, x.shape[-1]).to(dtype) for x in (k, v)]
    if prefix_types is not None:
        k[types < 0] = v[types < 0] = float("nan")
    shared = dict(prefix_k=k, prefix_v=v, prefix_key_types=prefix_types, prefix_index=index)
    calls = dict(block_table=table, cache_seqlens=lengths, type_bias=normal(14, 3), **shared)
    got = visual_attn_with_kvcache(q, *pages, backend="triton", **calls)
    want = visual_attn_with_kvcache(q, *pages, backend="eager", **calls)
    check(got, want, 2e-5 if dtype == torch.float32 else 4e-3)
    again = visual_attn_with_kvcache(q, *pages, backend="triton", **calls)
    assert all(torch.equal(a, b) for a, b in zip(got, again))
none = visual_attn_with_kvcache(
    q[:0], *pages, block_table=table[:0], backend="triton",
    **shared | dict(prefix_index=index[:0]))
assert none.out.shape == (0, 2, 14, 24)
print("agree")
""",
    "received": """
import torch
from avar_kernels import attn_received, visual_attn_func, visual_attn_varlen_func
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
def normal(*shape):
    return torch.randn(shape, generator=generator)
for rows, keys, heads, kv_heads, dim, dtype, options in (
    (70, 70, 4, 2, 16, torch.float32, dict(causal=True)),
    (33, 97, 2, 1, 40, torch.float32, dict(window_size=(30, 5))),
    (97, 40, 2, 2, 32, torch.float16, dict(causal=True)),
    (5, 0, 2, 1, 16, torch.float32, {}),
):
    q = normal(2, rows, heads, dim).to(dtype)
    k = normal(2, keys, kv_heads, dim).to(dtype)
    types = torch.randint(-1, 3, (2, keys), generator=generator)
    types[0, :20] = -1
    k[types < 0] = float("nan")
    options |= dict(type_bias=normal(heads, 3), type_scale=normal(heads, 3))
    weight = normal(2, rows, heads)
    lse = visual_attn_func(q, k, k, types, backend="eager", **options).lse
    want, got = (
        attn_received(q, k, lse, weight, types, backend=name, **options)
        for name in ("eager", "triton")
    )
    assert torch.allclose(got, want, atol=2e-5), (got - want).abs().max()
    shared = attn_received(q, k, lse, weight[..., 0], types, backend="triton", **options)
    want = attn_received(q, k, lse, weight[..., 0], types, backend="eager", **options)
    assert torch.allclose(shared, want, atol=2e-5)
q, k = normal(60, 2, 16), normal(80, 1, 16)
cu_q = torch.tensor([0, 30, 30, 55], dtype=torch.int32)
cu_k = torch.tensor([0, 40, 45, 75], dtype=torch.int32)
lse = visual_attn_varlen_func(q, k, k, cu_q, cu_k, 30, 40, backend="eager", causal=True).lse
want, got = (
    attn_received(q, k, lse, normal(60, 2) * 0 + 1, cu_seqlens_q=cu_q, cu_seqlens_k=cu_k,
                  max_seqlen_q=30, max_seqlen_k=40, causal=True, backend=name)
    for name in ("eager", "triton")
)
assert torch.allclose(got, want, atol=2e-5) and (got[75:] == 0).all()
print("agree")
""",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_eager(name):
    assert_agrees(PROGRAMS[name])
