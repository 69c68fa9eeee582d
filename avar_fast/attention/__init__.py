"""Connects the kernels to transformers models. Importing it registers attn_implementation
"avar"."""

from ..extras import needs

with needs("avar_fast.attention"):
    from transformers import AttentionInterface, AttentionMaskInterface

    from . import versions as versions  # first: it names a version that the other imports fail on
    from .attach import ATTN_NAME, attach
    from .attached import detach, split_sequence
    from .caches import cache_argument, set_cached_ids
    from .call import VISION_ATTN_NAME, SequenceSplit, avar_attention
    from .contexts import given_ids, intervene, record_attention
    from .fixed_step import FixedStep, takes_fixed_steps
    from .intervention import FORMS as INTERVENTION_FORMS
    from .intervention import LARGEST as LARGEST_INTERVENTION
    from .maps import AttentionMaps, record_maps
    from .padding import padding_mask
    from .prompts import SharedPrompts, set_prompts
    from .recording import Recorded, Recording
    from .tokens import SpecialTokens, key_types, query_mask, sees_image, turn_content

AttentionInterface.register(ATTN_NAME, avar_attention)
AttentionInterface.register(VISION_ATTN_NAME, avar_attention)
# Without a mask function, transformers would silently drop the padding mask.
AttentionMaskInterface.register(ATTN_NAME, padding_mask)
AttentionMaskInterface.register(VISION_ATTN_NAME, padding_mask)

__all__ = [
    "ATTN_NAME",
    "INTERVENTION_FORMS",
    "LARGEST_INTERVENTION",
    "VISION_ATTN_NAME",
    "AttentionMaps",
    "FixedStep",
    "Recorded",
    "Recording",
    "SequenceSplit",
    "SharedPrompts",
    "SpecialTokens",
    "attach",
    "cache_argument",
    "detach",
    "given_ids",
    "intervene",
    "key_types",
    "query_mask",
    "record_attention",
    "record_maps",
    "sees_image",
    "set_cached_ids",
    "set_prompts",
    "split_sequence",
    "takes_fixed_steps",
    "turn_content",
]
