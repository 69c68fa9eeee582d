"""Times what the host does to launch the Triton backend: checks, dispatch, allocations, launches.

The inputs are so small that a device would not be the bound. Without a GPU a driver that launches
nothing stands in (see ``stand_in_driver``), so that the host's time shows everywhere.
"""

import pytest
import torch
from avar_kernels import available_backends, is_decoding, plan_keys, visual_attn_func

from . import stand_in_driver
from .measure import quantiles, synchronize
from .shapes import DEVICE, HEAD_DIM, HEADS, KV_HEADS, key_types

LENGTH, CACHE = 64, 1024
ROUNDS, ITERATIONS = 300, 10
DTYPE = torch.bfloat16
MODES = ("plan", "forward", "forward_backward", "decode")


def inputs(queries: int, keys: int):
    q = torch.zeros(1, queries, HEADS, HEAD_DIM, device=DEVICE, dtype=DTYPE, requires_grad=True)
    k, v = (
        torch.zeros(1, keys, KV_HEADS, HEAD_DIM, device=DEVICE, dtype=DTYPE, requires_grad=True)
        for _ in range(2)
    )
    return q, k, v


def launching(mode: str):
    """The call that is timed."""
    decodes = mode == "decode"
    q, k, v = inputs(1, CACHE) if decodes else inputs(LENGTH, LENGTH)
    types = key_types(CACHE if decodes else LENGTH)
    plan = plan_keys(types, sort=not decodes)
    assert decodes == is_decoding(q.shape[1], k.shape[1], HEADS // KV_HEADS)

    @torch.no_grad()
    def forward():
        visual_attn_func(q, k, v, plan, causal=True, backend="triton")

    grads = torch.zeros_like(q), torch.zeros(1, LENGTH, HEADS, plan.num_types, device=DEVICE)

    def forward_backward():
        result = visual_attn_func(q, k, v, plan, causal=True, backend="triton")
        torch.autograd.grad(result[:2], (q, k, v), grads)

    return {
        "plan": lambda: plan_keys(types),
        "forward": forward,
        "forward_backward": forward_backward,
        "decode": forward,
    }[mode]


@pytest.fixture(autouse=True)
def _driver(monkeypatch):
    if DEVICE == "cpu":
        pytest.importorskip("triton")
        stand_in_driver.install(monkeypatch)
    status = available_backends()["triton"]
    if not status:
        pytest.skip(status.reason)


@pytest.mark.parametrize("mode", MODES)
def test_host_time(table, benchmark, mode):
    benchmark.group = "host time"

    def settled():  # the queue of launches must not fill up
        synchronize()

    call = launching(mode)
    benchmark.pedantic(
        lambda: [call() for _ in range(ITERATIONS)], setup=settled, rounds=ROUNDS, warmup_rounds=20
    )
    if benchmark.disabled:
        return
    microseconds = [1e6 * seconds / ITERATIONS for seconds in benchmark.stats.stats.data]
    provider = "avar_triton" if DEVICE == "cuda" else "avar_triton_stand_in_driver"
    table.add(
        quantiles(microseconds), None, metric="host_time", unit="us", op="host_time",
        provider=provider, mode=mode, shape=f"B1 H{HEADS} Hkv{KV_HEADS} D{HEAD_DIM} causal",
        length=CACHE if mode == "decode" else LENGTH, dtype=str(DTYPE)[6:],
    )  # fmt: skip
