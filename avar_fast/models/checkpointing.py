"""Switches gradient checkpointing on, under the name that the installed transformers has for it."""

from typing import Any


def checkpoint_layers(model: Any, use_reentrant: bool = False) -> None:
    """Keeps only the inputs of each layer, and computes the layer again in the backward.

    Args:
        model: a transformers model.
        use_reentrant: torch's older form, which loses the gradients of recorded attention.
    """
    options = {"use_reentrant": use_reentrant}
    if hasattr(model, "activation_checkpointing_enable"):  # from transformers 5.24 on
        model.activation_checkpointing_enable(activation_checkpointing_kwargs=options)
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
