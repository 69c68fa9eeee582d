"""Makes Triton's interpreter compute as a GPU does: bfloat16, and the tiles of a chip's table.

The interpreter keeps bfloat16 as 16-bit integers: it truncates float32 numbers, and it multiplies
the integers instead of the numbers. Here numbers are rounded to the nearest, to even on a tie, and
the numbers are multiplied, in float32. Other arithmetic on bfloat16, which no kernel needs, raises
an error.
"""

from typing import Any

import numpy as np
import triton.language as tl
from triton.runtime import interpreter


def imitate(arch: str) -> None:
    """Makes the kernels of this process run as on ``arch``, a member of ``tiles.ARCHS``."""
    from avar_kernels.triton_backend import launch_inputs

    launch_inputs._arch = lambda device: arch
    builder: Any = interpreter.InterpreterBuilder
    if builder.create_dot is _dot:
        return
    global _cast, _multiply
    _cast, _multiply = builder.cast_impl, builder.create_dot
    builder.cast_impl = _to
    builder.create_fp_to_fp = lambda self, x, dtype, rounding: _to(self, x, dtype)
    builder.create_dot = _dot
    for name in ("binary_op", "unary_op", "create_fma", "create_fabs", "create_rsqrt"):
        setattr(builder, name, _refusing(getattr(builder, name), name))


def _is_bfloat16(x: Any) -> bool:
    return x.dtype.scalar == tl.bfloat16


def _widened(x: Any) -> Any:
    """A bfloat16 tensor as float32; any other itself."""
    if not _is_bfloat16(x):
        return x
    bits = x.data.astype(np.uint32) << 16
    return interpreter.TensorHandle(bits.view(np.float32), tl.float32)


def _to(builder: Any, x: Any, dtype: Any) -> Any:
    if dtype.scalar == x.dtype.scalar:
        return x
    if dtype.scalar != tl.bfloat16:
        return _cast(builder, _widened(x), dtype)
    wide = np.ascontiguousarray(x.data.astype(np.float32))
    bits = wide.view(np.uint32).astype(np.uint64)
    nearest = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    narrow = np.where(np.isnan(wide), 0x7FC0, nearest).astype(np.uint16)
    return interpreter.TensorHandle(narrow, tl.bfloat16)


def _dot(builder: Any, a: Any, b: Any, *others: Any) -> Any:
    assert a.dtype.scalar == b.dtype.scalar, (a.dtype, b.dtype)
    return _multiply(builder, _widened(a), _widened(b), *others)


def _refusing(operation: Any, name: str) -> Any:
    def checked(builder: Any, *arguments: Any) -> Any:
        for x in arguments:
            if hasattr(x, "dtype") and _is_bfloat16(x):
                raise NotImplementedError(f"{name} of bfloat16 would be done on integers here")
        return operation(builder, *arguments)

    return checked
