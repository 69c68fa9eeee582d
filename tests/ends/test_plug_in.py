"""The plug-in on whatever transformers is installed, by what all releases share: ``make
test-plug-in`` runs it with releases that are too old for the trainer."""

import copy

import pytest
import torch
import transformers

import avar_fast.attention as aa
from avar_fast.models.checkpointing import checkpoint_layers

IDS = {"<|im_start|>": 1, "<|im_end|>": 2, "<|image_pad|>": 3, "<|video_pad|>": 4}
WORDS = {"\n": [5], "system": [6], "user": [7], "assistant": [8]}
IMAGE, PROMPT = IDS["<|image_pad|>"], [1, 6, 5, 20, 21, 2, 5, 1, 7, 5, 9, 3, 3, 3, 3, 10, 22, 23, 2]


class Tokenizer:
    """The part of a tokenizer that ``attach`` reads."""

    unk_token_id = None

    def convert_tokens_to_ids(self, token):
        return IDS[token]

    def encode(self, text, add_special_tokens=False):
        return WORDS[text]


@pytest.fixture(scope="module")
def pair():
    """The same weights twice: attached, and with eager attention."""
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3]}
    if transformers.__version__.startswith("4."):
        rope = {"rope_theta": 100.0, "rope_scaling": rope | {"type": "mrope"}}
    else:
        rope = {"rope_parameters": rope | {"rope_theta": 100.0}}
    text = {
        "vocab_size": 64, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
        "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14,
        "out_hidden_size": 64, "window_size": 56, "fullatt_block_indexes": [1],
    }  # fmt: skip
    config = transformers.Qwen2_5_VLConfig(
        text_config=text | rope, vision_config=vision, image_token_id=IMAGE, video_token_id=4,
        vision_start_token_id=9, vision_end_token_id=10,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fast = transformers.Qwen2_5_VLForConditionalGeneration(config).eval()
        for name, weight in fast.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.06)
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.data.mul_(2.0)
    slow = copy.deepcopy(fast)
    slow.set_attn_implementation("eager")
    fast.set_attn_implementation({"text_config": "avar", "vision_config": "sdpa"})
    aa.attach(fast, Tokenizer())
    return fast, slow


def inputs(rows):
    """One row, or two padded on the left, with an image of four tokens each."""
    ids = torch.tensor([[0, 0, *PROMPT], [*PROMPT, 24, 25]][:rows])
    generator = torch.Generator().manual_seed(1)
    batch = {
        "input_ids": ids,
        "attention_mask": (ids != 0).long(),
        "pixel_values": torch.randn(16 * rows, 1176, generator=generator),
        "image_grid_thw": torch.tensor([[1, 4, 4]] * rows),
    }
    if not transformers.__version__.startswith("4."):
        batch["mm_token_type_ids"] = (ids == IMAGE).int()
    return batch


@pytest.mark.parametrize("checkpointing", [False, True])
def test_logits_masses_and_gradients_are_those_of_eager_attention(pair, checkpointing):
    fast, slow = (copy.deepcopy(model) for model in pair)
    batch = inputs(2)
    real = batch["attention_mask"].bool()
    if checkpointing:
        checkpoint_layers(fast.train())
    with aa.record_attention(fast) as rec:
        got = fast(**batch, use_cache=False).logits
    want = slow(**batch, output_attentions=True, use_cache=False)
    assert (got - want.logits)[real].abs().max() < 1e-4
    kinds = torch.nn.functional.one_hot(rec.key_types.clamp(min=0).long(), 3).float()
    kinds = kinds * (rec.key_types >= 0)[..., None]
    masses = [(weights @ kinds[:, None]).transpose(1, 2) for weights in want.attentions]
    for mass, layer in zip(masses, rec.mass, strict=True):
        assert (mass - rec.mass[layer])[real].abs().max() < 1e-5
    for values in (rec.mass.values(), masses):
        sum(mass[real][..., 1].square().sum() for mass in values).backward()
    compared = 0
    for (name, a), b in zip(fast.named_parameters(), slow.parameters(), strict=True):
        if b.grad is not None:
            scale = b.grad.abs().max().clamp(min=1e-3)
            assert (a.grad - b.grad).abs().max() < 1e-3 * scale, name
            compared += bool(b.grad.any())
    assert compared > 20


def test_generation_is_that_of_eager_attention_and_can_be_changed(pair):
    options = {"max_new_tokens": 6, "do_sample": False, "output_logits": True,
               "return_dict_in_generate": True, "pad_token_id": 0}  # fmt: skip
    got, want = (model.generate(**inputs(1), **options) for model in pair)
    assert torch.equal(got.sequences, want.sequences)
    for a, b in zip(got.logits, want.logits, strict=True):
        assert (a - b).abs().max() < 1e-4
    with aa.intervene(pair[0], visual_bias=2.0):
        changed = pair[0].generate(**inputs(1), **options)
    assert (changed.logits[-1] - got.logits[-1]).abs().max() > 1e-3
