"""Rows for the small models of this folder."""

import torch

from ..models import families


def conversation(device, image_tokens=16, response="1 + 2 = 3"):
    """One row: a system turn, a user turn with an image of random patches, a response."""
    encode = families.TOKENIZER.encode
    pad = families.TOKENIZER.convert_tokens_to_ids("<|image_pad|>")
    head = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    tail = "<|vision_end|>Add row 1.<|im_end|>\n<|im_start|>assistant\n"
    ids = [*encode(head + "<|vision_start|>"), *[pad] * image_tokens, *encode(tail + response)]
    input_ids = torch.tensor([ids])
    pixels = torch.randn(4 * image_tokens, 3 * 2 * 14 * 14, generator=torch.manual_seed(3))
    row = {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        "mm_token_type_ids": (input_ids == pad).int(),
        "pixel_values": pixels,
        "image_grid_thw": torch.tensor([[1, 8, 2 * image_tokens // 4]]),
    }
    return {name: value.to(device) for name, value in row.items()}
