"""Shared-prefix sampling against transformers' own repetition of whole prompts."""

import pytest
import torch

from avar_fast.attention import record_attention
from avar_fast.models.head import replaced_head
from avar_fast.objectives import linear_log_probs
from avar_fast.rollout import generate

from ..attention.world import TOKENIZER, batch, models

EOS, PAD = TOKENIZER.convert_tokens_to_ids("<|im_end|>"), TOKENIZER.pad_token_id
BANNED = tuple(TOKENIZER.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"]))


def sample(model, inputs, num_samples, temperature=1.0, eos_id=EOS):
    torch.manual_seed(11)
    return generate(
        model, inputs, num_samples=num_samples, max_new_tokens=10, temperature=temperature,
        eos_id=eos_id, pad_id=PAD, banned_ids=BANNED,
    )  # fmt: skip


def test_same_seed_same_samples_as_repeating_the_prompt():
    fast, slow = models()
    inputs = batch("left")
    got = sample(fast, inputs, num_samples=3)
    torch.manual_seed(11)
    want = slow.generate(
        **inputs, num_return_sequences=3, max_new_tokens=10, do_sample=True, top_k=0, top_p=1.0,
        suppress_tokens=list(BANNED), eos_token_id=EOS, pad_token_id=PAD,
    )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    assert got.completion_ids.shape[0] == 6
    assert torch.equal(got.completion_ids, want)
    assert len({tuple(row.tolist()) for row in got.completion_ids[:3]}) == 3


def test_a_forward_with_other_images_in_between_changes_nothing():
    """generate keeps rotary offsets as hidden state of the model; a stale one shifts every
    position."""
    fast, _ = models()
    inputs = batch("left")
    before = sample(fast, inputs, num_samples=2)
    with torch.no_grad():
        fast(**batch("right", images=(2, 1)))
    deltas = fast.model.rope_deltas
    assert torch.equal(sample(fast, inputs, num_samples=2).completion_ids, before.completion_ids)
    assert fast.model.rope_deltas is deltas


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_log_probs_of_the_training_forward_are_those_that_sampling_used(temperature):
    """The sampled token is drawn from the distribution the training forward computes: greedy
    agrees."""
    fast, _ = models()
    inputs = batch("left")
    rollouts = sample(fast, inputs, 1, temperature=0.0, eos_id=-1)
    full = dict(inputs, input_ids=torch.cat([inputs["input_ids"], rollouts.completion_ids], 1))
    for name, value in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        extra = torch.full_like(rollouts.completion_ids, value).to(inputs[name].dtype)
        full[name] = torch.cat([inputs[name], extra], 1)

    def every_token(hidden, weight):
        rows = hidden[:, :-1].flatten(0, 1)
        each = [
            linear_log_probs(
                rows, weight, torch.full((len(rows),), t), temperature, BANNED, budget_bytes=1 << 16
            )[0]
            for t in range(len(weight))
        ]
        return torch.stack(each, -1).view(len(hidden), -1, len(weight))

    with torch.no_grad(), record_attention(fast), replaced_head(fast, every_token):
        every = fast(**full, use_cache=False, logits_to_keep=11).logits
    assert torch.equal(every.argmax(-1), rollouts.completion_ids)
    assert torch.allclose(every.exp().sum(-1), torch.ones(()), atol=1e-5)
    assert (every[..., list(BANNED)] == float("-inf")).all()


def test_mask_ends_with_the_end_token():
    fast, _ = models()
    inputs = batch("left")
    first = sample(fast, inputs, 4, eos_id=-1).completion_ids
    stop = int(first[0, 3])
    got = sample(fast, inputs, 4, eos_id=stop)
    for ids, mask in zip(got.completion_ids, got.completion_mask, strict=True):
        length = int(mask.sum())
        assert mask[:length].all()
        assert (ids[length:] == PAD).all()
        assert stop not in ids[: length - 1].tolist()


def test_training_mode_is_restored():
    fast, _ = models()
    fast.train()
    sample(fast, batch("left"), 1)
    assert fast.training


def text_only(inputs):
    """The same ragged prompts without images: every image pad becomes a word."""
    ids = inputs["input_ids"].clone()
    ids[torch.isin(ids, torch.tensor(BANNED))] = TOKENIZER.encode("row", add_special_tokens=False)[
        0
    ]
    return {
        "input_ids": ids,
        "attention_mask": inputs["attention_mask"],
        "mm_token_type_ids": torch.zeros_like(inputs["mm_token_type_ids"]),
    }


def test_prompts_without_any_image_sample_as_whole_prompts_do():
    """A batch without images leaves the model no rotary offsets; this crashed."""
    fast, slow = models()
    inputs = text_only(batch("left"))
    assert (inputs["attention_mask"] == 0).any()
    for stale in (False, True):
        if stale:
            with torch.no_grad():
                fast(**batch("left"))
        got = sample(fast, inputs, num_samples=2)
        torch.manual_seed(11)
        want = slow.generate(
            **inputs, num_return_sequences=2, max_new_tokens=10, do_sample=True, top_k=0, top_p=1.0,
            suppress_tokens=list(BANNED), eos_token_id=EOS, pad_token_id=PAD,
        )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
        assert torch.equal(got.completion_ids, want)


@pytest.mark.parametrize(
    "setting",
    [{"min_p": 0.5}, {"no_repeat_ngram_size": 1}, {"repetition_penalty": 3.0}, {"typical_p": 0.2}],
    ids=str,
)
def test_sampling_settings_of_the_checkpoint_do_not_leak_into_rollouts(setting):
    """The loss assumes the plain softmax; a checkpoint's min_p would sample from another."""
    fast, _ = models()
    inputs = batch("left")
    want = sample(fast, inputs, num_samples=3).completion_ids
    fast.generation_config.update(**setting)
    before = fast.generation_config
    assert torch.equal(sample(fast, inputs, num_samples=3).completion_ids, want)
    assert fast.generation_config is before
