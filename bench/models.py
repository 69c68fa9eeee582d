"""A stack of real Qwen2.5-VL layers with random weights, and a sample with one image."""

from typing import Any

import torch
from transformers import Qwen2_5_VLForConditionalGeneration

from avar_fast.attention import attach
from avar_fast.lab.model import build_config
from avar_fast.lab.tokenizer import build_tokenizer

from .shapes import DEVICE

# Text layers of Qwen2.5-VL-3B on a CPU and of 7B on a GPU. The vision tower is the small one of the
# lab, so that the time is that of the text tower.
WIDTHS = {
    "cpu": ("3B width, 2 layers", 2, 2048, 11008, 16, 2),
    "cuda": ("7B width, 8 layers", 8, 3584, 18944, 28, 4),
}
SHAPE, NUM_LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS = WIDTHS[DEVICE]
SMALL = (8, 512, 1536, 8, 2)  # with a vocabulary of 8192, 30 M parameters
DTYPE = torch.bfloat16 if DEVICE == "cuda" else torch.float32
TOKENIZER = build_tokenizer()


def build(
    attention: str,
    vocab_size: int | None = None,
    widths: tuple[int, int, int, int, int] = (NUM_LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS),
) -> Any:
    """The model with attention "avar" (attached), "sdpa" or "eager"; the same weights each time.

    ``widths``: text layers, width, width of the MLP, heads, key heads.
    """
    layers, hidden, intermediate, heads, kv_heads = widths
    config: Any = build_config(TOKENIZER)  # transformers types its attributes too loosely to use
    text = config.text_config
    text.hidden_size, text.intermediate_size = hidden, intermediate
    text.num_hidden_layers, text.max_window_layers = layers, layers
    text.layer_types = ["full_attention"] * layers
    text.num_attention_heads, text.num_key_value_heads = heads, kv_heads
    pairs = hidden // heads // 2
    section = [pairs // 4, pairs * 3 // 8, pairs * 3 // 8]  # [16, 24, 24] of 64
    text.rope_parameters = {"rope_type": "default", "rope_theta": 1e6, "mrope_section": section}
    text.max_position_embeddings = 1 << 17
    text.vocab_size = vocab_size or text.vocab_size
    text.initializer_range = config.initializer_range = 0.02
    config.vision_config.out_hidden_size = hidden
    torch.manual_seed(0)
    with torch.device(DEVICE):  # a CPU takes a minute to draw the weights of 3B parameters
        model: Any = Qwen2_5_VLForConditionalGeneration(config)
    model = model.to(dtype=DTYPE)
    model.set_attn_implementation({"text_config": attention, "vision_config": "sdpa"})
    if attention == "avar":
        attach(model, TOKENIZER)
    return model


def sample(length: int) -> dict[str, torch.Tensor]:
    """One row: system turn, a user turn whose image takes half of the tokens, a response."""
    side = 4
    pads = length // 2 // side * side
    system = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
    start = TOKENIZER.encode(f"{system}<|im_start|>user\n<|vision_start|>")
    behind = TOKENIZER.encode("<|vision_end|>Add row 1.<|im_end|>\n<|im_start|>assistant\n")
    word = TOKENIZER.encode("1")
    image_pad: Any = TOKENIZER.convert_tokens_to_ids("<|image_pad|>")
    ids = [*start, *[image_pad] * pads, *behind]
    ids += word * (length - len(ids))
    input_ids = torch.tensor([ids[:length]], device=DEVICE)
    grid = torch.tensor([[1, 2 * side, 2 * pads // side]], device=DEVICE)
    pixels = torch.randn(int(grid.prod()), 3 * 2 * 14 * 14, device=DEVICE, dtype=DTYPE)
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": torch.eq(input_ids, image_pad).int(),
        "pixel_values": pixels,
        "image_grid_thw": grid,
    }
