"""Loading a folder or hub name into model, tokenizer and image processor."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from .attention import ATTN_NAME, VISION_ATTN_NAME, SpecialTokens
from .models import family_at, whole_model_at
from .models.load_errors import naming_model
from .models.pixels import limit_pixels


@dataclass(frozen=True)
class Loaded:
    model: Any
    tokenizer: Any
    image_processor: Any
    eos_ids: tuple[int, ...]
    """Tokens that end a completion: ``<|im_end|>`` and all of the model's generation config."""


def load(
    path: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Loaded:
    """A model with "avar" attention in its text tower, and what prepares its inputs.

    Args:
        path: folder or hub name.
        dtype: of the weights.
        device: where to.
        min_pixels, max_pixels: limits of an image's size in place of the image processor's.

    Raises:
        ValueError: a path that cannot be loaded, a model type that is not supported, or a tokenizer
            that does not fit the model; one line that names it.
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
    return dataclasses.replace(
        load_processors(path, min_pixels, max_pixels), model=model.to(device)
    )


def load_processors(
    path: str, min_pixels: int | None = None, max_pixels: int | None = None
) -> Loaded:
    """As ``load``, without the model, which is None."""
    with naming_model(path):
        family, config = family_at(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        image_processor = family.load_image_processor(path)
        eos_ids = _eos_ids(path, config, SpecialTokens.from_processor(tokenizer))
    _require_fit(path, config, tokenizer)
    return Loaded(None, tokenizer, limit_pixels(image_processor, min_pixels, max_pixels), eos_ids)


def _eos_ids(path: str, config: Any, tokens: SpecialTokens) -> tuple[int, ...]:
    """What ``generate`` ends at: the ids of the generation config, else of the model's; and what
    the training targets end with."""
    try:
        named = GenerationConfig.from_pretrained(whole_model_at(path)).eos_token_id
    except OSError:  # a model without such a file
        named = config.get_text_config().eos_token_id
    listed = named if isinstance(named, list | tuple) else [named]
    return tuple(dict.fromkeys([tokens.turn_end, *(i for i in listed if i is not None)]))


def _require_fit(path: str, config: Any, tokenizer: Any) -> None:
    """Raises ValueError where the tokenizer makes ids that the model would take for others."""
    rows, largest = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values())
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ValueError(
            f"the tokenizer of {path} must fit its model; its token {token!r} has id {largest} and"
            f" the embedding {rows} rows. After adding tokens call"
            " model.resize_token_embeddings(len(tokenizer)) and save both."
        )
    for name in ("image", "video"):
        wanted = getattr(config, f"{name}_token_id", None)
        found = tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>")
        if wanted is not None and wanted != found:
            raise ValueError(
                f"the tokenizer of {path} must fit its model; <|{name}_pad|> has id {found}, and"
                f" {name}_token_id in config.json is {wanted}. Use the tokenizer saved with it."
            )


def require_model(path: str) -> None:
    """Reads the configuration alone.

    Raises:
        ValueError: as ``load``.
    """
    with naming_model(path):
        family_at(path)


def flash_attn_serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether flash-attn is installed and takes the dtype: the vision tower then uses it, and this
    project's kernels otherwise; either way in one call per layer for all images."""
    half = dtype in (torch.float16, torch.bfloat16)
    return device.type == "cuda" and half and is_flash_attn_2_available()
