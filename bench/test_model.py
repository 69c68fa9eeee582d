"""Times an SFT step with AGTO, and the log-probability pass of VARS, on a stack of real layers.

Each runs with this project's attention and without. Tokens per second are the length over the time.
"""

import functools

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from avar_fast.attention import SpecialTokens, key_types, query_mask, record_attention
from avar_fast.objectives import agto_loss, visual_reward

from .measure import extra_memory_mib, peak_flops, synchronize
from .models import DTYPE, HEADS, NUM_LAYERS, SHAPE, TOKENIZER, build, sample
from .shapes import DEVICE, EAGER_MAX_LENGTH, HEAD_DIM

LENGTHS = (2048, 4096, 8192, 16384) if DEVICE == "cuda" else (512, 1024, 2048, 4096)
TOKENS = SpecialTokens.from_processor(TOKENIZER)
STEPS = ("sft", "sft_agto", "vars_pass")


@functools.lru_cache(maxsize=1)  # one model in memory at a time
def model(attention):
    return build(attention)


def masses(attention, inputs, types, **options):
    """Logits and (B, L, H, 3) masses of every layer."""
    if attention == "avar":
        with record_attention(model("avar")) as recording:
            logits = model("avar")(**inputs, use_cache=False, **options).logits
        return logits, recording.mass
    out = model("eager")(**inputs, use_cache=False, output_attentions=True, **options)
    kinds = one_hot(types.clamp(min=0).long(), 3)[:, None].to(out.attentions[0].dtype)
    return out.logits, [(a @ kinds).transpose(1, 2) for a in out.attentions]


def step(name, attention, inputs):
    """One step; returns a number that the gate compares."""
    ids = inputs["input_ids"]
    types = key_types(ids, inputs["attention_mask"], tokens=TOKENS)
    if name == "vars_pass":
        with torch.no_grad():
            logits, mass = masses(attention, inputs, types)
            response = query_mask(ids, role="response", tokens=TOKENS)
            reward = visual_reward(mass, response, torch.tensor([True]), "log_ratio")
            torch.log_softmax(logits.float(), -1).gather(-1, ids[..., None])
            return reward.item()
    if name == "sft":
        logits, mass = model(attention)(**inputs, use_cache=False).logits, None
    else:
        logits, mass = masses(attention, inputs, types)
    loss = cross_entropy(logits[0, :-1].float(), ids[0, 1:])
    if mass is not None:
        loss = loss + agto_loss(mass, query_mask(ids, role="user", tokens=TOKENS), types)[0]
    loss.backward()
    model(attention).zero_grad(set_to_none=True)
    return loss.item()


def cases():
    for attention in ("avar", "sdpa", "eager"):  # outermost: one model is built at a time
        for name in STEPS if attention != "sdpa" else ("sft",):
            for length in LENGTHS:
                skip = attention == "eager" and length > EAGER_MAX_LENGTH
                why = f"keeps L x L matrices, not tried above L = {EAGER_MAX_LENGTH}"
                marks = [pytest.mark.skip(reason=why)] if skip else []
                yield pytest.param(name, length, attention, marks=marks)


@pytest.mark.parametrize(("name", "length", "attention"), list(cases()))
def test_step(record, table, name, length, attention):
    inputs = sample(length)
    if attention != "eager" and name != "sft":
        _gate(name)

    def run():
        step(name, attention, inputs)
        synchronize()

    parameters = sum(p.numel() for p in model(attention).model.language_model.layers.parameters())
    passes = 2 if name == "vars_pass" else 6  # FLOPs per parameter and token
    products = 2 if name == "vars_pass" else 7
    work = passes * parameters * length + NUM_LAYERS * products * HEADS * length**2 * HEAD_DIM
    case = dict(
        op="model_step", provider=attention, mode=name, shape=SHAPE, length=length,
        dtype=str(DTYPE)[6:],
    )  # fmt: skip
    record(run, 3 if DEVICE == "cpu" else 10, work, peak_flops(DTYPE), **case)
    memory = extra_memory_mib(run)
    table.add((memory,) * 3, None, metric="extra_memory", unit="MiB", **case)


@functools.cache
def _gate(name):
    """The step's loss or reward is the same with avar as with eager."""
    inputs = sample(128)
    got = step(name, "avar", inputs)
    want = step(name, "eager", inputs)
    model.cache_clear()
    assert got == pytest.approx(want, rel=1e-4 if torch.float32 == DTYPE else 3e-2)
