"""Rows with several images, one or none, their samples, and the collator of the tiny model."""

import io

import pytest
import torch
from PIL import Image

from avar_fast.data import Collator, Encoder
from avar_fast.data.rows import parse_row
from avar_fast.lab.model import build_image_processor
from avar_fast.lab.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
SYSTEM = "You are a helpful assistant."
# Workers on a machine with fewer cores than workers; forks beside threads from Python 3.12 on.
WITH_WORKERS = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:.*fork\\(\\) may lead to deadlocks:DeprecationWarning"),
]
SHAPES = [((56, 56),), (), ((84, 28), (28, 56)), ((28, 28),), ()]


def encoder(**change):
    arguments = dict(system_prompt=SYSTEM, max_length=200) | change
    return Encoder(TOKENIZER, build_image_processor(), **arguments)


def png(size, seed):
    """Noise, so that no two images look alike."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG")
    return file.getvalue()


def record(number, shape):
    text = "".join(f"<image>Add row {i + 1}. " for i in range(len(shape)))
    return {
        "messages": [{"role": "user", "content": f"{text}Think first." + "?" * number}],
        "images": [png(size, 10 * number + i) for i, size in enumerate(shape)],
        "answer": number,
        "reasoning": "1 + 2 = 3 " * (number % 3),
    }


def samples(shapes=SHAPES, **change):
    encode = encoder(**change)
    return [encode(parse_row(record(i, s), f"row {i}", None)) for i, s in enumerate(shapes)]


def collator(model, tokens):
    pad = TOKENIZER.pad_token_id
    return Collator(pad, tokens.visual, model.config, torch.float32)
