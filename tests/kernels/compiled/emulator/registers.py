"""Registers are rows of arrays with one column per lane; constants and special registers are rows
too, so that every operand of an instruction is a row number, found once per kernel.

A row is read and written in several kinds, which are views of the same memory:
    p                                   predicates
    u8 s8                               low bytes of 16-bit registers
    u16 s16 f16, u32 s32 f32, u64 s64 f64
    low16 high16, low32 high32          halves of 32-bit and of 64-bit registers
    f32x2                               64-bit registers as pairs of floats, two columns per lane
A register that was never written holds a pattern, not zero.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from .errors import UnsupportedError
from .program import SPECIAL_REGISTERS, Immediate, Operand, Program, Register, Symbol

WIDTH = {
    "p": 1, "u8": 16, "s8": 16, "u16": 16, "s16": 16, "f16": 16, "u32": 32, "s32": 32, "f32": 32,
    "u64": 64, "s64": 64, "f64": 64, "f32x2": 64,
}  # fmt: skip
_UNSIGNED = {16: np.dtype(np.uint16), 32: np.dtype(np.uint32), 64: np.dtype(np.uint64)}
_NUMPY_KIND = {"u": "uint", "s": "int", "f": "float"}
_NEVER_WRITTEN = 0xA5A5A5A5A5A5A5A5


def numpy_type(kind: str) -> np.dtype:
    """The dtype of a kind that is a number: u16, f32, ..."""
    return np.dtype(f"{_NUMPY_KIND[kind[0]]}{kind[1:]}")


class RegisterMap:
    """Which row each operand of a kernel has; grows while the kernel is compiled."""

    def __init__(self, program: Program) -> None:
        self.widths = program.widths
        self.rows: dict[int, dict[str | int, int]] = {1: {}, 16: {}, 32: {}, 64: {}}
        """{width: {name of a register or value of a constant: row}}."""
        for name, width in program.widths.items():
            self._row_of(width, name)

    def _row_of(self, width: int, key: str | int) -> int:
        rows = self.rows[width]
        return rows.setdefault(key, len(rows))

    def width(self, operand: Operand) -> int:
        """Bits of a register."""
        assert isinstance(operand, Register), operand
        special = SPECIAL_REGISTERS.fullmatch("%" + operand.name)
        return 32 if special else self.widths[operand.name]

    def row(self, operand: Operand, kind: str) -> int:
        """The row in which an operand is read or written as ``kind``."""
        width = WIDTH[kind]
        if isinstance(operand, Immediate):
            return self._row_of(width, operand.value & ((1 << width) - 1))
        if isinstance(operand, Register):
            if self.width(operand) != width:
                raise UnsupportedError(f"{operand.name} does not have {width} bits")
            return self._row_of(width, operand.name)
        if operand == Symbol("global_smem"):
            return self._row_of(width, 0)  # shared memory starts at address 0
        raise UnsupportedError(f"operand {operand}")


class RegisterFile:
    """The registers of some lanes: ``rows[kind][row]`` is an array with one number per lane."""

    def __init__(self, rows: RegisterMap, special: Mapping[str, NDArray], num_lanes: int) -> None:
        self._map, self._special = rows, special
        self._arrays: dict[int, NDArray] = {1: np.zeros((len(rows.rows[1]), num_lanes), bool)}
        for width, dtype in _UNSIGNED.items():
            pattern = _NEVER_WRITTEN & ((1 << width) - 1)
            self._arrays[width] = np.full((len(rows.rows[width]), num_lanes), pattern, dtype)
        for width, keys in rows.rows.items():
            for key, row in keys.items():
                if isinstance(key, int):
                    self._arrays[width][row] = key
                elif key in special:
                    self._arrays[width][row] = special[key]
        self.rows = _views(self._arrays)

    def several(self, kind: str, rows: Sequence[int]) -> NDArray:
        """A copy (rows, lanes) of some registers of one kind."""
        return self._arrays[WIDTH[kind]].view(numpy_type(kind))[list(rows)]

    def take(self, lanes: NDArray) -> "RegisterFile":
        """A copy with a selection of the lanes."""
        part = object.__new__(RegisterFile)
        part._map, part._special = self._map, self._special
        part._arrays = {
            width: np.take(array, lanes, axis=1) for width, array in self._arrays.items()
        }
        part.rows = _views(part._arrays)
        return part


def _views(arrays: dict[int, NDArray]) -> dict[str, list[NDArray]]:
    kinds: dict[str, NDArray] = {"p": arrays[1], "f32x2": arrays[64].view(np.float32)}
    for width in _UNSIGNED:
        for sort in "usf":
            kinds[f"{sort}{width}"] = arrays[width].view(numpy_type(f"{sort}{width}"))
    kinds["u8"], kinds["s8"] = (arrays[16].view(t)[:, ::2] for t in (np.uint8, np.int8))
    for width in (16, 32):
        halves = arrays[2 * width].view(_UNSIGNED[width])
        kinds[f"low{width}"], kinds[f"high{width}"] = halves[:, ::2], halves[:, 1::2]
    return {kind: list(array) for kind, array in kinds.items()}
