"""Loading a folder or hub name into model, tokenizer and image processor."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer

from .attention import ATTN_NAME
from .models import family_at


@dataclass(frozen=True)
class Loaded:
    model: Any
    tokenizer: Any
    image_processor: Any


def load(path: str, dtype: torch.dtype, device: torch.device | str = "cpu") -> Loaded:
    """A model with "avar" attention in its text tower, and what prepares its inputs.

    Raises:
        ValueError: a model type that is not supported.
        OSError: transformers' own, for a path that cannot be loaded.
    """
    family, _ = family_at(path)
    model: Any = AutoModelForImageTextToText.from_pretrained(
        path, dtype=dtype, attn_implementation={"text_config": ATTN_NAME, "vision_config": "sdpa"}
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    return Loaded(model.to(torch.device(device)), tokenizer, family.load_image_processor(path))
