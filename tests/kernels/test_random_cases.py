"""Thousands of small random calls of the fused CPU backends against the specification in float64.

The row-by-row oracle checks the specification itself (test_visual_attn). One call checks out, mass,
lse and all gradients at once. The budget is twice the error of the specification computed in
float32, plus a band for the rounding of sums that the float32 form happens to get exact.
"""

from functools import partial
from itertools import pairwise

import pytest
import torch
from avar_kernels import available_backends, visual_attn_func, visual_attn_varlen_func
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import prefix_calls
from .calls import run
from .random_calls import draw, outcome

BACKENDS = [name for name in ("sdpa", "cpu") if available_backends()[name]]
CALLS, PREFIX_CALLS, GROUPS = 5_000, 1_000, 10
SDPA_EVERY = 4  # the default on CPU is the C++ kernel; sdpa takes twice its time in small calls
# Logits up to about 30 are rounded in float32: a relative error of 30 * 2^-24 in P, over sums of up
# to 40 keys; the same again through the backward's products.
BAND = 3e-5


def largest_error(a, b):
    return torch.where(torch.isfinite(b), a.double() - b, 0.0).abs().max()


def complaints(got, want, float32_form):
    """What is wrong with ``got``; ``float32_form()`` gives the specification's own float32 results,
    which only errors above the band ask for."""
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        if a.shape != b.shape or a.isnan().any() or not torch.equal(a.isinf(), b.isinf()):
            yield f"tensor {i}: shape, NaN or infinities"
        elif b.numel():
            error = largest_error(a, b)
            band = BAND * torch.where(torch.isfinite(b), b, 0.0).abs().max().clamp(min=1.0)
            if error > band and error > 2 * (allowed := largest_error(float32_form()[i], b)) + band:
                yield f"tensor {i}: error {error:.1e}, the float32 form's {allowed:.1e}"


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_calls(group):
    torch.set_num_threads(1)
    for seed in range(group * CALLS // GROUPS, (group + 1) * CALLS // GROUPS):
        case = draw(torch.Generator().manual_seed(seed))
        want = outcome(*case, "eager", torch.float64, seed)
        float32_form = partial(outcome, *case, "eager", torch.float32, seed)
        for backend in BACKENDS:
            if backend == "sdpa" and "cpu" in BACKENDS and seed % SDPA_EVERY:
                continue
            got = outcome(*case, backend, torch.float32, seed)
            assert not (found := list(complaints(got, want, float32_form))), (seed, backend, found)


@pytest.mark.parametrize("group", range(GROUPS))
def test_random_calls_with_prefixes(group):
    torch.set_num_threads(1)
    for seed in range(group * PREFIX_CALLS // GROUPS, (group + 1) * PREFIX_CALLS // GROUPS):
        call = prefix_calls.draw(torch.Generator().manual_seed(10_000 + seed))

        def results(backend, dtype, call=call):
            return run(partial(prefix_calls.attend, call, backend), call.leaves, dtype)

        want = results("eager", torch.float64)
        float32_form = partial(results, "eager", torch.float32)
        for backend in BACKENDS:
            if backend == "sdpa" and "cpu" in BACKENDS and seed % SDPA_EVERY:
                continue
            got = results(backend, torch.float32)
            assert not (found := list(complaints(got, want, float32_form))), (seed, backend, found)


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
