"""The kernels on short inputs of odd shapes, and what only a device can show."""

import pytest
import torch
from avar_kernels import (
    attn_received,
    plan_keys,
    visual_attn_func,
    visual_attn_varlen_func,
    visual_attn_with_kvcache,
)

from ..kernels.attention_oracle import finite_loss
from ..kernels.calls import NAMES
from .device import BACKEND, DEVICE, GPU_TIER, ON_GPU, needs_gpu

pytestmark = GPU_TIER

# B, Lq, Lk, H, Hkv, D, Dv, causal, window
SHAPES = {
    "gqa7": (1, 300, 300, 7, 1, 128, 128, True, (-1, -1)),
    "odd": (2, 129, 200, 4, 2, 80, 40, True, (-1, -1)),
    "full": (2, 65, 33, 4, 4, 64, 64, False, (-1, -1)),
    "window": (1, 257, 257, 2, 1, 64, 64, False, (50, 3)),
    "wide": (1, 130, 130, 2, 1, 256, 256, True, (-1, -1)),
}


def leaves_of(shape, dtype):
    batch, num_queries, num_keys, heads, kv_heads, head_dim, value_dim, *_ = shape
    torch.manual_seed(0)
    q = torch.randn(batch, num_queries, heads, head_dim).to(dtype)
    k = torch.randn(batch, num_keys, kv_heads, head_dim).to(dtype)
    v = torch.randn(batch, num_keys, kv_heads, value_dim).to(dtype)
    types = torch.randint(-1, 3, (batch, num_keys), dtype=torch.int32)
    types[:, : num_keys // 3] = 1  # a long run of one type, as an image makes
    return [q, k, v, torch.randn(heads, 3), torch.rand(heads, 3) + 0.5], types


def run(leaves, types, shape, backend, device, dtype):
    table = torch.float64 if dtype == torch.float64 else torch.float32
    dtypes = [dtype] * 3 + [table] * 2
    leaves = [
        x.to(device, d, copy=True).requires_grad_() for x, d in zip(leaves, dtypes, strict=True)
    ]
    outputs = visual_attn_func(
        *leaves[:3], types.to(device), type_bias=leaves[3], type_scale=leaves[4],
        causal=shape[-2], window_size=shape[-1], backend=backend,
    )  # fmt: skip
    finite_loss(tuple(x.cpu() for x in outputs), seed=1).backward()
    return [x.detach().cpu().double() for x in (*outputs, *(leaf.grad for leaf in leaves))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_triton_error_is_within_four_roundings_of_the_row(shape, dtype):
    """Operands of the second products (P, dZ) are rounded to the input dtype, out and gradients
    once more; sums of a few hundred such terms stay within four relative roundings of the largest
    entry of the tensor. The tables' gradients add up thousands of terms that cancel: twice that."""
    leaves, types = leaves_of(shape, dtype)
    got = run(leaves, types, shape, BACKEND, DEVICE, dtype)
    want = run(leaves, types, shape, "eager", "cpu", torch.float64)
    for name, a, b in zip(NAMES, got, want, strict=True):
        assert not a.isnan().any(), name
        assert torch.equal(a.isinf(), b.isinf()), name
        a, b = (torch.nan_to_num(x, neginf=0.0) for x in (a, b))
        roundings = 8 if name.startswith("dtype") else 4
        bound = roundings * max(torch.finfo(dtype).eps, 1e-6) * max(1.0, b.abs().max().item())
        assert (a - b).abs().max().item() <= bound, name


def test_packed_equals_dense_on_device():
    leaves, types = leaves_of(SHAPES["gqa7"], torch.bfloat16)
    q, k, v = (x[0].to(DEVICE) for x in leaves[:3])
    cu = torch.tensor([0, 120, 300], dtype=torch.int32, device=DEVICE)
    packed = visual_attn_varlen_func(q, k, v, cu, cu, 180, 180, types[0].to(DEVICE), causal=True)
    for a, b in ((0, 120), (120, 300)):
        one = visual_attn_func(
            q[None, a:b], k[None, a:b], v[None, a:b], types[:, a:b].to(DEVICE), causal=True
        )
        # Packed and dense kernels are compiled separately: one rounding may differ.
        for got, want in ((packed.out[a:b], one.out[0]), (packed.mass[a:b], one.mass[0])):
            assert (got - want).abs().max() <= torch.finfo(torch.bfloat16).eps * want.abs().max()


def test_gradients_are_bitwise_reproducible():
    leaves, types = leaves_of(SHAPES["gqa7"], torch.bfloat16)
    first = run(leaves, types, SHAPES["gqa7"], BACKEND, DEVICE, torch.bfloat16)
    second = run(leaves, types, SHAPES["gqa7"], BACKEND, DEVICE, torch.bfloat16)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@needs_gpu
def test_a_training_step_can_be_captured_in_a_graph():
    """No launch waits for the device or allocates by content: the replay follows new inputs."""
    leaves, types = leaves_of(SHAPES["gqa7"], torch.bfloat16)
    q, k, v = (x.to(DEVICE).requires_grad_() for x in leaves[:3])
    types = types.to(DEVICE)

    def step():
        out, mass, _ = visual_attn_func(q, k, v, plan_keys(types), causal=True)
        return torch.autograd.grad(out.float().square().sum() + mass[..., 1].sum(), (q, k, v))

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        q.mul_(0.5)
    types.copy_(types.roll(7, dims=1))
    graph.replay()
    assert all(torch.equal(a, b) for a, b in zip(captured, step(), strict=True))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("num_keys", [300, 40_000 if ON_GPU else 1100])
def test_decoding_and_column_sums_on_device(dtype, num_keys):
    """Weights and out are rounded to the input dtype: four relative roundings of the sum of
    absolute terms, which for mass is mass itself. Logits and sums are float32."""
    torch.manual_seed(0)
    q = torch.randn(2, 3, 14, 128).to(dtype)
    k, v = (torch.randn(2, num_keys, 2, 128).to(dtype) for _ in range(2))
    types = torch.randint(-1, 3, (2, num_keys), dtype=torch.int32)
    lengths = torch.tensor([num_keys, num_keys // 3], dtype=torch.int32)
    wide = [x.double() for x in (q, k, v)]
    got = visual_attn_with_kvcache(*(x.to(DEVICE) for x in (q, k, v, types, lengths)))
    want = visual_attn_with_kvcache(*wide, types, lengths, backend="eager")
    sizes = visual_attn_with_kvcache(*wide[:2], wide[2].abs(), types, lengths, backend="eager")
    assert torch.allclose(got.lse.double().cpu(), want.lse, rtol=1e-6, atol=1e-5)
    for a, b, size in zip(got[:2], want[:2], sizes[:2], strict=True):
        bound = 2 * torch.finfo(dtype).eps * size + 1e-6
        assert ((a.double().cpu() - b).abs() <= bound).all()
    weight = torch.rand(2, 3)
    lse = visual_attn_func(*wide, types, causal=True, backend="eager").lse
    columns = attn_received(
        q.to(DEVICE),
        k.to(DEVICE),
        lse.float().to(DEVICE),
        weight.to(DEVICE),
        types.to(DEVICE),
        causal=True,
    )
    wanted = attn_received(*wide[:2], lse, weight, types, causal=True, backend="eager")
    assert torch.allclose(columns.double().cpu(), wanted, rtol=1e-4, atol=1e-6)


@needs_gpu
def test_types_out_of_range_stop_the_device_without_a_host_sync():
    """The check is a device-side assertion; it surfaces at the next synchronization."""
    import subprocess
    import sys

    program = (
        "import torch, avar_kernels as ak\n"
        "q = torch.randn(1, 64, 2, 64, device='cuda', dtype=torch.float16)\n"
        "ak.visual_attn_func(q, q, q, torch.full((1, 64), 7, device='cuda'))\n"
        "torch.cuda.synchronize()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode != 0
    assert "key_types must be below num_types" in done.stderr or "assert" in done.stderr.lower()
