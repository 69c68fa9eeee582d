"""Fused attention with typed keys: exact, differentiable attention mass as a by-product.

Tensors in, tensors out. Depends on torch, triton (on Linux) and the standard library only.
"""

from .api import flash_attn_func, flash_attn_varlen_func, visual_attn_func, visual_attn_varlen_func
from .backends import BackendStatus, available_backends
from .cache import visual_attn_with_kvcache
from .decoding import is_decoding
from .key_plan import KeyPlan, plan_keys
from .prefixes import PrefixPlan, plan_prefixes
from .received import attn_received
from .types import AttnOutput, KeyType
from .versions import TESTED, UntestedVersionWarning, check_versions

check_versions(TESTED)

__all__ = [
    "AttnOutput",
    "BackendStatus",
    "KeyPlan",
    "KeyType",
    "PrefixPlan",
    "UntestedVersionWarning",
    "attn_received",
    "available_backends",
    "check_versions",
    "flash_attn_func",
    "flash_attn_varlen_func",
    "is_decoding",
    "plan_keys",
    "plan_prefixes",
    "visual_attn_func",
    "visual_attn_varlen_func",
    "visual_attn_with_kvcache",
]
