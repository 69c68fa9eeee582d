"""Loading a folder or hub name into model, tokenizer and image processor."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoTokenizer
from transformers.utils.import_utils import is_flash_attn_2_available

from .attention import ATTN_NAME, VISION_ATTN_NAME
from .models import family_at

_HUB_NAME = re.compile(r"\w[\w.-]*(/[\w.-]+)?")


@dataclass(frozen=True)
class Loaded:
    model: Any
    tokenizer: Any
    image_processor: Any


def load(path: str, dtype: torch.dtype, device: torch.device | str = "cpu") -> Loaded:
    """A model with "avar" attention in its text tower, and what prepares its inputs.

    Raises:
        ValueError: a path that cannot be loaded, or a model type that is not supported; one line
            that names it.
    """
    device = torch.device(device)
    flash = flash_attn_serves(dtype, device)
    attention = {
        "text_config": ATTN_NAME,
        "vision_config": "flash_attention_2" if flash else "sdpa",
    }
    with naming_model(path):
        family, _ = family_at(path)
        model: Any = AutoModelForImageTextToText.from_pretrained(
            path, dtype=dtype, attn_implementation=attention
        )
    if not flash:  # not while loading, where transformers looks for a package behind this name
        family.vision_tower(model).config._attn_implementation = VISION_ATTN_NAME
    return Loaded(model.to(device), *load_processors(path))


def load_processors(path: str) -> tuple[Any, Any]:
    """Tokenizer and image processor.

    Raises:
        ValueError: as ``load``.
    """
    with naming_model(path):
        family, _ = family_at(path)
        return AutoTokenizer.from_pretrained(path), family.load_image_processor(path)


def require_model(path: str) -> None:
    """Reads the configuration alone.

    Raises:
        ValueError: as ``load``.
    """
    with naming_model(path):
        family_at(path)


@contextmanager
def naming_model(path: str) -> Iterator[None]:
    """Turns what goes wrong while a model is read into a ValueError of one line that names it."""
    folder = Path(path)
    names = ("config.json", "adapter_config.json")
    if folder.is_dir() and not any((folder / name).is_file() for name in names):
        raise ValueError(
            f"a model must be a folder that from_pretrained loads; {path} has no config.json. Name"
            " the checkpoint inside, such as RUN/latest."
        )
    # Below a folder that is here it is a path too; transformers would ask the Hub, again and again.
    beside_others = folder.parent != Path() and folder.parent.is_dir()
    if not folder.is_dir() and (beside_others or _HUB_NAME.fullmatch(path) is None):
        raise ValueError(f"a model must be a folder or a hub name; {path} is neither.")
    try:
        yield
    except (ValueError, OSError, TypeError, SafetensorError) as error:
        said = " ".join(str(error).split())
        raise ValueError(f"the model {path} cannot be loaded; {said}") from None


def flash_attn_serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether flash-attn is installed and takes the dtype: the vision tower then uses it, and this
    project's kernels otherwise; either way in one call per layer for all images."""
    half = dtype in (torch.float16, torch.bfloat16)
    return device.type == "cuda" and half and is_flash_attn_2_available()
