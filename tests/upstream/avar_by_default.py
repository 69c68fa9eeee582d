"""A pytest plugin (``-p avar_by_default``): text towers that name no attention take
"avar" instead of "sdpa"."""

import functools
from typing import Any

from transformers import PreTrainedModel

import avar_fast.attention  # noqa: F401  (registers "avar")

_chosen = PreTrainedModel.get_correct_attn_implementation


@functools.wraps(_chosen)
def _avar_in_text_towers(self: Any, requested: str | None, is_init_check: bool = False) -> str:
    if requested is None and type(self).__name__.endswith("TextModel"):
        return "avar"
    return _chosen(self, requested, is_init_check)


PreTrainedModel.get_correct_attn_implementation = _avar_in_text_towers
