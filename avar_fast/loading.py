"""Loads model, tokenizer and image processor from a folder or hub name."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoModelForImageTextToText, AutoTokenizer, GenerationConfig
from transformers.utils.import_utils import is_flash_attn_2_available

from .attention import ATTN_NAME, VISION_ATTN_NAME, SpecialTokens
from .attention.contexts import subset
from .models import family_at, whole_model_at
from .models.decoders import attention_layers
from .models.load_errors import naming_model
from .models.pixels import limit_pixels


@dataclass(frozen=True)
class Loaded:
    """A loaded model with its tokenizer and image processor."""

    model: Any
    """The model; None from ``load_processors``."""
    tokenizer: Any
    image_processor: Any
    eos_ids: tuple[int, ...]
    """Ids of the tokens that end a completion: ``<|im_end|>`` and those of the generation config.
    """


def load(
    path: str,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    min_pixels: int | None = None,
    max_pixels: int | None = None,
) -> Loaded:
    """Loads a model with "avar" attention in its text tower, its tokenizer and its image processor.

    Args:
        path: folder or hub name.
        dtype: dtype of the weights.
        device: device of the model.
        min_pixels, max_pixels: limits of an image's size in pixels; None keeps the image
            processor's.

    Raises:
        ValueError: the path cannot be loaded, the model type is not supported, or the tokenizer
            does not fit the model. The message is one line that names the model.
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
    """As ``load``, but without the model, which is None."""
    with naming_model(path):
        family, config = family_at(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
        image_processor = family.load_image_processor(path)
        eos_ids = _eos_ids(path, config, SpecialTokens.from_processor(tokenizer))
    _require_fit(path, config, tokenizer)
    return Loaded(None, tokenizer, limit_pixels(image_processor, min_pixels, max_pixels), eos_ids)


def _eos_ids(path: str, config: Any, tokens: SpecialTokens) -> tuple[int, ...]:
    """The end tokens: ``<|im_end|>``, which ends training targets, and those of the generation
    config, or else of the model's configuration."""
    try:
        configured = GenerationConfig.from_pretrained(whole_model_at(path)).eos_token_id
    except OSError:  # the model has no generation config
        configured = config.get_text_config().eos_token_id
    ids = configured if isinstance(configured, list | tuple) else [configured]
    return tuple(dict.fromkeys([tokens.turn_end, *(i for i in ids if i is not None)]))


def _require_fit(path: str, config: Any, tokenizer: Any) -> None:
    """Raises ValueError if the tokenizer's ids do not match the model's."""
    rows, largest = config.get_text_config().vocab_size, max(tokenizer.get_vocab().values())
    if largest >= rows:
        token = tokenizer.convert_ids_to_tokens(largest)
        raise ValueError(
            f"the tokenizer of {path} must fit its model; its token {token!r} has id {largest} and"
            f" the embedding {rows} rows. After adding tokens call"
            " model.resize_token_embeddings(len(tokenizer)) and save both."
        )
    for name in ("image", "video"):
        model_id = getattr(config, f"{name}_token_id", None)
        tokenizer_id = tokenizer.convert_tokens_to_ids(f"<|{name}_pad|>")
        if model_id is not None and model_id != tokenizer_id:
            raise ValueError(
                f"the tokenizer of {path} must fit its model; <|{name}_pad|> has id {tokenizer_id},"
                f" and {name}_token_id in config.json is {model_id}. Use the tokenizer saved with"
                " it."
            )


def require_model(path: str) -> None:
    """Checks that a model can be loaded, by its configuration alone.

    Raises:
        ValueError: as ``load``.
    """
    with naming_model(path):
        family_at(path)


def require_layers(path: str, layers: Iterable[int] | None) -> None:
    """Checks that a model has these text layers and that they have attention, by its configuration
    alone; None is always right.

    Raises:
        ValueError: it lacks one of them, or as ``load``.
    """
    with naming_model(path):
        text = family_at(path)[1].text_config
    subset(f"layers of {path}", layers, frozenset(attention_layers(text)))


def flash_attn_serves(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether flash-attn is installed and supports the dtype. If so, the vision tower uses it, else
    this project's kernels; both take all images in one call per layer."""
    half = dtype in (torch.float16, torch.bfloat16)
    return device.type == "cuda" and half and is_flash_attn_2_available()
