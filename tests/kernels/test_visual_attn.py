"""The CPU backends against the float64 oracle: out, mass, lse and all five gradients at once.

float64 is what eager and sdpa take; test_cpu_kernel does the same for the C++ kernel in float32."""

import pytest
import torch
from avar_kernels import available_backends, visual_attn_func, visual_attn_varlen_func

from .oracle import attention_oracle, finite_loss

LOW_PRECISION = [name for name in ("eager", "sdpa", "cpu") if available_backends()[name]]
# B, Lq, Lk, H, Hkv, D, Dv, causal, window
SHAPES = {
    "mha": (2, 7, 7, 3, 3, 16, 16, False, (-1, -1)),
    "gqa7_causal": (1, 9, 9, 7, 1, 17, 17, True, (-1, -1)),
    "gqa_decode": (2, 1, 13, 4, 2, 16, 24, True, (-1, -1)),
    "chunk_after_cache": (2, 5, 12, 4, 2, 17, 9, True, (-1, -1)),
    "more_queries_than_keys": (2, 12, 5, 4, 2, 9, 17, True, (-1, -1)),
    "window": (1, 11, 14, 2, 1, 8, 8, False, (3, 2)),
    "causal_window": (1, 14, 11, 2, 1, 8, 8, True, (4, -1)),
    "right_window": (2, 8, 8, 2, 2, 8, 8, False, (-1, 0)),
    "no_keys": (1, 3, 0, 2, 1, 8, 8, True, (-1, -1)),
    "no_queries": (1, 0, 3, 2, 1, 8, 8, False, (-1, -1)),
}
NAMES = ("out", "mass", "lse", "dq", "dk", "dv", "dtype_bias", "dtype_scale")


def make(shape, dtype, num_types=4, seed=0):
    batch, num_queries, num_keys, heads, kv_heads, head_dim, value_dim, causal, window = shape
    torch.manual_seed(seed)
    q = torch.randn(batch, num_queries, heads, head_dim, dtype=torch.float64) + 0.3
    k = torch.randn(batch, num_keys, kv_heads, head_dim, dtype=torch.float64) + 0.3
    v = torch.randn(batch, num_keys, kv_heads, value_dim, dtype=torch.float64) + 0.3
    key_types = torch.randint(-1, num_types, (batch, num_keys), dtype=torch.int32)
    key_types[:1, : num_keys // 4] = -1  # left padding: early causal rows see nothing
    bias = torch.randn(heads, num_types, dtype=torch.float64)
    scale = torch.randn(heads, num_types, dtype=torch.float64)
    q, k, v = (x.to(dtype) for x in (q, k, v))
    return [q, k, v, bias, scale], key_types, dict(causal=causal, window_size=window)


def run(function, leaves, dtype=None):
    leaves = [x.detach().to(dtype or x.dtype).requires_grad_() for x in leaves]
    outputs = function(*leaves)
    loss = finite_loss(outputs, seed=1)
    if loss.requires_grad:  # the oracle of an empty problem depends on nothing
        loss.backward()
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in leaves]
    return [x.detach() for x in outputs] + grads


def poisoned(leaves, key_types):
    """Padding keys and values hold NaN: their content must not matter."""
    leaves = [x.clone() for x in leaves]
    leaves[1][key_types < 0] = float("nan")
    leaves[2][key_types < 0] = float("nan")
    return leaves


def compare(got, want, tolerance):
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert a.shape == b.shape, name
        assert not a.isnan().any(), f"{name} has NaN"
        assert torch.equal(a.isinf(), b.isinf()), f"{name}: infinities differ"
        error = torch.where(b.isinf(), 0.0, a.double() - b.double()).abs()
        worst = error.max().item() if error.numel() else 0.0
        bound = tolerance * max(
            1.0, torch.nan_to_num(b, neginf=0.0).abs().max().item() if b.numel() else 0
        )
        assert worst <= bound, f"{name}: error {worst:.2e} above {bound:.2e}"


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_float64_matches_oracle_to_rounding(backend, shape):
    leaves, types, options = make(shape, torch.float64)

    def ours(q, k, v, bias, scale):
        return visual_attn_func(
            q,
            k,
            v,
            types,
            num_types=4,
            type_bias=bias,
            type_scale=scale,
            backend=backend,
            **options,
        )

    def oracle(q, k, v, bias, scale):
        return attention_oracle(q, k, v, types, 4, bias, scale, **options)

    # 64 accumulated terms of order 1..10 at 1.1e-16 each stay far below 1e-12.
    compare(run(ours, poisoned(leaves, types)), run(oracle, leaves), 1e-12)


@pytest.mark.parametrize("backend", LOW_PRECISION)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_error_is_that_of_its_inputs_and_outputs(backend, dtype):
    """All sum in float32: what differs from float64 on the same rounded inputs is the rounding
    of out and of the gradients to the input dtype (relative eps), plus float32 noise (1e-5
    relative)."""
    leaves, types, options = make(SHAPES["gqa7_causal"], dtype)

    def ours(q, k, v, bias, scale):
        bias, scale = bias.float(), scale.float()
        return visual_attn_func(
            q,
            k,
            v,
            types,
            num_types=4,
            type_bias=bias,
            type_scale=scale,
            backend=backend,
            **options,
        )

    def oracle(q, k, v, bias, scale):
        return attention_oracle(q, k, v, types, 4, bias, scale, **options)

    got, want = run(ours, leaves), run(oracle, leaves, torch.float64)
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

    def ours(q, k, v, bias, scale):
        return visual_attn_func(
            q,
            k,
            v,
            types,
            num_types=4,
            type_bias=bias,
            type_scale=scale,
            backend=backend,
            **options,
        )

    def oracle(q, k, v, bias, scale):
        return attention_oracle(q, k, v, types, 4, bias, scale, **options)

    compare(run(ours, leaves), run(oracle, leaves), 1e-11)


@pytest.mark.parametrize("backend", ["eager", "sdpa"])
@pytest.mark.parametrize("shape", ["gqa7_causal", "chunk_after_cache", "causal_window", "mha"])
def test_a_type_hidden_by_a_bias_of_minus_infinity(backend, shape):
    """Rows of a head that see no other type see nothing; eager gave NaN there."""
    leaves, types, options = make(SHAPES[shape], torch.float64)
    bias = leaves[3]
    bias[0] = float("-inf")  # one head sees nothing at all
    bias[1, :2] = float("-inf")

    def ours(q, k, v, bias, scale):
        return visual_attn_func(
            q, k, v, types, num_types=4, type_bias=bias, type_scale=scale,
            backend=backend, **options,
        )  # fmt: skip

    def oracle(q, k, v, bias, scale):
        return attention_oracle(q, k, v, types, 4, bias, scale, **options)

    compare(run(ours, poisoned(leaves, types)), run(oracle, leaves), 1e-12)


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

    def ours(q, k, v, bias, scale):
        return visual_attn_varlen_func(
            q[0], k[0], v[0], cu_q, cu_k, max(lengths_q), max(lengths_k), types[0], num_types=4,
            type_bias=bias, type_scale=scale, causal=True, backend=backend,
        )  # fmt: skip

    def oracle(q, k, v, bias, scale):
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
    compare(run(ours, leaves), run(oracle, leaves), 1e-12)


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

    def ours(q, k, v, bias, scale):
        return visual_attn_func(
            q, k, v, types, num_types=4, type_bias=bias.float(), type_scale=scale.float(), **options
        )

    for a, b in zip(run(ours, leaves), run(ours, leaves), strict=True):
        assert torch.equal(a, b)


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
