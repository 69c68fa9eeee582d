"""Loading a folder or hub name into model, tokenizer and image processor."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.utils.import_utils import is_flash_attn_2_available

from .attention import ATTN_NAME, VISION_ATTN_NAME
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
    device = torch.device(device)
    flash = flash_attn_serves(dtype, device)
    attention = {
        "text_config": ATTN_NAME,
        "vision_config": "flash_attention_2" if flash else "sdpa",
    }
    model: Any = AutoModelForImageTextToText.from_pretrained(
        path, dtype=dtype, attn_implementation=attention
    )
    if not flash:  # not while loading, where transformers looks for a package behind this name
        family.vision_tower(model).config._attn_implementation = VISION_ATTN_NAME
    return Loaded(model.to(device), *load_processors(path))


def load_processors(path: str) -> tuple[Any, Any]:
    """Tokenizer and image processor.

    Raises:
        ValueError: a model type that is not supported.
        OSError: transformers' own, for a path that cannot be loaded.
    """
    family, _ = family_at(path)
    return AutoTokenizer.from_pretrained(path), family.load_image_processor(path)


def flash_attn_serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether flash-attn is installed and takes the dtype: the vision tower then uses it, and this
    project's kernels otherwise; either way in one call per layer for all images."""
    half = dtype in (torch.float16, torch.bfloat16)
    return device.type == "cuda" and half and is_flash_attn_2_available()
