"""Loading a folder or hub name into model, tokenizer and image processor."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from .attention import ATTN_NAME
from .models import families


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
    model_type = AutoConfig.from_pretrained(path).model_type
    family = next((f for f in families() if model_type == f.MODEL_TYPE), None)
    if family is None:
        known = ", ".join(f.MODEL_TYPE for f in families())
        raise ValueError(
            f"model.path must hold a model of type {known}; {path} holds {model_type!r}."
        )
    model: Any = AutoModelForImageTextToText.from_pretrained(
        path, dtype=dtype, attn_implementation={"text_config": ATTN_NAME, "vision_config": "sdpa"}
    )
    tokenizer = AutoTokenizer.from_pretrained(path)
    return Loaded(model.to(torch.device(device)), tokenizer, family.load_image_processor(path))
