"""Qwen2.5-VL's internals, read from transformers 5.16 to 5.19; the only file that touches them."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import Qwen2VLImageProcessorPil, vision_utils
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling

MODEL_TYPE = "qwen2_5_vl"
# A modeling.Qwen2_5_VLForConditionalGeneration; transformers types its attributes too loosely to
# use.
Model = Any


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen2_5_VLForConditionalGeneration)


def body(model: Model) -> nn.Module:
    """The module that takes input_ids and pixels: everything but the LM head."""
    return model.model


def text_tower(model: Model) -> nn.Module:
    return model.model.language_model


def text_attention(model: Model) -> list[nn.Module]:
    """The self-attention module of every text layer, in order."""
    return [layer.self_attn for layer in model.model.language_model.layers]


def text_attention_name(model: Model) -> str:
    return model.config.text_config._attn_implementation


def vision_tower(model: Model) -> nn.Module:
    return model.model.visual


def load_image_processor(path: str) -> Any:
    """The Pillow one: it needs no torchvision and gives the same pixels on every machine."""
    return Qwen2VLImageProcessorPil.from_pretrained(path)


class _Positions:
    """The part of the model that rotary positions need: its configuration. A worker that collates
    has no model."""

    get_vision_position_ids = modeling.Qwen2_5_VLModel.get_vision_position_ids
    get_rope_index = modeling.Qwen2_5_VLModel.get_rope_index

    def __init__(self, config: Any) -> None:
        self.config = config


def rope_positions(
    config: Any, input_ids: Tensor, mm_token_type_ids: Tensor, image_grid_thw: Tensor | None
) -> Tensor:
    """(3, B, L) rotary positions in time, height and width, by transformers' own rule."""
    rule: Any = _Positions(config)
    return rule.get_rope_index(input_ids, mm_token_type_ids, image_grid_thw)[0]


def blank_image(config: Any) -> dict[str, Tensor]:
    """Pixels of an image of one visual token, for batches of text: the vision tower then takes part
    in every forward and backward, on which sharded and bucketed gradients rely."""
    vision = config.vision_config
    merge, patch = vision.spatial_merge_size, vision.patch_size
    channels = vision.in_channels * vision.temporal_patch_size * patch**2
    return {
        "pixel_values": torch.zeros(merge**2, channels),
        "image_grid_thw": torch.tensor([[1, merge, merge]]),
    }


def vision_arguments(config: Any, image_grid_thw: Tensor) -> dict[str, Any]:
    """What the vision tower works out from the grid, under the names that forward takes: given
    them, it does not wait for the device."""
    vision = config.vision_config
    merge = vision.spatial_merge_size
    offsets = vision_utils.get_vision_cu_seqlens(image_grid_thw)
    window_index, window_offsets = vision_utils.get_vision_window_index(
        image_grid_thw, merge, vision.window_size, vision.patch_size
    )
    given: dict[str, Any] = {
        "image_position_ids": vision_utils.get_vision_position_ids(image_grid_thw, merge),
        "image_cu_seqlens": offsets,
        "image_window_index": window_index,
        "image_cu_window_seqlens": window_offsets,
    }
    if hasattr(vision_utils, "get_vision_attention_seqlens"):  # older towers take no lengths
        given["image_max_seqlen"] = int(offsets.diff().max())
        given["image_max_window_seqlen"] = int(window_offsets.diff().max())
    return given


def get_rope_deltas(model: Model) -> Tensor | None:
    """(B, 1) offset between cache length and rotary position; hidden state of the last image
    forward."""
    return model.model.rope_deltas


def set_rope_deltas(model: Model, deltas: Tensor | None) -> None:
    model.model.rope_deltas = deltas


def apply_liger() -> None:
    """Replaces RMSNorm, SwiGLU and rotary embedding of models built from here on by Liger's
    kernels.

    The rotary function's name decides what Liger 0.8 patches: up to transformers 5.16 it is the
    multimodal one; from 5.17 on Liger's own switch sets a name nobody reads, so it is set here.

    Raises:
        RuntimeError: a replacement did not take; the names and versions are in the message.
    """
    import liger_kernel.transformers as liger
    from liger_kernel.transformers.qwen2vl_mrope import liger_multimodal_rotary_pos_emb

    multimodal = hasattr(modeling, "apply_multimodal_rotary_pos_emb")
    liger.apply_liger_kernel_to_qwen2_5_vl(
        rope=multimodal,
        cross_entropy=False,
        fused_linear_cross_entropy=False,
        rms_norm=True,
        swiglu=True,
    )
    rope = liger_multimodal_rotary_pos_emb if multimodal else liger.liger_rotary_pos_emb
    if not multimodal:
        modeling.apply_rotary_pos_emb = rope
    wanted = {
        "Qwen2_5_VLRMSNorm": liger.LigerRMSNorm,
        "Qwen2MLP": liger.LigerSwiGLUMLP,
        "apply_multimodal_rotary_pos_emb" if multimodal else "apply_rotary_pos_emb": rope,
    }
    attention_globals = modeling.Qwen2_5_VLAttention.forward.__globals__
    missed = [name for name, kernel in wanted.items() if attention_globals.get(name) is not kernel]
    if missed:
        from importlib.metadata import version

        raise RuntimeError(
            f"Liger {version('liger-kernel')} did not replace {', '.join(missed)} of transformers"
            f" {version('transformers')}. Install versions in avar-fast's ranges, or set"
            " model.liger=false."
        )


def check_liger(model: Model) -> None:
    """Raises RuntimeError unless the text tower of a built model consists of Liger's modules."""
    from liger_kernel.transformers import LigerRMSNorm, LigerSwiGLUMLP

    for index, layer in enumerate(model.model.language_model.layers):
        norms = (layer.input_layernorm, layer.post_attention_layernorm)
        if not isinstance(layer.mlp, LigerSwiGLUMLP) or not all(
            isinstance(n, LigerRMSNorm) for n in norms
        ):
            raise RuntimeError(
                f"text layer {index} does not use Liger's RMSNorm and SwiGLU; the model was built"
                " before the patch. Call apply_liger first, or set model.liger=false."
            )
