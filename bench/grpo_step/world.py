"""A model and rows for trainers in other processes: images of noise, so that prompts have one
length."""

import copy
import json
from pathlib import Path

import torch
from PIL import Image
from transformers import Qwen2VLImageProcessorPil

from ..models import HEADS, HIDDEN, INTERMEDIATE, KV_HEADS, NUM_LAYERS, SMALL, TOKENIZER, build

VOCABULARY = 8192
SIZES = {"30 M": SMALL, "3B width": (NUM_LAYERS, HIDDEN, INTERMEDIATE, HEADS, KV_HEADS)}
SYSTEM = "You are a helpful assistant."
PIXELS_OF_TOKEN = 28
NUM_ROWS = 64


def write_model(folder: Path, size: str) -> None:
    """Saves a model with random weights, with its tokenizer and image processor."""
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.add_tokens([f"<t{i}>" for i in range(VOCABULARY - len(tokenizer))])
    model = build("sdpa", VOCABULARY, SIZES[size])
    for config in (model.generation_config, model.config.text_config):
        config.eos_token_id, config.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    largest = (64 * PIXELS_OF_TOKEN) ** 2
    Qwen2VLImageProcessorPil(
        patch_size=14, merge_size=2, min_pixels=PIXELS_OF_TOKEN**2, max_pixels=largest
    ).save_pretrained(folder)


def write_rows(folder: Path, length: int) -> None:
    """Writes rows whose prompts have about ``length`` tokens, nearly all of them of the image."""
    (folder / "images").mkdir(parents=True)
    side = round((length - 30) ** 0.5)
    generator = torch.Generator().manual_seed(0)
    with (folder / "train.jsonl").open("w") as file:
        for i in range(NUM_ROWS):
            shape = (side * PIXELS_OF_TOKEN, side * PIXELS_OF_TOKEN, 3)
            noise = torch.randint(256, shape, generator=generator, dtype=torch.uint8)
            Image.fromarray(noise.numpy()).save(folder / f"images/{i}.png")
            user = {"role": "user", "content": f"<image>Add row {i % 4 + 1}. Think first."}
            row = {"messages": [user], "images": [f"images/{i}.png"], "answer": str(i % 10)}
            file.write(json.dumps(row) + "\n")


def fixed_completions(num_prompts: int, group: int, length: int) -> list[list[int]]:
    """Completions that do not depend on a trainer, group after group, of 3 to ``length`` words."""
    generator = torch.Generator().manual_seed(1)
    words = [i for i in range(300, VOCABULARY) if i not in TOKENIZER.all_special_ids]
    sizes = torch.randint(3, length + 1, (num_prompts * group,), generator=generator)
    picks = torch.randint(len(words), (num_prompts * group, length), generator=generator)
    return [[words[i] for i in row[:n]] for row, n in zip(picks.tolist(), sizes, strict=True)]
