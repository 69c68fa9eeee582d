"""Switches the plug-in on in a model that another program has loaded."""

from typing import Any

from torch import nn

from ..attention import ATTN_NAME, SpecialTokens, attach


def use_avar(model: nn.Module, processor: Any, *, tokens: SpecialTokens | None = None) -> None:
    """Makes the text tower of a loaded model use attention "avar", and attaches the model. The
    vision tower keeps its attention.

    Args:
        model: a transformers model, or a PEFT model around one.
        processor, tokens: as for ``avar_fast.attention.attach``.

    Raises:
        TypeError: the model is in another wrapper, or its family is not supported.
        ValueError: the tokenizer lacks Qwen-VL's tokens.
    """
    inner = base_model(model)
    if not hasattr(inner, "set_attn_implementation"):
        raise TypeError(
            "model must be a transformers model or a PEFT model around one; got"
            f" {type(model).__name__}. Call use_avar before the model is wrapped for data"
            " parallelism."
        )
    own = getattr(inner.config, "text_config", None) is None
    inner.set_attn_implementation(ATTN_NAME if own else {"text_config": ATTN_NAME})
    attach(inner, processor, tokens=tokens)


def base_model(model: Any) -> Any:
    """The transformers model inside a PEFT model; other models as they are."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
