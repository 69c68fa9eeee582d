"""Switches the plug-in on in a model that another program has loaded."""

from typing import Any

from torch import nn

from ..attention import ATTN_NAME, attach
from ..models.decoders import unwrapped


def use_avar(model: nn.Module, processor: Any, **options: Any) -> None:
    """Makes the text tower of a loaded model use attention "avar", and attaches the model. The
    vision tower keeps its attention.

    Args:
        model: a transformers model; it may be wrapped (PEFT, DistributedDataParallel, accelerate).
        processor: as for ``avar_fast.attention.attach``.
        options: the others of ``attach``, such as ``classify`` and ``num_types``.

    Raises:
        TypeError: it is no transformers model, or its family is not supported.
        ValueError: the tokenizer lacks Qwen-VL's tokens.
    """
    inner: Any = unwrapped(model)
    if not hasattr(inner, "set_attn_implementation"):
        raise TypeError(
            f"model must be a transformers model, possibly wrapped; got {type(inner).__name__}."
        )
    has_text_part = getattr(inner.config, "text_config", None) is not None
    inner.set_attn_implementation({"text_config": ATTN_NAME} if has_text_part else ATTN_NAME)
    attach(inner, processor, **options)
