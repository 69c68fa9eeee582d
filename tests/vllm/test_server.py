"""A vLLM server on the loopback, for real, against its CPU build."""

import shutil

import pytest
from transformers import AutoConfig, AutoModelForImageTextToText

from .api_server import serving
from .environment import needs_vllm, read_log, torchrun, write_recipe

pytestmark = needs_vllm
FLOAT32_GAP = 1e-4


@pytest.fixture(scope="module")
def address(untied_model):
    with serving(untied_model) as address:
        yield address


def recipe_for(tmp_path, model, rows, address, **sections):
    rollout = {"engine": "vllm_server", "server_url": address, "server_seconds": 60}
    rollout |= sections.pop("rollout", {})
    return write_recipe(tmp_path, model, rows, rollout=rollout, **sections)


def test_training_samples_from_the_weights_of_each_step(tmp_path, untied_model, rows, address):
    recipe = recipe_for(tmp_path, untied_model, rows, address)
    torchrun("-m", "avar_fast.train", recipe, ranks=2)
    log = read_log(tmp_path)
    assert len(log) == 3
    for step in log:
        assert step["log_prob_gap"] < FLOAT32_GAP
        assert step["grad_norm"] > 0


def test_weights_that_do_not_fit(tmp_path, untied_model, rows, address):
    other = tmp_path / "smaller"
    shutil.copytree(untied_model, other)
    config = AutoConfig.from_pretrained(untied_model)
    config.text_config.num_hidden_layers = 2
    config.text_config.layer_types = config.text_config.layer_types[:2]
    AutoModelForImageTextToText.from_config(config).save_pretrained(other)
    with serving(other) as elsewhere:
        recipe = recipe_for(tmp_path, untied_model, rows, elsewhere)
        said = torchrun("-m", "avar_fast.train", recipe, expect=1)
    assert "must take new weights" in said
    assert "It must serve the model of model.path" in said


def test_another_tokenizer(tmp_path, untied_model, rows):
    other = tmp_path / "other"
    shutil.copytree(untied_model, other)
    template = other / "chat_template.jinja"
    template.write_text(template.read_text().replace("<|im_start|>assistant", "<|im_start|>user"))
    with serving(other) as elsewhere:
        recipe = recipe_for(tmp_path, untied_model, rows, elsewhere)
        said = torchrun("-m", "avar_fast.train", recipe, expect=1)
    assert "must read the prompt as the trainer's tokens" in said


def test_a_server_that_is_not_in_development_mode(tmp_path, untied_model, rows):
    with serving(untied_model, dev_mode=False) as elsewhere:
        recipe = recipe_for(tmp_path, untied_model, rows, elsewhere)
        said = torchrun("-m", "avar_fast.train", recipe, expect=1)
        assert "VLLM_SERVER_DEV_MODE=1" in said
        recipe = recipe_for(tmp_path, untied_model, rows, elsewhere, data={"max_length": 250})
        said = torchrun("-m", "avar_fast.train", recipe, expect=1)
        assert "--max-model-len 262" in said
