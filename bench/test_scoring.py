"""Times the pass of stage grpo that scores completions, through the stage's own functions.

It computes the log-probabilities of the response, alone or with VARS from the same forward. Every
variant runs in turns with the log-probabilities alone.
"""

import functools

import pytest
import torch

from avar_fast.train.forward import response_log_probs
from avar_fast.train.grpo.scoring import response_masses
from avar_fast.train.throughput import work_of_responses

from .measure import peak_flops, synchronize
from .models import DTYPE, SHAPE
from .shapes import DEVICE, EAGER_MAX_LENGTH
from .trainer import batch, choose, recorder_of, responses, the_run

LENGTHS = (2048, 8192) if DEVICE == "cuda" else (512, 1024)
ROUNDS = 30 if DEVICE == "cuda" else 9
PLAIN = ("log_probs", "avar")
VARIANTS = (PLAIN, ("log_probs_vars", "avar"), ("log_probs_vars", "eager"), ("log_probs", "sdpa"))


def scoring(mode, attention, length):
    """A call that scores one completion, and what prepares it."""
    run = the_run()
    options = (run.head, 1.0, run.tokens.visual)

    def prepare():
        choose(run, "sft", attention, batch(length))
        synchronize()
        return (), {}

    @torch.no_grad()
    def call():
        model, completion = run.engine.module, responses(length).to(run.engine.device)
        if mode == "log_probs":
            found = response_log_probs(model, completion, *options).log_probs, None
        else:
            with recorder_of(attention)(model) as recording:
                log_probs = response_log_probs(model, completion, *options).log_probs
            found = log_probs, response_masses(completion, recording)
        synchronize()
        return found

    return call, prepare


@functools.cache
def gate():
    """Log-probabilities of all variants agree, and the masses of VARS of both that have them."""
    found = {}
    for mode, attention in VARIANTS:
        call, prepare = scoring(mode, attention, 128)
        prepare()
        found[mode, attention] = call()
    tolerance = 1e-4 if torch.float32 == DTYPE else 3e-2
    close = functools.partial(torch.testing.assert_close, atol=tolerance, rtol=tolerance)
    for log_probs, _ in found.values():
        close(log_probs, found[PLAIN][0])
    close(found["log_probs_vars", "avar"][1], found["log_probs_vars", "eager"][1])


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(("mode", "attention"), VARIANTS)
def test_scoring(record, mode, attention, length):
    if attention == "eager" and length > EAGER_MAX_LENGTH:
        pytest.skip(f"keeps L x L matrices, not tried above L = {EAGER_MAX_LENGTH}")
    gate()
    call, prepare = scoring(mode, attention, length)
    work = the_run().throughput.flops.forward.flops(work_of_responses(responses(length)))
    record(
        call, ROUNDS, work, peak_flops(DTYPE), setup=prepare,
        anchor=None if (mode, attention) == PLAIN else scoring(*PLAIN, length),
        op="scoring", provider=f"{attention}_{mode}", mode="pass", shape=SHAPE, length=length,
        dtype=str(DTYPE)[6:],
    )  # fmt: skip
