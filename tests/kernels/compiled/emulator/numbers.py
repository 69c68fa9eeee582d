"""Number formats that numpy does not have."""

import numpy as np
from numpy.typing import NDArray


def from_bfloat16(bits: NDArray) -> NDArray:
    """uint16 bits to float32."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bfloat16(x: NDArray) -> NDArray:
    """float32 to uint16 bits: to the nearest, to even on a tie."""
    bits = np.ascontiguousarray(x, np.float32).view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    # No finite number overflows 32 bits here; NaN is set apart.
    rounded = ((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), rounded)


def to_float16(x: NDArray) -> NDArray:
    """float32 to uint16 bits of float16."""
    return x.astype(np.float16).view(np.uint16)


def halves_to_float32(words: NDArray, kind: str) -> tuple[NDArray, NDArray]:
    """(low, high) halves of uint32 words, which are f16 or bf16, as float32."""
    if kind == "bf16":
        low = (words << np.uint32(16)).view(np.float32)
        return low, (words & np.uint32(0xFFFF0000)).view(np.float32)
    pairs = words.view(np.float16).reshape(*words.shape, 2).astype(np.float32)
    return pairs[..., 0], pairs[..., 1]


def to_tf32(words: NDArray) -> NDArray:
    """float32 with the 13 bits that TF32 does not have cut off, as matrix units read it."""
    return (words & np.uint32(0xFFFFE000)).view(np.float32)
