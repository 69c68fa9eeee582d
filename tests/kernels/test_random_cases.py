"""Ten thousand small random calls of every CPU backend against the specification in float64.

The specification itself is held by the row-by-row oracle (test_visual_attn). One call checks out,
mass, lse and all gradients at once. The budget is style's: twice the error of the specification
computed in float32, and a band for the rounding of sums that it happens to get exact.
"""

from itertools import pairwise

import pytest
import torch
from avar_kernels import available_backends, visual_attn_func, visual_attn_varlen_func
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BACKENDS = [name for name in ("sdpa", "cpu") if available_backends()[name]]
CALLS, GROUPS = 10_000, 10
# Logits up to about 30 are rounded in float32: a relative error of 30 * 2^-24 in P, over sums of up
# to 40 keys; the same again through the backward's products.
BAND = 3e-5


def draw(generator):
    """Arguments of one call: shapes, types, tables and options, all random."""

    def pick(*values):
        return values[int(torch.randint(len(values), (1,), generator=generator))]

    def normal(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    kv_heads = pick(1, 1, 2)
    heads = kv_heads * pick(1, 2, 3, 7)
    rows, keys = pick(1, 2, 5, 17, 33), pick(0, 1, 3, 18, 40)
    dim, value_dim, num_types = pick(1, 7, 16, 24), pick(1, 8, 19), pick(1, 3, 16)
    batch = pick(1, 2)
    q, k = normal(batch, rows, heads, dim), normal(batch, keys, kv_heads, dim)
    v = normal(batch, keys, kv_heads, value_dim)
    types = torch.randint(-1, num_types, (batch, keys), generator=generator)
    if pick(True, False):  # long runs, as real batches have
        types = types.sort(dim=1).values
    options = dict(causal=pick(True, False), window_size=pick((-1, -1), (-1, -1), (3, 1), (0, -1)))
    tables = {
        name: normal(heads, num_types) if pick(True, False) else None
        for name in ("type_bias", "type_scale")
    }
    if tables["type_bias"] is not None and pick(True, False, False):
        tables["type_bias"][:, 0] = float("-inf")
    return (q, k, v), types, tables, options | dict(num_types=num_types)


def outcome(leaves, types, tables, options, backend, dtype, seed):
    """out, mass, lse and the gradients of a random linear function of all three."""
    table_dtype = torch.float64 if dtype == torch.float64 else torch.float32
    leaves = [x.to(dtype).requires_grad_() for x in leaves]
    tables = {
        n: None if x is None else x.to(table_dtype).requires_grad_() for n, x in tables.items()
    }
    result = visual_attn_func(*leaves, types, **tables, **options, backend=backend)
    generator = torch.Generator().manual_seed(seed)
    loss = 0.0
    for x in result:
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        loss = loss + (torch.where(torch.isfinite(x), x, 0.0).double() * weight).sum()
    wanted = [*leaves, *(x for x in tables.values() if x is not None)]
    grads = torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True)
    return [*(x.detach() for x in result), *grads]


def complaints(got, plain, want):
    for i, (a, reference, b) in enumerate(zip(got, plain, want, strict=True)):
        if a.shape != b.shape or a.isnan().any() or not torch.equal(a.isinf(), b.isinf()):
            yield f"tensor {i}: shape, NaN or infinities"
        elif b.numel():
            finite = torch.isfinite(b)
            error = torch.where(finite, a.double() - b, 0.0).abs().max()
            allowed = torch.where(finite, reference.double() - b, 0.0).abs().max()
            size = torch.where(finite, b, 0.0).abs().max().clamp(min=1.0)
            if error > 2 * allowed + BAND * size:
                yield f"tensor {i}: error {error:.1e}, the plain form's {allowed:.1e}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_calls(group):
    torch.set_num_threads(1)
    for seed in range(group * CALLS // GROUPS, (group + 1) * CALLS // GROUPS):
        case = draw(torch.Generator().manual_seed(seed))
        want = outcome(*case, "eager", torch.float64, seed)
        plain = outcome(*case, "eager", torch.float32, seed)
        for backend in BACKENDS:
            got = outcome(*case, backend, torch.float32, seed)
            assert not (found := list(complaints(got, plain, want))), (seed, backend, found)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    lengths=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=5),
    tail=st.integers(0, 3),
    causal=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_is_each_sequence_alone(backend, lengths, tail, causal, seed):
    """For any ragged lengths; tokens behind the last sequence belong to none."""
    generator = torch.Generator().manual_seed(seed)
    rows, keys = ([n[side] for n in lengths] for side in (0, 1))
    q = torch.randn(sum(rows) + tail, 2, 8, generator=generator)
    k, v = (torch.randn(sum(keys) + tail, 1, 8, generator=generator) for _ in range(2))
    types = torch.randint(-1, 3, (len(k),), generator=generator)
    cu_q, cu_k = (torch.tensor([0, *n]).cumsum(0).to(torch.int32) for n in (rows, keys))
    whole = visual_attn_varlen_func(
        q, k, v, cu_q, cu_k, max(rows), max(keys), types, causal=causal, backend=backend
    )
    for (a, b), (c, d) in zip(pairwise(cu_q), pairwise(cu_k), strict=True):
        alone = visual_attn_func(
            q[None, a:b], k[None, c:d], v[None, c:d], types[None, c:d],
            causal=causal, backend=backend,
        )  # fmt: skip
        assert torch.allclose(whole.out[a:b], alone.out[0], atol=1e-6)
        assert torch.allclose(whole.mass[a:b], alone.mass[0], atol=1e-6)
        assert torch.allclose(whole.lse[:, a:b], alone.lse[0], atol=1e-6)
    assert (whole.out[cu_q[-1] :] == 0).all()
    assert torch.isneginf(whole.lse[:, cu_q[-1] :]).all()
