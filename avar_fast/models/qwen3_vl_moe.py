"""Qwen3-VL-MoE's internals. They match those of the dense Qwen3-VL, but most MLPs are experts,
whose weights are stacked in one parameter."""

from functools import partial

from torch import nn
from transformers.models.qwen3_vl_moe import modeling_qwen3_vl_moe as modeling

from . import collation
from .qwen3_vl import blank_image as blank_image
from .qwen3_vl import body as body
from .qwen3_vl import get_rope_deltas as get_rope_deltas
from .qwen3_vl import lm_head as lm_head
from .qwen3_vl import load_image_processor as load_image_processor
from .qwen3_vl import num_heads as num_heads
from .qwen3_vl import num_windowed_blocks as num_windowed_blocks
from .qwen3_vl import output_projections as output_projections
from .qwen3_vl import projectors as projectors
from .qwen3_vl import recurrent_layers as recurrent_layers
from .qwen3_vl import set_rope_deltas as set_rope_deltas
from .qwen3_vl import text_attention as text_attention
from .qwen3_vl import text_attention_name as text_attention_name
from .qwen3_vl import text_tower as text_tower
from .qwen3_vl import vision_arguments as vision_arguments
from .qwen3_vl import vision_tower as vision_tower

MODEL_TYPE = "qwen3_vl_moe"


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen3VLMoeForConditionalGeneration)


rope_positions = partial(collation.rope_positions, modeling.Qwen3VLMoeModel)


apply_liger = None  # Liger has no kernels for stacked experts
