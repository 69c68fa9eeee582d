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

from .cache_prefix_calls import LENGTHS, check, expected, make

BACKENDS = [name for name in ("eager", "sdpa", "cpu") if available_backends()[name]]


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


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_prefix_at_all_or_prefixes_without_keys(backend):
    """A table of prefixes may be empty, and so may every prefix."""
    (q, k, v, types), shared, options = make(torch.float32)
    options |= dict(cache_seqlens=torch.tensor(LENGTHS), backend=backend)
    want = visual_attn_with_kvcache(q, k, v, types, **options)
    for prefixes, keys in ((0, 9), (0, 0), (3, 0)):
        index = shared["prefix_index"] if prefixes else torch.full((len(LENGTHS),), -1).int()
        got = visual_attn_with_kvcache(
            q, k, v, types, **options, prefix_index=index,
            **{name: shared[name][:prefixes, :keys] for name in ("prefix_k", "prefix_v")},
        )  # fmt: skip
        for a, b in zip(got, want, strict=True):
            assert torch.allclose(a, b, atol=1e-6)


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
    with pytest.raises(TypeError, match="num_prefixes must be an int; got str"):
        plan_prefixes(shared["prefix_index"], num_prefixes="3")
    with pytest.raises(ValueError, match="num_prefixes must be 0 or more; got -1"):
        plan_prefixes(shared["prefix_index"], num_prefixes=-1)
