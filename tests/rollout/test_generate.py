"""Shared-prefix sampling against transformers' own repetition of whole prompts."""

import dataclasses
import importlib
from contextlib import contextmanager

import pytest
import torch
from avar_kernels import KeyType

from avar_fast.attention import INTERVENTION_FORMS, attach, intervene, record_attention
from avar_fast.data import Encoder, collate, load_rows
from avar_fast.lab.model import build_image_processor
from avar_fast.lab.world import WorldConfig, write_rows
from avar_fast.models.head import replaced_head
from avar_fast.objectives import linear_log_probs
from avar_fast.rollout import Sampling, generate, without_end

from ..attention.tiny_models import TOKENIZER, batch, models

EOS, PAD = TOKENIZER.convert_tokens_to_ids("<|im_end|>"), TOKENIZER.pad_token_id
BANNED = tuple(TOKENIZER.convert_tokens_to_ids(["<|image_pad|>", "<|video_pad|>"]))


@pytest.fixture(autouse=True, params=[False, True], ids=["free_steps", "fixed_steps"])
def _steps(request, monkeypatch):
    """Every test runs with the steps of a CPU, and with the fixed ones that a GPU's graphs need."""
    module = importlib.import_module("avar_fast.rollout.generate")  # the package has the function
    monkeypatch.setattr(module, "_can_capture", lambda model: request.param)


def drawing(num_samples, max_new_tokens, temperature, *eos_ids):
    return Sampling(
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        temperature=temperature,
        eos_ids=eos_ids,
        pad_id=PAD,
        banned_ids=BANNED,
    )


def sample(model, inputs, num_samples, temperature=1.0, eos_ids=(EOS,), max_new_tokens=10):
    torch.manual_seed(11)
    sampling = drawing(num_samples, max_new_tokens, temperature, *eos_ids)
    return generate(model, range(len(inputs["input_ids"])), lambda prompts: inputs, sampling)


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


def test_samples_do_not_depend_on_when_ended_rows_are_taken_out():
    """Rows end at different steps; transformers keeps them all to the last."""
    fast, slow = models()
    inputs = batch("left")
    stop = sample(fast, inputs, 6, eos_ids=()).completion_ids[:, 2:5].flatten().mode().values.item()
    got = sample(fast, inputs, 6, eos_ids=(stop,), max_new_tokens=24)
    torch.manual_seed(11)
    want = slow.generate(
        **inputs, num_return_sequences=6, max_new_tokens=24, do_sample=True, top_k=0, top_p=1.0,
        suppress_tokens=list(BANNED), eos_token_id=stop, pad_token_id=PAD,
    )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    lengths = got.completion_mask.sum(1)
    assert len(set(lengths.tolist())) > 2
    assert torch.equal(got.completion_ids, want)


@pytest.mark.parametrize("form", INTERVENTION_FORMS)
@pytest.mark.parametrize("role", ["all", "response"])
def test_interventions_on_types_of_ones_own_with_shared_prompts(form, role):
    """Greedy completions are those of transformers' generate under the same intervention."""

    def every_second_image_token(ids, types):
        visual = types == KeyType.VISUAL
        return torch.where(visual & (visual.cumsum(1) % 2 == 0), 3, types)

    fast, _ = models()
    attach(fast, TOKENIZER, num_types=4, classify=every_second_image_token)
    inputs = batch("left")
    change = {"visual_scale": 1.5, "scales": {3: 0.2}, "form": form, "queries": role}
    with intervene(fast, **change):
        got = sample(fast, inputs, num_samples=2, temperature=0.0, eos_ids=())
        want = fast.generate(
            **inputs, max_new_tokens=10, do_sample=False, suppress_tokens=list(BANNED),
            eos_token_id=None, pad_token_id=PAD,
        )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    assert torch.equal(got.completion_ids, want.repeat_interleave(2, 0))
    plain = sample(fast, inputs, num_samples=2, temperature=0.0, eos_ids=())
    assert not torch.equal(got.completion_ids, plain.completion_ids)


