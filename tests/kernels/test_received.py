"""Column sums against the matrix: eager attention with the identity as values is the matrix."""

import pytest
import torch
from avar_kernels import attn_received, received, visual_attn_func


def make(rows=9, keys=12, heads=4, kv_heads=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    q = torch.randn(2, rows, heads, 8, generator=generator, dtype=torch.float64).to(dtype)
    k = torch.randn(2, keys, kv_heads, 8, generator=generator, dtype=torch.float64).to(dtype)
    types = torch.randint(-1, 3, (2, keys), generator=generator)
    types[0, :4] = -1  # with causal masking some rows see nothing
    weight = torch.randn(2, rows, heads, generator=generator, dtype=torch.float64)
    tables = torch.randn(2, heads, 3, generator=generator, dtype=torch.float64)
    return q, k, types, weight, tables


def matrix(q, k, types, **options):
    """(B, Lq, H, Lk) attention weights, and lse."""
    identity = torch.eye(k.shape[1], dtype=q.dtype)[None, :, None].expand(*k.shape[:3], -1)
    result = visual_attn_func(q, k, identity, types, backend="eager", **options)
    return result.out, result.lse


@pytest.mark.parametrize("chunk", [1, 1 << 22])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [(-1, -1), (3, 1)])
def test_sums_of_the_matrix(monkeypatch, chunk, causal, window):
    monkeypatch.setattr(received, "CHUNK_ELEMENTS", chunk)
    q, k, types, weight, (bias, scale) = make()
    options = dict(type_bias=bias, type_scale=scale, causal=causal, window_size=window)
    attention, lse = matrix(q, k, types, **options)
    want = torch.einsum("bihj,bih->bjh", attention, weight)
    got = attn_received(q, k, lse, weight, types, **options)
    assert got.dtype == torch.float64
    assert torch.allclose(got, want, atol=1e-13)
    shared = attn_received(q, k, lse, weight[..., 0], types, **options)
    want = torch.einsum("bihj,bi->bjh", attention, weight[..., 0])
    assert torch.allclose(shared, want, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32])
def test_types_of_any_integer_dtype(dtype):
    q, k, types, weight, (bias, scale) = make()
    types = types.clamp(min=0)
    lse = visual_attn_func(q, k, k, types, backend="eager").lse
    want = attn_received(q, k, lse, weight, types, type_bias=bias, type_scale=scale)
    got = attn_received(q, k, lse, weight, types.to(dtype), type_bias=bias, type_scale=scale)
    assert torch.equal(got, want)


def test_received_attention_of_unit_weights_adds_up_to_the_rows_that_see():
    q, k, types, weight, _ = make(dtype=torch.float32)
    lse = visual_attn_func(q, k, k, types, causal=True).lse
    total = attn_received(q, k, lse, torch.ones_like(weight), types, causal=True).sum(1)
    assert total.dtype == torch.float32
    assert torch.allclose(total, torch.isfinite(lse).sum(-1).float(), atol=1e-4)


def test_packed_equals_per_sequence():
    q, k, types, weight, _ = make(keys=9)
    cu = torch.tensor([0, 4, 4, 9], dtype=torch.int32)
    lengths = dict(cu_seqlens_q=cu, cu_seqlens_k=cu, max_seqlen_q=5, max_seqlen_k=5)
    lse = torch.cat(
        [visual_attn_func(q[:1, a:b], k[:1, a:b], k[:1, a:b], types[:1, a:b]).lse[0]
         for a, b in ((0, 4), (4, 9))], dim=1,
    )  # fmt: skip
    got = attn_received(q[0], k[0], lse, weight[0], types[0], **lengths)
    parts = [
        attn_received(q[:1, a:b], k[:1, a:b], lse[None, :, a:b], weight[:1, a:b], types[:1, a:b])[0]
        for a, b in ((0, 4), (4, 9))
    ]
    want = torch.cat(parts)
    assert torch.equal(got, want)


def test_compiles_and_has_no_gradient():
    q, k, types, weight, _ = make(dtype=torch.float32)
    lse = visual_attn_func(q, k, k, types).lse

    def sums(q):
        return attn_received(q, k, lse, weight, types)

    assert torch.allclose(torch.compile(sums, fullgraph=True)(q), sums(q))
    with pytest.raises(NotImplementedError, match="no gradient.*visual_attn_func"):
        sums(q.requires_grad_()).sum().backward()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(lse=torch.zeros(2, 9, 4)), ValueError, r"lse must be of shape \(2, 4, 9\)"),
        (dict(query_weight=torch.zeros(2, 8)), ValueError, r"query_weight must be of shape \(2, 9"),
        (dict(query_weight=torch.zeros(2, 9).int()), TypeError, "query_weight must be a floating"),
        (dict(query_weight=[1.0]), TypeError, "query_weight must be a floating.*got list"),
        (dict(key_types=torch.full((2, 12), 3)), ValueError, "key_types must be below num_types"),
        (dict(max_seqlen_q=3), ValueError, "given together; got 1 of 4"),
    ],
)
def test_bad_input(change, error, words):
    q, k, types, weight, _ = make(dtype=torch.float32)
    arguments = dict(q=q, k=k, lse=torch.zeros(2, 4, 9), query_weight=weight, key_types=types)
    with pytest.raises(error, match=words):
        attn_received(**(arguments | change))
