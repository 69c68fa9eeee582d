"""A tiny random model of each family, with the lab's tokenizer and image size."""

import copy

import torch
from transformers import (
    GenerationConfig,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen3_5Config,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLMoeConfig,
    Qwen3VLMoeForConditionalGeneration,
)

from avar_fast.attention import attach
from avar_fast.lab.tokenizer import build_tokenizer

TOKENIZER = build_tokenizer()
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
WITHOUT_RECURRENT = FAMILIES[:4]


def models(name, check=True, **text):
    """The same weights twice: with "avar" attention, attached, and with eager attention; ``text``
    changes the configuration of the text tower, and ``check`` is that of ``attach``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fast = _BUILDERS[name](**text)
        for weight_name, weight in fast.named_parameters():
            if weight.dim() > 1:  # the default 0.02 is for widths of thousands
                torch.nn.init.normal_(weight, std=0.06)
            # Random weights of this size attend almost evenly; make it uneven.
            if "q_proj.weight" in weight_name or "k_proj.weight" in weight_name:
                weight.data.mul_(2.0)
    slow = copy.deepcopy(fast)
    slow.set_attn_implementation("eager")
    fast.set_attn_implementation({"text_config": "avar", "vision_config": "sdpa"})
    attach(fast, TOKENIZER, check=check)
    return fast.eval(), slow.eval()


def in_float64(model):
    """The model in float64, with experts in the only form that computes in it."""
    if model.config.model_type.endswith("_moe"):
        model.set_experts_implementation("eager")
    return model.double()


def layer_types(model):
    """The kind of every text layer."""
    text = model.config.text_config
    return getattr(text, "layer_types", None) or ["full_attention"] * text.num_hidden_layers


def _text(**change):
    return {
        "vocab_size": len(TOKENIZER),
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 100.0,
            "mrope_section": [2, 3, 3],
        },
        "bos_token_id": None,
        "eos_token_id": TOKENIZER.eos_token_id,
        "pad_token_id": TOKENIZER.pad_token_id,
    } | change


def _ids():
    names = {
        "image_token_id": "<|image_pad|>",
        "video_token_id": "<|video_pad|>",
        "vision_start_token_id": "<|vision_start|>",
        "vision_end_token_id": "<|vision_end|>",
    }
    return {name: TOKENIZER.convert_tokens_to_ids(token) for name, token in names.items()}


def _qwen2_vl(**change):
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2}
    config = Qwen2VLConfig(text_config=_text(**change), vision_config=vision, **_ids())
    return Qwen2VLForConditionalGeneration(config)


_INTERLEAVED = {
    "rope_type": "default",
    "rope_theta": 100.0,
    "mrope_section": [4, 2, 2],
    "mrope_interleaved": True,
}
_QWEN3_VISION = {
    "depth": 3,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 2,
    "patch_size": 14,
    "out_hidden_size": 64,
    "num_position_embeddings": 25,
}
_DEEPSTACK = _QWEN3_VISION | {"deepstack_visual_indexes": [0, 1]}
_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 48}
_RECURRENT = {
    "num_hidden_layers": 5,
    "layer_types": [f"{kind}_attention" for kind in ("linear", "full", "linear", "full", "linear")],
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 16,
}


def _qwen3_vl(**change):
    text = _text(head_dim=16, rope_parameters=_INTERLEAVED, **change)
    config = Qwen3VLConfig(text_config=text, vision_config=_DEEPSTACK, **_ids())
    return Qwen3VLForConditionalGeneration(config)


def _qwen3_vl_moe(**change):
    text = _text(head_dim=16, rope_parameters=_INTERLEAVED, **_EXPERTS, **change)
    config = Qwen3VLMoeConfig(text_config=text, vision_config=_DEEPSTACK, **_ids())
    return Qwen3VLMoeForConditionalGeneration(config)


def _qwen3_5(**change):
    text = _text(head_dim=16, rope_parameters=_partial_rope(), **_RECURRENT | change)
    config = Qwen3_5Config(text_config=text, vision_config=_QWEN3_VISION, **_ids())
    return Qwen3_5ForConditionalGeneration(config)


def _qwen3_5_moe(**change):
    shared = {"shared_expert_intermediate_size": 32}
    text = _text(
        head_dim=16, rope_parameters=_partial_rope(), **_RECURRENT | _EXPERTS | shared | change
    )
    config = Qwen3_5MoeConfig(text_config=text, vision_config=_QWEN3_VISION, **_ids())
    return Qwen3_5MoeForConditionalGeneration(config)


def _partial_rope():
    return _INTERLEAVED | {"partial_rotary_factor": 0.5, "mrope_section": [2, 1, 1]}


def _qwen2_5_vl(**change):
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_heads": 2,
        "out_hidden_size": 64,
        # Two visual tokens a side: the larger test images have several windows.
        "window_size": 56,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(text_config=_text(**change), vision_config=vision, **_ids())
    return Qwen2_5_VLForConditionalGeneration(config)


_BUILDERS = {
    "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl,
    "qwen3_vl": _qwen3_vl,
    "qwen3_vl_moe": _qwen3_vl_moe,
    "qwen3_5": _qwen3_5,
    "qwen3_5_moe": _qwen3_5_moe,
}


def greedy(model, inputs, count):
    """Greedy continuation, with logits."""
    model.generation_config = GenerationConfig()
    return model.generate(
        **inputs,
        max_new_tokens=count,
        do_sample=False,
        return_dict_in_generate=True,
        output_logits=True,
        eos_token_id=None,
        pad_token_id=TOKENIZER.pad_token_id,
    )
