"""Times sampling groups of completions for prompts with an image: the rollout engine beside
transformers' own ways.

Tokens per second are the number of sampled tokens over the time.
"""

import functools
from typing import Any

import pytest
import torch

from avar_fast.rollout import Sampling, generate

from .measure import synchronize
from .models import DTYPE, SMALL, TOKENIZER, build, sample
from .shapes import DEVICE

# The text tower of Qwen2.5-VL-3B on a GPU: layers, width, width of the MLP, heads, key heads.
SIZE, WIDTHS, VOCABULARY = (
    ("3B", (36, 2048, 11008, 16, 2), 151936) if DEVICE == "cuda" else ("30 M", SMALL, 8192)
)
GROUP, NEW_TOKENS = 8, 32
PROMPT_LENGTHS = (300, 1200)
EOS: Any = TOKENIZER.convert_tokens_to_ids("<|im_end|>")
IMAGE_IDS: Any = TOKENIZER.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"])
PAD: Any = TOKENIZER.pad_token_id
BANNED = (*IMAGE_IDS, EOS)  # so that every completion has all its tokens
SHAPE = f"{SIZE}, group of {GROUP}, {NEW_TOKENS} new tokens"
PROVIDERS = ("avar", "num_return_sequences", "repeated_prompt")


@functools.cache
def model(attention):
    return build(attention, VOCABULARY, WIDTHS).eval()


@functools.cache
def prompt(length):
    return sample(length)


def ours(length):
    sampling = Sampling(
        num_samples=GROUP,
        max_new_tokens=NEW_TOKENS,
        temperature=1.0,
        eos_ids=(EOS,),
        pad_id=PAD,
        banned_ids=BANNED,
    )
    return generate(model("avar"), [length], lambda lengths: prompt(*lengths), sampling)


def transformers(length, repeated=False):
    inputs = prompt(length)
    if repeated:  # images of all copies lie end to end
        inputs = {name: torch.cat([x] * GROUP) for name, x in inputs.items()}
    return model("sdpa").generate(
        **inputs,
        num_return_sequences=1 if repeated else GROUP,
        max_new_tokens=NEW_TOKENS,
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        suppress_tokens=list(BANNED),
        eos_token_id=EOS,
        pad_token_id=PAD,
    )[:, length:]


@functools.cache
def gate(length):
    """All ways draw the same completions with the same seed.

    Only the first tokens are compared: later on, two kinds of attention may differ where two tokens
    are almost equally likely. In bfloat16 that happens in some completions even there, so half of
    them may differ; by chance none would agree."""
    _ = model("avar"), model("sdpa"), prompt(length)  # not made with the seed of the samples
    drawn = []
    for call in (ours, transformers, functools.partial(transformers, repeated=True)):
        torch.manual_seed(0)
        result = call(length)
        drawn.append(result.completion_ids if call is ours else result)
    for ids in drawn:
        assert ids.shape == (GROUP, NEW_TOKENS)
        agree = (ids[:, :8] == drawn[0][:, :8]).all(1).float().mean()
        assert agree >= (1.0 if torch.float32 == DTYPE else 0.5)
    assert len(drawn[0].unique()) > GROUP


@pytest.mark.parametrize("length", PROMPT_LENGTHS)
@pytest.mark.parametrize("provider", PROVIDERS)
def test_rollout(record, table, provider, length):
    gate(length)

    def finished(call):
        def run():
            call()
            synchronize()

        return run

    calls = {
        "avar": finished(lambda: ours(length)),
        "num_return_sequences": finished(lambda: transformers(length)),
        "repeated_prompt": finished(lambda: transformers(length, repeated=True)),
    }
    anchor = None if provider == "num_return_sequences" else (calls["num_return_sequences"], None)
    record(
        calls[provider], 5, anchor=anchor,
        op="rollout", provider=provider, mode="generate", shape=SHAPE,
        length=length, dtype=str(next(model("avar").parameters()).dtype)[6:],
    )  # fmt: skip
