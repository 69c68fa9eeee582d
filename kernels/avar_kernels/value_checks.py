"""The checks that read tensor values.

On a GPU they are device-side assertions, because reading a value there would stall the stream.
"""

import torch
from torch import Tensor

from .types import PackedLengths
from .validation import refuse


def check_key_values(key_types: Tensor | None, num_types: int, name: str = "key_types") -> None:
    """Raises unless every type is below num_types; on a GPU a device-side assertion."""
    if key_types is None or not key_types.numel():
        return
    in_range = (key_types < num_types).all()
    if key_types.is_cuda:
        torch.ops.aten._assert_async.msg(in_range, f"{name} must be below num_types = {num_types}")
    elif not in_range:
        refuse(
            name,
            f"below num_types = {num_types} (negative: the key does not exist)",
            f"{int(key_types.max())}",
            "Raise num_types or renumber the types.",
        )


def check_packed_values(packed: PackedLengths | None, num_rows: int | None, num_keys: int) -> None:
    """Raises unless the offsets describe sequences inside the tokens; on a GPU device-side
    assertions.

    With ``num_rows`` None the number of query tokens is not known yet and is not checked."""
    if packed is None:
        return
    check_prefix_values(packed.prefix_index)
    for name, offsets, tokens, longest in (
        ("cu_seqlens_q", packed.cu_seqlens_q, num_rows, packed.max_seqlen_q),
        ("cu_seqlens_k", packed.cu_seqlens_k, num_keys, packed.max_seqlen_k),
    ):
        lengths = offsets.diff()
        good = (offsets[0] == 0) & (lengths >= 0).all() & (lengths.max() <= longest)
        if tokens is not None:
            good = good & (offsets[-1] <= tokens)
        if offsets.is_cuda:
            torch.ops.aten._assert_async.msg(
                good, f"{name} must start at 0, not decrease, end within the tokens, fit max_seqlen"
            )
        elif not good:
            within = "" if tokens is None else f" end at or before {tokens} tokens and"
            refuse(
                name,
                f"offsets that start at 0, never decrease,{within} are at most {longest}"
                " (max_seqlen) apart",
                offsets.tolist() if offsets.numel() <= 16 else f"{offsets[:16].tolist()}...",
                "Build it as the cumulative sum of the lengths, 0 in front.",
            )


def check_prefix_values(prefix_index: Tensor | None, num_prefixes: int | None = None) -> None:
    """Raises unless every prefix is a sequence without a prefix; on a GPU device-side assertions.

    Args:
        prefix_index: (N,), or None.
        num_prefixes: number of prefixes in a cache, which are no sequences of the call; None if a
            prefix is one of the N sequences.
    """
    if prefix_index is None or not prefix_index.numel():
        return
    limit = prefix_index.numel() if num_prefixes is None else num_prefixes
    good = ((prefix_index >= -1) & (prefix_index < limit)).all()
    expected = f"in -1..{limit - 1}" if limit else "-1, as there are no prefixes"
    remedy = "Give every sequence the number of its prefix in prefix_k, or -1."
    if num_prefixes is None:
        remedy = "Give every completion the number of its prompt's sequence, and prompts -1."
        of_prefix = prefix_index[prefix_index.long().clamp(0, limit - 1)]
        good = good & ((of_prefix == -1) | (prefix_index < 0)).all()
        expected += ", the numbers of sequences that have no prefix themselves (-1: none)"
    if good.is_cuda:
        torch.ops.aten._assert_async.msg(good, f"prefix_index must be {expected}")
    elif not good:
        refuse(
            "prefix_index",
            expected,
            prefix_index.tolist()
            if len(prefix_index) <= 16
            else f"{prefix_index[:16].tolist()}...",
            remedy,
        )


def check_cache_values(
    k_cache: Tensor,
    key_types: Tensor | None,
    num_types: int,
    cache_seqlens: Tensor | None,
    block_table: Tensor | None,
) -> None:
    """Raises unless types, lengths and page numbers are in range; on a GPU device-side assertions.

    Types and pages behind the end of a sequence may be any.
    """
    page_size = k_cache.shape[1]
    capacity = page_size if block_table is None else page_size * block_table.shape[1]
    checks = []
    if cache_seqlens is not None:
        good = ((cache_seqlens >= 0) & (cache_seqlens <= capacity)).all()
        checks.append(("cache_seqlens", good, f"in 0..{capacity}, the cache's capacity"))
    if block_table is not None:
        used = _before_end(block_table, cache_seqlens, page_size)
        good = ((block_table >= 0) & (block_table < k_cache.shape[0]) | ~used).all()
        checks.append(("block_table", good, f"page numbers in 0..{k_cache.shape[0] - 1}"))
    if key_types is not None:
        used = _before_end(key_types, cache_seqlens, 1)
        good = ((key_types < num_types) | ~used).all()
        checks.append(("key_types", good, f"below num_types = {num_types}"))
    for name, good, expected in checks:
        if good.is_cuda:
            torch.ops.aten._assert_async.msg(good, f"{name} must be {expected}")
        elif not good:
            tensors = {"cache_seqlens": cache_seqlens, "block_table": block_table}
            tensor = tensors.get(name, key_types)
            assert tensor is not None
            refuse(
                name,
                expected,
                f"values from {int(tensor.min())} to {int(tensor.max())}",
                "Check how the cache is filled.",
            )


def _before_end(x: Tensor, cache_seqlens: Tensor | None, keys_per_column: int) -> Tensor:
    """(B, columns) bool: columns of x that hold a key of their sequence."""
    columns = torch.arange(x.shape[1], device=x.device) * keys_per_column
    if cache_seqlens is None:
        return torch.ones_like(x, dtype=torch.bool)
    return columns < cache_seqlens[:, None]
