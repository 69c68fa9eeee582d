"""Qwen2-VL's internals. They match those of Qwen2.5-VL, but its vision tower has no windows."""

from functools import partial

from torch import nn
from transformers.models.qwen2_vl import modeling_qwen2_vl as modeling

from . import collation, liger_proof
from .collation import blank_image as blank_image
from .collation import vision_arguments as vision_arguments
from .qwen2_5_vl import Model
from .qwen2_5_vl import body as body
from .qwen2_5_vl import get_rope_deltas as get_rope_deltas
from .qwen2_5_vl import lm_head as lm_head
from .qwen2_5_vl import load_image_processor as load_image_processor
from .qwen2_5_vl import num_heads as num_heads
from .qwen2_5_vl import output_projections as output_projections
from .qwen2_5_vl import projectors as projectors
from .qwen2_5_vl import recurrent_layers as recurrent_layers
from .qwen2_5_vl import set_rope_deltas as set_rope_deltas
from .qwen2_5_vl import text_attention as text_attention
from .qwen2_5_vl import text_attention_name as text_attention_name
from .qwen2_5_vl import text_tower as text_tower
from .qwen2_5_vl import vision_tower as vision_tower

MODEL_TYPE = "qwen2_vl"


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen2VLForConditionalGeneration)


def num_windowed_blocks(model: Model) -> int:
    """0: every block of the vision tower attends to the whole image."""
    return 0


rope_positions = partial(collation.rope_positions, modeling.Qwen2VLModel)


def apply_liger() -> None:
    """Replaces RMSNorm, SwiGLU and rotary embedding by Liger's kernels, in models that are built
    afterwards; raises RuntimeError if a replacement has no effect."""
    from liger_kernel.transformers import (
        LigerRMSNorm,
        LigerSwiGLUMLP,
        apply_liger_kernel_to_qwen2_vl,
    )

    apply_liger_kernel_to_qwen2_vl(
        rope=False,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        rms_norm=True,
        layer_norm=False,
        swiglu=True,
    )
    wanted = {
        "Qwen2VLRMSNorm": LigerRMSNorm,
        "Qwen2MLP": LigerSwiGLUMLP,
        **liger_proof.replace_rotary(modeling),
    }
    liger_proof.require(modeling.Qwen2VLAttention, wanted)


def check_liger(model: Model) -> None:
    """Raises RuntimeError unless the text tower of a built model consists of Liger's modules."""
    from liger_kernel.transformers import LigerRMSNorm, LigerSwiGLUMLP

    liger_proof.check_layers(text_tower(model), LigerRMSNorm, LigerSwiGLUMLP)
