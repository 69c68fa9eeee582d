"""The plug-in in a model that is already loaded."""

import pytest
import torch
from torch import nn

from avar_fast.attention import record_attention
from avar_fast.integrations import use_avar

from .clients import TOKENIZER, processor, tiny_model
from .steps import inputs_of, samples_of


def masses(model, rows_file):
    with torch.no_grad(), record_attention(model) as recording:
        logits = model.eval()(**inputs_of(samples_of(rows_file, 5))).logits
    return torch.stack(list(recording.mass.values())), logits


def test_a_loaded_model_is_switched_on(rows_file):
    model = tiny_model(attached=False)
    vision = model.config.vision_config._attn_implementation
    use_avar(model, processor())
    assert model.config.text_config._attn_implementation == "avar"
    assert model.config.vision_config._attn_implementation == vision
    got, want = masses(model, rows_file), masses(tiny_model(), rows_file)
    assert torch.equal(got[0], want[0])
    assert torch.equal(got[1], want[1])


def test_a_model_inside_peft_is_switched_on(rows_file):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=4, target_modules=r".*language_model.*q_proj")
    model = peft.get_peft_model(tiny_model(attached=False), config)
    use_avar(model, TOKENIZER)
    assert torch.equal(masses(model, rows_file)[0], masses(tiny_model(), rows_file)[0])


def test_other_modules_are_refused():
    with pytest.raises(TypeError, match="must be a transformers model.*got Linear"):
        use_avar(nn.Linear(2, 2), TOKENIZER)
