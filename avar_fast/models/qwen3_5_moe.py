"""Qwen3.5-MoE's internals. They match those of the dense Qwen3.5, but the MLPs are experts, whose
weights are stacked in one parameter, and a shared expert."""

from functools import partial

from torch import nn
from transformers.models.qwen3_5_moe import modeling_qwen3_5_moe as modeling

from . import collation
from .qwen3_5 import blank_image as blank_image
from .qwen3_5 import body as body
from .qwen3_5 import get_rope_deltas as get_rope_deltas
from .qwen3_5 import lm_head as lm_head
from .qwen3_5 import load_image_processor as load_image_processor
from .qwen3_5 import num_heads as num_heads
from .qwen3_5 import num_windowed_blocks as num_windowed_blocks
from .qwen3_5 import output_projections as output_projections
from .qwen3_5 import projectors as projectors
from .qwen3_5 import recurrent_layers as recurrent_layers
from .qwen3_5 import set_rope_deltas as set_rope_deltas
from .qwen3_5 import text_attention as text_attention
from .qwen3_5 import text_attention_name as text_attention_name
from .qwen3_5 import text_tower as text_tower
from .qwen3_5 import vision_arguments as vision_arguments
from .qwen3_5 import vision_tower as vision_tower

MODEL_TYPE = "qwen3_5_moe"


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen3_5MoeForConditionalGeneration)


rope_positions = partial(collation.rope_positions, modeling.Qwen3_5MoeModel)


apply_liger = None  # Liger 0.8 has no kernels for this family