def test_fixed_steps_refuse_a_change_that_they_would_not_see(monkeypatch):
    module = importlib.import_module("avar_fast.rollout.generate")
    for name in ("_can_capture", "takes_fixed_steps"):
        monkeypatch.setattr(module, name, lambda model: True)
    fast, _ = models()
    change = intervene(fast, visual_scale=1.5, form="weights")
    with change, pytest.raises(RuntimeError, match="must not be active in fixed decoding steps"):
        sample(fast, batch("left"), num_samples=2)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_prompts_that_take_the_place_of_ended_ones_are_completed_as_alone(tmp_path, at_once):
    """Greedy completions of ragged prompts, with images and without, that come and go."""
    fast, _ = models()
    encode = Encoder(TOKENIZER, build_image_processor(), "You are a helpful assistant.", 1000)
    write_rows(tmp_path, WorldConfig(), "test", num_rows=6, seed=3)
    rows = load_rows(str(tmp_path / "test.jsonl"))
    prompts = [encode(rows[i]) for i in range(6)]
    prompts[2:4] = [
        dataclasses.replace(
            p, prompt_ids=words(p.prompt_ids[:-k]), pixel_values=None, image_grid_thw=None
        )
        for p, k in zip(prompts[2:4], (1, 9), strict=True)
    ]
    read = []

    def inputs_of(some):
        read.append(len(some))
        return collate(some, PAD, BANNED, with_target=False).inputs

    alone = [generate(fast, [p], inputs_of, drawing(2, 12, 0.0)) for p in prompts]
    common = torch.cat([x.completion_ids[0, 3:9] for x in alone])
    stop = common.mode().values.item()
    sampling = drawing(2, 12, 0.0, stop)
    read.clear()
    got = generate(fast, prompts, inputs_of, sampling, at_once)
    assert len(read) > 1
    assert sum(read) == 6
    assert max(read) <= at_once
    assert len({int(n) for n in got.completion_mask.sum(1)}) > 1
    for i, rollouts in enumerate(alone):
        ids = rollouts.completion_ids[0].tolist()
        want = ids[: ids.index(stop) + 1] if stop in ids else ids
        for copy in (2 * i, 2 * i + 1):
            assert got.completion_ids[copy][got.completion_mask[copy]].tolist() == want


def parts_of(inputs):
    """Makes the inputs of some of a batch's two prompts, which have one image and two."""
    per_image = inputs["pixel_values"].split([int(g.prod()) for g in inputs["image_grid_thw"]])
    pixels = [torch.cat(per_image[:1]), torch.cat(per_image[1:])]
    grids = inputs["image_grid_thw"].split([1, 2])

    def inputs_of(some):
        tokens = ("input_ids", "attention_mask", "mm_token_type_ids")
        return {name: inputs[name][list(some)] for name in tokens} | {
            "pixel_values": torch.cat([pixels[i] for i in some]),
            "image_grid_thw": torch.cat([grids[i] for i in some]),
        }

    return inputs_of


@pytest.mark.parametrize("at_once", [1, 2])
def test_masses_recorded_while_prompts_are_read_are_those_of_a_plain_forward(at_once):
    """And the completions are the same to the token; forwards of single tokens record nothing."""
    fast, _ = models()
    inputs = batch("left")
    inputs_of = parts_of(inputs)

    seen = {}

    @contextmanager
    def reading(first, given):
        with record_attention(fast) as recording:
            yield
        for i in range(len(given["input_ids"])):
            seen[first + i] = {layer: mass[i] for layer, mass in recording.mass.items()}

    sampling = drawing(2, 8, 0.0)
    got = generate(fast, range(2), inputs_of, sampling, at_once, reading)
    want = generate(fast, range(2), inputs_of, sampling, at_once)
    assert torch.equal(got.completion_ids, want.completion_ids)
    with torch.no_grad(), record_attention(fast) as recording:
        fast(**inputs)
    assert sorted(seen) == [0, 1]
    for i, masses in seen.items():
        assert sorted(masses) == [0, 1, 2, 3]
        for layer, mass in masses.items():
            torch.testing.assert_close(mass, recording.mass[layer][i], atol=1e-5, rtol=1e-4)


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
    rollouts = sample(fast, inputs, 1, temperature=0.0, eos_ids=())
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
    first = sample(fast, inputs, 4, eos_ids=()).completion_ids
    stop = int(first[0, 3])
    got = sample(fast, inputs, 4, eos_ids=(stop,))
    for ids, mask in zip(got.completion_ids, got.completion_mask, strict=True):
        length = int(mask.sum())
        assert mask[:length].all()
        assert (ids[length:] == PAD).all()
        assert stop not in ids[: length - 1].tolist()


