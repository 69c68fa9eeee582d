"""Key blocks sorted by class, for every block size that a kernel may have.

``blocks`` describes the lists of one block size. A ``KeyPlan`` holds the lists of all sizes in one
int32 tensor, a section per size.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import sort_blocks_kernel
from .tiles import LIST_BLOCK_SIZES, SORT_CHUNK_KEYS


class ListsLayout(NamedTuple):
    """Where the lists of each block size lie."""

    num_sequences: int
    max_keys: int
    num_types: int

    @classmethod
    def of(
        cls, key_types: Tensor, cu_seqlens_k: Tensor | None, max_seqlen_k: int, num_types: int
    ) -> "ListsLayout":
        """For types (B, Lk), or packed (Tk,) with their offsets and longest length."""
        if cu_seqlens_k is None:
            return cls(*key_types.shape, num_types)
        return cls(cu_seqlens_k.shape[0] - 1, max_seqlen_k, num_types)

    def row_stride(self, block_n: int) -> int:
        """Entries in a row of the lists of one block size."""
        return -(-self.max_keys // block_n) + 1

    def section_size(self, block_n: int) -> int:
        """Entries of one block size, in whole 16-byte units so that every section is aligned."""
        return -(-self.num_sequences * (self.num_types + 2) * self.row_stride(block_n) // 4) * 4

    def total_size(self) -> int:
        """Entries of all block sizes."""
        return sum(self.section_size(n) for n in LIST_BLOCK_SIZES)

    def section(self, lists: Tensor, block_n: int) -> Tensor:
        """The lists of one block size out of those of all."""
        start = sum(self.section_size(n) for n in LIST_BLOCK_SIZES if n < block_n)
        return lists[start : start + self.section_size(block_n)]


def sort_for_every_size(
    key_types: Tensor, cu_seqlens_k: Tensor | None, layout: ListsLayout
) -> Tensor:
    """The lists of all block sizes; key_types int32 contiguous, (B, Lk) or (Tk,)."""
    lists = torch.empty(layout.total_size(), dtype=torch.int32, device=key_types.device)
    for block_n in LIST_BLOCK_SIZES:
        _sort_into(layout.section(lists, block_n), key_types, cu_seqlens_k, layout, block_n)
    return lists


def sort_for_size(
    key_types: Tensor, cu_seqlens_k: Tensor | None, layout: ListsLayout, block_n: int
) -> Tensor:
    """The lists of one block size."""
    size = layout.section_size(block_n)
    section = torch.empty(size, dtype=torch.int32, device=key_types.device)
    _sort_into(section, key_types, cu_seqlens_k, layout, block_n)
    return section


def _sort_into(
    section: Tensor,
    key_types: Tensor,
    cu_seqlens_k: Tensor | None,
    layout: ListsLayout,
    block_n: int,
) -> None:
    if layout.num_sequences:
        sort_blocks_kernel[(layout.num_sequences,)](
            key_types,
            key_types if cu_seqlens_k is None else cu_seqlens_k,
            section,
            layout.max_keys,
            layout.row_stride(block_n),
            NUM_TYPES=layout.num_types,
            PACKED=cu_seqlens_k is not None,
            BLOCK_N=block_n,
            CHUNK=max(1, SORT_CHUNK_KEYS // block_n),
        )
