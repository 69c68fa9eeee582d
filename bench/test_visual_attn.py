"""Time of the operation with mass beside what a CPU user could take instead; ``make bench``.

Shapes: one layer of Qwen2.5-VL-7B (28 query heads on 4, D = 128), causal, one image in a short
prompt. Every provider passes a correctness gate against float64 before it is timed.
"""

import pytest
import torch
from avar_kernels import visual_attn_func

LENGTHS = (256, 512, 1024)
HEADS, KV_HEADS, HEAD_DIM = 28, 4, 128


def inputs(length: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q = torch.randn(1, length, HEADS, HEAD_DIM, dtype=dtype, requires_grad=True)
    k = torch.randn(1, length, KV_HEADS, HEAD_DIM, dtype=dtype, requires_grad=True)
    v = torch.randn(1, length, KV_HEADS, HEAD_DIM, dtype=dtype, requires_grad=True)
    types = torch.zeros(1, length, dtype=torch.int32)
    types[:, :16], types[:, 20 : length // 2] = 2, 1
    return q, k, v, types


def with_mass(backend: str):
    def run(q, k, v, types):
        out, mass, _ = visual_attn_func(q, k, v, types, causal=True, backend=backend)
        return out, mass

    return run


def without_mass(q, k, v, types):
    """torch's fused attention alone: the lower bound, it returns no mass."""
    out = torch.nn.functional.scaled_dot_product_attention(
        *(x.transpose(1, 2) for x in (q, k, v)), is_causal=True, enable_gqa=True
    )
    return out.transpose(1, 2), None


PROVIDERS = {
    "visual_attn_sdpa": with_mass("sdpa"),
    "eager_matrix": with_mass("eager"),
    "sdpa_without_mass": without_mass,
}


def gate(run) -> None:
    """Outputs of a short call against eager in float64, to float32 rounding."""
    q, k, v, types = inputs(96)
    want = visual_attn_func(q.double(), k.double(), v.double(), types, causal=True, backend="eager")
    out, mass = run(q, k, v, types)
    assert torch.allclose(out.double(), want.out, atol=1e-5)
    assert mass is None or torch.allclose(mass.double(), want.mass, atol=1e-6)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("provider", PROVIDERS)
@pytest.mark.parametrize("mode", ["forward", "forward_backward"])
def test_time(benchmark, provider, length, mode):
    run = PROVIDERS[provider]
    gate(run)
    arguments = inputs(length)
    benchmark.group = f"{mode} L={length} threads={torch.get_num_threads()}"

    def forward() -> None:
        with torch.no_grad():
            run(*arguments)

    def both() -> None:
        out, mass = run(*arguments)
        loss = out.sum() if mass is None else out.sum() + mass[..., 1].sum()
        loss.backward()

    benchmark.pedantic(forward if mode == "forward" else both, rounds=5, warmup_rounds=1)
