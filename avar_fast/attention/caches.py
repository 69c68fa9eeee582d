"""Facts about a KV cache that an attached model needs: the argument that passes it, its token ids,
and its number of slots."""

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Cache
from transformers.cache_utils import StaticLayer

_IDS_OF_CACHE = "avar_token_ids"
_CACHE_ARGUMENTS = ("cache", "past_key_values")  # transformers 5.24 renamed it, and takes both


def given_cache(arguments: dict[str, Any]) -> Any:
    """The cache among the arguments of a forward; None without one."""
    return next((arguments[n] for n in _CACHE_ARGUMENTS if arguments.get(n) is not None), None)


def cache_argument(model: nn.Module) -> str:
    """The name under which a model's forward takes a cache.

    Raises:
        RuntimeError: the forward takes a cache under no known name.
    """
    names = _parameters(getattr(model.forward, "__func__", model.forward))
    for name in _CACHE_ARGUMENTS:
        if name in names:
            return name
    raise RuntimeError(
        f"the forward of {type(model).__name__} must take a cache as"
        f" {' or '.join(_CACHE_ARGUMENTS)}; it takes {', '.join(names)}. Install transformers in"
        " avar-fast's range."
    )


@lru_cache
def _parameters(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a forward's parameters but self; every step of decoding asks for them."""
    return tuple(name for name in inspect.signature(function).parameters if name != "self")


def set_cached_ids(cache: Cache, token_ids: Tensor) -> None:
    """Stores the (B, L) token ids of a cache's keys in it. Call it for a cache that was not filled
    through the attached model."""
    setattr(cache, _IDS_OF_CACHE, token_ids)


def with_cached_ids(input_ids: Tensor, cache: Any) -> Tensor:
    """The ids of cached and new tokens, (B, cached + new) int64. If a cache was repeated for
    sampling, its ids are repeated in the same way.

    Raises:
        ValueError: the token ids of the cached keys are unknown.
    """
    cached = 0 if cache is None else int(cache.get_seq_length())
    if not cached:
        return input_ids
    ids = getattr(cache, _IDS_OF_CACHE, None)
    if ids is None or ids.shape[1] < cached or input_ids.shape[0] % ids.shape[0]:
        known = "none" if ids is None else tuple(ids.shape)
        raise ValueError(
            f"the cache holds {cached} keys of a batch of {input_ids.shape[0]} whose"
            f" tokens are unknown (known: {known}). Fill the cache through the attached model."
        )
    repeats = input_ids.shape[0] // ids.shape[0]
    ids = ids[:, :cached] if repeats == 1 else ids[:, :cached].repeat_interleave(repeats, dim=0)
    return torch.cat([ids, input_ids], dim=1)


def num_slots(cache: Any) -> int | None:
    """The number of slots that a preallocated cache passes to every layer; None for other
    caches."""
    sizes = {
        layer.max_cache_len
        for layer in getattr(cache, "layers", ())
        if isinstance(layer, StaticLayer) and not layer.is_sliding
    }
    return sizes.pop() if len(sizes) == 1 else None
