"""Decoding whose sequences share the keys of prefixes, against the oracle of each sequence."""

import pytest
import torch
from avar_kernels import (
    available_backends,
    plan_keys,
    plan_prefixes,
    visual_attn_func,
    visual_attn_with_kvcache,
)

from .attention_oracle import attention_oracle

BACKENDS = [name for name in ("eager", "sdpa", "cpu") if available_backends()[name]]
PREFIX_OF = [2, 0, -1, 2, 0, 2, -1]  # unsorted; prefix 1 has no sequence
PREFIX_LENGTHS = [5, 9, 0]
LENGTHS = [4, 1, 6, 3, 7, 0, 0]


def make(dtype, queries=1, heads=14, kv_heads=2, dim=17):
    """Random tensors with NaN wherever no key exists."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    rows, prefixes, capacity = len(PREFIX_OF), len(PREFIX_LENGTHS), 8
    q = normal(rows, queries, heads, dim)
    k, v = normal(rows, capacity, kv_heads, dim), normal(rows, capacity, kv_heads, 9)
    prefix_k, prefix_v = normal(prefixes, 9, kv_heads, dim), normal(prefixes, 9, kv_heads, 9)
    types = torch.randint(-1, 4, (rows, capacity), generator=generator).int()
    prefix_types = torch.randint(0, 4, (prefixes, 9), generator=generator).int()
    for p, length in enumerate(PREFIX_LENGTHS):  # padded on the left, as prompts are
        prefix_types[p, : 9 - length] = -1
    prefix_types[0, 6] = -1
    for x in (k, v):
        x[types < 0] = float("nan")
        for b, length in enumerate(LENGTHS):
            x[b, length:] = float("nan")
    for x in (prefix_k, prefix_v):
        x[prefix_types < 0] = float("nan")
    bias, scale = normal(heads, 4), normal(heads, 4)
    table = torch.float64 if dtype == torch.float64 else torch.float32
    options = dict(num_types=4, type_bias=bias.to(table), type_scale=scale.to(table))
    shared = dict(
        prefix_k=prefix_k, prefix_v=prefix_v, prefix_key_types=prefix_types,
        prefix_index=torch.tensor(PREFIX_OF, dtype=torch.int32),
    )  # fmt: skip
    return (q, k, v, types), shared, options


def expected(tensors, shared, options, causal):
    """Each query with a list of exactly its keys."""
    q, k, v, types = (x.double() if x.is_floating_point() else x for x in tensors)
    parts = []
    for b, (prefix, length) in enumerate(zip(PREFIX_OF, LENGTHS, strict=True)):
        rows = []
        for i in range(q.shape[1]):
            seen = max(length - q.shape[1] + i + 1, 0) if causal else length
            keys, values, kinds = [k[b, :seen]], [v[b, :seen]], [types[b, :seen]]
            if prefix >= 0:
                keys.insert(0, shared["prefix_k"][prefix].double())
                values.insert(0, shared["prefix_v"][prefix].double())
                kinds.insert(0, shared["prefix_key_types"][prefix])
            whole = (torch.cat(x)[None] for x in (keys, values, kinds))
            bias, scale = options["type_bias"].double(), options["type_scale"].double()
            rows.append(attention_oracle(q[b : b + 1, i : i + 1], *whole, 4, bias, scale))
        out, mass, lse = zip(*rows, strict=True)
        parts.append([torch.cat(out, 1), torch.cat(mass, 1), torch.cat(lse, 2)])
    return [torch.cat(x) for x in zip(*parts, strict=True)]


def check(got, want, tolerance):
    for name, a, b in zip(("out", "mass", "lse"), got, want, strict=True):
        assert a.shape == b.shape, name
        assert torch.equal(a.isinf(), b.isinf()), name
        assert not a.isnan().any(), name
        error = torch.where(b.isinf(), 0.0, a.double() - b).abs().max()
        assert error < tolerance, (name, error)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("backend", BACKENDS)
def test_matches_the_oracle_of_each_sequence(backend, queries, causal):
    dtype = torch.float32 if backend == "cpu" else torch.float64
    tensors, shared, options = make(dtype, queries)
    lengths = torch.tensor(LENGTHS)
    want = expected(tensors, shared, options, causal)
    tolerance = 2e-5 if backend == "cpu" else 1e-12
    call = dict(options, cache_seqlens=lengths, causal=causal, backend=backend)
    got = visual_attn_with_kvcache(*tensors, **call, **shared)
    check(got, want, tolerance)
    plan = plan_prefixes(shared["prefix_index"], shared["prefix_key_types"], num_types=4)
    tensors_of_prefixes = {name: shared[name] for name in ("prefix_k", "prefix_v")}
    again = visual_attn_with_kvcache(*tensors, **call, **tensors_of_prefixes, prefix_index=plan)
    assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True))


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the C++ kernel is not built")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_group_is_its_separate_rows(dtype):
    """Eight completions of a prompt of several blocks, in strided caches as models have them."""
    torch.manual_seed(0)
    prefix_k, prefix_v = (torch.randn(2, 2, 300, 64, dtype=dtype).transpose(1, 2) for _ in "kv")
    k, v = (torch.randn(16, 2, 70, 64, dtype=dtype)[:, :, :37].transpose(1, 2) for _ in "kv")
    q = torch.randn(16, 1, 8, 64, dtype=dtype)
    index = torch.arange(2, dtype=torch.int32).repeat_interleave(8)
    prefix_types, types = torch.zeros(2, 300).int(), torch.zeros(16, 37).int()
    prefix_types[:, :40], prefix_types[:, 60:210], prefix_types[1, :7] = 2, 1, -1
    got = visual_attn_with_kvcache(
        q, k, v, plan_keys(types), prefix_k=prefix_k, prefix_v=prefix_v,
        prefix_index=plan_prefixes(index, prefix_types),
    )  # fmt: skip
    rows = [torch.cat([x[index.long()], y], dim=1) for x, y in ((prefix_k, k), (prefix_v, v))]
    every_type = torch.cat([prefix_types[index.long()], types], dim=1)
    want = visual_attn_func(
        q.double(), *(x.double() for x in rows), every_type, causal=True, backend="eager"
    )
    # Two roundings of out: of the prefix's part and of the whole.
    check(got, want, 2e-6 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps)


def test_compiles():
    tensors, shared, options = make(torch.float32)

    def decode(q):
        return visual_attn_with_kvcache(
            q, *tensors[1:], torch.tensor(LENGTHS), **options, **shared
        ).out

    assert torch.allclose(torch.compile(decode, fullgraph=True)(tensors[0]), decode(tensors[0]))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (dict(prefix_k=None), ValueError, "must be given together; prefix_k is None"),
        (dict(prefix_index=None), ValueError, "prefix_index is None"),
        (
            dict(prefix_index=torch.full((7,), 3).int()),
            ValueError,
            r"prefix_index must be in -1..2",
        ),
        (
            dict(prefix_index=torch.full((7,), -2).int()),
            ValueError,
            "prefix_index must be in -1..2",
        ),
        (dict(prefix_index=torch.zeros(6).int()), ValueError, r"prefix_index must be of shape \(7"),
        (dict(prefix_index=torch.zeros(7).long()), TypeError, "int32"),
        (
            dict(prefix_index=torch.zeros(7).int().to("meta")),
            ValueError,
            "on q's device",
        ),
        (dict(prefix_k=torch.randn(3, 9, 1, 17)), ValueError, "prefix"),
        (dict(prefix_k=torch.randn(3, 9, 2, 16)), ValueError, "prefix_k"),
        (dict(prefix_v=torch.randn(3, 9, 2, 8)), ValueError, "prefix_v must be of .2, 9. heads"),
        (dict(prefix_k=torch.randn(3, 9, 2, 17).bfloat16()), TypeError, "prefix_k"),
        (dict(prefix_v=torch.randn(3, 8, 2, 9)), ValueError, "prefix_v"),
        (dict(prefix_key_types=torch.zeros(3, 8).int()), ValueError, "prefix_key_types must be of"),
        (dict(prefix_key_types=torch.full((3, 9), 4)), ValueError, "key_types must be below"),
        (dict(window_size=(2, -1)), ValueError, r"\(-1, -1\) with prefix_index"),
    ],
)
def test_bad_prefixes(change, error, words):
    tensors, shared, options = make(torch.float32)
    with pytest.raises(error, match=words):
        visual_attn_with_kvcache(*tensors, torch.tensor(LENGTHS), **options | shared | change)


def test_a_plan_belongs_to_its_prefixes():
    tensors, shared, options = make(torch.float32)
    plan = plan_prefixes(shared["prefix_index"], shared["prefix_key_types"], num_types=4)
    with pytest.raises(ValueError, match="prefix_key_types must be None with a PrefixPlan"):
        visual_attn_with_kvcache(*tensors, **options, **shared | dict(prefix_index=plan))
    fewer = {n: shared[n][:2] for n in ("prefix_k", "prefix_v")}
    with pytest.raises(ValueError, match="prefix_key_types must be of shape"):
        visual_attn_with_kvcache(*tensors, **options, **fewer, prefix_index=plan)
    with pytest.raises(ValueError, match="num_prefixes must be given"):
        plan_prefixes(shared["prefix_index"])
