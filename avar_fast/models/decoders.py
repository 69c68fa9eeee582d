"""What the attention plug-in needs to know of a model. It may be of a supported family, or another
whose layers call their attention through transformers' interface."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from . import NAMES, family_of


@dataclass(frozen=True)
class Decoder:
    """The parts of a model that attend to text and image tokens."""

    body: nn.Module
    """The module that takes input_ids and pixels: everything but the LM head."""
    tower: nn.Module
    """The module with the text layers."""
    attention: dict[int, nn.Module]
    """The self-attention of the text layers that have one, by the layer's index in the model."""
    recurrent: dict[int, nn.Module]
    """The recurrent part of the text layers that have one, by the layer's index in the model."""
    attention_name: str
    """attn_implementation of the text tower."""
    num_heads: int
    num_kv_heads: int
    is_family: bool
    """Whether the model is of a supported family."""


def decoder_of(model: nn.Module, any_model: bool = False) -> Decoder:
    """The decoder of a transformers model.

    Args:
        model: the model.
        any_model: also take models of other families.

    Raises:
        TypeError: the model's family is not supported, or no text layers are found in it.
    """
    if any_model and getattr(getattr(model, "config", None), "model_type", None) not in NAMES:
        return _any_decoder(model)
    family = family_of(model)
    tower = family.text_tower(model)
    return Decoder(
        family.body(model),
        tower,
        family.text_attention(model),
        family.recurrent_layers(model),
        family.text_attention_name(model),
        family.num_heads(model),
        tower.config.num_key_value_heads,
        True,
    )


def attention_layers(text_config: Any) -> tuple[int, ...]:
    """The text layers with attention, by their index in the model, of a configuration of a
    supported family. Without ``layer_types`` all have it."""
    kinds = getattr(text_config, "layer_types", None)
    if not kinds:
        return tuple(range(text_config.num_hidden_layers))
    return tuple(index for index, kind in enumerate(kinds) if kind != "linear_attention")


def unwrapped(model: Any) -> Any:
    """The transformers model inside wrappers: PEFT, DistributedDataParallel, accelerate, DeepSpeed,
    torch.compile."""
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif hasattr(model, "get_base_model"):
            model = model.get_base_model()
        elif isinstance(getattr(model, "module", None), nn.Module):
            model = model.module
        else:
            return model


def _any_decoder(model: Any) -> Decoder:
    """Finds the parts by the names that transformers' decoders share."""
    tower = model.get_decoder() if hasattr(model, "get_decoder") else None
    layers: Any = getattr(tower, "layers", None)
    if tower is None or not isinstance(layers, nn.ModuleList):
        raise TypeError(
            "model must be a transformers model whose get_decoder() has a list of layers; got"
            f" {type(model).__name__}."
        )
    attention: dict[int, Any] = {
        index: layer.self_attn
        for index, layer in enumerate(layers)
        if hasattr(getattr(layer, "self_attn", None), "layer_idx")
    }
    if not attention:
        raise TypeError(
            f"model must have layers with a self_attn that knows its layer_idx;"
            f" {type(model).__name__} has none."
        )
    config = tower.config
    heads = config.num_attention_heads
    return Decoder(
        getattr(model, model.base_model_prefix, model),
        tower,
        attention,
        {i: layer for i, layer in enumerate(layers) if i not in attention},
        config._attn_implementation,
        heads,
        getattr(config, "num_key_value_heads", None) or heads,
        False,
    )
