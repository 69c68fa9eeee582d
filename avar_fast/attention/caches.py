"""What an attached model knows of a cache of keys: the tokens behind it, and whether it hands over
more than it holds."""

from typing import Any

import torch
from torch import Tensor
from transformers import Cache
from transformers.cache_utils import StaticLayer

_IDS_OF_CACHE = "avar_token_ids"


def set_cached_ids(cache: Cache, token_ids: Tensor) -> None:
    """Tells an attached model which (B, L) tokens are behind a cache that was put together by
    hand."""
    setattr(cache, _IDS_OF_CACHE, token_ids)


def with_cached_ids(input_ids: Tensor, cache: Any) -> Tensor:
    """(B, cached + new) ids. A cache repeated n-fold for sampling repeats its ids the same way.

    Raises:
        ValueError: keys whose tokens are not known.
    """
    cached = 0 if cache is None else int(cache.get_seq_length())
    if not cached:
        return input_ids
    ids = getattr(cache, _IDS_OF_CACHE, None)
    if ids is None or ids.shape[1] < cached or input_ids.shape[0] % ids.shape[0]:
        held = "none" if ids is None else tuple(ids.shape)
        raise ValueError(
            f"past_key_values holds {cached} keys of a batch of {input_ids.shape[0]} whose"
            f" tokens are unknown (known: {held}). Fill the cache through the attached model."
        )
    ids = ids[:, :cached].repeat_interleave(input_ids.shape[0] // ids.shape[0], dim=0)
    return torch.cat([ids, input_ids], dim=1)


def num_slots(cache: Any) -> int | None:
    """How many keys a preallocated cache hands to every layer; None for a cache that grows."""
    sizes = {
        layer.max_cache_len
        for layer in getattr(cache, "layers", ())
        if isinstance(layer, StaticLayer) and not layer.is_sliding
    }
    return sizes.pop() if len(sizes) == 1 else None
