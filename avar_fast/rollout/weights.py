"""Prepares a model's weights for another engine."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


@torch.no_grad()
def merged_weights(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields names and values as in a checkpoint of whole weights. Adapters are added to their
    weights one at a time.

    Args:
        model: a model with all its weights on this rank's device.
    """
    modules = dict(model.named_modules())
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        layer_name, is_adapted, kind = name.rpartition(".base_layer.")
        if not is_adapted:
            yield name, parameter.detach()
            continue
        layer = modules[layer_name]
        value = parameter.detach()
        if kind == "weight":
            for adapter in layer.active_adapters:  # pyright: ignore
                value = value + layer.get_delta_weight(adapter).to(value.dtype)  # pyright: ignore
        yield f"{layer_name}.{kind}", value
