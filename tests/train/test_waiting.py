"""A training step reads nothing back from the device until its last backward is issued."""

from types import SimpleNamespace

import pytest
import torch

from avar_fast.attention import SpecialTokens, packing, visual_ids
from avar_fast.config import AgtoConfig
from avar_fast.train import sft
from avar_fast.train.forward import HeadLimits
from tests.data.samples import TOKENIZER, collator, samples
from tests.device_waits import DeviceWaits
from tests.models.families import models

TOKENS = SpecialTokens.from_processor(TOKENIZER)


class OneRankEngine:
    """The engine's interface for one rank, without optimizer. ``waits`` looks from the first
    forward on; ``before_backward`` is what it had found when the last backward was issued."""

    device, sequence, ranks_per_row, lr = torch.device("cpu"), None, 1, 0.1

    def __init__(self, model):
        self.module, self.waits, self.looking = model, DeviceWaits(), False
        self.before_backward = []

    def __call__(self, **inputs):
        if not self.looking:
            self.waits.__enter__()
            self.looking = True
        return self.module(**inputs)

    def backward(self, loss, *, last):
        self.before_backward = list(self.waits.lines)
        loss.backward()

    def sum_over_rows(self, *values):
        return [float(value) for value in values]

    def sum_tensor_over_ranks(self, values):
        return values

    def step(self):
        return torch.ones((), dtype=torch.float64)

    def stop_looking(self):
        self.waits.__exit__(None, None, None)


def a_run(model, batches, agto):
    training = SimpleNamespace(flops=lambda work: 1.0)
    return SimpleNamespace(
        recipe=SimpleNamespace(agto=AgtoConfig(enabled=agto), train=SimpleNamespace(steps=4)),
        engine=OneRankEngine(model),
        feed=SimpleNamespace(next_step=lambda: batches),
        tokens=TOKENS,
        head=HeadLimits(1 << 24),
        throughput=SimpleNamespace(flops=SimpleNamespace(training=training)),
        require_finite=lambda *unused: None,
    )


@pytest.fixture(scope="module")
def model():
    return models("qwen2_5_vl")[0]


@pytest.mark.parametrize("agto", [False, True])
@pytest.mark.parametrize("how", ["pad", "pack"])
def test_an_sft_step_waits_once_at_its_end(model, monkeypatch, how, agto):
    # What a GPU does with positions that restart: a device-side assertion.
    for module in (packing, visual_ids):
        monkeypatch.setattr(module, "refuse", lambda wrong, message: torch._assert_async(~wrong))
    make = getattr(collator(model, TOKENS), how)
    run = a_run(model, [make(samples()[:3]), make(samples()[3:])], agto)
    try:
        metrics = sft.training_step(run, 0)
    finally:
        run.engine.stop_looking()
    assert run.engine.before_backward == []
    assert [line.partition(" ")[2] for line in run.engine.waits.lines] == [
        "*sums, norm = torch.cat([summed, norm[None]]).tolist()"
    ]
    assert metrics["vas_share"] > 0
    assert metrics["loss"] > 0


def test_the_counter_sees_what_waits():
    x, mask = torch.arange(4.0), torch.tensor([True, False, True, False])
    waiting = [
        lambda: x.sum().item(),
        lambda: bool(x.any()),
        lambda: x.tolist(),
        lambda: float(x[0]),
        lambda: x[mask],
        lambda: mask.nonzero(),
        lambda: torch.equal(x, x),
        lambda: torch.tensor([1, 2]),
        lambda: torch.repeat_interleave(x, mask.long()),
    ]
    for read in waiting:
        with DeviceWaits() as waits:
            read()
        assert waits.lines, read
    with DeviceWaits() as waits:
        torch.where(mask, x, 0.0).sum()[None].index_select(0, torch.zeros(1, dtype=torch.long))
    assert waits.lines == []
