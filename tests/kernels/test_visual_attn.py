"""The CPU backends against the float64 oracle: out, mass, lse and all five gradients at once.

float64 is what eager and sdpa take; test_cpu_kernel does the same for the C++ kernel in float32.
"""

import pytest
import torch
from avar_kernels import available_backends, visual_attn_func, visual_attn_varlen_func

from .attention_oracle import attention_oracle
from .calls import SHAPES, attend, by_oracle, compare, make, poisoned, run

LOW_PRECISION = [name for name in ("eager", "sdpa", "cpu") if available_backends()[name]]


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_float64_matches_oracle_to_rounding(backend, shape):
    leaves, types, options = make(shape, torch.float64)

    # 64 accumulated terms of order 1..10 at 1.1e-16 each stay far below 1e-12.
    got = run(attend(types, options, backend), poisoned(leaves, types))
    compare(got, run(by_oracle(types, options), leaves), 1e-12)


@pytest.mark.parametrize("backend", LOW_PRECISION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_error_is_that_of_its_inputs_and_outputs(backend, dtype):
    """All sum in float32: what differs from float64 on the same rounded inputs is the rounding
    of out and of the gradients to the input dtype (relative eps), plus float32 noise (1e-5
    relative)."""
    leaves, types, options = make(SHAPES["gqa7_causal"], dtype)

    got = run(attend(types, options, backend), leaves)
    want = run(by_oracle(types, options), leaves, torch.float64)
    assert got[0].dtype == dtype
    assert got[1].dtype == got[2].dtype == torch.float32
    # out is rounded once (eps / 2 relative) and enters delta of the backward; twice that is the
    # band.
    compare(got, want, max(2 * torch.finfo(dtype).eps, 1e-5))


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_wide_range_of_logits(backend):
    """lse far above and below zero, and a bias that makes a type vanish, lose nothing."""
    leaves, types, options = make(SHAPES["chunk_after_cache"], torch.float64)
    leaves[0] = leaves[0] * 40
    leaves[3] = leaves[3] * 60
    leaves[3][0, 1] = -1e4

    got = run(attend(types, options, backend), leaves)
    compare(got, run(by_oracle(types, options), leaves), 1e-11)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", ["gqa7_causal", "chunk_after_cache", "causal_window", "mha"])
def test_a_type_hidden_by_a_bias_of_minus_infinity(backend, shape):
    """Rows of a head that see no other type see nothing; eager gave NaN there."""
    leaves, types, options = make(SHAPES[shape], torch.float64)
    bias = leaves[3]
    bias[0] = float("-inf")  # one head sees nothing at all
    bias[1, :2] = float("-inf")

    got = run(attend(types, options, backend), poisoned(leaves, types))
    compare(got, run(by_oracle(types, options), leaves), 1e-12)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
def test_packed_equals_per_sample(backend):
    """Ragged lengths, an empty sequence, queries without keys, and tokens behind the last
    boundary."""
    lengths_q, lengths_k = [3, 0, 5, 1, 2], [3, 4, 7, 0, 2]
    cu_q = torch.tensor([0, *torch.tensor(lengths_q).cumsum(0)], dtype=torch.int32)
    cu_k = torch.tensor([0, *torch.tensor(lengths_k).cumsum(0)], dtype=torch.int32)
    (q, k, v, bias, scale), types, _ = make(
        (1, sum(lengths_q) + 2, sum(lengths_k) + 1, 4, 2, 8, 12, True, (-1, -1)), torch.float64
    )

    def packed(q, k, v, bias, scale):
        return visual_attn_varlen_func(
            q[0], k[0], v[0], cu_q, cu_k, max(lengths_q), max(lengths_k), types[0], num_types=4,
            type_bias=bias, type_scale=scale, causal=True, backend=backend,
        )  # fmt: skip

    def per_sample(q, k, v, bias, scale):
        parts = [
            attention_oracle(
                q[:, a:b], k[:, c:d], v[:, c:d], types[:, c:d], 4, bias, scale, causal=True
            )
            for a, b, c, d in zip(cu_q, cu_q[1:], cu_k, cu_k[1:], strict=False)
        ]
        out = torch.cat([p[0][0] for p in parts] + [q.new_zeros(2, 4, 12)])
        mass = torch.cat([p[1][0] for p in parts] + [q.new_zeros(2, 4, 4)])
        lse = torch.cat([p[2][0] for p in parts] + [q.new_full((4, 2), float("-inf"))], dim=1)
        return out, mass, lse

    leaves = [q, k, v, bias, scale]
    compare(run(packed, leaves), run(per_sample, leaves), 1e-12)


@pytest.mark.parametrize("backend", LOW_PRECISION)
def test_mass_sums_to_one_where_a_row_sees_a_key(backend):
    leaves, types, options = make(SHAPES["gqa7_causal"], torch.float32)
    result = visual_attn_func(*leaves[:3], types, num_types=4, backend=backend, **options)
    sees = torch.isfinite(result.lse).transpose(1, 2)
    assert sees.any()
    assert not sees.all()
    total = result.mass.sum(-1)
    assert torch.allclose(total[sees], torch.ones(()), atol=1e-6)
    assert (total[~sees] == 0).all()


def test_without_types_everything_is_type_zero():
    leaves, _, options = make(SHAPES["mha"], torch.float32)
    mass = visual_attn_func(*leaves[:3], **options).mass
    assert mass.shape[-1] == 3
    assert torch.allclose(mass[..., 0], torch.ones(()))
    assert (mass[..., 1:] == 0).all()


def test_gradients_are_bitwise_reproducible():
    leaves, types, options = make(SHAPES["gqa7_causal"], torch.float32)

    first, second = (run(attend(types, options, None), leaves) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_eager_has_second_derivatives_and_fused_says_it_has_not():
    leaves, types, options = make(SHAPES["gqa7_causal"], torch.float64)
    q = leaves[0].requires_grad_()
    for backend in ("eager", "sdpa"):
        result = visual_attn_func(q, *leaves[1:3], types, num_types=4, backend=backend, **options)
        (dq,) = torch.autograd.grad(result.mass[..., 1].sum(), q, create_graph=True)
        if backend == "eager":
            assert torch.autograd.grad(dq.square().sum(), q)[0].isfinite().all()
        else:
            with pytest.raises(NotImplementedError, match="second derivative"):
                torch.autograd.grad(dq.square().sum(), q)
