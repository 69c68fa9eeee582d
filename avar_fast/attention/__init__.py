"""How a transformers model uses the kernels: importing this registers attn_implementation
"avar"."""

from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import flash_attention_mask

from .attach import (
    ATTN_NAME,
    Recording,
    attach,
    detach,
    set_cached_ids,
    split_sequence,
)
from .call import VISION_ATTN_NAME, avar_attention
from .contexts import intervene, record_attention
from .sequence import SequenceSplit
from .tokens import SpecialTokens, key_types, query_mask, sees_image, turn_content

AttentionInterface.register(ATTN_NAME, avar_attention)
AttentionInterface.register(VISION_ATTN_NAME, avar_attention)
# The 2-D padding mask comes through; without a mask function transformers would drop it silently.
AttentionMaskInterface.register(ATTN_NAME, flash_attention_mask)

__all__ = [
    "ATTN_NAME",
    "VISION_ATTN_NAME",
    "Recording",
    "SequenceSplit",
    "SpecialTokens",
    "attach",
    "detach",
    "intervene",
    "key_types",
    "query_mask",
    "record_attention",
    "sees_image",
    "set_cached_ids",
    "split_sequence",
    "turn_content",
]
