"""A plan of the keys gives what the key types give, and is refused where it does not belong."""

import pytest
import torch
from avar_kernels import (
    available_backends,
    plan_keys,
    visual_attn_func,
    visual_attn_varlen_func,
)

NAMES = ("eager", "sdpa", "cpu")
Q, K, V = torch.randn(2, 5, 4, 8), torch.randn(2, 6, 2, 8), torch.randn(2, 6, 2, 8)
TYPES = torch.tensor([[-1, 2, 2, 1, 1, 0], [2, 1, 1, 1, 0, -1]])
OFFSETS = torch.tensor([0, 2, 5], dtype=torch.int32)
KEY_OFFSETS = torch.tensor([0, 3, 6], dtype=torch.int32)
LENGTHS = dict(
    cu_seqlens_q=OFFSETS, cu_seqlens_k=KEY_OFFSETS, max_seqlen_q=3, max_seqlen_k=3
)  # fmt: skip


@pytest.mark.parametrize("backend", ["eager", None])
def test_a_plan_stands_for_the_key_types(backend):
    want = visual_attn_func(Q, K, V, TYPES, causal=True, backend=backend)
    got = visual_attn_func(Q, K, V, plan_keys(TYPES), causal=True, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
    plan = plan_keys(TYPES[0], **LENGTHS)
    want = visual_attn_varlen_func(Q[0], K[0], V[0], *LENGTHS.values(), TYPES[0], backend=backend)
    got = visual_attn_varlen_func(Q[0], K[0], V[0], *LENGTHS.values(), plan, backend=backend)
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("backend", [name for name in NAMES if available_backends()[name]])
def test_types_of_any_integer_dtype(backend, dtype):
    types = TYPES.clamp(min=0)
    want = visual_attn_func(Q, K, V, types, backend="eager")
    for given in (types.to(dtype), plan_keys(types.to(dtype))):
        got = visual_attn_func(Q, K, V, given, backend=backend)
        assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(got, want, strict=True))
    if dtype.is_signed:
        absent = TYPES.masked_fill(TYPES < 0, -128).to(dtype)
        want = visual_attn_func(Q, K, V, TYPES, backend=backend)
        for given in (absent, plan_keys(absent)):
            got = visual_attn_func(Q, K, V, given, backend=backend)
            assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_a_plan_passes_through_a_compiled_model():
    def two_layers(q, types):
        plan = plan_keys(types)
        return visual_attn_func(visual_attn_func(q, K, V, plan).out, K, V, plan).mass

    want = two_layers(Q, TYPES)
    assert torch.equal(torch.compile(two_layers, fullgraph=True)(Q, TYPES), want)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(key_types=TYPES + 3), ValueError, "key_types must be below num_types = 3"),
        (dict(key_types=TYPES.float()), TypeError, "key_types must be of an integer dtype"),
        (dict(key_types=TYPES[0]), ValueError, r"key_types must be \(B, Lk\)"),
        (dict(key_types=TYPES, **LENGTHS), ValueError, r"key_types must be \(Tk,\) when packed"),
        (dict(key_types=TYPES[0], max_seqlen_q=3), ValueError, "given together; got 1 of 4"),
        (dict(key_types=TYPES[0, :5], **LENGTHS), ValueError, "cu_seqlens_k must be offsets"),
        (dict(key_types=TYPES, num_types=0), ValueError, "num_types must be in 1..16"),
    ],
)
def test_a_plan_checks_what_the_call_would(arguments, error, words):
    with pytest.raises(error, match=words):
        plan_keys(**arguments)


def test_a_plan_of_other_keys_is_refused():
    with pytest.raises(ValueError, match="num_types must be 3, as in the plan; got 4"):
        visual_attn_func(Q, K, V, plan_keys(TYPES), num_types=4)
    with pytest.raises(ValueError, match=r"key_types must be of shape \(2, 6\)"):
        visual_attn_func(Q, K, V, plan_keys(TYPES[:, :5]))
    plan = plan_keys(TYPES[0], **LENGTHS)
    others = LENGTHS | {"cu_seqlens_k": KEY_OFFSETS.clone()}
    with pytest.raises(ValueError, match="plan made with this call's cu_seqlens"):
        visual_attn_varlen_func(Q[0], K[0], V[0], *others.values(), plan)
    with pytest.raises(ValueError, match="plan made with this call's cu_seqlens"):
        visual_attn_varlen_func(Q[0], K[0], V[0], *LENGTHS.values(), plan_keys(TYPES[:1]))
