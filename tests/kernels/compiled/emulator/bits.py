"""Fields, bytes and single bits of 32-bit registers."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from .blocks import BlockGroup, Operation
from .errors import UnsupportedError
from .program import Instruction, constant
from .registers import RegisterMap


def build_bfe(instruction: Instruction, registers: RegisterMap) -> Operation:
    """bfe.type d, a, position, length: bits of a, with the field's sign for s32."""
    kind = instruction.opcode[1]
    start, size = (constant(x) for x in instruction.operands[2:])
    if instruction.opcode[1:] not in (("u32",), ("s32",)) or size < 1 or start + size > 32:
        raise UnsupportedError(instruction.line)
    a = registers.row(instruction.operands[1], kind)
    out = registers.row(instruction.operands[0], kind)
    up = np.uint32(32 - start - size)

    def run(group: BlockGroup) -> None:
        rows = group.rows[kind]
        rows[out][:] = (rows[a] << up.astype(rows[a].dtype)) >> rows[a].dtype.type(32 - size)

    return run


def build_bitwise(instruction: Instruction, registers: RegisterMap) -> Operation:
    """Functions of whole 32-bit registers: prmt, lop3, shf, popc, bfi."""
    opcode = ".".join(instruction.opcode)
    if opcode not in _BITWISE:
        raise UnsupportedError(opcode)
    function = _BITWISE[opcode]
    out, *sources = (registers.row(x, "u32") for x in instruction.operands)

    def run(group: BlockGroup) -> None:
        rows = group.rows["u32"]
        rows[out][:] = function(*(rows[a] for a in sources))

    return run


def _permute(low: NDArray, high: NDArray, selectors: NDArray) -> NDArray:
    """Four bytes out of eight; a selector's top bit asks for the byte's sign."""
    both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
    result = np.zeros_like(low)
    for byte in range(4):
        selector = (selectors >> np.uint32(4 * byte)) & np.uint32(15)
        shift = ((selector & np.uint32(7)) * np.uint32(8)).astype(np.uint64)
        value = ((both >> shift) & np.uint64(255)).astype(np.uint32)
        sign = np.where(value >= 128, np.uint32(255), np.uint32(0))
        result |= np.where(selector >= 8, sign, value) << np.uint32(8 * byte)
    return result


def _any_logic(a: NDArray, b: NDArray, c: NDArray, table: NDArray) -> NDArray:
    result = np.zeros_like(a)
    for case in range(8):
        wanted = np.uint32(0) - ((table >> np.uint32(case)) & np.uint32(1))
        terms = (a if case & 4 else ~a) & (b if case & 2 else ~b) & (c if case & 1 else ~c)
        result |= terms & wanted
    return result


def _funnel(left: bool) -> Callable[..., NDArray]:
    def shift(low: NDArray, high: NDArray, count: NDArray) -> NDArray:
        both = low.astype(np.uint64) | (high.astype(np.uint64) << np.uint64(32))
        by = (count & np.uint32(31)).astype(np.uint64)
        return ((both << by) >> np.uint64(32) if left else both >> by).astype(np.uint32)

    return shift


def _insert(field: NDArray, base: NDArray, position: NDArray, length: NDArray) -> NDArray:
    ones = ((np.uint64(1) << length.astype(np.uint64)) - np.uint64(1)) << position.astype(np.uint64)
    mask = ones.astype(np.uint32)
    return (base & ~mask) | ((field << position) & mask)


def _count_ones(x: NDArray) -> NDArray:
    bytes_of = np.ascontiguousarray(x).view(np.uint8).reshape(-1, 4)
    return np.unpackbits(bytes_of, axis=1).sum(1, dtype=np.uint32)


_BITWISE: dict[str, Callable[..., NDArray]] = {
    "prmt.b32": _permute,
    "lop3.b32": _any_logic,
    "shf.l.wrap.b32": _funnel(True),
    "shf.r.wrap.b32": _funnel(False),
    "popc.b32": _count_ones,
    "bfi.b32": _insert,
}
