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
    return _sorted(key_types, cu_seqlens_k, layout, LIST_BLOCK_SIZES)


def sort_for_size(
    key_types: Tensor, cu_seqlens_k: Tensor | None, layout: ListsLayout, block_n: int
) -> Tensor:
    """The lists of one block size."""
    return _sorted(key_types, cu_seqlens_k, layout, (block_n,))


def _sorted(
    key_types: Tensor, cu_seqlens_k: Tensor | None, layout: ListsLayout, sizes: tuple[int, ...]
) -> Tensor:
    total = sum(layout.section_size(block_n) for block_n in sizes)
    lists = torch.empty(total, dtype=torch.int32, device=key_types.device)
    if layout.num_sequences:
        packed = cu_seqlens_k is not None
        tensors = (key_types, cu_seqlens_k if packed else key_types, lists)
        launch = _sort_launcher(layout.num_types, packed, sizes[0], len(sizes))
        with on_device(key_types):
            launch((layout.num_sequences, len(sizes), 1), tensors, (layout.max_keys,))
    return lists


@lru_cache(maxsize=256)
def _sort_launcher(num_types: int, packed: bool, smallest: int, num_sizes: int) -> Launcher:
    return Launcher(sort_blocks_kernel, sort_constexprs(num_types, packed, smallest, num_sizes))


def sort_constexprs(
    num_types: int, packed: bool, smallest: int, num_sizes: int
) -> dict[str, object]:
    """The constexpr arguments of the sorting kernel."""
    return {
        "NUM_TYPES": num_types,
        "PACKED": packed,
        "SMALLEST": smallest,
        "NUM_SIZES": num_sizes,
        "CHUNK_KEYS": SORT_CHUNK_KEYS,
    }
