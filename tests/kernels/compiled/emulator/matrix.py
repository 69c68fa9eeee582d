"""mma.sync, ldmatrix and stmatrix: the matrix instructions of a warp.

Lane l of a warp has the group g = l // 4 and the place t = l % 4 in it. A register holds two
neighboring 16-bit elements, or one of 32 bits. With p elements per register:
    A (16, K)  register r: row g + 8 (r % 2), columns p t .. p t + p - 1, 4 p further if r >= 2
    B (K, 8)   register r: column g, rows p t .. p t + p - 1, 4 p further if r = 1
    C (16, 8)  register r: row g + 8 (r // 2), column 2 t + r % 2
"""

import numpy as np
from numpy.typing import NDArray

from .accesses import address_function
from .blocks import WARP, BlockGroup, Operation
from .errors import UnsupportedError
from .numbers import halves_to_float32, to_tf32
from .program import Instruction, Operand, Vector
from .registers import RegisterMap

_GROUPS, _PLACES = 8, 4


def elements(words: NDArray, kind: str) -> NDArray:
    """float32 elements (..., 1 or 2) that lie in uint32 registers."""
    if kind == "tf32":
        return to_tf32(words)[..., None]
    return np.stack(halves_to_float32(words, kind), -1)


def left_operand(words: NDArray, kind: str) -> NDArray:
    """A (warps, 16, K) of registers (4 or 2, lanes)."""
    parts = elements(words, kind).reshape(
        -1, 2, words.shape[1] // WARP, _GROUPS, _PLACES, _per(kind)
    )
    return parts.transpose(2, 1, 3, 0, 4, 5).reshape(parts.shape[2], 16, -1)


def _right_operand(words: NDArray, kind: str) -> NDArray:
    """B (warps, K, 8) of registers (2 or 1, lanes)."""
    parts = elements(words, kind).reshape(-1, words.shape[1] // WARP, _GROUPS, _PLACES, _per(kind))
    return parts.transpose(1, 0, 3, 4, 2).reshape(parts.shape[1], -1, 8)


def _per(kind: str) -> int:
    return 1 if kind == "tf32" else 2


_SHAPES = {
    ("m16n8k16", "f16"): (4, 2), ("m16n8k16", "bf16"): (4, 2), ("m16n8k8", "f16"): (2, 1),
    ("m16n8k8", "bf16"): (2, 1), ("m16n8k8", "tf32"): (4, 2), ("m16n8k4", "tf32"): (2, 1),
}  # fmt: skip
"""{(shape, kind of the elements): (registers of A, registers of B)}."""


def build_mma(instruction: Instruction, registers: RegisterMap) -> Operation:
    """mma.sync.aligned.SHAPE.row.col.f32.KIND.KIND.f32 d, a, b, c."""
    _, *modifiers, shape, row, col, result, kind, right_kind, sum_kind = instruction.opcode
    form = (modifiers, row, col, result, right_kind, sum_kind)
    known = form == (["sync", "aligned"], "row", "col", "f32", kind, "f32")
    if not known or (shape, kind) not in _SHAPES or instruction.guard is not None:
        raise UnsupportedError(instruction.line)
    d, a, b, c = (_rows(x, registers, "u32") for x in instruction.operands)
    if (len(a), len(b)) != _SHAPES[shape, kind] or len(c) != 4 or len(d) != 4:
        raise UnsupportedError(instruction.line)

    def run(group: BlockGroup) -> None:
        several, floats = group.registers.several, group.rows["f32"]
        left = left_operand(several("u32", a), kind)
        right = _right_operand(several("u32", b), kind)
        product = np.matmul(left, right)
        parts = product.reshape(-1, 2, _GROUPS, _PLACES, 2).transpose(1, 4, 0, 2, 3)
        sums = parts.reshape(4, -1) + several("f32", c)
        for row_number, value in zip(d, sums, strict=True):
            floats[row_number][:] = value

    return run


def _rows(operand: Operand, registers: RegisterMap, kind: str) -> list[int]:
    items = operand.items if isinstance(operand, Vector) else (operand,)
    return [registers.row(item, kind) for item in items]


def _matrix_form(instruction: Instruction) -> tuple[int, bool]:
    """(number of 8 x 8 matrices, whether they are transposed)."""
    _, *form = instruction.opcode
    transposed = "trans" in form
    form = [part for part in form if part != "trans"]
    known = form[:3] == ["sync", "aligned", "m8n8"] and form[4:] in (
        ["shared", "b16"], ["shared::cta", "b16"])  # fmt: skip
    if not known or form[3] not in ("x1", "x2", "x4") or instruction.guard is not None:
        raise UnsupportedError(instruction.line)
    return int(form[3][1:]), transposed


def _row_addresses(group: BlockGroup, address: NDArray, count: int) -> tuple[NDArray, ...]:
    """(addresses, bases, warps), each (warps * count * 8): lane 8 j + i has row i of matrix j."""
    providers = slice(0, 8 * count)
    return tuple(
        x.reshape(-1, WARP)[:, providers].reshape(-1) for x in (address, group.bases, group.warps)
    )


def build_ldmatrix(instruction: Instruction, registers: RegisterMap) -> Operation:
    """Matrix j goes to register j: lane l gets row l // 4, columns 2 (l % 4) and the next."""
    count, transposed = _matrix_form(instruction)
    target, source = instruction.operands
    rows = _rows(target, registers, "u32")
    address = address_function(source, registers, "shared")
    if len(rows) != count:
        raise UnsupportedError(instruction.line)

    def run(group: BlockGroup) -> None:
        at, bases, warps = _row_addresses(group, address(group, slice(None)), count)
        matrices = group.shared.load(at, 2, 8, bases, warps, instruction.line)
        matrices = matrices.reshape(-1, count, 8, 8)
        if transposed:
            matrices = matrices.transpose(0, 1, 3, 2)
        words = np.ascontiguousarray(matrices.transpose(1, 0, 2, 3)).view(np.uint32)
        for row, value in zip(rows, words.reshape(count, -1), strict=True):
            group.rows["u32"][row][:] = value

    return run


def build_stmatrix(instruction: Instruction, registers: RegisterMap) -> Operation:
    """The reverse of ldmatrix."""
    count, transposed = _matrix_form(instruction)
    target, source = instruction.operands
    rows = _rows(source, registers, "u32")
    address = address_function(target, registers, "shared")
    if len(rows) != count:
        raise UnsupportedError(instruction.line)

    def run(group: BlockGroup) -> None:
        at, bases, warps = _row_addresses(group, address(group, slice(None)), count)
        words = group.registers.several("u32", rows)
        matrices = words.view(np.uint16).reshape(count, -1, 8, 8)
        if transposed:
            matrices = matrices.transpose(0, 1, 3, 2)
        values = np.ascontiguousarray(matrices.transpose(1, 0, 2, 3)).reshape(-1, 8)
        group.shared.store(at, values, bases, warps, instruction.line)

    return run
