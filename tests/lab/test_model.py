"""The lab's model: right size, one token per digit, saves and loads, follows its seed."""

from __future__ import annotations

import pytest
import torch
from transformers import Qwen2_5_VLForConditionalGeneration, Qwen2VLImageProcessorPil

from avar_fast.lab.__main__ import main
from avar_fast.lab.model import build_image_processor, build_model
from avar_fast.lab.tokenizer import build_tokenizer
from avar_fast.lab.world import WorldConfig, make_scene


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    assert main(["model", "--out", str(folder), "--seed", "3"]) == 0
    return folder


def prompt_of(tokenizer, processor, sample):
    """Model inputs for one question, the image placeholder expanded as Qwen's processor does."""
    image = processor(sample.image, return_tensors="pt")
    num_tokens = int(image["image_grid_thw"].prod()) // processor.merge_size**2
    parts = [{"type": "image"}, {"type": "text", "text": sample.question}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": parts}], tokenize=False, add_generation_prompt=True
    )
    text = text.replace("<|image_pad|>", "<|image_pad|>" * num_tokens)
    ids = torch.tensor([tokenizer.encode(text)])
    is_image = (ids == tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
    return {"input_ids": ids, "mm_token_type_ids": is_image, **image}


@pytest.mark.parametrize("grid", [(1, 1), (2, 2), (3, 2), (1, 8), (8, 8)])
def test_one_digit_is_one_visual_token(tokenizer, grid):
    rows, cols = grid
    processor = build_image_processor()
    model = build_model(tokenizer, seed=0)
    sample = make_scene(WorldConfig(rows=rows, cols=cols), "train", 0, 0)
    image = processor(sample.image, return_tensors="pt")
    assert image["image_grid_thw"].tolist() == [[1, 2 * rows, 2 * cols]]
    with torch.no_grad():
        tokens = model.model.visual(
            image["pixel_values"], grid_thw=image["image_grid_thw"]
        ).pooler_output
    assert tokens.shape == (rows * cols, model.config.text_config.hidden_size)


def test_the_size_is_about_a_million_parameters(tokenizer):
    assert 0.9e6 < build_model(tokenizer, seed=0).num_parameters() < 1.3e6


def test_the_rotary_sections_fill_half_a_head(tokenizer):
    text = build_model(tokenizer, seed=0).config.text_config
    head_dim = text.hidden_size // text.num_attention_heads
    assert 2 * sum(text.rope_parameters["mrope_section"]) == head_dim


def test_weights_follow_the_seed_and_nothing_else(tokenizer):
    torch.manual_seed(11)
    state = torch.get_rng_state()
    first = build_model(tokenizer, seed=1).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(12)
    again = build_model(tokenizer, seed=1).state_dict()
    other = build_model(tokenizer, seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


def test_the_saved_folder_loads_and_answers(base, tokenizer):
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(base)
    processor = Qwen2VLImageProcessorPil.from_pretrained(base)
    fresh = build_model(tokenizer, seed=3)
    inputs = prompt_of(tokenizer, processor, make_scene(WorldConfig(), "test", 0, 0))
    with torch.no_grad():
        logits = model(**inputs).logits
        torch.testing.assert_close(logits, fresh.eval()(**inputs).logits, rtol=0, atol=0)
    assert torch.isfinite(logits).all()
    assert logits.shape[-1] == len(tokenizer)
    output = model.generate(**inputs, max_new_tokens=3, eos_token_id=None)
    assert output.shape[1] == inputs["input_ids"].shape[1] + 3
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    assert processor.to_dict()["size"] == build_image_processor().to_dict()["size"]


def test_the_image_reaches_the_answer(tokenizer):
    """Another image under the same question changes the logits, gradients reach the vision
    tower."""
    model = build_model(tokenizer, seed=0)
    processor = build_image_processor()
    samples = [make_scene(WorldConfig(), "train", 0, index) for index in (0, 1)]
    one = prompt_of(tokenizer, processor, samples[0])
    two = {**one, "pixel_values": prompt_of(tokenizer, processor, samples[1])["pixel_values"]}
    first, second = model(**one).logits[:, -1], model(**two).logits[:, -1]
    assert not torch.equal(first, second)
    first.sum().backward()
    assert model.model.visual.patch_embed.proj.weight.grad.abs().sum() > 0
