"""Times training steps of stage sft through the trainer's own loop and engine: forward, losses,
backward, clipping, AdamW, and the log's figures.

    MFU = model FLOPs / (seconds * measured rate of the best large matrix product)

with model FLOPs as avar_fast/models/flops.py counts them. Plain SFT records masses too, for the VAS
in its log; with torch's attention there is none. Every variant runs in turns with plain SFT.
"""

import functools

import pytest
import torch

from avar_fast.train.sft import training_step
from avar_fast.train.throughput import work_of

from .measure import extra_memory_mib, peak_flops, synchronize
from .models import DTYPE, SHAPE
from .shapes import DEVICE, EAGER_MAX_LENGTH
from .trainer import batch, choose, the_run

LENGTHS = (4096, 8192, 16384) if DEVICE == "cuda" else (512, 1024, 2048, 4096)
ROUNDS = 15 if DEVICE == "cuda" else 5
VARIANTS = (("sft", "avar"), ("sft_agto", "avar"), ("sft_agto", "eager"), ("sft", "sdpa"))


def step(mode, attention, length):
    """A call that makes one step, and what prepares it."""

    def prepare():
        choose(the_run(), mode, attention, batch(length))
        synchronize()
        return (), {}

    def call():
        metrics = training_step(the_run(), 0)
        synchronize()
        return metrics

    return call, prepare


@functools.cache
def gate():
    """Losses and gradient norms of all variants agree."""
    found = {}
    for mode, attention in VARIANTS:
        call, prepare = step(mode, attention, 128)
        prepare()
        found[mode, attention] = call()
    close = functools.partial(pytest.approx, rel=1e-4 if torch.float32 == DTYPE else 3e-2)
    plain, guided = found["sft", "avar"], found["sft_agto", "avar"]
    for metrics in found.values():
        assert metrics["lm_loss"] == close(plain["lm_loss"])
    for key in ("loss", "agto_enhance", "agto_suppress", "grad_norm", "vas_log_ratio"):
        assert found["sft_agto", "eager"][key] == close(guided[key]), key
    assert found["sft", "sdpa"]["grad_norm"] == close(plain["grad_norm"])
    assert abs(guided["loss"] - plain["loss"]) > 1e-3  # AGTO is on


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("mode", "attention"), VARIANTS)
def test_step(record, table, mode, attention, length):
    if attention == "eager" and length > EAGER_MAX_LENGTH:
        pytest.skip(f"keeps L x L matrices, not tried above L = {EAGER_MAX_LENGTH}")
    gate()
    call, prepare = step(mode, attention, length)
    case = dict(
        op="train_step", provider=f"{attention}_{mode}", mode="step", shape=SHAPE, length=length,
        dtype=str(DTYPE)[6:],
    )  # fmt: skip
    work = the_run().throughput.flops.training.flops(work_of(batch(length)))
    plain = (mode, attention) == VARIANTS[0]
    quantiles = record(
        call, ROUNDS, work, peak_flops(DTYPE), setup=prepare,
        anchor=None if plain else step(*VARIANTS[0], length), **case,
    )  # fmt: skip
    if quantiles is not None:
        tokens = tuple(1e3 * length / milliseconds for milliseconds in reversed(quantiles))
        table.add(tokens, None, metric="tokens_per_s", unit="tokens/s", **case)
    prepare()
    memory = extra_memory_mib(call)
    table.add((memory,) * 3, None, metric="extra_memory", unit="MiB", **case)
