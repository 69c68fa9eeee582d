"""Decoding against a cache, contiguous and paged, against the float64 oracle of each sequence."""

import pytest
import torch
from avar_kernels import visual_attn_with_kvcache

from .attention_oracle import attention_oracle

LENGTHS = [13, 5, 0, 2]  # the last two hold fewer keys than there are queries
CAPACITY, PAGE = 16, 4


def make(dtype=torch.float64, queries=3, num_types=4):
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    q = normal(4, queries, 4, 8)
    k, v = normal(4, CAPACITY, 2, 8), normal(4, CAPACITY, 2, 12)
    types = torch.randint(-1, num_types, (4, CAPACITY), generator=generator)
    table = torch.float64 if dtype == torch.float64 else torch.float32
    bias, scale = normal(4, num_types).to(table), normal(4, num_types).to(table)
    for b, length in enumerate(LENGTHS):  # what lies behind the end must not matter
        k[b, length:] = v[b, length:] = float("nan")
        types[b, length:] = 99
    return q, k, v, types, bias, scale


def expected(q, k, v, types, bias, scale, causal, window=(-1, -1)):
    parts = [
        attention_oracle(
            q[b : b + 1].double(), k[b : b + 1, :n].double(), v[b : b + 1, :n].double(),
            types[b : b + 1, :n], 4, bias.double(), scale.double(), causal=causal,
            window_size=window,
        )
        for b, n in enumerate(LENGTHS)
    ]  # fmt: skip
    return [torch.cat(tensors) for tensors in zip(*parts, strict=True)]


def paged(cache, table):
    """The same keys scattered over pages; pages nobody uses hold NaN."""
    pages = torch.full((int(table.max()) + 3, PAGE, *cache.shape[2:]), float("nan")).to(cache.dtype)
    for b in range(cache.shape[0]):
        for i, page in enumerate(table[b]):
            if page >= 0:
                pages[page] = cache[b, i * PAGE : (i + 1) * PAGE]
    return pages


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("queries", "causal", "window"),
    [(1, True, (-1, -1)), (3, True, (-1, -1)), (3, False, (-1, -1)), (2, True, (4, -1))],
)
@pytest.mark.parametrize("pages", [False, True])
def test_matches_the_oracle_of_each_sequence(backend, queries, causal, window, pages):
    q, k, v, types, bias, scale = make(queries=queries)
    want = expected(q, k, v, types, bias, scale, causal, window)
    table = None
    if pages:
        table = torch.tensor([[9, 2, 5, 0], [1, 7, -1, 88], [-1, -1, -1, -1], [4, 6, 6, 6]])
        used = torch.tensor([[9, 2, 5, 0], [1, 7, -1, -1], [-1, -1, -1, -1], [4, -1, -1, -1]])
        k, v = paged(k, used), paged(v, used)
    got = visual_attn_with_kvcache(
        q, k, v, types, torch.tensor(LENGTHS), causal, block_table=table, num_types=4,
        type_bias=bias, type_scale=scale, window_size=window, backend=backend,
    )  # fmt: skip
    for name, a, b in zip(("out", "mass", "lse"), got, want, strict=True):
        assert a.shape == b.shape
        assert torch.equal(a.isinf(), b.isinf()), name
        error = torch.where(b.isinf(), 0.0, a - b).abs().max()
        assert error < 1e-12, (name, error)


def test_one_length_for_all_and_a_full_cache():
    q, k, v, types, *_ = make(torch.float32)
    k, v, types = (x[:1, :5].repeat(4, *[1] * (x.dim() - 1)) for x in (k, v, types))
    full = visual_attn_with_kvcache(q, k, v, types, num_types=4)
    for lengths in (5, torch.full((4,), 5, dtype=torch.int32)):
        got = visual_attn_with_kvcache(q, k, v, types, lengths, num_types=4)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(got, full, strict=True))


def test_compiles_and_has_no_gradient():
    q, k, v, types, *_ = make(torch.float32)
    lengths = torch.tensor(LENGTHS)

    def decode(q):
        return visual_attn_with_kvcache(q, k, v, types, lengths, num_types=4).out

    assert torch.allclose(torch.compile(decode, fullgraph=True)(q), decode(q))
    with pytest.raises(NotImplementedError, match="inference.*use visual_attn_func"):
        decode(q.requires_grad_()).sum().backward()


TABLE = torch.zeros(4, 4, dtype=torch.int32)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(cache_seqlens=17), ValueError, r"cache_seqlens must be in 0..16.*17"),
        (dict(cache_seqlens=torch.tensor([1, 2, -1, 4])), ValueError, "cache_seqlens must be in"),
        (
            dict(cache_seqlens=torch.ones(3).int()),
            ValueError,
            r"cache_seqlens must be of shape \(4",
        ),
        (dict(cache_seqlens=torch.ones(4)), TypeError, "cache_seqlens must be an integer"),
        (
            dict(key_types=torch.zeros(4, 9).int()),
            ValueError,
            r"key_types must be of shape \(4, 16",
        ),
        (dict(key_types=torch.full((4, 16), 3)), ValueError, "key_types must be below num_types"),
        (dict(block_table=TABLE + 4), ValueError, r"block_table must be page numbers in 0..3"),
        (dict(block_table=TABLE - 1), ValueError, "block_table must be page numbers"),
        (dict(block_table=TABLE[:3]), ValueError, r"block_table must be of shape \(4, any\)"),
        (dict(block_table=TABLE.float()), TypeError, "block_table must be an integer"),
        (dict(causal=1), TypeError, "causal must be a bool"),
        (dict(q=torch.zeros(3, 1, 4, 8)), ValueError, "batch size 3, as q; got 4"),
    ],
)
def test_bad_input(change, error, words):
    arguments = dict(q=torch.zeros(4, 1, 4, 8), k_cache=torch.zeros(4, 16, 2, 8))
    arguments["v_cache"] = arguments["k_cache"]
    with pytest.raises(error, match=words):
        visual_attn_with_kvcache(**(arguments | change))
