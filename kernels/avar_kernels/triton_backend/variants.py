"""What a kernel is specialized on, for launches and for ahead-of-time compilation alike."""

from dataclasses import dataclass

import triton.language as tl

from .tiles import FEW_TYPES, Tile, padded_dim, tile_for


@dataclass(frozen=True, kw_only=True)
class Variant:
    """The compile-time properties of one call."""

    arch: str
    """A member of ``tiles.ARCHS``."""
    element_bytes: int
    head_dim: int
    value_dim: int
    num_types: int
    has_types: bool
    has_bias: bool
    has_scale: bool
    has_left: bool
    """Whether a window bounds the keys before the query."""
    has_right: bool
    """Whether causality or a window bounds the keys after the query."""
    packed: bool
    has_prefix: bool
    """Whether sequences of a packed call may also see the keys of another one."""
    precision: str
    """``input_precision`` of float32 products: "ieee" or "tf32"; half precision ignores it."""

    def tile(self, kind: str) -> Tile:
        """The tile of kernel ``kind``."""
        dims = (self.head_dim, self.value_dim)
        more = self.has_scale or self.has_bias or self.has_left
        if self.has_types:
            masked = any(padded_dim(dim) != dim for dim in dims)  # masks cost registers too
            more = more or masked or self.num_types > FEW_TYPES
        level = "rich" if more else "typed" if self.has_types else "bare"
        return tile_for(kind, self.arch, self.element_bytes, *dims, level, self.has_prefix)

    def constexprs(self, kind: str) -> dict[str, object]:
        """The constexpr arguments of kernel ``kind``."""
        tile = self.tile(kind)
        if kind == "stats":
            return {
                "NUM_TYPES": self.num_types,
                "VALUE_DIM": self.value_dim,
                "HAS_TYPES": self.has_types,
                "BLOCK_M": tile.block_m,
                "BLOCK_DV": padded_dim(self.value_dim),
            }
        common = self._common(tile) | {"PACKED": self.packed, "BLOCK_M": tile.block_m}
        if kind == "received":
            return common
        common["HAS_PREFIX"] = self.has_prefix
        if kind != "forward":
            common["SHIFT_DTYPE"] = self._shift_dtype()
        return common | self._values()

    def decode_constexprs(
        self, has_lengths: bool, page_size: int, block_m: int, shared: bool
    ) -> dict:
        """The constexpr arguments of the decode kernel; page_size 0 for a contiguous cache,
        ``shared`` for the keys of prefixes."""
        cache = {
            "HAS_LENGTHS": has_lengths,
            "PAGE_SIZE": page_size,
            "BLOCK_M": block_m,
            "SHARED": shared,
        }
        return self._common(self.tile("decode")) | self._values() | cache

    def _common(self, tile: Tile) -> dict[str, object]:
        return {
            "NUM_TYPES": self.num_types,
            "HEAD_DIM": self.head_dim,
            "HAS_TYPES": self.has_types,
            "HAS_BIAS": self.has_bias,
            "HAS_SCALE": self.has_scale,
            "HAS_LEFT": self.has_left,
            "HAS_RIGHT": self.has_right,
            "PRECISION": self.precision,
            "BLOCK_N": tile.block_n,
            "BLOCK_D": padded_dim(self.head_dim),
        }

    def _values(self) -> dict[str, object]:
        return {"VALUE_DIM": self.value_dim, "BLOCK_DV": padded_dim(self.value_dim)}

    def _shift_dtype(self) -> tl.dtype:
        """The dtype of the tiles that spread the backward's row constants over keys of several
        types. Never float16, because gradients of mass have no bounded range."""
        half = self.element_bytes == 2 and self.arch != "interpreter"
        return tl.bfloat16 if half else tl.float32
