"""Qwen3.5's internals. Most text layers are recurrent (gated delta rule) and have no attention; the
others match those of Qwen3-VL, and the vision tower has no deepstack features."""

from functools import partial
from typing import Any

from torch import nn
from transformers.models.qwen3_5 import modeling_qwen3_5 as modeling

from . import collation
from .qwen3_vl import Model
from .qwen3_vl import blank_image as blank_image
from .qwen3_vl import body as body
from .qwen3_vl import get_rope_deltas as get_rope_deltas
from .qwen3_vl import lm_head as lm_head
from .qwen3_vl import load_image_processor as load_image_processor
from .qwen3_vl import num_heads as num_heads
from .qwen3_vl import num_windowed_blocks as num_windowed_blocks
from .qwen3_vl import set_rope_deltas as set_rope_deltas
from .qwen3_vl import text_attention_name as text_attention_name
from .qwen3_vl import text_tower as text_tower
from .qwen3_vl import vision_arguments as vision_arguments
from .qwen3_vl import vision_tower as vision_tower

MODEL_TYPE = "qwen3_5"


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen3_5ForConditionalGeneration)


def text_attention(model: Model) -> dict[int, nn.Module]:
    """The self-attention module of the text layers that have one, by the layer's index."""
    layers = model.model.language_model.layers
    return {i: layer.self_attn for i, layer in enumerate(layers) if hasattr(layer, "self_attn")}


def recurrent_layers(model: Model) -> dict[int, nn.Module]:
    """The gated delta rule of the text layers that have one, by the layer's index."""
    layers = model.model.language_model.layers
    return {i: layer.linear_attn for i, layer in enumerate(layers) if hasattr(layer, "linear_attn")}


def output_projections(model: Model) -> dict[int, nn.Linear]:
    """The projection of the (B, L, heads * head_dim) gated head outputs, by the layer's index."""
    attention: Any = text_attention(model)
    return {index: module.o_proj for index, module in attention.items()}


def projectors(model: Model) -> list[nn.Module]:
    """The modules of the vision tower that map its features to the text tower's width."""
    return [model.model.visual.merger]


rope_positions = partial(collation.rope_positions, modeling.Qwen3_5Model)


apply_liger = None  # Liger 0.8 has no kernels for this family
