"""What other engines are given of a model: whole weights under the names of a checkpoint."""

import torch
from transformers import AutoModelForImageTextToText

from avar_fast.config import DataConfig, LoraConfig, ModelConfig, Recipe, TrainConfig
from avar_fast.rollout.weights import merged_weights
from avar_fast.train.parameters import add_adapters
from tests.models.families import models


def recipe(path):
    return Recipe(
        stage="grpo",
        model=ModelConfig(path=str(path)),
        data=DataConfig(path=""),
        train=TrainConfig(output_dir="", steps=1),
        lora=LoraConfig(enabled=True, rank=3, alpha=7.0),
    )


def test_whole_weights_are_the_models_own():
    model, _ = models("qwen2_5_vl")
    given = dict(merged_weights(model))
    assert given.keys() == dict(model.named_parameters()).keys()
    assert all(torch.equal(given[name], x) for name, x in model.named_parameters())


def test_adapters_are_added_to_the_weights_they_belong_to(tmp_path):
    """A plain model with the given weights answers as the model with adapters does."""
    model, plain = models("qwen2_5_vl")
    add_adapters(model, recipe(tmp_path))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        before = plain(input_ids=ids).logits
        plain.load_state_dict(dict(merged_weights(model)), strict=False)
        want, got = model(input_ids=ids).logits, plain(input_ids=ids).logits
    assert (got - before).abs().max() > 0.01
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)


def test_names_are_those_that_from_pretrained_reads(tmp_path):
    model, _ = models("qwen2_5_vl")
    model.save_pretrained(tmp_path)
    given = dict(merged_weights(model))
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path, state_dict=None)
    assert given.keys() == dict(loaded.named_parameters()).keys()
