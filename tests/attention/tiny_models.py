"""Tiny random models for tests of the plug-in: a Qwen2.5-VL and a language model, with ragged
batches of each."""

import copy

import torch
from PIL import Image
from transformers import Qwen2Config, Qwen2ForCausalLM

from avar_fast.attention import attach
from avar_fast.lab.model import build_image_processor, build_model
from avar_fast.lab.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
PROMPTS = ["Add row 1. Answer at once.", "Add column 2. Think first."]


def models():
    """The same weights twice: with "avar" attention, attached, and with eager attention."""
    fast = build_model(TOKENIZER, seed=0)
    with torch.no_grad():  # random weights of this size attend almost evenly; make it uneven
        for name, weight in fast.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(2.0)
    slow = copy.deepcopy(fast)
    slow.set_attn_implementation("eager")
    fast.set_attn_implementation({"text_config": "avar", "vision_config": "sdpa"})
    attach(fast, TOKENIZER)
    return fast.eval(), slow.eval()


def batch(side="right", system=True, images=(1, 2)):
    """Two conversations of different length; the second holds two images."""
    processor = build_image_processor()
    generator = torch.Generator().manual_seed(5)
    rows, pixels, grids = [], [], []
    for prompt, count in zip(PROMPTS, images, strict=True):
        content = [{"type": "image"}] * count + [{"type": "text", "text": prompt}]
        messages = [{"role": "user", "content": content}]
        if system:
            messages.insert(0, {"role": "system", "content": "You are a helpful assistant."})
        text = TOKENIZER.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        text += "<think>1 + 2 = 3</think><answer>3</answer><|im_end|>\n"
        for _ in range(count):
            noise = torch.randint(0, 256, (56, 56, 3), generator=generator, dtype=torch.uint8)
            features = processor(Image.fromarray(noise.numpy()), return_tensors="pt")
            pixels.append(features["pixel_values"])
            grids.append(features["image_grid_thw"])
            pads = int(features["image_grid_thw"].prod()) // 4
            text = text.replace("<|image_pad|>", "<|hold|>" * pads, 1)
        rows.append(
            TOKENIZER.encode(text.replace("<|hold|>", "<|image_pad|>"), add_special_tokens=False)
        )
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), TOKENIZER.pad_token_id)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        at = slice(0, len(row)) if side == "right" else slice(longest - len(row), longest)
        ids[i, at] = torch.tensor(row)
        mask[i, at] = 1
    image_pad = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "mm_token_type_ids": (ids == image_pad).int(),
        "pixel_values": torch.cat(pixels),
        "image_grid_thw": torch.cat(grids),
    }


def eager_mass(attentions, types):
    """[layer] -> (B, L, H, 3) from (B, H, L, L) matrices."""
    one_hot = torch.nn.functional.one_hot(types.clamp(min=0).long(), 3) * (types >= 0)[..., None]
    return [(a @ one_hot[:, None].to(a.dtype)).transpose(1, 2) for a in attentions]


def text_models():
    """A language model that is of no supported family: "avar" by its registered name alone."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=0,
        eos_token_id=None,
    )
    slow = Qwen2ForCausalLM(copy.deepcopy(config)).eval()
    with torch.no_grad():
        for name, weight in slow.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                weight.mul_(20.0)
    fast = Qwen2ForCausalLM(config).eval()
    fast.load_state_dict(slow.state_dict())
    fast.set_attn_implementation("avar")
    slow.set_attn_implementation("sdpa")
    return fast, slow


def text_rows(rows=2, length=20, padded=0, seed=3):
    ids = torch.randint(1, 97, (rows, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[0, :padded] = 0
    return ids, mask
