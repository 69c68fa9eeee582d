"""Decoding as a packed call, for backends without a kernel of their own for caches."""

import torch
from torch import Tensor

from .types import AttnInputs, CachePrefixes, PackedLengths


def as_packed(
    inputs: AttnInputs,
    cache_seqlens: Tensor | None,
    block_table: Tensor | None,
    prefixes: CachePrefixes | None,
) -> AttnInputs:
    """The call as a packed one, which copies the keys: first the prefixes as sequences without
    queries, then the sequences of the cache."""
    q, k_cache, v_cache, key_types, *_ = inputs
    keys, values, types = [], [], []
    num_prefixes = 0 if prefixes is None else len(prefixes.k)
    if prefixes is not None:
        keys, values = list(prefixes.k), list(prefixes.v)
        absent = torch.zeros(prefixes.k.shape[:2], dtype=torch.int32, device=q.device)
        types = list(absent if prefixes.key_types is None else prefixes.key_types.int())
    for b in range(q.shape[0]):
        k, v = _keys_of(k_cache, block_table, b), _keys_of(v_cache, block_table, b)
        length = len(k) if cache_seqlens is None else int(cache_seqlens[b])
        keys.append(k[:length])
        values.append(v[:length])
        if key_types is None:
            types.append(torch.zeros(length, dtype=torch.int32, device=q.device))
        else:
            types.append(key_types[b, :length].int())
    num_rows = [0] * num_prefixes + [q.shape[1]] * q.shape[0]
    num_keys = [len(x) for x in keys]
    offsets = [
        torch.tensor([0, *counts], device=q.device).cumsum(0).int()
        for counts in (num_rows, num_keys)
    ]
    index = None
    if prefixes is not None:
        none = prefixes.index.new_full((num_prefixes,), -1)
        index = torch.cat([none, prefixes.index])
    cu_q, cu_k = offsets
    packed = PackedLengths(cu_q, cu_k, max(num_rows), max(num_keys), index)
    k, v, packed_types = torch.cat(keys), torch.cat(values), torch.cat(types)
    return inputs._replace(q=q.flatten(0, 1), k=k, v=v, key_types=packed_types, packed=packed)


def _keys_of(cache: Tensor, block_table: Tensor | None, index: int) -> Tensor:
    """(capacity, Hkv, D) of one sequence; pages that are not in use may be any."""
    if block_table is None:
        return cache[index]
    pages = block_table[index].long().clamp(0, cache.shape[0] - 1)
    return cache[pages].flatten(0, 1)
