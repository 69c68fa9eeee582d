"""Times one new query per sequence on a long cache, which memory bounds, and column sums."""

import pytest
import torch
from avar_kernels import (
    attn_received,
    available_backends,
    plan_keys,
    visual_attn_func,
    visual_attn_with_kvcache,
)
from torch.nn.functional import scaled_dot_product_attention

from .measure import copy_bandwidth, peak_flops
from .shapes import DEVICE, DTYPES, HEAD_DIM, HEADS, KV_HEADS, LENGTHS, key_types, make_inputs

CACHES = (8192, 32768, 131072) if DEVICE == "cuda" else (2048, 8192, 32768)
BATCHES = (1, 16) if DEVICE == "cuda" else (1, 4)
BACKENDS = [
    name
    for name, status in available_backends().items()
    if status and name != "eager" and (DEVICE == "cpu") == (name in ("cpu", "sdpa"))
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("keys", CACHES)
@pytest.mark.parametrize("backend", [*BACKENDS, "sdpa_without_mass"])
def test_decode(record, backend, keys, batch, dtype):
    q = torch.randn(batch, 1, HEADS, HEAD_DIM, device=DEVICE).to(dtype)
    k, v = (torch.randn(batch, keys, KV_HEADS, HEAD_DIM, device=DEVICE).to(dtype) for _ in range(2))
    types = key_types(keys).expand(batch, -1).contiguous()
    plan = plan_keys(types, sort=False)  # a model makes it once for all its layers

    def ours():
        return visual_attn_with_kvcache(q, k, v, plan, backend=backend)

    def sdpa():
        queries, keys_, values = (x.transpose(1, 2) for x in (q, k, v))
        scaled_dot_product_attention(queries, keys_, values, enable_gqa=True)

    if backend != "sdpa_without_mass":
        few = q, k[:, :300], v[:, :300], types[:, :300]
        got = visual_attn_with_kvcache(*few, backend=backend)
        doubles = q.double(), k[:, :300].double(), v[:, :300].double()
        want = visual_attn_with_kvcache(*doubles, types[:, :300], backend="eager")
        assert (got.mass - want.mass).abs().max() < (1e-5 if dtype == torch.float32 else 2e-2)

    lower_bound = backend == "sdpa_without_mass"
    record(
        sdpa if lower_bound else ours, 15, k.nbytes + v.nbytes, copy_bandwidth(),
        anchor=None if lower_bound else (sdpa, None), graph=True,
        op="decode", provider=backend, mode="forward", shape=f"B{batch} H28 Hkv4 D128",
        length=keys, dtype=str(dtype)[6:],
    )  # fmt: skip


@pytest.mark.parametrize("length", LENGTHS[:3])
@pytest.mark.parametrize("provider", ["avar", "eager_matrix"])
def test_received(record, provider, length):
    dtype = DTYPES[0]
    q, k, v, types, *_ = (x.detach() for x in make_inputs(length, dtype))
    weight = torch.full((1, length), 1.0 / length, device=DEVICE)
    lse = visual_attn_func(q, k, v, types, causal=True).lse

    def matrix():
        keys = k.repeat_interleave(HEADS // KV_HEADS, dim=2).transpose(1, 2)
        logits = (q.transpose(1, 2) @ keys.transpose(2, 3)).float() * HEAD_DIM**-0.5
        hidden = torch.ones(length, length, dtype=torch.bool, device=DEVICE).triu(1)
        weights = torch.softmax(logits.masked_fill(hidden, float("-inf")), dim=-1)
        return (weights * weight[:, None, :, None]).sum(2).transpose(1, 2)

    def ours():
        return attn_received(q, k, lse, weight, types, causal=True)

    tolerance = 1e-5 if dtype == torch.float32 else 1e-3
    assert (ours() - matrix()).abs().max() < tolerance

    record(
        ours if provider == "avar" else matrix, 5,
        HEADS * length * length * HEAD_DIM, peak_flops(dtype),
        op="received", provider=provider, mode="forward", shape="B1 H28 Hkv4 D128 causal",
        length=length, dtype=str(dtype)[6:],
    )  # fmt: skip
