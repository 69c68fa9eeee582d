"""Sequences that share a prefix: every backend on CPU against the row-by-row oracle in float64."""

from functools import cache, partial

import pytest
import torch
from avar_kernels import available_backends, plan_keys, visual_attn_func, visual_attn_varlen_func

from .calls import compare, run
from .prefix_calls import PrefixCall, attend, by_rows, draw, poisoned

BACKENDS = [name for name in ("eager", "sdpa", "cpu") if available_backends()[name]]
# Sums of up to 80 keys with logits up to about 30, as in test_random_cases.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-5}


@cache
def random_calls():
    """Calls with what the oracle says of them."""
    calls = [draw(torch.Generator().manual_seed(seed), longest=30) for seed in range(40)]
    return [(call, run(partial(by_rows, call), call.leaves)) for call in calls]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_random_sets_of_sequences(backend, dtype):
    if backend == "cpu" and dtype == torch.float64:
        pytest.skip("the C++ kernel has no float64")
    torch.set_num_threads(1)
    for call, want in random_calls():
        got = run(partial(attend, call, backend), poisoned(call), dtype)
        compare(got, want, TOLERANCE[dtype])


def group(num_prompt=70, completions=(33, 1, 40, 0, 64), heads=14, kv_heads=2, dim=40):
    """A prompt that reads itself and its completions, then a second group."""
    torch.manual_seed(0)
    lengths = [num_prompt, *completions, num_prompt // 2, *completions[::-1]]
    after = len(completions) + 1
    prefixes = [-1, *[0] * len(completions), -1, *[after] * len(completions)]
    total = sum(lengths)
    q, k = torch.randn(total, heads, dim), torch.randn(total, kv_heads, dim)
    types = torch.where(
        torch.arange(total) % 97 < 40, 1, torch.where(torch.rand(total) < 0.2, 2, 0)
    )
    types[3:9] = -1
    leaves = [q, k, torch.randn(total, kv_heads, 24), torch.randn(heads, 3), torch.randn(heads, 3)]
    return PrefixCall(leaves, types, lengths, lengths, prefixes, 3, True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_group_is_its_separate_rows(backend):
    """Grouped heads, several tiles and key blocks; the same call with each prompt repeated."""
    call = group()

    def separate(*leaves):
        q, k, v, bias, scale = leaves
        ends = torch.tensor([0, *call.keys]).cumsum(0).tolist()
        keys_of = [torch.arange(*ends[n : n + 2]) for n in range(len(call.keys))]
        outputs = []
        for own, prefix in zip(keys_of, call.prefixes, strict=True):
            seen = own if prefix < 0 else torch.cat([keys_of[prefix], own])
            outputs.append(
                visual_attn_func(
                    q[None, own],
                    k[None, seen],
                    v[None, seen],
                    call.types[None, seen],
                    type_bias=bias,
                    type_scale=scale,
                    causal=True,
                    backend="eager",
                )
            )
        out, mass, lse = zip(*outputs, strict=True)
        return torch.cat(out, 1)[0], torch.cat(mass, 1)[0], torch.cat(lse, 2)[0]

    want = run(separate, call.leaves, torch.float64)
    got = run(partial(attend, call, backend), call.leaves)
    compare(got, want, 2e-5)
    planned = plan_keys(call.types, **(lengths := call.lengths))
    compare(run(partial(attend, call, backend, types=planned, **lengths), call.leaves), got, 0.0)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the C++ kernel is not built")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_has_the_error_of_its_inputs(dtype):
    call = group()
    leaves = [x.to(dtype).float() for x in call.leaves[:3]] + call.leaves[3:]
    want = run(partial(attend, call, "eager"), leaves, torch.float64)
    halves = [*(x.to(dtype) for x in leaves[:3]), *leaves[3:]]
    got = run(partial(attend, call, "cpu"), halves)
    # A sum of P v with P rounded to the dtype: one rounding of the largest value; gradients pass
    # through three such products.
    compare(got, want, 6 * torch.finfo(dtype).eps)


@pytest.mark.skipif("cpu" not in BACKENDS, reason="the C++ kernel is not built")
def test_results_do_not_depend_on_threads():
    call = group(num_prompt=1200, completions=(40,) * 9)  # three chunks of keys
    results = []
    for threads in (1, 2, 3, 1):
        torch.set_num_threads(threads)
        results.append(run(partial(attend, call, "cpu"), call.leaves))
    torch.set_num_threads(1)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    compare(results[0], run(partial(attend, call, "eager"), call.leaves, torch.float64), 5e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        ([-1, 3, 0], r"prefix_index must be in -1..2.*got \[-1, 3, 0\]"),
        ([-1, -2, 0], "prefix_index must be in -1..2"),
        ([-1, 1, 0], "have no prefix themselves"),  # to itself
        ([-1, 0, 1], "have no prefix themselves"),
    ],
)
def test_a_wrong_prefix_is_an_error(backend, index, complaint):
    call = PrefixCall([], torch.zeros(9), [3, 3, 3], [3, 3, 3], index, 3, True)
    q = torch.randn(9, 1, 4)
    with pytest.raises(ValueError, match=complaint):
        visual_attn_varlen_func(q, q, q, **call.lengths, causal=True, backend=backend)
    with pytest.raises(ValueError, match=complaint):
        plan_keys(torch.zeros(9, dtype=torch.int32), **call.lengths)


@pytest.mark.parametrize(
    ("changes", "error", "complaint"),
    [
        (dict(prefix_index=torch.tensor([-1, 0])), TypeError, "int32"),
        (dict(prefix_index=torch.tensor([-1], dtype=torch.int32)), ValueError, r"shape \(2,\)"),
        (dict(prefix_index=torch.zeros(2)), TypeError, "integer"),
        (dict(prefix_index=[-1, 0]), TypeError, "list"),
        (dict(prefix_index=torch.zeros(2, dtype=torch.int32, device="meta")), ValueError, "device"),
        (dict(window_size=(4, -1)), ValueError, r"\(-1, -1\) with prefix_index"),
        (dict(max_seqlen_k=2), ValueError, "max_seqlen"),
    ],
)
def test_arguments_that_do_not_fit_are_errors(changes, error, complaint):
    call = PrefixCall([], torch.zeros(5), [3, 2], [3, 2], [-1, 0], 3, True)
    q = torch.randn(5, 1, 4)
    with pytest.raises(error, match=complaint):
        visual_attn_varlen_func(q, q, q, **call.lengths | changes)


def test_a_plan_belongs_to_its_prefixes():
    call = PrefixCall([], torch.zeros(5), [3, 2], [3, 2], [-1, 0], 3, True)
    q, lengths = torch.randn(5, 1, 4), call.lengths
    plan = plan_keys(call.types.int(), **lengths)
    with pytest.raises(ValueError, match="prefix_index; it was made with others"):
        visual_attn_varlen_func(q, q, q, key_types=plan, **lengths | dict(prefix_index=None))
    with pytest.raises(ValueError, match="together"):
        plan_keys(torch.zeros(1, 5).int(), prefix_index=lengths["prefix_index"])
