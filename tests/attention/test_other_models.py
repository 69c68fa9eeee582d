"""The plug-in on models of other families, whose image tokens and turns the user names: recording,
intervention and AGTO's gradient against eager attention, and refusals."""

import copy

import pytest
import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    InternVLConfig,
    InternVLForConditionalGeneration,
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from avar_fast.attention import (
    SpecialTokens,
    attach,
    intervene,
    key_types,
    query_mask,
    record_attention,
)
from avar_fast.objectives import agto_loss

from .tiny_models import TOKENIZER, eager_mass

TOKENS = SpecialTokens.from_processor(TOKENIZER, visual=("<|image_pad|>",))
IMAGE = TOKENS.visual[0]
TEXT = {
    "vocab_size": len(TOKENIZER),
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "pad_token_id": TOKENIZER.pad_token_id,
    "bos_token_id": None,
    "eos_token_id": TOKENIZER.eos_token_id,
}


def internvl():
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "image_size": [16, 16],
        "num_attention_heads": 2, "patch_size": [4, 4],
    }  # fmt: skip
    config = InternVLConfig(
        vision_config=vision, text_config=TEXT | {"model_type": "qwen2"}, image_token_id=IMAGE
    )
    return InternVLForConditionalGeneration(config), 4, {"pixel_values": torch.randn(2, 3, 16, 16)}


def llava_onevision():
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 8,
    }  # fmt: skip
    config = LlavaOnevisionConfig(
        vision_config=vision, text_config=TEXT | {"model_type": "qwen2"},
        image_token_index=IMAGE, video_token_index=1, image_grid_pinpoints=[[16, 16]],
    )  # fmt: skip
    images = {
        "pixel_values": torch.randn(2, 2, 3, 16, 16),  # the whole image, and its one tile
        "image_sizes": torch.tensor([[16, 16], [16, 16]]),
    }
    return LlavaOnevisionForConditionalGeneration(config), 10, images


def rows(num_features):
    """Two ragged conversations with an image each, padded on the left."""
    prompts = []
    for question in ("Add row 1.", "Add column 2. Think first."):
        messages = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]},
        ]
        text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        text = text.replace("<|image_pad|>", "<|image_pad|>" * num_features)
        prompts.append(TOKENIZER.encode(text, add_special_tokens=False))
    longest = max(map(len, prompts))
    ids = torch.tensor([[TOKENIZER.pad_token_id] * (longest - len(p)) + p for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return {"input_ids": ids, "attention_mask": mask}


def twice(model):
    """The same weights twice: attached, and with eager attention."""
    for name, weight in model.named_parameters():
        if weight.dim() > 1:  # the default 0.02 is for widths of thousands
            torch.nn.init.normal_(weight, std=0.06)
        if "q_proj.weight" in name or "k_proj.weight" in name:
            weight.data.mul_(2.0)
    slow = copy.deepcopy(model)
    slow.set_attn_implementation("eager")
    model.get_decoder().set_attn_implementation("avar")
    attach(model, None, tokens=TOKENS)
    return model.eval(), slow.eval()


@pytest.fixture(scope="module", params=[internvl, llava_onevision])
def world(request):
    """(attached, eager, inputs)"""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, num_features, images = request.param()
        fast, slow = twice(model)
        return fast, slow, rows(num_features) | images


def test_logits_masses_and_gradients_match_eager(world):
    fast, slow, inputs = world
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    real = mask.bool()
    with record_attention(fast) as rec:
        got = fast(**inputs, use_cache=False).logits
    want = slow(**inputs, output_attentions=True, use_cache=False)
    assert torch.allclose(got[real], want.logits[real], atol=1e-4)
    types = key_types(ids, mask, tokens=TOKENS)
    assert torch.equal(rec.key_types, types)
    masses = eager_mass(want.attentions, types)
    assert list(rec.mass) == [0, 1, 2]
    for layer, mass in enumerate(masses):
        assert torch.allclose(rec.mass[layer][real], mass[real], atol=1e-5)
        assert mass[real].std() > 0.02
    queries = query_mask(ids, mask, tokens=TOKENS)
    losses = [agto_loss(by_layer, queries, types)[0] for by_layer in (rec.mass, masses)]
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-4)
    for model, loss in zip((fast, slow), losses, strict=True):
        model.zero_grad()
        loss.backward()
    compared = 0
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if b.grad is not None:
            assert (a.grad - b.grad).abs().max() < 2e-3 * b.grad.abs().max().clamp(min=1e-3), name
            compared += bool(b.grad.any())
    assert compared > 15


def test_generation_matches_eager_and_can_be_changed(world):
    fast, slow, inputs = world
    options = {"max_new_tokens": 5, "do_sample": False, "return_dict_in_generate": True,
               "output_logits": True, "eos_token_id": None}  # fmt: skip
    got, want = fast.generate(**inputs, **options), slow.generate(**inputs, **options)
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    with intervene(fast, visual_bias=2.0, layers=[1]):
        changed = fast.generate(**inputs, **options)
    assert not torch.allclose(changed.logits[-1], got.logits[-1], atol=1e-3)


def test_a_language_model_has_masses_of_its_system_turn():
    torch.manual_seed(0)
    fast, slow = twice(Qwen3ForCausalLM(Qwen3Config(**TEXT)))
    inputs = rows(2)
    real = inputs["attention_mask"].bool()
    with torch.no_grad(), record_attention(fast) as rec:
        fast(**inputs)
        attentions = slow(**inputs, output_attentions=True).attentions
    for layer, mass in enumerate(eager_mass(attentions, rec.key_types)):
        assert torch.allclose(rec.mass[layer][real], mass[real], atol=1e-5)
        assert (mass[real][..., 2] > 0.02).any()


def test_a_model_whose_image_tokens_see_later_ones_is_refused():
    vision = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "image_size": 16,
        "num_attention_heads": 2, "patch_size": 8,
    }  # fmt: skip
    text = TEXT | {"sliding_window": 512, "layer_types": ["full_attention"] * 3}
    config = Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_id=IMAGE
    )
    model = Gemma3ForConditionalGeneration(config).eval()
    model.set_attn_implementation({"text_config": "avar", "vision_config": "sdpa"})
    attach(model, None, tokens=TOKENS)
    inputs = rows(4)
    kinds = (inputs["input_ids"] == IMAGE).long()
    with pytest.raises(NotImplementedError, match="masks of a model's own"):
        model(**inputs, token_type_ids=kinds, pixel_values=torch.randn(2, 3, 16, 16))


def test_a_model_of_another_family_needs_tokens():
    model = Qwen3ForCausalLM(Qwen3Config(**TEXT))
    model.set_attn_implementation("avar")
    with pytest.raises(TypeError, match="supported family .* Qwen3.5-MoE.*; got Qwen3ForCausalLM"):
        attach(model, TOKENIZER)
    with pytest.raises(TypeError, match="get_decoder"):
        attach(torch.nn.Linear(2, 2), TOKENIZER, tokens=TOKENS)
