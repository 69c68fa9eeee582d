"""Key blocks sorted by class, for every block size that a kernel may have.

``blocks`` describes the lists of one block size. A ``KeyPlan`` holds the lists of all sizes in one
int32 tensor, a section per size.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from .blocks import sort_blocks_kernel
from .devices import on_device
from .launchers import Launcher
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
        return lists.narrow(0, *_place(self, block_n))


@lru_cache(maxsize=1024)
def _place(layout: ListsLayout, block_n: int) -> tuple[int, int]:
    """First entry and number of entries of one block size in the lists of all."""
    start = sum(layout.section_size(n) for n in LIST_BLOCK_SIZES if n < block_n)
    return start, layout.section_size(block_n)


def sort_for_every_size(
    key_types: Tensor, cu_seqlens_k: Tensor | None, layout: ListsLayout
) -> Tensor:
    """The lists of all block sizes; key_types int32 contiguous, (B, Lk) or (Tk,)."""
    sizes = [layout.section_size(block_n) for block_n in LIST_BLOCK_SIZES]
    lists = torch.empty(sum(sizes), dtype=torch.int32, device=key_types.device)
    with on_device(key_types):
        for block_n, section in zip(LIST_BLOCK_SIZES, lists.split(sizes), strict=True):
            _sort_into(section, key_types, cu_seqlens_k, layout, block_n)
    return lists


def sort_for_size(
    key_types: Tensor, cu_seqlens_k: Tensor | None, layout: ListsLayout, block_n: int
) -> Tensor:
    """The lists of one block size."""
    size = layout.section_size(block_n)
    section = torch.empty(size, dtype=torch.int32, device=key_types.device)
    with on_device(key_types):
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
        packed = cu_seqlens_k is not None
        tensors = (key_types, cu_seqlens_k if packed else key_types, section)
        numbers = (layout.max_keys, layout.row_stride(block_n))
        launch = _sort_launcher(layout.num_types, packed, block_n)
        launch((layout.num_sequences, 1, 1), tensors, numbers)


@lru_cache(maxsize=256)
def _sort_launcher(num_types: int, packed: bool, block_n: int) -> Launcher:
    constexprs = {
        "NUM_TYPES": num_types,
        "PACKED": packed,
        "BLOCK_N": block_n,
        "CHUNK": max(1, SORT_CHUNK_KEYS // block_n),
    }
    return Launcher(sort_blocks_kernel, constexprs)