def test_any_of_several_end_tokens_ends_a_completion_as_in_transformers():
    """Only <|im_end|> ended one; Qwen's generation configs name two, and a model that ends with the
    other ran on: its last <answer> was another one's."""
    fast, slow = models()
    inputs = batch("left")
    free = sample(fast, inputs, 6, eos_ids=()).completion_ids
    stops = tuple(int(free[:, i].mode().values) for i in (2, 5))
    got = sample(fast, inputs, 6, eos_ids=stops, max_new_tokens=24)
    torch.manual_seed(11)
    want = slow.generate(
        **inputs, num_return_sequences=6, max_new_tokens=24, do_sample=True, top_k=0, top_p=1.0,
        suppress_tokens=list(BANNED), eos_token_id=list(stops), pad_token_id=PAD,
    )[:, inputs["input_ids"].shape[1] :]  # fmt: skip
    assert torch.equal(got.completion_ids, want)
    ended = [ids[mask] for ids, mask in zip(got.completion_ids, got.completion_mask, strict=True)]
    assert {int(ids[-1]) for ids in ended if len(ids) < 24} == set(stops)
    for ids in ended:
        rest = without_end(ids, stops)
        assert len(rest) == len(ids) - (int(ids[-1]) in stops)
        assert not set(rest.tolist()) & set(stops)


def test_training_mode_is_restored():
    fast, _ = models()
    fast.train()
    sample(fast, batch("left"), 1)
    assert fast.training


def words(ids):
    """The same prompt without images: every image pad becomes a word."""
    word = TOKENIZER.encode("row", add_special_tokens=False)[0]
    return torch.where(torch.isin(ids, torch.tensor(BANNED)), word, ids)


def text_only(inputs):
    """The same ragged prompts without images."""
    return {
        "input_ids": words(inputs["input_ids"]),
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


def test_masses_of_sampled_tokens_are_those_of_a_full_forward():
    """Rows end at different steps and leave, prompts join; last tokens have masses too."""
    fast, _ = models()
    inputs_of = parts_of(batch("left"))

    for at_once in (1, 2):
        sampling = dataclasses.replace(drawing(4, 9, 1.0, *range(0, 250, 6)), mass_layers=(1, 3))
        results = []
        for chosen in (sampling, dataclasses.replace(sampling, mass_layers=())):
            torch.manual_seed(3)
            results.append(generate(fast, range(2), inputs_of, chosen, at_once))
        got, without = results
        assert torch.equal(got.completion_ids, without.completion_ids)
        assert without.masses is None
        assert len(set(got.completion_mask.sum(1).tolist())) > 1
        assert got.masses.shape == (8, got.completion_ids.shape[1], 2, 3)
        assert (got.masses[~got.completion_mask] == 0).all()
        for n in range(8):
            whole = inputs_of([n // 4])
            ids = got.completion_ids[n][got.completion_mask[n]][None]
            length = whole["input_ids"].shape[1]
            whole |= {
                name: torch.cat([whole[name], extra.to(whole[name].dtype)], dim=1)
                for name, extra in (
                    ("input_ids", ids),
                    ("attention_mask", torch.ones_like(ids)),
                    ("mm_token_type_ids", torch.zeros_like(ids)),
                )
            }
            with torch.no_grad(), record_attention(fast, (1, 3)) as recording:
                fast(**whole)
            want = torch.stack([recording.mass[i][0, length:].sum(1) for i in (1, 3)], dim=1)
            torch.testing.assert_close(got.masses[n, : ids.shape[1]], want, atol=2e-5, rtol=1e-4)
