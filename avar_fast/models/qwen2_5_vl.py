"""Qwen2.5-VL's internals."""

from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

from . import collation, liger_proof
from .collation import blank_image as blank_image

MODEL_TYPE = "qwen2_5_vl"
# A modeling.Qwen2_5_VLForConditionalGeneration; transformers types its attributes too loosely to
# use.
Model = Any


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen2_5_VLForConditionalGeneration)


def body(model: Model) -> nn.Module:
    """The module that takes input_ids and pixels: everything but the LM head."""
    return model.model


def lm_head(model: Model) -> nn.Linear:
    """The matrix from hidden states to logits; it has no bias."""
    return model.lm_head


def text_tower(model: Model) -> nn.Module:
    return model.model.language_model


def text_attention(model: Model) -> dict[int, nn.Module]:
    """The self-attention module of every text layer, by the layer's index."""
    return {i: layer.self_attn for i, layer in enumerate(model.model.language_model.layers)}


def recurrent_layers(model: Model) -> dict[int, nn.Module]:
    """None: every text layer has attention."""
    return {}


def text_attention_name(model: Model) -> str:
    return model.config.text_config._attn_implementation


def num_heads(model: Model) -> int:
    """Attention heads of every text layer with attention."""
    return model.config.text_config.num_attention_heads


def output_projections(model: Model) -> dict[int, nn.Linear]:
    """The projection of the (B, L, heads * head_dim) head outputs of every text layer, by the
    layer's index."""
    return {i: layer.self_attn.o_proj for i, layer in enumerate(model.model.language_model.layers)}


def vision_tower(model: Model) -> nn.Module:
    return model.model.visual


def num_windowed_blocks(model: Model) -> int:
    """Blocks of the vision tower that attend within windows only."""
    tower = model.model.visual
    return len(tower.blocks) - len(set(tower.fullatt_block_indexes) & set(range(len(tower.blocks))))


def projectors(model: Model) -> list[nn.Module]:
    """The modules of the vision tower that map its features to the text tower's width."""
    return [model.model.visual.merger]


def load_image_processor(path: str) -> Any:
    """Loads the Pillow processor, which needs no torchvision and gives the same pixels on every
    machine."""
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(path)


rope_positions = partial(collation.rope_positions, modeling.Qwen2_5_VLModel)


def vision_arguments(config: Any, image_grid_thw: Tensor) -> dict[str, Any]:
    """Indices and offsets for the vision tower, including its windows, as arguments of forward."""
    from transformers import vision_utils

    vision = config.vision_config
    index, offsets = vision_utils.get_vision_window_index(
        image_grid_thw, vision.spatial_merge_size, vision.window_size, vision.patch_size
    )
    return {
        **collation.vision_arguments(config, image_grid_thw),
        "image_window_index": index,
        "image_cu_window_seqlens": offsets,
        **collation.longest("image_max_window_seqlen", offsets),
    }


def get_rope_deltas(model: Model) -> Tensor | None:
    """(B, 1) offsets between cache length and rotary position, which the model stores at its last
    forward with images."""
    return model.model.rope_deltas


def set_rope_deltas(model: Model, deltas: Tensor | None) -> None:
    model.model.rope_deltas = deltas


def apply_liger() -> None:
    """Replaces RMSNorm, SwiGLU and rotary embedding by Liger's kernels, in models that are built
    afterwards.

    Raises:
        RuntimeError: a replacement has no effect; the message gives its name and the versions.
    """
    import liger_kernel.transformers as liger

    liger.apply_liger_kernel_to_qwen2_5_vl(
        rope=False,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        rms_norm=True,
        swiglu=True,
    )
    wanted = {
        "Qwen2_5_VLRMSNorm": liger.LigerRMSNorm,
        "Qwen2MLP": liger.LigerSwiGLUMLP,
        **liger_proof.replace_rotary(modeling),
    }
    liger_proof.require(modeling.Qwen2_5_VLAttention, wanted)


def check_liger(model: Model) -> None:
    """Raises RuntimeError unless the text tower of a built model consists of Liger's modules."""
    from liger_kernel.transformers import LigerRMSNorm, LigerSwiGLUMLP

    liger_proof.check_layers(text_tower(model), LigerRMSNorm, LigerSwiGLUMLP)
