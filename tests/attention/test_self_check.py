"""attach reads a few tokens with a cache and without: it finds models that would decode wrongly."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from avar_fast.attention import attach, record_attention
from avar_fast.attention.caches import cache_argument, given_cache
from avar_fast.lab.model import build_model

from .tiny_models import TOKENIZER, batch


@pytest.fixture
def model():
    built = build_model(TOKENIZER, seed=0)
    with torch.no_grad():
        for name, weight in built.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(2.0)
    built.set_attn_implementation({"text_config": "avar", "vision_config": "sdpa"})
    return built


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_model_passes_and_keeps_no_trace(model, dtype):
    model.to(dtype).train()
    model.model.visual.eval()
    model.model.rope_deltas = torch.tensor([[7]])
    state = torch.get_rng_state()
    attach(model, TOKENIZER)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.model.rope_deltas.item() == 7
    assert model.training
    assert not model.model.visual.training
    assert all(p.grad is None for p in model.parameters())


def test_a_model_that_decodes_at_wrong_positions_is_refused(model, monkeypatch):
    rotary = model.model.language_model.rotary_emb
    right = rotary.forward
    monkeypatch.setattr(
        rotary, "forward", lambda x, ids: right(x, ids if ids.shape[-1] > 1 else 0 * ids)
    )
    with pytest.raises(
        RuntimeError, match="must attend as without; .* transformers .* check=False"
    ):
        attach(model, TOKENIZER)
    with pytest.raises(ValueError, match="must be attached first"), record_attention(model):
        pass  # it is not left attached
    attach(model, TOKENIZER, check=False)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.language_model.norm.weight"])
def test_a_model_with_damaged_weights_is_refused(model, name):
    with torch.no_grad():
        model.get_parameter(name)[..., 0] = float("nan")
    with pytest.raises(RuntimeError, match=r"must give finite logits .* too large for torch\.floa"):
        attach(model, TOKENIZER)


def test_a_layer_that_does_not_call_the_plug_in_is_named(model, monkeypatch):
    layer = model.model.language_model.layers[2].self_attn
    monkeypatch.setattr(layer, "forward", lambda hidden_states, **_: (hidden_states, None))
    with pytest.raises(RuntimeError, match=r"must call 'avar'; layers \[2\] of Qwen2_5_VL"):
        attach(model, TOKENIZER)


def test_a_cache_under_an_unknown_name_is_an_error_and_no_wrong_number(model, monkeypatch):
    """As when transformers 5.24 renamed past_key_values to cache."""
    name = cache_argument(model)
    monkeypatch.setattr("avar_fast.attention.caches._CACHE_ARGUMENTS", ("memory",))
    with pytest.raises(RuntimeError, match="must take a cache as memory; it takes input_ids"):
        attach(model, TOKENIZER)
    monkeypatch.setattr("avar_fast.attention.self_check.cache_argument", lambda _: name)
    with pytest.raises(ValueError, match="keys of"):
        attach(model, TOKENIZER)


def test_a_cache_is_found_under_either_name(model):
    cache = object()
    assert given_cache({"cache": cache}) is cache
    assert given_cache({"past_key_values": cache, "cache": None}) is cache
    assert given_cache({"use_cache": True}) is None
    assert cache_argument(model) in ("cache", "past_key_values")


def test_a_model_without_its_weights_is_not_checked(model):
    with torch.device("meta"):
        empty = AutoModelForImageTextToText.from_config(
            model.config, attn_implementation={"text_config": "avar", "vision_config": "sdpa"}
        )
    attach(empty, TOKENIZER)


def test_the_mask_of_padding_is_that_of_the_attached_forward(model):
    """The check leaves nothing behind that a later forward would read."""
    attach(model, TOKENIZER)
    inputs = batch("left")
    with torch.no_grad():
        first, second = (model.eval()(**inputs).logits for _ in range(2))
    assert torch.equal(first, second)
