"""Launches of kernels that were launched before, in a quarter of the time.

Triton finds the compiled kernel of a launch by inspecting each of its fifty arguments. A launcher
instead remembers the compiled kernel for all that Triton inspects: the exact numbers, and dtypes
and alignment of the tensors. It also keeps the constexprs, which depend on the variant alone.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from .tiles import Tile
from .variants import Variant

MAX_REMEMBERED = 4096  # launches of different shapes; training on ragged batches has many
ON_AMD = torch.version.hip is not None
ALIGNMENT = 16  # bytes; Triton compiles a kernel anew for pointers that are not aligned so


class Launcher:
    """Launches one kernel with the same constexprs and options every time."""

    def __init__(self, kernel: Any, constexprs: Mapping[str, object], **options: int) -> None:
        # Said, because Triton 3.10 turns it off where it is not.
        self.kernel, self.options = kernel, {"enable_fp_fusion": True} | options
        last = kernel.arg_names[-len(constexprs) :]
        assert set(last) == set(constexprs), (last, tuple(constexprs))
        self.constexprs = tuple(constexprs[name] for name in last)
        self._compiled: dict[tuple, Any] = {}

    def __call__(
        self, grid: tuple[int, int, int], tensors: tuple[Tensor, ...], numbers: tuple[float, ...]
    ) -> None:
        """Launches on the current device, which must be the tensors'.

        Args:
            grid: programs along each axis, none of them 0.
            tensors, numbers: the kernel's arguments before the constexprs, in its order.
        """
        key = (
            tensors[0].get_device(),
            numbers,
            *[x.dtype for x in tensors],
            *[x.data_ptr() % ALIGNMENT for x in tensors],
        )
        if ON_AMD:  # Triton compiles 32-bit offsets for tensors below 2 GiB
            key += tuple(x.untyped_storage().nbytes() < 2**31 for x in tensors)
        compiled = self._compiled.get(key)
        if compiled is not None:
            compiled[grid](*tensors, *numbers, *self.constexprs)
            return
        compiled = self.kernel[grid](*tensors, *numbers, *self.constexprs, **self.options)
        if len(self._compiled) == MAX_REMEMBERED:
            self._compiled.clear()
        self._compiled[key] = compiled  # None from Triton's interpreter, which compiles nothing


class PreparedVariant:
    """A variant with the tiles and launchers of its kernels, each made when it is first used."""

    def __init__(self, variant: Variant) -> None:
        self.variant = variant
        self._tiles: dict[str, Tile] = {}
        self._launchers: dict[Any, Launcher] = {}

    def tile(self, kind: str) -> Tile:
        """The tile of kernel ``kind``."""
        if kind not in self._tiles:
            self._tiles[kind] = self.variant.tile(kind)
        return self._tiles[kind]

    def launcher(self, kind: str, kernel: Any) -> Launcher:
        """That of ``kernel``, which is of the kind ``kind``."""
        if kind not in self._launchers:
            constexprs = self.variant.constexprs(kind)
            self._launchers[kind] = self._new_launcher(kind, kernel, constexprs)
        return self._launchers[kind]

    def decode_launcher(
        self, kernel: Any, has_lengths: bool, page_size: int, block_m: int, shared: bool = False
    ) -> Launcher:
        """That of the decode kernel, whose constexprs depend on the cache too."""
        key = (has_lengths, page_size, block_m, shared)
        if key not in self._launchers:
            constexprs = self.variant.decode_constexprs(*key)
            self._launchers[key] = self._new_launcher("decode", kernel, constexprs)
        return self._launchers[key]

    def _new_launcher(self, kind: str, kernel: Any, constexprs: Mapping[str, object]) -> Launcher:
        tile = self.tile(kind)
        options = {"num_warps": tile.num_warps, "num_stages": tile.num_stages}
        return Launcher(kernel, constexprs, **options)


@lru_cache(maxsize=1024)
def prepared_variant(
    arch: str,
    element_bytes: int,
    head_dim: int,
    value_dim: int,
    num_types: int,
    has_types: bool,
    has_bias: bool,
    has_scale: bool,
    has_left: bool,
    has_right: bool,
    packed: bool,
    has_prefix: bool,
    precision: str,
) -> PreparedVariant:
    """The variant of these properties, always the same object.

    Plain values are found in less time than a ``Variant``, whose hash is computed in Python."""
    return PreparedVariant(
        Variant(
            arch=arch,
            element_bytes=element_bytes,
            head_dim=head_dim,
            value_dim=value_dim,
            num_types=num_types,
            has_types=has_types,
            has_bias=has_bias,
            has_scale=has_scale,
            has_left=has_left,
            has_right=has_right,
            packed=packed,
            has_prefix=has_prefix,
            precision=precision,
        )
    )
