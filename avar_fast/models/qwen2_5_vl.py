"""Qwen2.5-VL's internals, read from transformers 5.16 to 5.19; the only file that touches them."""

from torch import Tensor, nn
from transformers.models.qwen2_5_vl import modeling_qwen2_5_vl as modeling


def is_family(model: nn.Module) -> bool:
    return isinstance(model, modeling.Qwen2_5_VLForConditionalGeneration)


def text_attention(model: modeling.Qwen2_5_VLForConditionalGeneration) -> list[nn.Module]:
    """The self-attention module of every text layer, in order."""
    return [layer.self_attn for layer in model.model.language_model.layers]


def text_attention_name(model: modeling.Qwen2_5_VLForConditionalGeneration) -> str:
    return model.config.text_config._attn_implementation


def get_rope_deltas(model: modeling.Qwen2_5_VLForConditionalGeneration) -> Tensor | None:
    """(B, 1) offset between cache length and rotary position; hidden state of the last image forward."""
    return model.model.rope_deltas


def set_rope_deltas(model: modeling.Qwen2_5_VLForConditionalGeneration, deltas: Tensor | None) -> None:
    model.model.rope_deltas = deltas
