"""Sampling from models with recurrent layers, whose states repeat, leave and join with their rows,
and from mixtures of experts."""

import dataclasses

import pytest
import torch

from avar_fast.attention import record_attention
from avar_fast.rollout import Sampling, generate

from ..attention.tiny_models import batch
from ..models.families import TOKENIZER, layer_types, models

EOS, PAD = TOKENIZER.convert_tokens_to_ids("<|im_end|>"), TOKENIZER.pad_token_id
BANNED = tuple(TOKENIZER.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"]))
SAMPLING = Sampling(
    num_samples=5, max_new_tokens=16, temperature=1.0, eos_ids=(EOS,), pad_id=PAD, banned_ids=BANNED
)


@pytest.fixture(scope="module", params=["qwen3_5", "qwen3_5_moe", "qwen3_vl_moe"])
def pair(request):
    return models(request.param)


def sample(model, inputs, **changes):
    torch.manual_seed(11)
    sampling = dataclasses.replace(SAMPLING, **changes)
    return generate(model, range(len(inputs["input_ids"])), lambda prompts: inputs, sampling)


def test_same_seed_same_samples_as_transformers_while_ended_rows_leave(pair):
    fast, slow = pair
    inputs = batch("left")
    free = sample(fast, inputs, eos_ids=()).completion_ids
    stops = sorted({int(free[row, 3 + 2 * row]) for row in range(4)})
    got = sample(fast, inputs, eos_ids=tuple(stops))
    torch.manual_seed(11)
    want = slow.generate(
        **inputs, num_return_sequences=5, max_new_tokens=16, do_sample=True, top_k=0, top_p=1.0,
        suppress_tokens=list(BANNED), eos_token_id=stops, pad_token_id=PAD,
    )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    lengths = got.completion_mask.sum(1)
    assert len(set(lengths.tolist())) > 2
    assert torch.equal(got.completion_ids, want)


def parts(inputs):
    """Makes the inputs of some of a batch's two prompts, which have one image and two."""
    sizes = [int(grid.prod()) for grid in inputs["image_grid_thw"]]
    images = inputs["pixel_values"].split(sizes)
    pixels = [images[0], torch.cat(images[1:])]
    grids = inputs["image_grid_thw"].split([1, 2])

    def inputs_of(chosen):
        tokens = ("input_ids", "attention_mask", "mm_token_type_ids")
        return {name: inputs[name][list(chosen)] for name in tokens} | {
            "pixel_values": torch.cat([pixels[i] for i in chosen]),
            "image_grid_thw": torch.cat([grids[i] for i in chosen]),
        }

    return inputs_of


def test_prompts_that_join_are_completed_as_alone(pair):
    """Greedy completions. The next prompts are read when rows have ended, and join the others."""
    fast, _ = pair
    inputs_of = parts(batch("left"))
    order = [0, 1, 0, 1, 1]
    greedy = dataclasses.replace(SAMPLING, num_samples=2, temperature=0.0, eos_ids=())
    alone = {i: generate(fast, [i], inputs_of, greedy).completion_ids[0].tolist() for i in (0, 1)}
    assert alone[0] != alone[1]
    stop = next(t for t in alone[1][2:] if t not in alone[0][:8])  # they end at different steps
    greedy = dataclasses.replace(greedy, eos_ids=(stop,))
    got = generate(fast, order, inputs_of, greedy, at_once=2)
    for place, prompt in enumerate(order):
        ids = alone[prompt]
        want = ids[: ids.index(stop) + 1] if stop in ids else ids
        for copy in (2 * place, 2 * place + 1):
            assert got.completion_ids[copy][got.completion_mask[copy]].tolist() == want


def test_masses_of_sampled_tokens_are_those_of_a_full_forward(pair):
    fast, _ = pair
    inputs = batch("left")
    layers = tuple(i for i, kind in enumerate(layer_types(fast)) if kind == "full_attention")
    got = sample(fast, inputs, num_samples=2, mass_layers=layers)
    lengths = got.completion_mask.sum(1).tolist()
    for row, length in enumerate(lengths):
        one = parts(inputs)([row // 2])
        new = got.completion_ids[row, :length][None]
        one["input_ids"] = torch.cat([one["input_ids"], new], dim=1)
        one["attention_mask"] = torch.cat([one["attention_mask"], torch.ones_like(new)], dim=1)
        one["mm_token_type_ids"] = torch.cat(
            [one["mm_token_type_ids"], torch.zeros_like(new, dtype=torch.int32)], dim=1
        )
        with torch.no_grad(), record_attention(fast) as rec:
            fast(**one, use_cache=False)
        want = torch.stack([rec.mass[i][0, -length:].sum(dim=1) for i in layers], dim=1)
        assert torch.allclose(got.masses[row, :length], want, atol=2e-5)
