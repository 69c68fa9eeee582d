"""Where the sorted key blocks of each block size lie in the plan of a batch."""

import torch
from torch import Tensor

from .blocks import plan_kernel
from .tiles import PLAN_BLOCK_SIZES, PLAN_CHUNK_KEYS


def num_sequences(key_types: Tensor, cu_seqlens_k: Tensor | None) -> int:
    return key_types.shape[0] if cu_seqlens_k is None else cu_seqlens_k.shape[0] - 1


def row_stride(max_keys: int, block_n: int) -> int:
    """Entries in a row of the plan of one block size."""
    return -(-max_keys // block_n) + 1


def section_size(sequences: int, max_keys: int, num_types: int, block_n: int) -> int:
    """int32 entries of one block size, in whole 16-byte units so that every section is aligned."""
    return -(-sequences * (num_types + 2) * row_stride(max_keys, block_n) // 4) * 4


def plan_size(sequences: int, max_keys: int, num_types: int) -> int:
    return sum(section_size(sequences, max_keys, num_types, n) for n in PLAN_BLOCK_SIZES)


def section(plan: Tensor, sequences: int, max_keys: int, num_types: int, block_n: int) -> Tensor:
    """The part of a plan that belongs to one block size."""
    start = sum(
        section_size(sequences, max_keys, num_types, n) for n in PLAN_BLOCK_SIZES if n < block_n
    )
    return plan[start : start + section_size(sequences, max_keys, num_types, block_n)]


def make_plan(
    key_types: Tensor, cu_seqlens_k: Tensor | None, max_keys: int, num_types: int
) -> Tensor:
    """The plan of every block size; key_types int32 contiguous, (B, Lk) or (Tk,)."""
    sequences = num_sequences(key_types, cu_seqlens_k)
    size = plan_size(sequences, max_keys, num_types)
    plan = torch.empty(size, dtype=torch.int32, device=key_types.device)
    for block_n in PLAN_BLOCK_SIZES:
        part = section(plan, sequences, max_keys, num_types, block_n)
        sort(part, key_types, cu_seqlens_k, max_keys, num_types, block_n)
    return plan


def sort(
    part: Tensor,
    key_types: Tensor,
    cu_seqlens_k: Tensor | None,
    max_keys: int,
    num_types: int,
    block_n: int,
) -> None:
    """Fills the section of one block size."""
    sequences = num_sequences(key_types, cu_seqlens_k)
    if sequences:
        plan_kernel[(sequences,)](
            key_types,
            key_types if cu_seqlens_k is None else cu_seqlens_k,
            part,
            max_keys,
            row_stride(max_keys, block_n),
            NUM_TYPES=num_types,
            PACKED=cu_seqlens_k is not None,
            BLOCK_N=block_n,
            CHUNK=max(1, PLAN_CHUNK_KEYS // block_n),
        )
