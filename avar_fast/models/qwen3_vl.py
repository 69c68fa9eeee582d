"""Dense Qwen3-VL's internals. They match those of Qwen2.5-VL. transformers itself handles
interleaved rotary positions and deepstack features."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen3_vl import modeling_qwen3_vl as modeling

from . import collation, liger_proof
from .collation import blank_image as blank_image
from .qwen2_5_vl import Model
from .qwen2_5_vl import body as body
from .qwen2_5_vl import get_rope_deltas as get_rope_deltas
from .qwen2_5_vl import lm_head as lm_head
from .qwen2_5_vl import load_image_processor as load_image_processor
from .qwen2_5_vl import num_heads as num_heads
from .qwen2_5_vl import output_projections as output_projections
from .qwen2_5_vl import recurrent_layers as recurrent_layers
from .qwen2_5_vl import set_rope_deltas as set_rope_deltas
from .qwen2_5_vl import text_attention as text_attention
from .qwen2_5_vl import text_attention_name as text_attention_name
from .qwen2_5_vl import text_tower as text_tower
from .qwen2_5_vl import vision_tower as vision_tower

MODEL_TYPE = "qwen3_vl"


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen3VLForConditionalGeneration)


def projectors(model: Model) -> list[nn.Module]:
    """The modules of the vision tower that map its features to the text tower's width."""
    tower = model.model.visual
    return [tower.merger, *tower.deepstack_merger_list]


def num_windowed_blocks(model: Model) -> int:
    """0: every block of the vision tower attends to the whole image."""
    return 0


rope_positions = partial(collation.rope_positions, modeling.Qwen3VLModel)


def vision_arguments(config: Any, image_grid_thw: Tensor) -> dict[str, Any]:
    """Indices and offsets for the vision tower as arguments of forward; from transformers 5.17 on,
    also the interpolation of its position embeddings."""
    from transformers import vision_utils

    arguments = collation.vision_arguments(config, image_grid_thw)
    interpolation = getattr(vision_utils, "get_vision_interpolation_indices_and_weights", None)
    if interpolation is not None:
        vision = config.vision_config
        arguments["image_interp_indices"], arguments["image_interp_weights"] = interpolation(
            image_grid_thw,
            num_grid_per_side=int(vision.num_position_embeddings**0.5),
            mode="bilinear",
            align_corners=True,
            spatial_merge_size=vision.spatial_merge_size,
        )
    return arguments


def apply_liger() -> None:
    """Replaces RMSNorm, SwiGLU and rotary embedding by Liger's kernels, in models that are built
    afterwards; raises RuntimeError if a replacement has no effect. Liger 0.8's switch for this
    family's SwiGLU has no effect, so the name is set here."""
    from liger_kernel.transformers import (
        LigerRMSNorm,
        LigerSwiGLUMLP,
        apply_liger_kernel_to_qwen3_vl,
    )

    apply_liger_kernel_to_qwen3_vl(
        rope=False, cross_entropy=False, fused_linear_cross_entropy=False, rms_norm=True
    )
    modeling.Qwen3VLTextMLP = LigerSwiGLUMLP
    wanted = {
        "Qwen3VLTextRMSNorm": LigerRMSNorm,
        "Qwen3VLTextMLP": LigerSwiGLUMLP,
        **liger_proof.replace_rotary(modeling),
    }
    liger_proof.require(modeling.Qwen3VLTextAttention, wanted)


def check_liger(model: Model) -> None:
    """Raises RuntimeError unless the text tower of a built model consists of Liger's modules."""
    from liger_kernel.transformers import LigerRMSNorm, LigerSwiGLUMLP

    liger_proof.check_layers(text_tower(model), LigerRMSNorm, LigerSwiGLUMLP)
